//! What is known of a request, phase by phase.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use contract::Hostname;

use super::arrival::Lines;
use super::bodies::Chain;
use super::fault::Culprit;
use super::route::Site;
use crate::connection::Connection;
use crate::control::Snapshot;
use crate::guard::{OpenRequest, fault_id};
use crate::upstream::Attempt;
use crate::wasm::RequestFacts;

pub struct Ctx {
    pub started: Instant,
    pub connection: Option<Arc<Connection>>,
    /// The configuration that all phases of this request use.
    pub snapshot: Option<Arc<Snapshot>>,
    pub host: Option<Hostname>,
    pub site: Option<Arc<Site>>,
    pub attempt: Attempt,
    /// The upstream was told who the client is: no other request may use the connection.
    pub connection_of_its_own: bool,
    pub facts: Option<RequestFacts>,
    /// Of the request as plugins see it.
    pub lines: Lines,
    /// Ends with the request.
    pub open: Option<OpenRequest>,
    pub body_bytes: u64,
    /// What a body passes through on its way.
    pub request_body: Option<Box<Chain>>,
    pub response_body: Option<Box<Chain>>,
    /// Why the edge answered itself, if it did.
    pub local: Option<&'static str>,
    /// Which limit a body went over that did not announce it.
    pub refused: Option<&'static str>,
    /// Names the request in the page of a fault and in the logs.
    id: Option<u64>,
    /// Whose fault it is that the request failed.
    pub culprit: Option<Culprit>,
    /// Where there is an access log.
    pub trace: Option<Box<Trace>>,
}

/// Of a plugin: both hooks together.
#[derive(Clone, Copy)]
pub struct Told {
    /// Without what it waited for other servers.
    pub took: Duration,
    pub waited: Duration,
    pub verdict: &'static str,
}

impl Default for Told {
    fn default() -> Self {
        Self { took: Duration::ZERO, waited: Duration::ZERO, verdict: "next" }
    }
}

/// What only the access log asks for.
#[derive(Default)]
pub struct Trace {
    /// Of the site's plugins, in their order.
    pub plugins: Vec<Told>,
    pub upstream_address: Option<SocketAddr>,
    pub tries: u32,
    pub reused: bool,
    /// When the last try began, when it was connected, and when the head of an answer came.
    pub tried: Option<Instant>,
    pub connected: Option<Instant>,
    pub answered: Option<Instant>,
}

impl Trace {
    pub fn try_begins(&mut self, address: SocketAddr, now: Instant) {
        let plugins = std::mem::take(&mut self.plugins);
        *self = Self {
            plugins,
            upstream_address: Some(address),
            tries: self.tries + 1,
            tried: Some(now),
            ..Self::default()
        };
    }

    pub fn connect(&self) -> Option<Duration> {
        Some(self.connected?.saturating_duration_since(self.tried?))
    }

    pub fn first_byte(&self) -> Option<Duration> {
        Some(self.answered?.saturating_duration_since(self.connected?))
    }
}

impl Ctx {
    pub fn new(traced: bool) -> Self {
        Self {
            started: Instant::now(),
            connection: None,
            snapshot: None,
            host: None,
            site: None,
            attempt: Attempt::default(),
            connection_of_its_own: false,
            facts: None,
            lines: Lines::default(),
            open: None,
            body_bytes: 0,
            request_body: None,
            response_body: None,
            local: None,
            refused: None,
            id: None,
            culprit: None,
            trace: traced.then(Box::default),
        }
    }

    pub fn id(&mut self) -> u64 {
        *self.id.get_or_insert_with(fault_id)
    }
}
