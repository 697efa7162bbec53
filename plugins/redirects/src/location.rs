//! Makes the Location of a rule for a request.

use std::fmt::Write;

use crate::table::Rule;

/// Whatever the visitor sent, the result is legal in a header, and names the host that the rule names.
pub(crate) fn make(rule: &Rule, path: &str, query: Option<&str>) -> String {
    let query = query.filter(|_| rule.keep_query);
    let rest = if rule.prefix { path.get(rule.from.len()..).unwrap_or_default() } else { "" };
    let mut location = String::with_capacity(rule.to.len() + rest.len() + query.map_or(0, str::len) + 2);
    let (target, fragment) = match rule.to.split_once('#') {
        Some((target, fragment)) => (target, Some(fragment)),
        None => (rule.to.as_str(), None),
    };
    push_joined(&mut location, target, rest);
    if let Some(query) = query {
        location.push(if target.contains('?') { '&' } else { '?' });
        push_encoded(&mut location, query);
    }
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

pub(crate) fn is_legal(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte)
}
