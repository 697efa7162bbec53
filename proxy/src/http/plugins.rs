//! A site's plugins, in order: what they say of a request and of a response, applied to Pingora's headers.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use contract::{Hostname, Validity};
use http::header::HeaderValue;
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::Session;

use super::arrival::Lines;
use super::ctx::{Ctx, Told, Trace};
use super::edits;
use super::route::Pattern;
use super::waiting;
use crate::observe::plugin_fault;
use crate::tls::HEALTH;
use crate::wasm::{
    Action, Asked, Binding, Edit, Fault, Header, Hooks, RequestFacts, RequestView, ResponseView, Sample, Shadow,
    Tenant, rollout_bucket,
};

/// A plugin bound to a site.
#[derive(Clone)]
pub struct Attached {
    pub plugin: Arc<str>,
    pub binding: Arc<Binding>,
    /// For registered domains whose bucket is below it.
    pub buckets: u16,
    /// What becomes of a request when the plugin fails: it goes on, or it is answered 503.
    pub fail_open: bool,
    /// Asked about a share of the calls, and compared.
    pub shadow: Option<Arc<Shadow>>,
}

impl Attached {
    /// The calls to make for a host of that bucket, of the plugin or its shadow.
    pub(super) fn hooks(&self, bucket: u16) -> Hooks {
        if bucket >= self.buckets {
            return Hooks::default();
        }

        let live = self.binding.hooks();
        self.shadow.as_ref().map_or(live, |shadow| live.or(shadow.hooks()))
    }

    pub(super) fn sample(&self) -> Option<Sample<'_>> {
        self.shadow.as_ref()?.sample(&self.binding)
    }

    /// A shadow may be the only one that wants to be asked.
    fn on_request(&self, facts: &RequestFacts, request: &dyn RequestView) -> Said<Action> {
        if self.binding.hooks().request { self.binding.on_request(facts, request) } else { Ok(Action::Next) }
    }

    /// `sampled`: a shadow wants to know what other servers say.
    pub(super) async fn on_request_waiting(
        &self,
        facts: &RequestFacts,
        request: &dyn RequestView,
        sampled: bool,
    ) -> Asked {
        match self.binding.hooks().request {
            true => self.binding.on_request_waiting(facts, request, sampled).await,
            false => Ok(Action::Next).into(),
        }
    }

    fn on_response(
        &self,
        facts: &RequestFacts,
        request: &dyn RequestView,
        response: &dyn ResponseView,
    ) -> Said<Rc<[Edit]>> {
        if self.binding.hooks().response {
            self.binding.on_response(facts, request, response)
        } else {
            Ok(Rc::default())
        }
    }

    /// What this plugin ends the chain with, if it does.
    fn decision(&self, decided: Said<Action>, session: &mut Session) -> Option<Decision> {
        match decided {
            Ok(Action::Next) => None,
            Ok(Action::Edit(edits)) => {
                edits::apply(&edits, session.req_header_mut());
                None
            }
            Ok(Action::Redirect { status, location, edits }) => Some(Decision::Redirect { status, location, edits }),
            Ok(Action::Respond { status, headers, body }) => Some(Decision::Respond { status, headers, body }),
            Ok(Action::Deny(status)) => Some(Decision::Deny(status)),
            Err(fault) => {
                plugin_fault(&self.plugin, &self.binding, "request", &fault);
                (!self.fail_open).then_some(Decision::Failed)
            }
        }
    }
}

/// What a plugin said.
type Said<T> = std::result::Result<T, Fault>;

/// What the chain decided for a request.
pub(super) enum Decision {
    GoOn,
    Redirect {
        status: u16,
        location: String,
        edits: Vec<Edit>,
    },
    Respond {
        status: u16,
        headers: Vec<Header>,
        body: Vec<u8>,
    },
    Deny(u16),
    /// A plugin that fails closed has failed.
    Failed,
}

