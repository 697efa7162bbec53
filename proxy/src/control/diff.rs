//! What is different between two JSON documents, as a person would say it: an entry that was put into a list is one
//! addition, not a change of all that follow.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash, Hasher};

use contract::admin::{Diff, Difference, DifferenceKind};
use contract::document::pointer;
use serde_json::{Map, Value};

/// Most differences that are listed; the rest is counted.
const LISTED_MAX: usize = 200;
/// Most characters of a value that are shown.
const SHOWN_CHARS_MAX: usize = 200;
/// What tells one entry of a list from another, where it has any of these.
const IDENTITIES: [&str; 5] = ["hosts", "plugin", "url", "from", "name"];

pub(super) fn diff(old: &Value, new: &Value) -> Diff {
    let mut found = Diff::default();
    values(&mut found, String::new(), old, new);
    found
}

/// Equal values have equal hashes, whatever the order of their keys.
pub(super) fn fingerprint(value: &Value) -> u64 {
    let mut hasher = BuildHasherDefault::<DefaultHasher>::default().build_hasher();
    add(value, &mut hasher);
    hasher.finish()
}

fn add(value: &Value, hasher: &mut DefaultHasher) {
    match value {
        Value::Null => 0_u8.hash(hasher),
        Value::Bool(value) => (1_u8, value).hash(hasher),
        Value::Number(number) => (2_u8, number.to_string()).hash(hasher),
        Value::String(text) => (3_u8, text).hash(hasher),
        Value::Array(items) => {
            (4_u8, items.len()).hash(hasher);
            items.iter().for_each(|item| add(item, hasher));
        }
        Value::Object(fields) => {
            (5_u8, fields.len()).hash(hasher);
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(key, _)| *key);
            for (key, value) in fields {
                key.hash(hasher);
                add(value, hasher);
            }
        }
    }
}

fn values(found: &mut Diff, at: String, old: &Value, new: &Value) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => objects(found, &at, old, new),
        (Value::Array(old), Value::Array(new)) => lists(found, &at, old, new),
        _ if old == new => {}
        _ => note(found, at, DifferenceKind::Replaced, Some(old), Some(new)),
    }
}

fn objects(found: &mut Diff, at: &str, old: &Map<String, Value>, new: &Map<String, Value>) {
    for (key, value) in old {
        match new.get(key) {
            Some(other) => values(found, pointer(at, key), value, other),
            None => note(found, pointer(at, key), DifferenceKind::Removed, Some(value), None),
        }
    }
    for (key, value) in new.iter().filter(|(key, _)| !old.contains_key(*key)) {
        note(found, pointer(at, key), DifferenceKind::Added, None, Some(value));
    }
}

/// What both begin and end with is set aside; of the rest, equal entries are matched, then those that are known by the
/// same name, and what is left has come or gone.
fn lists(found: &mut Diff, at: &str, old: &[Value], new: &[Value]) {
    let start = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let (old_rest, new_rest) = (&old[start..], &new[start..]);
    let end = old_rest.iter().rev().zip(new_rest.iter().rev()).take_while(|(a, b)| a == b).count();
    let old_rest = &old_rest[..old_rest.len() - end];
    let new_rest = &new_rest[..new_rest.len() - end];

    let mut unmatched: Vec<bool> = vec![true; new_rest.len()];
    let mut equals: HashMap<u64, Vec<usize>> = HashMap::new();
    for (index, value) in new_rest.iter().enumerate().rev() {
        equals.entry(fingerprint(value)).or_default().push(index);
    }
    let mut gone = Vec::new();
    let (mut last, mut in_order) = (None, true);
    for (index, value) in old_rest.iter().enumerate() {
        match equals.get_mut(&fingerprint(value)).and_then(Vec::pop) {
            Some(same) => {
                unmatched[same] = false;
                in_order &= last.is_none_or(|last| same > last);
                last = Some(same);
            }
            None => gone.push(index),
        }
    }
    let mut named: HashMap<u64, usize> = HashMap::new();
    let come = || unmatched.iter().enumerate().filter(|(_, unmatched)| **unmatched).map(|(index, _)| index);
    for index in come() {
        identity(&new_rest[index]).map(|identity| named.entry(identity).or_insert(index));
    }
    let alone = gone.len() == 1 && come().count() == 1;
    let only = come().next().filter(|_| alone);
    for index in gone {
        let value = &old_rest[index];
        match only.or_else(|| identity(value).and_then(|identity| named.remove(&identity))) {
            Some(other) => {
                unmatched[other] = false;
                values(found, pointer(at, start + other), value, &new_rest[other]);
            }
            None => note(found, pointer(at, start + index), DifferenceKind::Removed, Some(value), None),
        }
    }
    for (index, value) in new_rest.iter().enumerate().filter(|(index, _)| unmatched[*index]) {
        note(found, pointer(at, start + index), DifferenceKind::Added, None, Some(value));
    }
    if !in_order {
        note(found, at.to_owned(), DifferenceKind::Reordered, None, None);
    }
}

