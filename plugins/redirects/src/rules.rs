//! Reads and checks the rules.

use std::cell::Cell;
use std::collections::HashMap;

use latchkey_sdk::config::{Value, brief};
use latchkey_sdk::rules as used;

use crate::expression::{self, ALL_COMPILED_BYTES_MAX, PATH_BYTES_LEAST, PATH_BYTES_USUAL};
use crate::table::{Kind, Rule, Tables};
use crate::{Query, Status, check, location};

pub(crate) const KEYS: [&str; 6] = ["from", "to", "status", "match", "host", "query"];
/// Rules are copied into every instance.
const RULES_MAX: usize = 1000;
const FROM_BYTES_MAX: usize = 1024;
const TARGET_BYTES_MAX: usize = 2048;
const EXPRESSION_BYTES_MAX: usize = 512;
const EXPRESSIONS_MAX: usize = 50;
/// Groups that a target can name.
const GROUPS_MAX: usize = 9;

/// A rule that is fine by itself, the host that it is for (empty: all; `*.suffix`), and its place.
pub(crate) struct Read<'a> {
    pub(crate) place: Value<'a>,
    pub(crate) host: String,
    pub(crate) rule: Rule,
}

/// What is wrong, and what to write instead.
pub(crate) type Wrong = (String, Option<String>);

fn told<T>(value: &Value<'_>, checked: Result<T, Wrong>) -> Option<T> {
    checked.map_err(|(message, hint)| value.refuse::<()>(message, hint)).ok()
}

/// And how many they are.
pub(crate) fn read(place: &Value<'_>) -> Option<(Tables, u32)> {
    let list = place.list(RULES_MAX)?;
    let numbered = (0..).zip(list);
    let read: Vec<_> = numbered.map(|(number, place)| read_rule(number, place)).collect();
    let all = read.iter().all(Option::is_some);
    let read: Vec<_> = read.into_iter().flatten().collect();
    let path_bytes_max = bound_expressions(&read, place);
    let distinct = refuse_repeated(&read);
    if !(all && distinct) {
        return None;
    }
    let rules = read.iter().map(|read| (read.host.clone(), read.rule.clone())).collect();
    let tables = Tables::new(rules, path_bytes_max?);
    read.iter().for_each(|read| check::trail(read, &tables));
    check::shadows(&read);
    let ids: Vec<u64> = read.iter().map(|read| id(&read.host, read.rule.kind, &read.rule.from)).collect();
    used::declare(&ids);
    Some((tables, u32::try_from(ids.len()).ok()?))
}

/// What makes a rule this rule, whatever it leads to.
pub(crate) fn id(host: &str, kind: Kind, from: &str) -> u64 {
    let kind = match kind {
        Kind::Exact => "exact",
        Kind::Prefix => "prefix",
        Kind::Regex => "regex",
    };
    used::id(&[host, kind, from])
}

