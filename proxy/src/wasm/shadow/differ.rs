//! What is different between the answer of a live binding and that of its shadow, in words of which there are few.

use crate::wasm::callout::Questions;
use crate::wasm::types::{Action, Edit, Expectation, Fault, Header, Outcome};
use crate::wasm::verify::shown;

const TEXT_CHARS_MAX: usize = 200;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Difference {
    /// The same for all that differ alike.
    pub(super) kind: String,
    pub(super) live: String,
    pub(super) shadow: String,
}

impl Difference {
    fn new(kind: impl Into<String>, live: &str, shadow: &str) -> Self {
        Self { kind: kind.into(), live: shown(live, TEXT_CHARS_MAX), shadow: shown(shadow, TEXT_CHARS_MAX) }
    }
}

pub(super) fn actions(live: &Action, shadow: &Action) -> Option<Difference> {
    if live == shadow {
        return None;
    }
    let kind = match (live, shadow) {
        (Action::Edit(live), Action::Edit(shadow)) => format!("edit: {}", first(live, shadow)),
        (Action::Redirect { status, location, .. }, Action::Redirect { status: other, location: to, .. }) => {
            match (status == other, location == to) {
                (false, _) => "redirect: status".to_owned(),
                (_, false) => "redirect: location".to_owned(),
                _ => "redirect: edits".to_owned(),
            }
        }
        (Action::Respond { status, headers, .. }, Action::Respond { status: other, headers: others, .. }) => {
            match (status == other, headers == others) {
                (false, _) => "respond: status".to_owned(),
                (_, false) => "respond: headers".to_owned(),
                _ => "respond: body".to_owned(),
            }
        }
        (Action::Deny(_), Action::Deny(_)) => "deny: status".to_owned(),
        (live, shadow) => format!("{} → {}", live.verdict(), shadow.verdict()),
    };
    Some(Difference::new(kind, &action(live), &action(shadow)))
}

/// Of a response.
pub(super) fn edits(live: &[Edit], shadow: &[Edit]) -> Option<Difference> {
    let kind = || format!("response: {}", first(live, shadow));
    (live != shadow).then(|| Difference::new(kind(), &list(live), &list(shadow)))
}

/// What came of a body.
pub(super) struct Came {
    /// Made of its head.
    pub(super) course: &'static str,
    pub(super) refused: Option<u16>,
    /// Of what went on.
    pub(super) bytes: u64,
}

pub(super) fn bodies(hook: &str, live: &Came, shadow: &Came, same_bytes: bool) -> Option<Difference> {
    let what = match (live.refused, shadow.refused) {
        (Some(_), None) => "refuse → go on".to_owned(),
        (None, Some(_)) => "go on → refuse".to_owned(),
        (Some(status), Some(other)) if status != other => "refuse: status".to_owned(),
        (None, None) if live.bytes != shadow.bytes => "length".to_owned(),
        (None, None) if !same_bytes => "content".to_owned(),
        _ if live.course != shadow.course => format!("{} → {}", live.course, shadow.course),
        _ => return None,
    };
    let told = |Came { course, refused, bytes }: &Came| match refused {
        Some(status) => format!("{course}, refuse {status}"),
        None => format!("{course}, {bytes} bytes"),
    };
    Some(Difference::new(format!("{hook}: {what}"), &told(live), &told(shadow)))
}

pub(super) fn expectations(live: &Expectation, shadow: &Expectation) -> Option<Difference> {
    let [a, b] = [live, shadow].map(|expectation| format!("{expectation:?}").to_lowercase());
    (live != shadow).then(|| Difference::new(format!("expect: {a} → {b}"), &a, &b))
}

pub(super) fn outcomes(live: &Outcome, shadow: &Outcome) -> Option<Difference> {
    let told = |outcome: &Outcome| match outcome {
        Outcome::Admit(client) => format!("admit {}", client.ip()),
        Outcome::Reset => "reset".to_owned(),
    };
    let kind = match (live, shadow) {
        (live, shadow) if live == shadow => return None,
        (Outcome::Admit(_), Outcome::Admit(_)) => "judge: client",
        (Outcome::Reset, _) => "judge: reset → admit",
        (_, Outcome::Reset) => "judge: admit → reset",
    };
    Some(Difference::new(kind, &told(live), &told(shadow)))
}

/// A shadow's question that the live one did not ask, and which nobody was asked.
pub(super) fn asks_else(live: &str, shadow: &str) -> Difference {
    Difference::new("asks something else", live, shadow)
}

/// It would do the same without a question that the live one asks.
pub(super) fn asks_fewer(questions: &Questions) -> Option<Difference> {
    let Questions::Fewer(live) = questions else { return None };
    Some(Difference::new("asks less", live, "does not ask"))
}

/// At least one of them has failed.
pub(super) fn failures(live: Option<&Fault>, shadow: Option<&Fault>) -> Option<Difference> {
    let kind = |fault: Option<&Fault>| match fault {
        Some(fault) => format!("failed ({})", fault.reason()),
        None => "answered".to_owned(),
    };
    let told = |fault: Option<&Fault>| fault.map_or_else(|| "answered".to_owned(), ToString::to_string);
    let (a, b) = (kind(live), kind(shadow));
    (a != b).then(|| Difference::new(format!("{a} → {b}"), &told(live), &told(shadow)))
}

