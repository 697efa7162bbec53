//! What becomes of a request that has ended: it is counted, told to the access log, and to the log if it failed.

use std::time::Duration;

use http::header::HOST;
use pingora::proxy::Session;
use pingora::{Error, ErrorSource, ErrorType};

use super::ctx::{Ctx, Told, Trace};
use super::fault::{self, Culprit};
use super::local;
use crate::connection::Connection;
use crate::guard::{Flaw, Refusal};
use crate::observe::access::{Fault, PluginCall, Record, Tls, Upstream, since_1970};
use crate::observe::{AccessLog, METRICS, TOP};

pub(super) fn ended(listener: &str, log: Option<&AccessLog>, session: &Session, error: Option<&Error>, ctx: &mut Ctx) {
    let status = session.response_written().map_or(0, |response| response.status.as_u16());
    METRICS.responses.with_label_values(&[class(status)]).inc();
    METRICS.request_seconds.observe(ctx.started.elapsed().as_secs_f64());
    let error = error.filter(|_| !ctx.attempt.switched());
    let culprit = ctx.culprit.or_else(|| error.map(|error| fault::verdict(error).culprit));
    let failed = status >= 500 || culprit.is_some_and(|culprit| culprit != Culprit::Visitor);
    if ctx.site.is_some()
        && let Some(host) = &ctx.host
    {
        let bytes = session.body_bytes_read() + session.body_bytes_sent();
        TOP.request(host.as_str(), bytes as u64, failed);
    }
    if error.is_some_and(not_reading) {
        METRICS.guard_closed.with_label_values(&["not_reading"]).inc();
    }
    let says = error.map_or_else(String::new, said);
    if let Some(culprit) = culprit {
        tell(listener, session, ctx, status, culprit, &says);
    }
    if let (Some(log), Some(trace)) = (log, ctx.trace.take())
        && log.takes(culprit.is_some() || status >= 500)
    {
        let fault = culprit.map(|culprit| Fault { culprit: culprit.name(), error: &says });
        write(listener, log, session, ctx, &trace, status, fault);
    }
}

/// A request that never began: the HTTP library refused it by itself. Of what came, nothing is certain.
pub(super) fn refused(listener: &str, log: Option<&AccessLog>, connection: &Connection, refusal: Refusal) {
    let (status, says) = (refusal.status(), refusal.why.to_string());
    METRICS.responses.with_label_values(&[class(status)]).inc();
    // Counted as if our own code had seen it.
    let answer = match refusal.why {
        Flaw::Hosts(_) => local::BAD_HOST,
        Flaw::NotHttp | Flaw::Connect => local::BAD_REQUEST,
    };
    METRICS.local_answers.with_label_values(&[answer]).inc();
    let (fault, client) = (format!("{:016x}", refusal.id), connection.client.0.ip());
    tracing::debug!(listener, status, %client, fault, culprit = Culprit::Visitor.name(), error = says, "request refused");
    if let Some(log) = log {
        log.append(&Record {
            at: since_1970(),
            id: refusal.id,
            listener,
            client: Some(connection.client.0),
            peer: Some(connection.peer.0),
            introduction: connection.introduction.as_deref(),
            tls: handshake(connection),
            status,
            answer,
            fault: Some(Fault { culprit: Culprit::Visitor.name(), error: &says }),
            ..Record::default()
        });
    }
}

fn class(status: u16) -> &'static str {
    match status / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        5 => "5xx",
        _ => "none",
    }
}

/// Over HTTP/2 the visitor gave no window: the guard, which sees the socket only, could not tell.
fn not_reading(error: &Error) -> bool {
    *error.etype() == ErrorType::WriteTimedout && *error.esource() == ErrorSource::Downstream
}

/// What failed, without the bytes that it failed on: a part of a header or a body may be in the HTTP library's words.
fn said(error: &Error) -> String {
    let quotes = |text: &str| ["buf", "header:"].iter().any(|mark| text.contains(mark));
    let mut says = format!("{:?}", error.etype());
    let mut error = Some(error);
    while let Some(one) = error {
        let context = one.context.as_ref().map(|context| context.as_str().to_owned());
        error = one.cause.as_ref().and_then(|cause| cause.downcast_ref::<Box<Error>>()).map(|cause| &**cause);
        let cause = one.cause.as_ref().filter(|_| error.is_none()).map(|cause| cause.to_string());
        for part in [context, cause].into_iter().flatten().filter(|part| !quotes(part) && !part.is_empty()) {
            says.push_str(": ");
            says.push_str(&part);
        }
    }
    says
}