fn read_rule(number: u16, place: Value<'_>) -> Option<Read<'_>> {
    let object = place.object(&KEYS)?;
    let kinds = [("exact", Kind::Exact), ("prefix", Kind::Prefix), ("regex", Kind::Regex)];
    let kind = object.optional("match", Kind::Exact, |v| v.one_of(&kinds));
    let groups = Cell::new(0);
    let from = object.required("from", |v| match kind? {
        Kind::Regex => pattern(v, &groups),
        _ => path(v),
    });
    let status = object.optional("status", Status::MovedPermanently, status);
    let to = match status {
        Some(Status::Gone) => object.optional("to", String::new(), |v| {
            v.refuse("leads nowhere, since its status is 410", "leave it out".to_owned())
        }),
        _ => object.required("to", |v| target(v, kind?, groups.get())),
    };
    let host = object.optional("host", String::new(), host);
    let queries = [("keep", Query::Keep), ("drop", Query::Drop), ("merge", Query::Merge)];
    let query = object.optional("query", Query::Keep, |v| v.one_of(&queries));
    let to = to?;
    if kind == Some(Kind::Prefix)
        && let Err((message, hint)) = check_prefix_target(&to)
    {
        object.error_at("to", message, hint.unwrap_or_default());
        return None;
    }
    let rule = Rule { number, from: from?, kind: kind?, to, status: status?, query: query? };
    Some(Read { place, host: host?, rule })
}

/// An expression for whole paths, and how many groups it has.
fn pattern(value: &Value<'_>, groups: &Cell<usize>) -> Option<String> {
    let text = value.text()?;
    if text.len() > EXPRESSION_BYTES_MAX {
        return value.refuse(format!("is {} bytes, at most {EXPRESSION_BYTES_MAX} are accepted", text.len()), None);
    }
    if !text.starts_with("^/") {
        let hint = "begin it with ^/, so that it is compared from the start of the path".to_owned();
        return value.refuse(format!("`{}` matches in the middle of a path", brief(&text.escape_debug())), hint);
    }
    match expression::compile(text) {
        Ok(regex) if regex.captures_len() > GROUPS_MAX + 1 => {
            let hint = "write (?:…) where the target does not name the group".to_owned();
            let count = regex.captures_len() - 1;
            value.refuse(format!("has {count} groups, at most {GROUPS_MAX} are accepted"), hint)
        }
        Ok(regex) => {
            groups.set(regex.captures_len() - 1);
            Some(text.to_owned())
        }
        Err(error) => value.refuse(format!("`{}`: {error}", brief(&text.escape_debug())), None),
    }
}

fn path(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    told(value, check_path(text)).map(|()| text.to_owned())
}

pub(crate) fn check_path(text: &str) -> Result<(), Wrong> {
    if text.len() > FROM_BYTES_MAX {
        return Err((format!("is {} bytes, at most {FROM_BYTES_MAX} are accepted", text.len()), None));
    }
    if !text.starts_with('/') {
        return Err((format!("`{}` is not a path", brief(text)), Some("start it with /".to_owned())));
    }
    if text.bytes().any(|byte| byte == b'?' || byte == b'#') {
        let hint = "leave it out: only the path is compared".to_owned();
        return Err((format!("`{}` has a query or fragment", brief(text)), Some(hint)));
    }
    legal(text)
}

fn target(value: &Value<'_>, kind: Kind, groups: usize) -> Option<String> {
    let text = value.text()?;
    if kind == Kind::Regex {
        references(value, text, groups)?;
    }
    told(value, check_target(text)).map(|()| text.to_owned())
}

pub(crate) fn check_target(text: &str) -> Result<(), Wrong> {
    if text.len() > TARGET_BYTES_MAX {
        return Err((format!("is {} bytes, at most {TARGET_BYTES_MAX} are accepted", text.len()), None));
    }
    let acceptable = match url(text) {
        Some((authority, _)) => is_authority(authority),
        None => text.starts_with('/') && !text.starts_with("//"),
    };
    if !acceptable {
        let hint = "write a path such as /new, or a URL such as https://shop.example/new".to_owned();
        let message = format!("`{}` is neither a path nor an http or https URL", brief(&text.escape_debug()));
        return Err((message, Some(hint)));
    }
    legal(text)
}

pub(crate) fn check_prefix_target(to: &str) -> Result<(), Wrong> {
    if !to.contains(['?', '#']) {
        return Ok(());
    }
    let message = "a prefix rule appends the rest of the path, so its target can't have a query or fragment";
    Err((message.to_owned(), Some("use \"match\": \"exact\", or leave the query out".to_owned())))
}

fn legal(text: &str) -> Result<(), Wrong> {
    // Bytes of what is not ASCII are not legal either.
    if text.bytes().all(location::is_legal) {
        return Ok(());
    }
    let illegal = text.chars().find(|char| !u8::try_from(*char).is_ok_and(location::is_legal)).unwrap_or_default();
    let mut utf8 = [0; 4];
    let encoded: String = illegal.encode_utf8(&mut utf8).bytes().map(|byte| format!("%{byte:02X}")).collect();
    let message = format!("`{}` has the character {illegal:?}", brief(&text.escape_debug()));
    Err((message, Some(format!("percent-encode it: {encoded}"))))
}

/// `$1` to `$9`, of groups that there are, after the host: a visitor must not choose where the redirect leads.
fn references(value: &Value<'_>, text: &str, groups: usize) -> Option<()> {
    if url(text).is_some_and(|(authority, _)| authority.contains('$')) {
        let hint = "name the host, and use groups in the path: https://shop.example/$1".to_owned();
        return value.refuse(format!("`{}` lets the visitor choose the host (an open redirect)", brief(text)), hint);
    }
    let mut rest = text;
    while let Some((_, after)) = rest.split_once('$') {
        let digit = after.bytes().next().filter(u8::is_ascii_digit).map(|digit| usize::from(digit - b'0'));
        match digit {
            Some(group) if group > groups => {
                return value.refuse(format!("`${group}` is a group that `from` does not have"), None);
            }
            None if !after.starts_with('$') => {
                let hint = "write $$ for a dollar, $1 for the first group".to_owned();
                return value.refuse(format!("`{}` has a $ that names no group", brief(text)), hint);
            }
            _ => {}
        }
        rest = &after[1..];
    }
    Some(())
}

/// What stands between the scheme and the path of a URL, and what comes after it.
pub(crate) fn url(text: &str) -> Option<(&str, &str)> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"))?;
    Some(rest.split_at(rest.bytes().position(|byte| b"/?#".contains(&byte)).unwrap_or(rest.len())))
}

