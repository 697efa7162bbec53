//! A case, made ready to be put to a plugin by the host code that traffic goes through: what the edge knows of a request
//! before it asks, so that time that is measured is a call's own.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::bodies::{self, Sent};
use super::cases::{Case, Certificate, Connection, HeaderVersion, Request, Response, Scheme};
use super::outcome::Heard;
use crate::accept::header::{Header as ProxyHeader, Tlvs, Version};
use crate::tls::{Standing, Unwell};
use crate::wasm::{Binding, Fault, RequestFacts, RequestView, ResponseView, Tenant, Usage, rollout_bucket};

pub(super) struct Question<'a> {
    /// And what its peer introduces it with.
    connection: Option<(&'a Connection, Option<ProxyHeader>)>,
    request: Option<Asked<'a>>,
}

struct Asked<'a> {
    facts: RequestFacts,
    visit: Visit<'a>,
    body: Option<&'a str>,
    answer: Option<(Answer<'a>, Option<&'a str>)>,
}

impl<'a> Question<'a> {
    pub(super) fn of(case: &'a Case) -> Self {
        let header = |connection: &Connection| connection.header.as_ref().map(|_| proxy_header(connection));
        let asked = |request: &'a Request| Asked {
            facts: facts(case, request),
            visit: Visit::of(request),
            body: request.body.as_deref(),
            answer: case.response.as_ref().map(|response| (Answer::of(response), response.body.as_deref())),
        };
        Self {
            connection: case.connection.as_ref().map(|connection| (connection, header(connection))),
            request: case.request.as_ref().map(asked),
        }
    }

    /// Makes all calls, and tells what each has used.
    pub(super) fn put(&self, binding: &Arc<Binding>, mut used: impl FnMut(Option<Usage>)) -> Result<Heard, Fault> {
        let (mut heard, hooks) = (Heard::default(), binding.hooks());
        if let Some((connection, header)) = &self.connection {
            heard.expectation = Some(binding.expect(&connection.listener, connection.peer)?);
            used(binding.usage());
            heard.judgement = Some(binding.judge(&connection.listener, connection.peer, header.as_ref())?);
            used(binding.usage());
        }
        let Some(Asked { facts, visit, body, answer }) = &self.request else { return Ok(heard) };
        if hooks.request {
            heard.action = Some(binding.on_request(facts, visit)?);
            used(binding.usage());
        }
        if let Some(body) = body.filter(|_| hooks.request_body) {
            let (emerged, usage) =
                bodies::push(binding, facts, &Sent { request: visit, response: None, body }, body.len())?;
            heard.request_body = Some(emerged);
            used(Some(usage));
        }
        let Some((answer, body)) = answer else { return Ok(heard) };
        if hooks.response {
            heard.edits = Some(binding.on_response(facts, visit, answer)?);
            used(binding.usage());
        }
        if let Some(body) = body.filter(|_| hooks.response_body) {
            let sent = Sent { request: visit, response: Some(answer), body };
            let (emerged, usage) = bodies::push(binding, facts, &sent, body.len())?;
            heard.response_body = Some(emerged);
            used(Some(usage));
        }
        Ok(heard)
    }

    /// The bodies again, byte by byte: where pieces end is up to the network, so the same must come out.
    pub(super) fn push_byte_by_byte(&self, binding: &Arc<Binding>, heard: &Heard) -> Result<(), Fault> {
        let Some(Asked { facts, visit, body, answer }) = &self.request else { return Ok(()) };
        if let (Some(body), Some(whole)) = (body, &heard.request_body) {
            bodies::compare(binding, facts, &Sent { request: visit, response: None, body }, whole)?;
        }
        if let (Some((answer, Some(body))), Some(whole)) = (answer, &heard.response_body) {
            bodies::compare(binding, facts, &Sent { request: visit, response: Some(answer), body }, whole)?;
        }
        Ok(())
    }
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