/// The name in the first edit that differs.
fn first<'a>(live: &'a [Edit], shadow: &'a [Edit]) -> &'a str {
    let same = live.iter().zip(shadow).take_while(|(live, shadow)| live == shadow).count();
    live.get(same).or_else(|| shadow.get(same)).map_or("", name)
}

fn name(edit: &Edit) -> &str {
    match edit {
        Edit::Set { name, .. } | Edit::Append { name, .. } | Edit::SetIfAbsent { name, .. } | Edit::Remove { name } => {
            name
        }
    }
}

fn action(action: &Action) -> String {
    match action {
        Action::Next => "next".to_owned(),
        Action::Edit(edits) => format!("edit: {}", list(edits)),
        Action::Redirect { status, location, edits } if edits.is_empty() => format!("redirect {status} {location}"),
        Action::Redirect { status, location, edits } => format!("redirect {status} {location}, {}", list(edits)),
        Action::Respond { status, headers, body } => {
            let told = |Header { name, value }: &Header| format!(", {name}: {}", String::from_utf8_lossy(value));
            let headers: String = headers.iter().map(told).collect();
            format!("respond {status}, {} bytes{headers}", body.len())
        }
        Action::Deny(status) => format!("deny {status}"),
    }
}

fn list(edits: &[Edit]) -> String {
    let told = |edit: &Edit| match edit {
        Edit::Set { name, value } => format!("set {name}: {}", String::from_utf8_lossy(value)),
        Edit::Append { name, value } => format!("append {name}: {}", String::from_utf8_lossy(value)),
        Edit::SetIfAbsent { name, value } => format!("set-if-absent {name}: {}", String::from_utf8_lossy(value)),
        Edit::Remove { name } => format!("remove {name}"),
    };
    match edits {
        [] => "nothing".to_owned(),
        edits => edits.iter().map(told).collect::<Vec<_>>().join("; "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redirect(status: u16, location: &str) -> Action {
        Action::Redirect { status, location: location.to_owned(), edits: Vec::new() }
    }

    fn kind(live: &Action, shadow: &Action) -> Option<String> {
        actions(live, shadow).map(|difference| difference.kind)
    }

    #[test]
    fn differences_of_one_kind_have_one_name() {
        assert_eq!(kind(&redirect(301, "/a"), &redirect(301, "/a")), None);
        for (live, shadow, expected) in [
            (Action::Next, redirect(301, "/a"), "next → redirect"),
            (redirect(301, "/a"), redirect(308, "/b"), "redirect: status"),
            (redirect(301, "/a"), redirect(301, "/b"), "redirect: location"),
            (Action::Deny(403), Action::Deny(404), "deny: status"),
        ] {
            assert_eq!(kind(&live, &shadow).as_deref(), Some(expected));
        }
        let set = |value: &str| Edit::Set { name: "x-a".into(), value: value.into() };
        let both = edits(&[set("1"), set("2")], &[set("1")]).unwrap();
        assert_eq!((both.kind.as_str(), both.shadow.as_str()), ("response: x-a", "set x-a: 1"));
        assert_eq!(edits(&[], &[]), None);
    }

    #[test]
    fn what_a_visitor_would_notice_of_a_body_goes_before_what_it_takes() {
        let came = |course, refused, bytes| Came { course, refused, bytes };
        for (live, shadow, same_bytes, kind) in [
            (came("change", None, 5), came("change", None, 5), true, None),
            (came("change", None, 5), came("change", None, 5), false, Some("response-body: content")),
            (came("change", None, 5), came("pass", None, 7), false, Some("response-body: length")),
            (came("change", None, 5), came("pass", None, 5), true, Some("response-body: change → pass")),
            (came("pass", None, 5), came("watch", Some(403), 0), false, Some("response-body: go on → refuse")),
            (came("watch", Some(403), 0), came("watch", None, 9), false, Some("response-body: refuse → go on")),
            (came("watch", Some(403), 0), came("watch", Some(451), 9), false, Some("response-body: refuse: status")),
            (came("watch", Some(403), 0), came("watch", Some(403), 9), false, None),
        ] {
            let difference = bodies("response-body", &live, &shadow, same_bytes);
            assert_eq!(difference.as_ref().map(|difference| &difference.kind[..]), kind);
            assert!(difference.is_none_or(|difference| difference.live.starts_with(live.course)));
        }
    }

    #[test]
    fn a_failure_is_a_difference_unless_both_fail_alike() {
        let told = failures(None, Some(&Fault::Deadline)).unwrap();
        assert_eq!((told.kind.as_str(), told.live.as_str()), ("answered → failed (deadline)", "answered"));
        assert_eq!(failures(Some(&Fault::Deadline), Some(&Fault::Deadline)), None);
        assert!(failures(Some(&Fault::Memory), Some(&Fault::Deadline)).is_some());
    }

    #[test]
    fn what_is_told_is_short_and_has_no_control_characters() {
        let long = actions(&Action::Next, &redirect(301, &format!("/\u{1b}{}", "x".repeat(9000)))).unwrap();
        // An escaped character is longer.
        assert!(long.shadow.chars().count() <= TEXT_CHARS_MAX + 10 && !long.shadow.contains('\u{1b}'), "{long:?}");
    }
}
