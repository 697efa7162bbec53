//! Pingora's phases, one call each, and the order of what happens to a request.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{CONNECTION, EXPECT, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, Version};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::Digest;
use pingora::proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};

use super::ctx::Ctx;
use super::{access, arrival, bodies, challenge, fault, forward, host, limits, local, plugins, target};
use crate::config::{Listener, Protocol};
use crate::connection::Connection;
use crate::control::Current;
use crate::guard::{Limits, OpenRequest, Rest};
use crate::observe::AccessLog;
use crate::supply::Supply;
use crate::upstream::Repeat;

/// The HTTP application of one listener.
pub struct Edge {
    pub listener: Listener,
    pub current: Arc<Current>,
    pub supply: Arc<Supply>,
    pub limits: Arc<Limits>,
    pub access_log: Option<Arc<AccessLog>>,
}

#[async_trait]
impl ProxyHttp for Edge {
    type CTX = Ctx;

    fn new_ctx(&self) -> Ctx {
        Ctx::new(self.access_log.is_some())
    }

    /// `true` means answered: nothing more happens to the request.
    async fn request_filter(&self, session: &mut Session, ctx: &mut Ctx) -> Result<bool> {
        self.request(session, ctx).await
    }

    async fn request_body_filter(
        &self,
        _: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Ctx,
    ) -> Result<()> {
        uploaded(&self.limits, body.as_ref(), end, ctx)?;
        bodies::push_request(ctx, body, end)
    }

    async fn upstream_peer(&self, _: &mut Session, ctx: &mut Ctx) -> Result<Box<HttpPeer>> {
        peer(ctx)
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        upstream: &mut RequestHeader,
        ctx: &mut Ctx,
    ) -> Result<()> {
        forwarded(session, ctx, upstream)
    }

    async fn connected_to_upstream(
        &self,
        _: &mut Session,
        reused: bool,
        _: &HttpPeer,
        socket: std::os::fd::RawFd,
        _: Option<&Digest>,
        ctx: &mut Ctx,
    ) -> Result<()> {
        ctx.attempt.connected(socket);
        if let Some(trace) = &mut ctx.trace {
            (trace.connected, trace.reused) = (Some(Instant::now()), reused);
        }
        Ok(())
    }

    fn fail_to_connect(&self, _: &mut Session, _: &HttpPeer, ctx: &mut Ctx, error: Box<Error>) -> Box<Error> {
        ctx.attempt.not_connected(error)
    }

    fn error_while_proxy(
        &self,
        _: &HttpPeer,
        session: &mut Session,
        error: Box<Error>,
        ctx: &mut Ctx,
        reused: bool,
    ) -> Box<Error> {
        ctx.attempt.broken(error, Repeat::of(session), reused)
    }

    fn suppress_proxy_warn_log(&self, _: &Session, _: &Ctx, _: &Error, _: ProxyWarnLogContext) -> bool {
        true // `attempt` logs and counts each further try.
    }

    async fn upstream_response_filter(&self, _: &mut Session, head: &mut ResponseHeader, ctx: &mut Ctx) -> Result<()> {
        if let Some(trace) = &mut ctx.trace {
            trace.answered.get_or_insert_with(Instant::now);
        }
        ctx.attempt.answered(head)?;
        if let (Some(open), true) = (&mut ctx.open, head.status == 100 || !head.status.is_informational()) {
            open.has_leave();
        }
        forward::end_hop(head);
        Ok(())
    }

    fn upstream_response_body_filter(
        &self,
        _: &mut Session,
        body: &mut Option<Bytes>,
        _: bool,
        ctx: &mut Ctx,
    ) -> Result<Option<Duration>> {
        if let (Some(open), true) = (&ctx.open, body.as_ref().is_some_and(|body| !body.is_empty())) {
            open.is_answered();
        }
        Ok(None)
    }

    async fn response_filter(&self, session: &mut Session, response: &mut ResponseHeader, ctx: &mut Ctx) -> Result<()> {
        responded(session, ctx, response)
    }

    fn response_body_filter(
        &self,
        _: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Ctx,
    ) -> Result<Option<Duration>> {
        bodies::push_response(ctx, body, end).map(|()| None)
    }