pub(super) struct Request<'a> {
    host: &'a str,
    parts: &'a RequestHeader,
    client: Option<IpAddr>,
    lines: &'a Lines,
}

impl<'a> Request<'a> {
    pub(super) fn new(host: &'a str, parts: &'a RequestHeader, client: Option<IpAddr>, lines: &'a Lines) -> Self {
        Self { host, parts, client, lines }
    }
}

impl RequestView for Request<'_> {
    fn host(&self) -> &str {
        self.host
    }
    fn path(&self) -> &str {
        self.parts.uri.path()
    }
    fn query(&self) -> Option<&str> {
        self.parts.uri.query()
    }
    fn header(&self, name: &str) -> Option<&[u8]> {
        self.lines.one(self.parts, name)
    }
    fn method(&self) -> &str {
        self.parts.method.as_str()
    }
    fn client(&self) -> Option<IpAddr> {
        self.client
    }
}

pub(super) struct Response<'a>(pub &'a ResponseHeader);

impl ResponseView for Response<'_> {
    fn status(&self) -> u16 {
        self.0.status.as_u16()
    }
    fn header(&self, name: &str) -> Option<&[u8]> {
        self.0.headers.get(name).map(HeaderValue::as_bytes)
    }
}

/// The facts of a request, the same for all its plugins and phases.
pub(super) fn facts(host: &Hostname, certificate: Option<Validity>) -> RequestFacts {
    let (rollout_bucket, tenant) = domain_of(host.as_str());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    RequestFacts {
        now_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
        https: certificate.is_some(),
        ip_host: host.as_str().parse::<IpAddr>().is_ok(),
        standing: HEALTH.of(host, certificate, now.as_secs()),
        rollout_bucket,
        tenant,
    }
}

/// Hosts whose domain a thread knows: to reckon it takes longer than all else that a plugin is told.
const DOMAINS_KNOWN: usize = 1024;
const DOMAIN_HOST_BYTES_MAX: usize = 64;

thread_local! {
    static DOMAINS: RefCell<HashMap<Box<str>, (u16, Tenant)>> = RefCell::default();
}

/// The bucket and the tenant of a host: those of its registered domain.
fn domain_of(host: &str) -> (u16, Tenant) {
    let reckoned = || {
        let domain = registrable_domain(host);
        (rollout_bucket(&domain), Tenant::of(&domain))
    };
    if host.len() > DOMAIN_HOST_BYTES_MAX {
        return reckoned();
    }
    DOMAINS.with_borrow_mut(|known| match known.get(host) {
        Some(domain) => *domain,
        None => {
            if known.len() >= DOMAINS_KNOWN {
                known.clear();
            }
            let domain = reckoned();
            known.insert(host.into(), domain);
            domain
        }
    })
}

/// Of the names that a pattern stands for, where they are all of one registered domain.
pub(super) fn bucket(pattern: &Pattern) -> Option<u16> {
    match pattern {
        Pattern::Exact(name) => Some(domain_of(name.as_str()).0),
        // Whatever is below a registered domain belongs to it.
        Pattern::Wildcard(suffix) => psl::domain_str(suffix.as_str()).map(rollout_bucket),
        Pattern::Any => None,
    }
}

/// The domain that was registered (`shop.example.co.uk` → `example.co.uk`), so that all its names are in one bucket.
fn registrable_domain(host: &str) -> Cow<'_, str> {
    psl::domain_str(host).map_or(Cow::Borrowed(host), Cow::Borrowed)
}