/// For the operator. That a visitor broke off is no news: only the access log has it.
fn tell(listener: &str, session: &Session, ctx: &mut Ctx, status: u16, culprit: Culprit, error: &str) {
    let id = format!("{:016x}", ctx.id());
    let request = session.req_header();
    let (method, path, culprit_name) = (&request.method, request.uri.path(), culprit.name());
    let host = ctx.host.as_ref().map_or("", |host| host.as_str());
    let client = ctx.connection.as_ref().map(|connection| tracing::field::display(connection.client.0.ip()));
    if culprit == Culprit::Visitor {
        tracing::debug!(listener, %method, host, path, status, client, fault = id, culprit = culprit_name, error, "request failed");
    } else {
        tracing::warn!(listener, %method, host, path, status, client, fault = id, culprit = culprit_name, error, "request failed");
    }
}

fn write(
    listener: &str,
    log: &AccessLog,
    session: &Session,
    ctx: &mut Ctx,
    trace: &Trace,
    status: u16,
    fault: Option<Fault<'_>>,
) {
    let id = ctx.id();
    let (request, connection) = (session.req_header(), ctx.connection.as_deref());
    let plugins = plugin_calls(ctx, trace);
    let duration = ctx.started.elapsed();
    let host_sent = || request.headers.get(HOST).map(|value| value.as_bytes());
    log.append(&Record {
        at: since_1970().saturating_sub(duration),
        id,
        listener,
        client: connection.map(|connection| connection.client.0),
        peer: connection.map(|connection| connection.peer.0),
        introduction: connection.and_then(|connection| connection.introduction.as_deref()),
        tls: connection.and_then(handshake),
        host: ctx.host.as_ref().map(|host| host.as_str()),
        host_sent: if ctx.host.is_none() { host_sent() } else { None },
        method: request.method.as_str(),
        path: request.uri.path(),
        query: request.uri.query().filter(|_| log.query),
        http: version(request.version),
        status,
        body_bytes_in: session.body_bytes_read() as u64,
        body_bytes_out: session.body_bytes_sent() as u64,
        duration,
        answer: ctx.local.unwrap_or("upstream"),
        plugins: &plugins,
        upstream: upstream(ctx, trace),
        fault,
        revision: ctx.snapshot.as_ref().map_or(0, |snapshot| snapshot.revision),
    });
}

fn handshake(connection: &Connection) -> Option<Tls<'_>> {
    let handshake = connection.handshake.get()?;
    Some(Tls {
        sni: connection.sni.get().map(|sni| sni.as_str()),
        version: handshake.version,
        cipher: handshake.cipher,
        group: handshake.group,
        resumed: handshake.resumed,
        tier: handshake.tier,
    })
}

fn version(version: http::Version) -> &'static str {
    match version {
        http::Version::HTTP_2 => "2",
        http::Version::HTTP_11 => "1.1",
        http::Version::HTTP_10 => "1.0",
        _ => "other",
    }
}

fn plugin_calls<'a>(ctx: &'a Ctx, trace: &Trace) -> Vec<PluginCall<'a>> {
    let plugins = ctx.site.iter().flat_map(|site| &site.plugins);
    let called = plugins.zip(&trace.plugins).filter(|(_, told)| told.took > Duration::ZERO);
    let micros = |time: Duration| u64::try_from(time.as_nanos().div_ceil(1000)).unwrap_or(u64::MAX);
    let call = |(attached, told): (&'a super::Attached, &Told)| PluginCall {
        name: &attached.plugin,
        micros: micros(told.took),
        waited_micros: micros(told.waited),
        verdict: told.verdict,
    };
    called.map(call).collect()
}

fn upstream<'a>(ctx: &'a Ctx, trace: &Trace) -> Option<Upstream<'a>> {
    let site = ctx.site.as_ref().filter(|_| trace.tries > 0)?;
    Some(Upstream {
        name: &site.upstream.name,
        address: trace.upstream_address,
        tries: trace.tries,
        reused: trace.reused,
        connect: trace.connect(),
        first_byte: trace.first_byte(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_without_what_was_being_read() {
        let why = std::io::Error::other("invalid HTTP version");
        let error = Error::because(ErrorType::InvalidHTTPHeader, "buf: set-cookie: secret", why);
        assert_eq!(
            said(&error.more_context("peer 192.0.2.1:80")),
            "InvalidHTTPHeader: peer 192.0.2.1:80: invalid HTTP version"
        );
        let error = Error::explain(ErrorType::ConnectionClosed, "bytes already read: 0");
        assert_eq!(said(&error), "ConnectionClosed: bytes already read: 0");
        for context in ["buf: secret", "no end in sight, buf: secret", "invalid header: secret"] {
            assert_eq!(said(&Error::explain(ErrorType::InvalidHTTPHeader, context)), "InvalidHTTPHeader");
        }
    }
}
