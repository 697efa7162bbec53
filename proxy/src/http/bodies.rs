//! Bodies that a site's plugins see: begun when a message's head is decided, then pushed through them, in their order.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName, HeaderValue,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, Method, StatusCode, Version};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::{Error, ErrorType, Result};

use super::arrival::Lines;
use super::ctx::Ctx;
use super::plugins::{Attached, Request, Response, tell};
use super::{fault, local};
use crate::observe::{METRICS, plugin_fault};
use crate::wasm::{Beside, Body, Fault, Hooks, Live, Passed, Shadow};

/// True of the old body only (RFC 1864, RFC 3230, RFC 9530).
const DIGESTS: [HeaderName; 4] = [
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
];

/// The plugins that a body passes through.
pub struct Chain {
    message: Message,
    links: Vec<Link>,
}

#[derive(Clone, Copy)]
enum Message {
    Request,
    Response,
}

impl Message {
    /// Label of metrics, and name in the log.
    fn name(self) -> &'static str {
        match self {
            Self::Request => "request-body",
            Self::Response => "response-body",
        }
    }

    /// Towards an HTTP/2 server Pingora ends a request only for the visitor's sake, and waits for an answer otherwise. Nothing
    /// of this is held against the server.
    fn ends(self, error: Box<Error>) -> Box<Error> {
        match self {
            Self::Request => error.into_down(),
            Self::Response => error.into_in(),
        }
    }
}

struct Link {
    /// Its place among the site's plugins.
    at: usize,
    /// None where only the shadow is shown it.
    body: Option<Body>,
    /// The shadow's, whose answers go nowhere.
    beside: Option<Box<Beside>>,
}

impl Link {
    fn changes(&self) -> bool {
        self.body.as_ref().is_some_and(Body::changes)
    }

    fn is_as_it_was(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_as_it_was)
    }

    fn push(&mut self, bytes: &[u8], end: bool) -> std::result::Result<Passed, Fault> {
        self.body.as_mut().map_or(Ok(Passed::AsItIs), |body| body.push(bytes, end))
    }

    /// Shows the shadow what the plugin was shown.
    fn compare(
        &mut self,
        bytes: &[u8],
        end: bool,
        passed: &std::result::Result<Passed, Fault>,
        began: Option<Instant>,
    ) {
        let (Some(beside), Some(began)) = (self.beside.take(), began) else { return };
        let live = Live { body: self.body.as_ref(), passed, took: began.elapsed() };
        self.beside = beside.push(bytes, end, live);
    }
}

/// Of a request, when what its upstream is told is decided: once for each try.
pub(super) fn begin_request(ctx: &mut Ctx, with_body: bool, request: &mut RequestHeader) -> Result<()> {
    ctx.request_body = None;
    if !with_body || !is_seen(ctx, |hooks| hooks.request_body) || request.headers.contains_key(UPGRADE) {
        return Ok(());
    }
    let length = length(&request.headers);
    let may_change = may_change(&request.headers);
    let chain = begin(ctx, Message::Request, request, None, length, may_change)?;
    if chain.as_ref().is_some_and(|chain| chain.changes()) {
        // What frames it instead is up to the protocol that the upstream speaks.
        request.remove_header(&CONTENT_LENGTH);
        DIGESTS.iter().for_each(|name| drop(request.remove_header(name)));
    }
    ctx.request_body = chain.map(Box::new);
    Ok(())
}

/// Of an answer, when its head is decided.
pub(super) fn begin_response(ctx: &mut Ctx, request: &RequestHeader, response: &mut ResponseHeader) -> Result<()> {
    ctx.response_body = None;
    if !is_seen(ctx, |hooks| hooks.response_body) {
        return Ok(());
    }
    let length = length(&response.headers);
    if response.status.is_informational() || response.status == StatusCode::NO_CONTENT || length == Some(0) {
        return Ok(());
    }
    let whole = response.status != StatusCode::PARTIAL_CONTENT && !response.headers.contains_key(CONTENT_RANGE);
    let may_change = whole && may_change(&response.headers);
    let chain = begin(ctx, Message::Response, request, Some(response), length, may_change)?;
    let without_body = request.method == Method::HEAD || response.status == StatusCode::NOT_MODIFIED;
    if chain.as_ref().is_some_and(|chain| chain.changes()) {
        is_changed(response, without_body)?;
    }
    match chain {
        Some(chain) if without_body => chain.let_go(ctx),
        chain => {
            ctx.response_body = chain.map(Box::new);
            Ok(())
        }
    }
}