    /// Trailers are the end of a body too. What comes back goes out before them.
    async fn response_trailer_filter(
        &self,
        _: &mut Session,
        _: &mut HeaderMap,
        ctx: &mut Ctx,
    ) -> Result<Option<Bytes>> {
        let mut rest = None;
        bodies::push_response(ctx, &mut rest, true).map(|()| rest)
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, ctx: &mut Ctx) -> FailToProxy {
        failed(session, error, ctx).await
    }

    fn suppress_error_log(&self, _: &Session, _: &Ctx, _: &Error) -> bool {
        true // `logging` writes one line with the fault's ID instead.
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, ctx: &mut Ctx) {
        access::ended(&self.listener.name, self.access_log.as_deref(), session, error, ctx);
    }
}

impl Edge {
    async fn request(&self, session: &mut Session, ctx: &mut Ctx) -> Result<bool> {
        ctx.connection = session.digest().and_then(Connection::of).cloned();
        ctx.open = ctx.connection.as_ref().map(|connection| opened(session, connection));
        if session.req_header().version < Version::HTTP_11 {
            session.as_downstream_mut().set_ignore_info_resp(true);
        }
        // A visitor who gives no HTTP/2 window is not waited for either; the guard sees only the socket.
        if session.is_http2() {
            session.set_write_timeout(Some(self.limits.stall_timeout));
        }
        let request = session.req_header_mut();
        let fit = arrival::admit(request, &self.limits).and_then(|()| {
            let held = ctx.open.as_mut().map_or((0, 0), |open| open.hold(limits::header_bytes(request)));
            limits::check_held(held, &self.limits)
        });
        if let Err(too_much) = fit {
            session.set_keepalive(None);
            local::text(session, ctx, too_much.reason(), too_much.status(), format!("{too_much}\n")).await?;
            return Ok(true);
        }
        let named = match target::to_origin_form(session.req_header_mut()) {
            Ok(named) => named,
            Err(error) => {
                session.set_keepalive(None);
                local::text(session, ctx, local::BAD_TARGET, 400, format!("{error}\n")).await?;
                return Ok(true);
            }
        };
        let host = match host::of(session.req_header(), named.as_deref()) {
            Ok(host) => host,
            Err(error) => {
                session.set_keepalive(None);
                local::text(session, ctx, local::BAD_HOST, 400, format!("{error}\n")).await?;
                return Ok(true);
            }
        };
        ctx.host = Some(host.clone());
        match self.listener.protocol {
            Protocol::Http => self.plaintext(session, ctx, &host).await.map(|()| true),
            Protocol::Https => self.secure(session, ctx, &host).await,
        }
    }

    /// Port 80: challenges are answered, the rest is sent to HTTPS.
    async fn plaintext(&self, session: &mut Session, ctx: &mut Ctx, host: &contract::Hostname) -> Result<()> {
        let uri = session.req_header().uri.clone();
        if let Some(token) = challenge::token(uri.path()) {
            return challenge::answer(session, ctx, &self.supply, host, token).await;
        }
        let port = match self.listener.redirect_port {
            443 => String::new(),
            port => format!(":{port}"),
        };
        // The `*` of OPTIONS has no URL but that of the whole server.
        let target = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let target = if target == "*" { "" } else { target };
        let keeps_method = !matches!(session.req_header().method, http::Method::GET | http::Method::HEAD);
        let status = if keeps_method { 308 } else { 301 };
        local::redirect(session, ctx, local::TO_HTTPS, status, &format!("https://{host}{port}{target}")).await
    }

    async fn secure(&self, session: &mut Session, ctx: &mut Ctx, host: &contract::Hostname) -> Result<bool> {
        let sni = ctx.connection.as_ref().and_then(|connection| connection.sni.get());
        if sni != Some(host) {
            // RFC 9110 section 15.5.20: a browser that reused the connection tries again on its own.
            let says = "This connection is for another host; open one for this host.\n";
            local::text(session, ctx, local::MISDIRECTED, 421, says.into()).await?;
            return Ok(true);
        }
        let snapshot = self.current.get();
        ctx.site = snapshot.routes.find(host).cloned();
        ctx.snapshot = Some(snapshot);
        if ctx.site.is_none() {
            local::text(session, ctx, local::NO_SITE, 404, "No site is configured for this host.\n".into()).await?;
            return Ok(true);
        }
        let handshake = ctx.connection.as_ref().and_then(|connection| connection.handshake.get());
        ctx.facts = Some(plugins::facts(host, handshake.map(|handshake| handshake.validity)));
        let decision = plugins::on_request(session, ctx).await?;
        local::decided(session, ctx, decision).await
    }
}

