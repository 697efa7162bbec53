//! Makes the Location of a rule for a request.

use std::fmt::Write;

use crate::Query;
use crate::table::Kind;

/// What a rule says about where it leads.
pub(crate) struct Target<'a> {
    pub(crate) to: &'a str,
    pub(crate) kind: Kind,
    /// Of the path that a prefix covers.
    pub(crate) from_bytes: usize,
    pub(crate) query: Query,
    pub(crate) groups: Vec<Option<&'a str>>,
}

/// Whatever the visitor sent, the result is legal in a header, and names the host that the rule names.
pub(crate) fn make(rule: &Target<'_>, path: &str, query: Option<&str>) -> String {
    let (target, fragment) = match rule.to.split_once('#') {
        Some((target, fragment)) => (target, Some(fragment)),
        None => (rule.to, None),
    };
    let mut location = String::with_capacity(target.len() + path.len() + query.map_or(0, str::len) + 2);
    match rule.kind {
        Kind::Exact => location.push_str(target),
        Kind::Prefix => push_joined(&mut location, target, path.get(rule.from_bytes..).unwrap_or_default()),
        Kind::Regex => push_expanded(&mut location, target, &rule.groups),
    }
    // A group that is empty may leave two slashes, after which a host would stand.
    if target.starts_with('/') && location.starts_with("//") {
        let more = location.bytes().take_while(|byte| *byte == b'/').count() - 1;
        location.drain(..more);
    }
    push_query(&mut location, rule.query, query);
    if let Some(fragment) = fragment {
        location.push('#');
        location.push_str(fragment);
    }
    location
}

/// Exactly one slash between the two. Otherwise the rest could complete the target's host name (`https://a.example` and
/// `.evil.example`), or turn a path into one (`/` and `/evil.example`).
fn push_joined(location: &mut String, target: &str, rest: &str) {
    if rest.is_empty() {
        location.push_str(target);
        return;
    }
    location.push_str(target.trim_end_matches('/'));
    location.push('/');
    push_encoded(location, rest.trim_start_matches('/'));
}

/// Puts groups in the places of `$1` to `$9`; `$$` is a dollar. A group that begins with a slash can't make a path out of
/// what it follows into a host (`/` and `/evil.example`).
fn push_expanded(location: &mut String, target: &str, groups: &[Option<&str>]) {
    let mut rest = target;
    while let Some((before, after)) = rest.split_once('$') {
        location.push_str(before);
        rest = after.get(1..).unwrap_or_default();
        match after.bytes().next() {
            Some(digit @ b'0'..=b'9') => {
                let group = groups.get(usize::from(digit - b'0')).copied().flatten().unwrap_or_default();
                let group = if location == "/" { group.trim_start_matches(['/', '\\']) } else { group };
                push_encoded(location, group);
            }
            _ => location.push('$'),
        }
    }
    location.push_str(rest);
}

fn push_query(location: &mut String, how: Query, query: Option<&str>) {
    let Some(query) = query.filter(|_| how != Query::Drop) else { return };
    let own = location.split_once('?').map(|(_, own)| own.to_owned());
    if how == Query::Keep || own.is_none() {
        location.push(if own.is_some() { '&' } else { '?' });
        push_encoded(location, query);
        return;
    }
    // The rule's parameters stand; the visitor's are added where they have another name.
    let own = own.unwrap_or_default();
    let name = |parameter: &str| parameter.split('=').next().unwrap_or_default().to_owned();
    let taken: Vec<String> = own.split('&').map(name).collect();
    for parameter in query.split('&').filter(|parameter| !taken.contains(&name(parameter))) {
        location.push('&');
        push_encoded(location, parameter);
    }
}

/// Percent-encodes what a visitor may send but a URI may not hold (RFC 3986). What is encoded already stays as it is.
fn push_encoded(location: &mut String, text: &str) {
    for byte in text.bytes() {
        if is_legal(byte) {
            location.push(byte.into());
        } else {
            // Writing to a String can't fail.
            let _ = write!(location, "%{byte:02X}");
        }
    }
}

/// Each byte of a million rules is asked about.
const LEGAL: [bool; 256] = {
    let (mut legal, mut byte) = ([false; 256], b'!');
    while byte <= b'~' {
        legal[byte as usize] = !matches!(byte, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}');
        byte += 1;
    }
    legal
};

pub(crate) fn is_legal(byte: u8) -> bool {
    LEGAL[usize::from(byte)]
}