/// Whether any plugin of the site wants such bodies: where none does, nothing is looked at.
fn is_seen(ctx: &Ctx, wants: fn(Hooks) -> bool) -> bool {
    let Ctx { site: Some(site), facts: Some(facts), .. } = ctx else { return false };
    site.plugins.iter().any(|attached| wants(attached.hooks(facts.rollout_bucket)))
}

fn begin(
    ctx: &mut Ctx,
    message: Message,
    request: &RequestHeader,
    response: Option<&ResponseHeader>,
    length: Option<u64>,
    may_change: bool,
) -> Result<Option<Chain>> {
    let Ctx { site: Some(site), host: Some(host), facts: Some(facts), trace, lines, .. } = ctx else {
        return Ok(None);
    };
    // What the upstream is told has fields of its own.
    let of_upstream = Lines::default();
    let lines = if response.is_some() { lines } else { &of_upstream };
    let request = Request::new(host.as_str(), request, None, lines);
    let mut links = Vec::new();
    for (at, attached) in site.plugins.iter().enumerate() {
        let wants = |hooks: Hooks| if response.is_some() { hooks.response_body } else { hooks.request_body };
        if !wants(attached.hooks(facts.rollout_bucket)) {
            continue;
        }
        let sees = wants(attached.binding.hooks());
        let response = response.map(Response);
        let response = response.as_ref().map(|response| response as _);
        let began = trace.as_ref().map(|_| Instant::now());
        let sample = attached.shadow.as_ref().and_then(Shadow::body_sample);
        let begun = match sees {
            true => attached.binding.begin(facts, &request, response, length, may_change),
            false => Ok(None),
        };
        tell(trace, began, at, if begun.is_ok() { "next" } else { "fault" }, Duration::ZERO);
        let beside = sample.and_then(|sample| sample.begin(&begun, facts, &request, response, length, may_change));
        let body = match begun {
            Ok(body) => {
                let course = match &body {
                    None => "passed",
                    Some(body) if body.changes() => "changed",
                    Some(_) => "watched",
                };
                if sees {
                    count(attached, message, course);
                }
                body
            }
            Err(fault) => fails(attached, message, &fault, attached.fail_open).map(|()| None)?,
        };
        if body.is_some() || beside.is_some() {
            links.push(Link { at, body, beside });
        }
    }
    Ok((!links.is_empty()).then_some(Chain { message, links }))
}

/// The next bytes of a request's body.
pub(super) fn push_request(ctx: &mut Ctx, body: &mut Option<Bytes>, end: bool) -> Result<()> {
    let Some(mut chain) = ctx.request_body.take() else { return Ok(()) };
    let bytes = body.take().unwrap_or_default();
    let out = chain.push(ctx, bytes, end)?;
    // Without an end, nothing at all would be taken for it.
    *body = (!end || !out.is_empty()).then_some(out);
    ctx.request_body = (!end).then_some(chain);
    Ok(())
}

/// The next bytes of an answer's body.
pub(super) fn push_response(ctx: &mut Ctx, body: &mut Option<Bytes>, end: bool) -> Result<()> {
    let Some(mut chain) = ctx.response_body.take() else { return Ok(()) };
    let bytes = body.take().unwrap_or_default();
    let out = chain.push(ctx, bytes, end)?;
    *body = (!out.is_empty()).then_some(out);
    ctx.response_body = (!end).then_some(chain);
    Ok(())
}

impl Chain {
    fn changes(&self) -> bool {
        self.links.iter().any(Link::changes)
    }

    /// Of a message that has a head only, so what fails here has no body that could miss anything.
    fn let_go(self, ctx: &Ctx) -> Result<()> {
        let Some(site) = &ctx.site else { return Ok(()) };
        for Link { at, body, beside } in self.links {
            let gone = body.map_or(Ok(()), Body::let_go);
            if let Some(beside) = beside {
                beside.let_go(gone.clone());
            }
            if let Err(fault) = gone
                && let Some(attached) = site.plugins.get(at)
            {
                fails(attached, self.message, &fault, true)?;
            }
        }
        Ok(())
    }

