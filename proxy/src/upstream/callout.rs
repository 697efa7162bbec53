//! Questions of plugins to an upstream: sent as visitors' requests are, to the same servers under the same settings, on
//! connections of the same pool; on this edge's own behalf, without a word of the visitor.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST};
use http::response::Parts;
use pingora::connectors::http::Connector;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::client::HttpSession;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};
use tokio::time::timeout;

use super::Upstream;
use super::attempt::{Attempt, NO_HEALTHY_PEER, Repeat, SATURATED};
use crate::wasm::{Asking, CALLOUT_BODY_BYTES_MAX, Callee, CalloutReply, CalloutRequest, Header, NoReply};

/// Says of a request that a plugin of an edge sent it (RFC 8586): such a one leads to no further callout.
pub const LOOP_FIELD: &str = "cdn-loop";
pub const LOOP_WORD: &str = "latchkey";

const TOO_LARGE: ErrorType = ErrorType::Custom("TooLarge");
/// Where the visitor is not known.
const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

thread_local! {
    /// A worker's own, as the connections of visitors' requests are: nothing is woken across threads. On threads that never ask
    /// there is none.
    static CONNECTOR: Arc<Connector> = Arc::new(Connector::new(None));
}

impl Callee for Upstream {
    fn ask(self: Arc<Self>, request: CalloutRequest, within: Duration) -> Asking {
        Box::pin(async move {
            let asked = timeout(within, Box::pin(carry(&self, &request))).await;
            let reply = asked.unwrap_or_else(|_| Err(Error::new(ErrorType::ReadTimedout)));
            reply.map_err(|error| {
                let why = why(&error);
                tracing::debug!(upstream = self.name, %error, ?why, "a callout has failed");
                why
            })
        })
    }
}

fn why(error: &Error) -> NoReply {
    use ErrorType::{
        ConnectError, ConnectNoRoute, ConnectProxyFailure, ConnectRefused, ConnectTimedout, InvalidCert, ReadTimedout,
        TLSHandshakeFailure, TLSHandshakeTimedout, WriteTimedout,
    };
    match error.etype() {
        kind if [NO_HEALTHY_PEER, SATURATED].contains(kind) => NoReply::Unreachable,
        kind if *kind == TOO_LARGE => NoReply::TooLarge,
        ConnectError | ConnectNoRoute | ConnectProxyFailure | ConnectRefused => NoReply::Unreachable,
        InvalidCert | TLSHandshakeFailure => NoReply::Unreachable,
        ConnectTimedout | ReadTimedout | WriteTimedout | TLSHandshakeTimedout => NoReply::TimedOut,
        _ => NoReply::Broken,
    }
}

/// By as many tries as a visitor's request may have.
async fn carry(upstream: &Arc<Upstream>, request: &CalloutRequest) -> Result<CalloutReply> {
    let connector = CONNECTOR.with(Arc::clone);
    let mut attempt = Attempt::default();
    let method = http::Method::from_bytes(request.method.as_bytes());
    let repeat = match method.as_ref().is_ok_and(http::Method::is_idempotent) {
        true => Repeat::Yes,
        false => Repeat::IfNotBegun,
    };
    loop {
        let mut peer = attempt.pick(upstream, request.client.unwrap_or(NOBODY))?;
        // Not on behalf of a visitor.
        let of_its_own = upstream.introduce_as(&mut peer, None)?;
        let (mut session, reused) = match connector.get_http_session(&*peer).await {
            Ok(found) => found,
            Err(error) => {
                let error = attempt.not_connected(error);
                if error.retry() { continue } else { return Err(error) }
            }
        };
        let error = match exchange(upstream, &peer, of_its_own, &mut attempt, &mut session, request).await {
            Ok(reply) => {
                connector.release_http_session(session, &*peer, peer.options.idle_timeout).await;
                return Ok(reply);
            }
            Err(error) => error.into_up(),
        };
        session.shutdown().await;
        // More than a plugin is told is no failure of the peer.
        if *error.etype() == TOO_LARGE {
            return Err(error);
        }
        let error = attempt.broken(error, repeat, reused);
        if !error.retry() {
            return Err(error);
        }
    }
}

async fn exchange(
    upstream: &Upstream,
    peer: &HttpPeer,
    of_its_own: bool,
    attempt: &mut Attempt,
    session: &mut HttpSession,
    request: &CalloutRequest,
) -> Result<CalloutReply> {
    session.set_read_timeout(peer.options.read_timeout);
    session.set_write_timeout(peer.options.write_timeout);
    let head = head(upstream, attempt, of_its_own, request)?;
    attempt.sends(&head, false);
    session.write_request_header(Box::new(head)).await?;
    if !request.body.is_empty() {
        session.write_request_body(Bytes::copy_from_slice(&request.body), true).await?;
    }
    session.finish_request_body().await?;
    let most = Duration::from_millis(upstream.settings.answer_timeout_ms());
    let late = || Error::explain(ErrorType::ReadTimedout, "no whole head of an answer within answer_timeout_ms");
    timeout(most, final_head(attempt, session)).await.unwrap_or_else(|_| Err(late()))?;
    let Some(head) = session.response_header() else { return Err(no_head()) };
    let (status, headers) = (head.status.as_u16(), fields(head));
    Ok(CalloutReply { status, headers, body: body(session).await? })
}

/// What a visitor's request has from the edge, this has too; nothing else but what the plugin says.
fn head(upstream: &Upstream, attempt: &Attempt, of_its_own: bool, request: &CalloutRequest) -> Result<RequestHeader> {
    let mut head =
        RequestHeader::build(request.method.as_str(), request.path.as_bytes(), Some(request.headers.len() + 4))?;
    let authority = attempt.origin(upstream).ok_or_else(|| Error::new(ErrorType::InternalError))?.authority();
    head.insert_header(HOST, authority)?;
    for Header { name, value } in &request.headers {
        head.append_header(name.clone(), value.clone())?;
    }
    head.insert_header(LOOP_FIELD, LOOP_WORD)?;
    if !request.body.is_empty() {
        head.insert_header(CONTENT_LENGTH, request.body.len())?;
    }
    if of_its_own && !upstream.speaks_h2() {
        head.insert_header(http::header::CONNECTION, "close")?;
    }
    Ok(head)
}

fn no_head() -> Box<Error> {
    Error::explain(ErrorType::ReadError, "no head of an answer")
}

async fn final_head(attempt: &mut Attempt, session: &mut HttpSession) -> Result<()> {
    loop {
        session.read_response_header().await?;
        let head: &Parts = session.response_header().ok_or_else(no_head)?;
        attempt.answered(head)?;
        if !head.status.is_informational() || head.status.as_u16() == 101 {
            return Ok(());
        }
    }
}

fn fields(head: &ResponseHeader) -> Vec<Header> {
    let field = |(name, value): (&http::HeaderName, &http::HeaderValue)| Header {
        name: name.as_str().to_owned(),
        value: value.as_bytes().to_vec(),
    };
    head.headers.iter().map(field).collect()
}

async fn body(session: &mut HttpSession) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(piece) = session.read_response_body().await? {
        if body.len() + piece.len() > CALLOUT_BODY_BYTES_MAX {
            let says = format!("the answer to a callout is over {CALLOUT_BODY_BYTES_MAX} bytes");
            return Err(Error::explain(TOO_LARGE, says));
        }
        body.extend_from_slice(&piece);
    }
    Ok(body)
}
