//! One request's way to its upstream: the peers that were tried, and whether another try is safe.
//!
//! Safe is, for any method, a connection that never came about: nothing was sent. Safe is also, for an idempotent
//! method (RFC 9110 section 9.2.2), a connection that broke before a single byte of an answer; and for any method again, a
//! request that the peer says it has not begun with (RFC 9113 sections 6.8 and 8.7). Either once, so that a request which
//! kills servers does not kill them all.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::RawFd;
use std::sync::Arc;

use http::StatusCode;
use http::header::{EXPECT, UPGRADE};
use http::response::Parts;
use pingora::http::RequestHeader;
use pingora::proxy::Session;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorSource, ErrorType, Result, RetryType};

use super::awaited::Awaited;
use super::peer::Held;
use super::room::Place;
use super::settings::Origin;
use super::{NoPeer, Upstream, answer};

/// Every peer was taken out by active checks.
pub const NO_HEALTHY_PEER: ErrorType = ErrorType::Custom("NoHealthyPeer");
/// The visitor paused for longer than a connection to the upstream may be silent.
pub const PAUSED: ErrorType = ErrorType::Custom("Paused");
/// As many requests are open as the upstream may have.
pub const SATURATED: ErrorType = ErrorType::Custom("Saturated");

#[derive(Default)]
pub struct Attempt {
    now: Option<(Arc<Upstream>, Held)>,
    /// Among the open requests of the upstream.
    place: Option<Place>,
    /// The head of an answer, from a connection of its own.
    awaited: Option<Awaited>,
    tried: Vec<SocketAddr>,
    retries: u32,
    /// A request that may have reached a peer was sent again.
    resent: bool,
    /// The head of an answer, be it an interim one, has come.
    answered: bool,
    /// The peer has been sent all of the request, but for what a further try sends again.
    uploaded: bool,
    /// The request waits for the peer's leave to go on, or for another protocol.
    asks: bool,
    /// The request asks for another protocol.
    upgrade: bool,
    /// It has got it: bytes of neither side are HTTP any more.
    switched: bool,
    /// Interim answers so far.
    interim: u32,
}

impl Attempt {
    /// The peer for the first try or the next.
    pub fn pick(&mut self, upstream: &Arc<Upstream>, client: IpAddr) -> Result<Box<HttpPeer>> {
        // Not counted as open while the next one is chosen.
        self.now = None;
        if self.tried.is_empty() {
            self.place = upstream.room.enter().map_err(|most| {
                upstream.counters().saturated.inc();
                let says = format!("{most} requests are open, as many as requests_max of `{}` allows", upstream.name);
                Error::explain(SATURATED, says).into_up()
            })?;
        }
        let peer = upstream.pick(client, &self.tried).map_err(|why| match why {
            NoPeer::Unresolved => Error::explain(ErrorType::ConnectNoRoute, "the upstream's name has not resolved yet"),
            NoPeer::NoneUp => Error::explain(NO_HEALTHY_PEER, "every peer of the upstream fails its health check"),
        });
        let peer = peer.map_err(|error| error.into_up())?;
        let template = Box::new(peer.template.clone());
        self.now = Some((upstream.clone(), Held::new(peer)));
        Ok(template)
    }