    fn push(&mut self, ctx: &mut Ctx, mut bytes: Bytes, end: bool) -> Result<Bytes> {
        let Ctx { site: Some(site), trace, refused, .. } = ctx else { return Ok(bytes) };
        let mut left = Vec::new();
        for (place, link) in self.links.iter_mut().enumerate() {
            let Some(attached) = site.plugins.get(link.at) else { continue };
            if bytes.is_empty() && !end {
                break;
            }
            let began = (trace.is_some() || link.beside.is_some()).then(Instant::now);
            let passed = link.push(&bytes, end);
            let verdict = match &passed {
                Ok(Passed::AsItIs) => "next",
                Ok(Passed::Replaced(_)) => "edit",
                Ok(Passed::Refused(_)) => "deny",
                Err(_) => "fault",
            };
            tell(trace, began, link.at, verdict, Duration::ZERO);
            link.compare(&bytes, end, &passed, began);
            match passed {
                Ok(Passed::AsItIs) => {}
                Ok(Passed::Replaced(with)) => bytes = with.into(),
                Ok(Passed::Refused(status)) => {
                    count(attached, self.message, "refused");
                    *refused = Some(local::PLUGIN);
                    return Err(denied(self.message, status));
                }
                Err(fault) => {
                    // What it held back is lost, so without it the body would have a gap.
                    fails(attached, self.message, &fault, attached.fail_open && link.is_as_it_was())?;
                    left.push(place);
                }
            }
        }
        left.iter().rev().for_each(|place| drop(self.links.remove(*place)));
        Ok(bytes)
    }
}

/// A plugin failed: the body goes on without it, or ends.
fn fails(attached: &Attached, message: Message, fault: &Fault, goes_on: bool) -> Result<()> {
    plugin_fault(&attached.plugin, &attached.binding, message.name(), fault);
    if goes_on {
        return Ok(());
    }
    Err(message.ends(Error::explain(fault::PLUGIN_FAILED, format!("a plugin failed at a {}", message.name()))))
}

fn denied(message: Message, status: u16) -> Box<Error> {
    let says = format!("a plugin refused a {} with {status}", message.name());
    message.ends(Error::explain(ErrorType::CustomCode(fault::BODY_REFUSED, status), says))
}

fn count(attached: &Attached, message: Message, result: &str) {
    METRICS.plugin_bodies.with_label_values(&[&*attached.plugin, message.name(), result]).inc();
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// RFC 9110 section 7.7, and gRPC: whose trailers tell of the body that was sent.
fn may_change(headers: &HeaderMap) -> bool {
    let says_no = |value: &HeaderValue| {
        let mut words = value.as_bytes().split(|byte| *byte == b',');
        words.any(|word| word.trim_ascii().eq_ignore_ascii_case(b"no-transform"))
    };
    let grpc = |value: &HeaderValue| value.as_bytes().to_ascii_lowercase().starts_with(b"application/grpc");
    !headers.get_all(CACHE_CONTROL).iter().any(says_no) && !headers.get(CONTENT_TYPE).is_some_and(grpc)
}

/// Takes back what the head says of a body that will be another.
fn is_changed(response: &mut ResponseHeader, without_body: bool) -> Result<()> {
    response.remove_header(&CONTENT_LENGTH);
    response.remove_header(&ACCEPT_RANGES);
    DIGESTS.iter().for_each(|name| drop(response.remove_header(name)));
    // RFC 9110 section 8.8.1: the same bytes are promised by a strong one.
    let weak = response.headers.get(ETAG).map(HeaderValue::as_bytes).filter(|tag| tag.starts_with(b"\""));
    if let Some(weak) = weak.map(|tag| [b"W/", tag].concat()) {
        response
            .insert_header(ETAG, HeaderValue::from_bytes(&weak).map_err(|_| Error::new(ErrorType::InternalError))?)?;
    }
    if !without_body {
        // For HTTP/1; where the visitor speaks HTTP/2, it goes again.
        response.set_version(Version::HTTP_11);
        response.insert_header(TRANSFER_ENCODING, "chunked")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(fields: &[(&'static str, &'static str)]) -> ResponseHeader {
        let mut head = ResponseHeader::build(200, None).unwrap();
        fields.iter().for_each(|(name, value)| drop(head.append_header(*name, *value)));
        head
    }

    #[test]
    fn who_asks_for_no_change_gets_none() {
        assert!(may_change(&head(&[("cache-control", "no-store, private"), ("content-type", "text/html")]).headers));
        assert!(!may_change(
            &head(&[("cache-control", "no-store"), ("cache-control", "private , No-Transform")]).headers
        ));
        assert!(!may_change(&head(&[("content-type", "Application/gRPC+proto")]).headers));
    }

    #[test]
    fn a_head_says_nothing_of_a_body_that_is_another_now() {
        let mut response = head(&[
            ("content-length", "5"),
            ("etag", "\"a\""),
            ("accept-ranges", "bytes"),
            ("repr-digest", "x"),
            ("x", "y"),
        ]);
        is_changed(&mut response, false).unwrap();
        let mut left: Vec<_> =
            response.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        left.sort_unstable();
        assert_eq!(left, [("etag", "W/\"a\""), ("transfer-encoding", "chunked"), ("x", "y")]);
        is_changed(&mut response, false).unwrap();
        assert_eq!(response.headers["etag"], "W/\"a\"");
    }
}
