//! Asks a plugin about a case, by the host code that traffic goes through, and puts what comes out into plain words.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::bodies::{self, Sent};
use super::cases::{Case, Certificate, Connection, HeaderVersion, Request, Response, Scheme};
use super::script::Script;
use crate::accept::header::{Header as ProxyHeader, Tlvs, Version};
use crate::tls::{Standing, Unwell};
use crate::wasm::{
    Action, Binding, Diagnostic, Edit, Expectation, Fault, Header, Outcome as Judgement, RequestFacts, RequestView,
    ResponseView, Tenant, Usage, rollout_bucket,
};

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

/// All calls that a case takes, and what they use together; none where an instance is not kept for the next call.
pub(super) fn ask(binding: &Arc<Binding>, script: &Script, case: &Case) -> Result<(Outcome, Option<Usage>), Fault> {
    script.begin(case);
    let mut outcome = Outcome::new();
    let mut used = Some(Usage { instructions: 0, memory_bytes: 0 });
    let mut add = |last: Option<Usage>| {
        used = used.zip(last).map(|(before, last)| Usage {
            instructions: before.instructions + last.instructions,
            memory_bytes: before.memory_bytes.max(last.memory_bytes),
        });
    };
    if let Some(connection) = &case.connection {
        let header = connection.header.as_ref().map(|_| proxy_header(connection));
        let expectation = binding.expect(&connection.listener, connection.peer)?;
        add(binding.usage());
        let judgement = binding.judge(&connection.listener, connection.peer, header.as_ref())?;
        add(binding.usage());
        outcome.insert("expectation".into(), expected(expectation).into());
        outcome.insert("outcome".into(), judged(judgement).into());
    }
    if let Some(request) = &case.request {
        let (facts, visit, hooks) = (facts(case, request), Visit::of(request), binding.hooks());
        if hooks.request {
            decided(binding.on_request(&facts, &visit)?, &mut outcome);
            add(binding.usage());
            let asked = script.asked();
            if !asked.is_empty() {
                outcome.insert("asked".into(), asked.into());
            }
        }
        if let Some(body) = request.body.as_ref().filter(|_| hooks.request_body) {
            let sent = Sent { request: &visit, response: None, body };
            add(Some(bodies::ask(binding, &facts, &sent, &mut outcome)?));
        }
        let Some(response) = &case.response else { return Ok((outcome, used)) };
        let answer = Answer::of(response);
        if hooks.response {
            let edits = binding.on_response(&facts, &visit, &answer)?;
            add(binding.usage());
            outcome.insert("response_edits".into(), edits.iter().map(edited).collect());
        }
        if let Some(body) = response.body.as_ref().filter(|_| hooks.response_body) {
            let sent = Sent { request: &visit, response: Some(&answer), body };
            add(Some(bodies::ask(binding, &facts, &sent, &mut outcome)?));
        }
    }
    Ok((outcome, used))
}

fn facts(case: &Case, request: &Request) -> RequestFacts {
    RequestFacts {
        now_ms: case.now.saturating_mul(1000),
        https: request.scheme == Scheme::Https,
        ip_host: request.host.parse::<std::net::IpAddr>().is_ok(),
        tenant: Tenant::of(registrable(&request.host)),
        standing: standing(case, request),
        rollout_bucket: case.rollout_bucket.unwrap_or_else(|| rollout_bucket(registrable(&request.host))),
    }
}

fn standing(case: &Case, request: &Request) -> Standing {
    let days = |days: u64| days * 86_400;
    let unwell = |left| Unwell { since: case.now.saturating_sub(days(1)), ends: case.now.saturating_add(days(left)) };
    match case.certificate {
        _ if request.scheme == Scheme::Http => Standing::None,
        Certificate::Healthy => Standing::Healthy,
        Certificate::RenewalFailing => Standing::RenewalFailing(unwell(20)),
        Certificate::Ending => Standing::Ending(unwell(2)),
        Certificate::HandshakeErrors => Standing::HandshakeErrors(unwell(60)),
    }
}

fn registrable(host: &str) -> &str {
    psl::domain_str(host).unwrap_or(host)
}

struct Visit<'a> {
    host: String,
    path: &'a str,
    query: Option<&'a str>,
    headers: BTreeMap<String, &'a str>,
}

impl<'a> Visit<'a> {
    fn of(request: &'a Request) -> Self {
        let (path, query) = match request.path.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (request.path.as_str(), None),
        };
        Self { host: request.host.to_ascii_lowercase(), path, query, headers: lower_case(&request.headers.0) }
    }
}

fn lower_case(headers: &BTreeMap<String, String>) -> BTreeMap<String, &str> {
    headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.as_str())).collect()
}

impl RequestView for Visit<'_> {
    fn host(&self) -> &str {
        &self.host
    }
    fn path(&self) -> &str {
        self.path
    }
    fn query(&self) -> Option<&str> {
        self.query
    }
    fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.get(name).map(|value| value.as_bytes())
    }
}

struct Answer<'a> {
    status: u16,
    headers: BTreeMap<String, &'a str>,
}

impl<'a> Answer<'a> {
    fn of(response: &'a Response) -> Self {
        Self { status: response.status, headers: lower_case(&response.headers.0) }
    }
}

impl ResponseView for Answer<'_> {
    fn status(&self) -> u16 {
        self.status
    }
    fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.get(name).map(|value| value.as_bytes())
    }
}

fn proxy_header(connection: &Connection) -> ProxyHeader {
    let header = connection.header.as_ref();
    ProxyHeader {
        version: match header.map(|header| header.version) {
            Some(HeaderVersion::V1) => Version::V1,
            _ => Version::V2,
        },
        source: header.and_then(|header| header.client),
        destination: None,
        local: header.is_some_and(|header| header.local),
        tlvs: Tlvs {
            checked: header.is_some_and(|header| header.checked),
            aws_vpce_id: header.and_then(|header| header.aws_vpce_id.clone()),
            azure_link_id: header.and_then(|header| header.azure_link_id),
            gcp_psc_id: header.and_then(|header| header.gcp_psc_id),
            ..Tlvs::default()
        },
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

fn judged(judgement: Judgement) -> String {
    match judgement {
        Judgement::Admit(client) => format!("admit {client}"),
        Judgement::Reset => "reset".to_owned(),
    }
}

fn decided(action: Action, outcome: &mut Outcome) {
    let mut says = |key: &str, value: Value| drop(outcome.insert(key.to_owned(), value));
    match action {
        Action::Next => says("verdict", "next".into()),
        Action::Edit(edits) => {
            says("verdict", "edit".into());
            says("edits", edits.iter().map(edited).collect());
        }
        Action::Redirect { status, location, edits } => {
            says("verdict", "redirect".into());
            says("status", status.into());
            says("location", location.into());
            says("edits", edits.iter().map(edited).collect());
        }
        Action::Respond { status, headers, body } => {
            says("verdict", "respond".into());
            says("status", status.into());
            let line = |Header { name, value }: &Header| Value::from(format!("{name}: {}", text(value)));
            says("headers", headers.iter().map(line).collect());
            says("body", text(&body).into());
        }
        Action::Deny(status) => {
            says("verdict", "deny".into());
            says("status", status.into());
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