    /// Where the try goes.
    pub(super) fn origin<'a>(&self, upstream: &'a Upstream) -> Option<&'a Origin> {
        self.now.as_ref().and_then(|(_, held)| upstream.origins.get(held.0.origin))
    }

    /// The try has a connection: the head of an answer will be waited for.
    pub fn connected(&mut self, socket: RawFd) {
        let Some((upstream, held)) = self.now.as_ref().filter(|(upstream, _)| !upstream.speaks_h2()) else { return };
        self.awaited = Some(Awaited::begin(socket, held.0.address, upstream.settings.answer_timeout_ms()));
    }

    /// What is being sent.
    pub fn sends(&mut self, request: &RequestHeader, with_body: bool) {
        self.upgrade = request.headers.contains_key(UPGRADE);
        self.asks = self.upgrade || request.headers.contains_key(EXPECT);
        self.uploaded |= !with_body;
        self.await_answer();
    }

    /// More of the request's body has come; it may be the last of it.
    pub fn sends_on(&mut self, end: bool) {
        self.asks = false;
        self.uploaded |= end;
        self.await_answer();
    }

    /// A visitor who pauses takes nothing of the peer's time.
    fn await_answer(&self) {
        match &self.awaited {
            Some(awaited) if self.awaits_visitor() => awaited.disarm(),
            Some(awaited) => awaited.arm(),
            None => {}
        }
    }

    fn awaits_visitor(&self) -> bool {
        !self.uploaded && !self.asks
    }

    /// The head of an answer came; an error if it can't be passed on.
    pub fn answered(&mut self, head: &Parts) -> Result<()> {
        self.answered = true;
        self.interim += u32::from(head.status.is_informational());
        answer::check(head, self.interim, self.upgrade)
            .map_err(|nonsense| Error::explain(ErrorType::InvalidHTTPHeader, nonsense.to_string()).into_up())?;
        self.switched = head.status == StatusCode::SWITCHING_PROTOCOLS;
        if self.switched || !head.status.is_informational() {
            self.awaited = None;
        }
        if head.status == StatusCode::CONTINUE {
            // It has given leave, and waits for the visitor.
            self.asks = false;
            self.await_answer();
        }
        match (head.status.as_u16(), &self.now) {
            (500.., Some(_)) => self.blame(),
            (200.., Some((_, held))) => held.0.request_served(),
            _ => {}
        }
        Ok(())
    }

    /// Whether what follows is no HTTP: a WebSocket.
    pub fn switched(&self) -> bool {
        self.switched
    }

    /// No connection came about: nothing of this request was sent to the peer.
    pub fn not_connected(&mut self, mut error: Box<Error>) -> Box<Error> {
        error.set_retry(false);
        // No socket could be made: what lacks descriptors or ports is this host.
        if *error.etype() == ErrorType::InternalError {
            return error.into_in();
        }
        self.blame();
        let Some(upstream) = self.give_up_peer() else { return error };
        let again = self.retries < upstream.settings.retries && upstream.another(&self.tried);
        if again {
            self.retries += 1;
            upstream.counters().retried_connect.inc();
            tracing::info!(upstream = upstream.name, %error, "the next peer is tried");
        }
        error.set_retry(again);
        error
    }

    /// The connection was there, and something failed on it.
    pub fn broken(&mut self, mut error: Box<Error>, repeat: Repeat, reused: bool) -> Box<Error> {
        let untouched = !self.answered && was_not_begun(&error);
        error.set_retry(false);
        if let Some(awaited) = self.awaited.take().filter(Awaited::is_late) {
            let says = format!("no whole head of an answer within {} ms", awaited.timeout_ms());
            error = Error::explain(ErrorType::ReadTimedout, says).into_up();
        }
        if *error.esource() != ErrorSource::Upstream {
            return error;
        }
        // A tunnel ends when either side is gone, or silent for too long: that is no failure.
        if self.switched {
            return error;
        }
        if self.awaits_visitor() && *error.etype() == ErrorType::ReadTimedout {
            let says = "the visitor sent no more of the request's body, and the upstream's read_timeout_ms is over";
            return Error::explain(PAUSED, says).into_down();
        }
        let unanswered = !self.answered && nothing_was_read(&error);
        if let Some((_, held)) = &self.now {
            error = error.more_context(format!("peer {}", held.0.address));
        }
        // That a peer closes an idle connection is not its failure.
        if !(untouched || (reused && unanswered)) {
            self.blame();
        }
        let Some(upstream) = self.give_up_peer() else { return error };
        let elsewhere = reused || upstream.another(&self.tried);
        let safe = match repeat {
            Repeat::Never => false,
            Repeat::IfNotBegun => untouched,
            Repeat::Yes => untouched || (unanswered && elsewhere),
        };
        let again = safe && !self.resent && self.retries < upstream.settings.retries;
        if again {
            self.retries += 1;
            self.resent = true;
            let counters = upstream.counters();
            if untouched { &counters.retried_refused } else { &counters.retried_broken }.inc();
            tracing::info!(upstream = upstream.name, %error, "the request is sent again");
        }
        error.set_retry(again);
        error
    }

    /// The peer has failed a request.
    fn blame(&self) {
        let Some((upstream, held)) = &self.now else { return };
        if let Some(rest) = held.0.request_failed() {
            let (name, address, seconds) = (&upstream.name, held.0.address, rest.as_secs());
            tracing::warn!(upstream = name, %address, seconds, "requests fail at this peer; it rests where others are left");
        }
    }

    fn give_up_peer(&mut self) -> Option<Arc<Upstream>> {
        let (upstream, held) = self.now.take()?;
        self.tried.push(held.0.address);
        Some(upstream)
    }
}

/// When sending a request twice does no harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// Pingora has not all of it any more.
    Never,
    /// Only where the peer has not begun with it.
    IfNotBegun,
    Yes,
}

impl Repeat {
    pub fn of(session: &Session) -> Self {
        match (session.as_ref().retry_buffer_truncated(), session.req_header().method.is_idempotent()) {
            (true, _) => Self::Never,
            (false, false) => Self::IfNotBegun,
            (false, true) => Self::Yes,
        }
    }
}

/// Whether an HTTP/2 peer said that it has not begun with the request: a stream refused, or one beyond the last of a
/// connection that it ends. Pingora decides to try again for two more reasons, which say nothing of what was done.
fn was_not_begun(error: &Error) -> bool {
    let other = matches!(error.etype(), ErrorType::H2Downgrade | ErrorType::InvalidH2);
    *error.esource() == ErrorSource::Upstream && !other && matches!(error.retry, RetryType::Decided(true))
}

/// Whether the request's head could not be written, or the connection ended before the first byte of an answer.
/// Pingora says it only in words; words that are not these mean no.
fn nothing_was_read(error: &Error) -> bool {
    let context = error.context.as_ref().map_or("", |context| context.as_str());
    match error.etype() {
        ErrorType::ReadError | ErrorType::ConnectionClosed => context.ends_with("bytes already read: 0"),
        ErrorType::WriteError => ["while writing request headers", "flushing request header"].contains(&context),
        _ => false,
    }
}

#[cfg(test)]
#[path = "attempt_tests.rs"]
mod tests;
