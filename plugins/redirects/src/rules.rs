//! Reads and checks the rules.

use std::collections::HashMap;

use latchkey_sdk::config::{Value, brief};

use crate::Status;
use crate::location;
use crate::table::{Rule, Tables};

const KEYS: [&str; 6] = ["from", "to", "status", "match", "host", "query"];
/// Rules are copied into every instance.
const RULES_MAX: usize = 1000;
const PATH_BYTES_MAX: usize = 1024;
const TARGET_BYTES_MAX: usize = 2048;
/// Browsers follow about twenty.
const HOPS_MAX: usize = 10;

/// A rule that is fine by itself, the host that it is for (empty: all), and its place.
struct Read<'a> {
    place: Value<'a>,
    host: String,
    rule: Rule,
}

pub(crate) fn read(config: &Value<'_>) -> Option<Tables> {
    let config = config.object(&["rules"])?;
    let list = config.required("rules", |v| v.list(RULES_MAX))?;
    let read: Vec<_> = list.into_iter().map(read_rule).collect();
    let all = read.iter().all(Option::is_some);
    let read: Vec<_> = read.into_iter().flatten().collect();
    let distinct = refuse_repeated(&read);
    if !(all && distinct) {
        return None;
    }
    let tables = Tables::new(read.iter().map(|read| (read.host.clone(), read.rule.clone())).collect());
    read.iter().for_each(|read| refuse_circle(read, &tables));
    Some(tables)
}

fn read_rule(place: Value<'_>) -> Option<Read<'_>> {
    let object = place.object(&KEYS)?;
    let from = object.required("from", path);
    let to = object.required("to", target);
    let status = object.optional("status", Status::MovedPermanently, status);
    let prefix = object.optional("match", false, |v| v.one_of(&[("exact", false), ("prefix", true)]));
    let host = object.optional("host", String::new(), host);
    let keep_query = object.optional("query", true, |v| v.one_of(&[("keep", true), ("drop", false)]));
    if prefix == Some(true) && to.as_ref().is_some_and(|to| to.contains(['?', '#'])) {
        let message = "a prefix rule appends the rest of the path, so its target can't have a query or fragment";
        object.error_at("to", message, "use \"match\": \"exact\", or leave the query out");
        return None;
    }
    let rule = Rule { from: from?, to: to?, status: status?, prefix: prefix?, keep_query: keep_query? };
    Some(Read { place, host: host?, rule })
}

fn path(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    if text.len() > PATH_BYTES_MAX {
        return value.refuse(format!("is {} bytes, at most {PATH_BYTES_MAX} are accepted", text.len()), None);
    }
    if !text.starts_with('/') {
        return value.refuse(format!("`{}` is not a path", brief(text)), "start it with /".to_owned());
    }
    if text.contains(['?', '#']) {
        let hint = "leave it out: only the path is compared".to_owned();
        return value.refuse(format!("`{}` has a query or fragment", brief(text)), hint);
    }
    legal(value, text)
}

fn target(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    if text.len() > TARGET_BYTES_MAX {
        return value.refuse(format!("is {} bytes, at most {TARGET_BYTES_MAX} are accepted", text.len()), None);
    }
    let acceptable = match authority(text) {
        Some(authority) => is_authority(authority),
        None => text.starts_with('/') && !text.starts_with("//"),
    };
    if !acceptable {
        let hint = "write a path such as /new, or a URL such as https://shop.example/new".to_owned();
        let message = format!("`{}` is neither a path nor an http or https URL", brief(&text.escape_debug()));
        return value.refuse(message, hint);
    }
    legal(value, text)
}

fn legal(value: &Value<'_>, text: &str) -> Option<String> {
    match text.chars().find(|char| !u8::try_from(*char).is_ok_and(location::is_legal)) {
        None => Some(text.to_owned()),
        Some(char) => {
            let mut utf8 = [0; 4];
            let encoded: String = char.encode_utf8(&mut utf8).bytes().map(|byte| format!("%{byte:02X}")).collect();
            let message = format!("`{}` has the character {char:?}", brief(&text.escape_debug()));
            value.refuse(message, format!("percent-encode it: {encoded}"))
        }
    }
}

/// What stands between the scheme and the path of a URL.
fn authority(text: &str) -> Option<&str> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"))?;
    rest.split(['/', '?', '#']).next()
}

/// A host with an optional port; no user name, which only serves to deceive.
fn is_authority(text: &str) -> bool {
    let (host, port) = text.rsplit_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
    !host.is_empty()
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
        && port.is_none_or(|port| port.parse::<u16>().is_ok() && port.bytes().all(|b| b.is_ascii_digit()))
}

fn status(value: &Value<'_>) -> Option<Status> {
    match value.integer(0..=999)? {
        301 => Some(Status::MovedPermanently),
        302 => Some(Status::Found),
        303 => Some(Status::SeeOther),
        307 => Some(Status::TemporaryRedirect),
        308 => Some(Status::PermanentRedirect),
        other => value.refuse(format!("{other} is not one of 301, 302, 303, 307, 308"), None),
    }
}

fn host(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
    if text.is_empty() || !text.bytes().all(legal) {
        let hint = "write the name only, without scheme, port or wildcard: shop.example".to_owned();
        return value.refuse(format!("`{}` is not a host name", brief(&text.escape_debug())), hint);
    }
    Some(text.to_ascii_lowercase())
}

/// Two rules for the same: one of them would never be used.
fn refuse_repeated(read: &[Read<'_>]) -> bool {
    let mut first = HashMap::new();
    let mut distinct = true;
    for (index, Read { place, host, rule }) in read.iter().enumerate() {
        if let Some(earlier) = first.insert((host, rule.prefix, &rule.from), index) {
            let message = format!("repeats `{}` of rule {earlier} (counted from 0)", rule.from);
            place.object(&KEYS).inspect(|object| object.error_at("from", message, "keep one of the two"));
            distinct = false;
        }
    }
    distinct
}

/// Follows a rule's target for as long as rules answer for it.
fn refuse_circle(read: &Read<'_>, tables: &Tables) {
    for rest in ["", "/x"] {
        if !read.rule.prefix && !rest.is_empty() {
            continue;
        }
        let mut path = format!("{}{rest}", read.rule.from);
        let mut trail = vec![path.clone()];
        let mut next = Some(&read.rule);
        while let Some(rule) = next {
            let target = location::make(rule, &path, None);
            let Some(there) = path_on(&target, &read.host) else { break };
            path = there.to_owned();
            trail.push(path.clone());
            if path == trail[0] || trail.len() > HOPS_MAX {
                let shown: Vec<_> = trail.iter().take(4).map(brief).collect();
                let circle = if path == trail[0] { "in a circle" } else { "without end" };
                let message = format!("redirects {circle}: {}", shown.join(" -> "));
                read.place.object(&KEYS).inspect(|object| {
                    object.error_at("to", message, "send it to a path that no rule sends on");
                });
                return;
            }
            next = tables.find(&read.host, &path);
        }
    }
}

/// The path of a location, if that is on the host that the rule is for.
fn path_on<'a>(location: &'a str, host: &str) -> Option<&'a str> {
    let path = match authority(location) {
        Some(authority) if authority.eq_ignore_ascii_case(host) => location.split_once(authority)?.1,
        Some(_) => return None,
        None => location,
    };
    let path = path.split(['?', '#']).next()?;
    Some(if path.is_empty() { "/" } else { path })
}
