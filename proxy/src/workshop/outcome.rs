//! What a plugin says to a case, in plain words, and whether it is what was expected.

use std::rc::Rc;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::bodies::Emerged;
use super::cases::Case;
use super::question::Question;
use super::script::Script;
use crate::wasm::{Action, Binding, Diagnostic, Edit, Expectation, Fault, Header, Outcome as Judgement, Usage};

/// What a case may expect.
pub(super) const KEYS: [&str; 16] = [
    "asked",
    "verdict",
    "status",
    "location",
    "edits",
    "headers",
    "body",
    "request_body",
    "response_edits",
    "response_body",
    "body_refused",
    "expectation",
    "outcome",
    "refused",
    "warnings",
    "fault",
];

/// By these keys.
pub(super) type Outcome = Map<String, Value>;

/// What came out of all calls of a case, as it came.
#[derive(Default)]
pub(super) struct Heard {
    pub expectation: Option<Expectation>,
    pub judgement: Option<Judgement>,
    pub action: Option<Action>,
    pub edits: Option<Rc<[Edit]>>,
    pub request_body: Option<Emerged>,
    pub response_body: Option<Emerged>,
}

/// All calls that a case takes, what was said in plain words, and what they use together; none where an instance is not kept for
/// the next call.
pub(super) fn ask(binding: &Arc<Binding>, script: &Script, case: &Case) -> Result<(Outcome, Option<Usage>), Fault> {
    let question = Question::of(case);
    let mut used = Some(Usage { instructions: 0, memory_bytes: 0 });
    script.begin(case);
    let heard = question.put(binding, |last: Option<Usage>| {
        used = used.zip(last).map(|(before, last)| Usage {
            instructions: before.instructions + last.instructions,
            memory_bytes: before.memory_bytes.max(last.memory_bytes),
        });
    })?;
    let mut outcome = heard.told();
    let asked = script.asked();
    if !asked.is_empty() {
        outcome.insert("asked".into(), asked.into());
    }
    question.push_byte_by_byte(binding, &heard)?;
    Ok((outcome, used))
}

impl Heard {
    fn told(&self) -> Outcome {
        let mut outcome = Outcome::new();
        let mut says = |key: &str, value: Value| drop(outcome.insert(key.to_owned(), value));
        if let Some(expectation) = self.expectation {
            says("expectation", expected(expectation).into());
        }
        if let Some(judgement) = &self.judgement {
            says("outcome", judged(judgement).into());
        }
        if let Some(edits) = &self.edits {
            says("response_edits", edits.iter().map(edited).collect());
        }
        for (key, body) in [("request_body", &self.request_body), ("response_body", &self.response_body)] {
            match body {
                Some(Emerged::Text(text)) => says(key, text.as_str().into()),
                Some(Emerged::Refused(status)) => says("body_refused", (*status).into()),
                None => {}
            }
        }
        if let Some(action) = &self.action {
            decided(action, &mut outcome);
        }
        outcome
    }
}

fn expected(expectation: Expectation) -> &'static str {
    match expectation {
        Expectation::Forbid => "forbid",
        Expectation::Allow => "allow",
        Expectation::Require => "require",
        Expectation::RequireChecksum => "require-checksum",
    }
}

fn judged(judgement: &Judgement) -> String {
    match judgement {
        Judgement::Admit(client) => format!("admit {client}"),
        Judgement::Reset => "reset".to_owned(),
    }
}

fn decided(action: &Action, outcome: &mut Outcome) {
    let mut says = |key: &str, value: Value| drop(outcome.insert(key.to_owned(), value));
    match action {
        Action::Next => says("verdict", "next".into()),
        Action::Edit(edits) => {
            says("verdict", "edit".into());
            says("edits", edits.iter().map(edited).collect());
        }
        Action::Redirect { status, location, edits } => {
            says("verdict", "redirect".into());
            says("status", (*status).into());
            says("location", location.as_str().into());
            says("edits", edits.iter().map(edited).collect());
        }
        Action::Respond { status, headers, body } => {
            says("verdict", "respond".into());
            says("status", (*status).into());
            let line = |Header { name, value }: &Header| Value::from(format!("{name}: {}", text(value)));
            says("headers", headers.iter().map(line).collect());
            says("body", text(body).into());
        }
        Action::Deny(status) => {
            says("verdict", "deny".into());
            says("status", (*status).into());
        }
    }
}

fn edited(edit: &Edit) -> Value {
    edit.to_string().into()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// `/rules/0/to: leads nowhere`
pub(super) fn told(diagnostic: &Diagnostic) -> String {
    format!("{}: {}", diagnostic.at, diagnostic.message)
}

/// What of the expectation did not come out.
pub(super) fn differences(expected: &Outcome, found: &Outcome) -> Vec<String> {
    let mut differences: Vec<_> = expected
        .iter()
        .filter(|(key, value)| !holds(key, value, found.get(*key)))
        .map(|(key, value)| match found.get(key) {
            Some(other) => format!("{key}: expected {value}, found {other}"),
            None => format!("{key}: expected {value}, but there was none; found {}", json!(found)),
        })
        .collect();
    // What went wrong is never passed over because nobody asked.
    for key in ["fault", "refused"] {
        if let (None, Some(found)) = (expected.get(key), found.get(key)) {
            differences.push(format!("{key}: {found}"));
        }
    }
    differences
}

/// Texts of plugins are compared by parts, everything else as it is.
fn holds(key: &str, expected: &Value, found: Option<&Value>) -> bool {
    let Some(found) = found else { return false };
    match (key, expected, found) {
        ("refused" | "warnings", Value::Array(parts), Value::Array(texts)) => {
            parts.len() == texts.len() && parts.iter().zip(texts).all(|(part, text)| contains(text, part))
        }
        ("fault", part, text) => contains(text, part),
        _ => expected == found,
    }
}

fn contains(text: &Value, part: &Value) -> bool {
    text.as_str().zip(part.as_str()).is_some_and(|(text, part)| text.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(value: Value) -> Outcome {
        value.as_object().cloned().unwrap_or_default()
    }

    #[test]
    fn what_is_expected_must_come_out() {
        let found = map(json!({"verdict": "redirect", "status": 301, "location": "/b", "edits": []}));
        assert_eq!(differences(&map(json!({"verdict": "redirect", "location": "/b"})), &found), Vec::<String>::new());
        let told = differences(&map(json!({"status": 308, "body": ""})), &found);
        assert!(told[0].starts_with("body: expected \"\", but there was none"), "{told:?}");
        assert_eq!(told[1], "status: expected 308, found 301");
    }

    #[test]
    fn faults_and_refusals_count_where_nobody_expects_them() {
        let found = map(json!({"fault": "plugin ran past its deadline"}));
        assert_eq!(differences(&map(json!({"verdict": "next"})), &found).len(), 2);
        assert_eq!(differences(&map(json!({"fault": "deadline"})), &found).len(), 0);
        let refused = map(json!({"refused": ["/a: is missing", "/b: is 7"]}));
        assert_eq!(differences(&map(json!({"refused": ["/a", "is 7"]})), &refused).len(), 0);
        assert_eq!(differences(&map(json!({"refused": ["/a"]})), &refused).len(), 1, "all of them");
    }
}