/// Waits only where a plugin does that asks other servers. An error where the visitor left meanwhile.
pub(super) async fn on_request(session: &mut Session, ctx: &mut Ctx) -> Result<Decision> {
    let Ctx { site: Some(site), host: Some(host), facts: Some(facts), connection, trace, lines, .. } = ctx else {
        return Ok(Decision::GoOn);
    };
    let client = connection.as_ref().map(|connection| connection.client.0.ip());
    for (at, attached) in
        site.plugins.iter().enumerate().filter(|(_, attached)| attached.hooks(facts.rollout_bucket).request)
    {
        let began = trace.as_ref().map(|_| Instant::now());
        let decided = if attached.binding.waits() {
            let (decided, waited) = Box::pin(waiting::ask(session, attached, host, client, facts, lines)).await?;
            tell(trace, began, at, verdict(&decided), waited);
            decided
        } else {
            let view = Request::new(host.as_str(), session.req_header(), client, lines);
            let sample = attached.sample();
            let decided = attached.on_request(facts, &view);
            tell(trace, began, at, verdict(&decided), Duration::ZERO);
            if let Some(sample) = sample {
                sample.request(&decided, facts, &view);
            }
            decided
        };
        let is_edited = matches!(decided, Ok(Action::Edit(_)));
        if let Some(decision) = attached.decision(decided, session) {
            return Ok(decision);
        }
        if is_edited {
            *lines = Lines::default();
        }
    }
    Ok(Decision::GoOn)
}

fn verdict(decided: &Said<Action>) -> &'static str {
    decided.as_ref().map_or("fault", Action::verdict)
}

/// False if a plugin that fails closed has failed: the response must not go out.
#[must_use]
pub(super) fn on_response(ctx: &mut Ctx, request: &RequestHeader, response: &mut ResponseHeader) -> bool {
    let Ctx { site: Some(site), host: Some(host), facts: Some(facts), trace, lines, .. } = ctx else {
        return true;
    };
    let view = Request::new(host.as_str(), request, None, lines);
    for (at, attached) in
        site.plugins.iter().enumerate().filter(|(_, attached)| attached.hooks(facts.rollout_bucket).response)
    {
        let began = trace.as_ref().map(|_| Instant::now());
        let sample = attached.sample();
        let decided = attached.on_response(facts, &view, &Response(response));
        tell(
            trace,
            began,
            at,
            match &decided {
                Ok(edits) if edits.is_empty() => "next",
                Ok(_) => "edit",
                Err(_) => "fault",
            },
            Duration::ZERO,
        );
        if let Some(sample) = sample {
            sample.response(&decided, facts, &view, &Response(response));
        }
        match decided {
            Ok(edits) => edits::apply(&edits, response),
            Err(fault) => {
                plugin_fault(&attached.plugin, &attached.binding, "response", &fault);
                if !attached.fail_open {
                    return false;
                }
            }
        }
    }
    true
}

/// For the access log: what came of a call, and its time. `next` takes nothing back that the other hook said.
pub(super) fn tell(
    trace: &mut Option<Box<Trace>>,
    began: Option<Instant>,
    at: usize,
    verdict: &'static str,
    waited: Duration,
) {
    let (Some(trace), Some(began)) = (trace, began) else { return };
    if trace.plugins.len() <= at {
        trace.plugins.resize(at + 1, Told::default());
    }
    let told = &mut trace.plugins[at];
    told.took += began.elapsed().saturating_sub(waited);
    told.waited += waited;
    if verdict != "next" {
        told.verdict = verdict;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_sees_all_lines_of_a_field() {
        let mut parts = RequestHeader::build("GET", b"/", None).unwrap();
        for value in ["mine", "forged"] {
            parts.append_header("x-key", value).unwrap();
        }
        let lines = Lines::default();
        let view = Request::new("a.example", &parts, None, &lines);
        assert_eq!((view.header("x-key"), view.header("x-other")), (Some(&b"mine, forged"[..]), None));
    }

    #[test]
    fn a_registered_domain_is_one_bucket() {
        assert_eq!(registrable_domain("www.shop.example.co.uk"), "example.co.uk");
        assert_eq!(registrable_domain("shop.example"), "shop.example");
        let bucket = |host| facts(&Hostname::parse(host).unwrap(), None).rollout_bucket;
        assert_eq!(bucket("www.example.com"), bucket("example.com"));
    }
}