fn opened(session: &mut Session, connection: &Connection) -> OpenRequest {
    let with_body = !session.as_downstream_mut().is_body_empty();
    let headers = &session.req_header().headers;
    let rest = match with_body {
        false => Rest::Nothing,
        true if headers.contains_key(EXPECT) => Rest::BodyWithLeave,
        true => Rest::Body,
    };
    let mut open = OpenRequest::begin(&connection.progress, rest);
    if headers.contains_key(UPGRADE) {
        open.may_switch();
    }
    open
}

fn uploaded(limits: &Limits, body: Option<&Bytes>, end: bool, ctx: &mut Ctx) -> Result<()> {
    ctx.body_bytes += body.map_or(0, |body| body.len() as u64);
    if let Err(too_much) = limits::check_body(ctx.body_bytes, limits) {
        ctx.refused = Some(too_much.reason());
        return Err(Error::explain(ErrorType::HTTPStatus(too_much.status()), too_much.to_string()).into_down());
    }
    if end || body.is_some_and(|body| !body.is_empty()) {
        ctx.attempt.sends_on(end);
        if let Some(open) = &mut ctx.open {
            if end { open.uploaded() } else { open.has_leave() }
        }
    }
    Ok(())
}

fn peer(ctx: &mut Ctx) -> Result<Box<HttpPeer>> {
    // A further try sends the body from its beginning.
    ctx.body_bytes = 0;
    match (&ctx.connection, &ctx.site) {
        (Some(connection), Some(site)) => {
            let mut peer = ctx.attempt.pick(&site.upstream, connection.client.0.ip())?;
            ctx.connection_of_its_own = site.upstream.introduce(&mut peer, connection.client.0, connection.server)?;
            if let (Some(trace), Some(address)) = (&mut ctx.trace, peer._address.as_inet()) {
                trace.try_begins(*address, Instant::now());
            }
            Ok(peer)
        }
        _ => Err(Error::explain(ErrorType::InternalError, "a request without a connection or a site")),
    }
}

fn forwarded(session: &mut Session, ctx: &mut Ctx, upstream: &mut RequestHeader) -> Result<()> {
    ctx.attempt.sends(upstream, !session.as_downstream_mut().is_body_empty());
    match (&ctx.connection, &ctx.host) {
        (Some(connection), Some(host)) => {
            if ctx.site.as_ref().is_some_and(|site| site.upstream.takes_trailers()) {
                forward::keep_trailers(session.req_header(), upstream)?;
            } else if ctx.connection_of_its_own && !upstream.headers.contains_key(UPGRADE) {
                upstream.insert_header(CONNECTION, "close")?;
            }
            forward::rewrite(upstream, connection.client.0.ip(), host, true)?;
        }
        _ => return Err(Error::explain(ErrorType::InternalError, "a request without a connection or a host")),
    }
    bodies::begin_request(ctx, !session.as_downstream_mut().is_body_empty(), upstream)
}

fn responded(session: &mut Session, ctx: &mut Ctx, response: &mut ResponseHeader) -> Result<()> {
    if !plugins::on_response(ctx, session.req_header(), response) {
        return Err(Error::explain(fault::PLUGIN_FAILED, "a plugin that fails closed has failed"));
    }
    bodies::begin_response(ctx, session.req_header(), response)?;
    // Who speaks HTTP/1.0 knows no chunks (RFC 9112 section 6.1): its body ends with the connection.
    if session.req_header().version < Version::HTTP_11 && response.remove_header(&TRANSFER_ENCODING).is_some() {
        session.set_keepalive(None);
    }
    Ok(())
}

async fn failed(session: &mut Session, error: &Error, ctx: &mut Ctx) -> FailToProxy {
    let verdict = fault::verdict(error);
    // After an interim answer the final one is still due.
    let due = session.response_written().is_none_or(|head| head.status.is_informational() && head.status != 101);
    if verdict.status > 0 && due {
        let page = fault::page(ctx, verdict.culprit, verdict.says);
        session.set_keepalive(None);
        let reason = ctx.refused.unwrap_or(verdict.reason);
        if let Err(error) = local::text(session, ctx, reason, verdict.status, page).await {
            tracing::debug!(%error, "the visitor left before the error page");
        }
    }
    FailToProxy { error_code: verdict.status, can_reuse_downstream: false }
}