/// A hash of what an entry is known by. Sites have lists of hosts: the first one stands for them.
fn identity(entry: &Value) -> Option<u64> {
    let key = IDENTITIES.iter().find(|key| entry.get(**key).is_some())?;
    let value = entry.get(*key)?;
    Some(fingerprint(value.get(0).unwrap_or(value)))
}

fn note(found: &mut Diff, at: String, kind: DifferenceKind, old: Option<&Value>, new: Option<&Value>) {
    if found.differences.len() == LISTED_MAX {
        found.more += 1;
        return;
    }
    found.differences.push(Difference { at, kind, old: old.map(shown), new: new.map(shown) });
}

fn shown(value: &Value) -> String {
    let json = value.to_string();
    match json.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((cut, _)) => format!("{}… ({} bytes)", &json[..cut], json.len()),
        None => json,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn differences(old: Value, new: Value) -> Vec<String> {
        let line = |d: Difference| {
            let values = [d.old, d.new].map(Option::unwrap_or_default);
            format!("{:?} {} {}>{}", d.kind, d.at, values[0], values[1])
        };
        diff(&old, &new).differences.into_iter().map(line).collect()
    }

    #[test]
    fn names_what_came_went_and_changed() {
        let old = json!({"a": 1, "b": {"c": "x"}, "gone": null});
        let new = json!({"a": 1, "b": {"c": "y"}, "d/e": [1]});
        assert_eq!(
            differences(old, new),
            [r#"Replaced /b/c "x">"y""#, "Removed /gone null>", "Added /d~1e >[1]"].map(str::to_owned)
        );
    }

    #[test]
    fn an_entry_in_the_middle_is_one_addition() {
        let site = |host: &str, upstream: &str| json!({"hosts": [host], "upstream": upstream});
        let old = json!([site("a", "x"), site("b", "x"), site("c", "x")]);
        let new = json!([site("n", "x"), site("a", "x"), site("b", "y"), site("c", "x")]);
        assert_eq!(
            differences(old.clone(), new),
            [r#"Replaced /2/upstream "x">"y""#, r#"Added /0 >{"hosts":["n"],"upstream":"x"}"#]
        );
        let without = json!([site("a", "x"), site("c", "x")]);
        assert_eq!(differences(old.clone(), without), [r#"Removed /1 {"hosts":["b"],"upstream":"x"}>"#]);
        let turned = json!([site("c", "x"), site("b", "x"), site("a", "x")]);
        assert_eq!(differences(old, turned), ["Reordered  >"]);
    }

    #[test]
    fn the_order_of_keys_is_no_difference() {
        let (old, new) = (r#"{"a": [{"x": 1, "y": 2}], "b": 1.0}"#, r#"{"b": 1.0, "a": [{"y": 2, "x": 1}]}"#);
        let [old, new] = [old, new].map(|text| serde_json::from_str::<Value>(text).unwrap());
        assert_eq!(fingerprint(&old), fingerprint(&new));
        assert_eq!(diff(&old, &new), Diff::default());
    }

    #[test]
    fn lists_at_most_so_many_and_counts_the_rest() {
        let numbers = |count: usize| Value::from((0..count).map(|n| json!({"from": n})).collect::<Vec<_>>());
        let found = diff(&numbers(0), &numbers(LISTED_MAX + 7));
        assert_eq!((found.differences.len(), found.more), (LISTED_MAX, 7));
        let long = diff(&json!("a"), &json!("é".repeat(1000)));
        assert!(long.differences[0].new.as_ref().unwrap().ends_with("… (2002 bytes)"));
    }
}