/// A host with an optional port; no user name, which only serves to deceive.
fn is_authority(text: &str) -> bool {
    let (host, port) = text.rsplit_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
    !host.is_empty()
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
        && port.is_none_or(|port| port.parse::<u16>().is_ok() && port.bytes().all(|b| b.is_ascii_digit()))
}

fn status(value: &Value<'_>) -> Option<Status> {
    told(value, check_status(value.integer(0..=999)?))
}

pub(crate) fn check_status(code: u64) -> Result<Status, Wrong> {
    match code {
        301 => Ok(Status::MovedPermanently),
        302 => Ok(Status::Found),
        303 => Ok(Status::SeeOther),
        307 => Ok(Status::TemporaryRedirect),
        308 => Ok(Status::PermanentRedirect),
        410 => Ok(Status::Gone),
        other => Err((format!("{other} is not one of 301, 302, 303, 307, 308, 410"), None)),
    }
}

fn host(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    told(value, check_host(text)).map(|()| text.to_ascii_lowercase())
}

pub(crate) fn check_host(text: &str) -> Result<(), Wrong> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
    let name = text.strip_prefix("*.").unwrap_or(text);
    if name.is_empty() || name.starts_with('.') || !name.bytes().all(legal) {
        let hint = "write the name only, without scheme or port: shop.example, or *.shop.example".to_owned();
        return Err((format!("`{}` is not a host name", brief(&text.escape_debug())), Some(hint)));
    }
    Ok(())
}

/// How long paths may be that are compared with expressions: each that begins as the path does is tried where no other
/// rule answers, within the time of one call.
fn bound_expressions(read: &[Read<'_>], rules: &Value<'_>) -> Option<usize> {
    let of_regex: Vec<_> = read.iter().filter(|read| read.rule.kind == Kind::Regex).collect();
    if let Some(surplus) = of_regex.get(EXPRESSIONS_MAX) {
        let message = format!("is one regular expression too many, at most {EXPRESSIONS_MAX} are accepted");
        return surplus.place.refuse(message, None);
    }
    let sized = |read: &&Read<'_>| expression::compiled_bytes(&read.rule.from);
    let sizes: Vec<usize> = of_regex.iter().map(sized).collect();
    let hint =
        "write longer beginnings or fewer repetitions, or attach the plugin twice with half of the expressions each";
    let all: usize = sizes.iter().sum();
    if all > ALL_COMPILED_BYTES_MAX {
        let message = format!(
            "the regular expressions take {all} bytes when they are compiled, at most {ALL_COMPILED_BYTES_MAX} are accepted"
        );
        return rules.refuse(message, hint.to_owned());
    }
    let patterns = of_regex.iter().map(|read| read.rule.from.as_str());
    let longest = expression::path_bytes_max(&patterns.zip(sizes).collect::<Vec<_>>());
    if longest < PATH_BYTES_LEAST {
        let message = format!(
            "the regular expressions that begin alike are so large that only paths of {longest} bytes could be compared with them in time, at least {PATH_BYTES_LEAST} are needed"
        );
        return rules.refuse(message, hint.to_owned());
    }
    if longest < PATH_BYTES_USUAL {
        let message = format!(
            "paths of more than {longest} bytes are compared with no regular expression: there are many, or large ones, that begin alike"
        );
        rules.warn(message, hint);
    }
    Some(longest)
}

/// Two rules for the same: one of them would never be used.
fn refuse_repeated(read: &[Read<'_>]) -> bool {
    let mut first = HashMap::new();
    let mut distinct = true;
    for Read { place, host, rule } in read {
        let Some(earlier) = first.insert((host, rule.kind, &rule.from), rule.number) else { continue };
        let message = format!("repeats `{}` of rule {earlier} (counted from 0)", rule.from);
        place.object(&KEYS).inspect(|object| object.error_at("from", message, "keep one of the two"));
        distinct = false;
    }
    distinct
}
