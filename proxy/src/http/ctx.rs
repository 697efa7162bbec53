//! What is known of a request, phase by phase.

use std::sync::Arc;
use std::time::Instant;

use contract::Hostname;

use super::route::Site;
use crate::connection::Connection;
use crate::control::Snapshot;
use crate::guard::OpenRequest;
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
    pub facts: Option<RequestFacts>,
    /// Why the edge answered itself, if it did.
    /// Ends with the request.
    pub open: Option<OpenRequest>,
    pub body_bytes: u64,
    pub local: Option<&'static str>,
    /// Names one failed request in the page and in the log.
    pub fault_id: Option<String>,
}

impl Ctx {
    pub fn new() -> Self {
        Self {
            started: Instant::now(),
            connection: None,
            snapshot: None,
            host: None,
            site: None,
            attempt: Attempt::default(),
            facts: None,
            open: None,
            body_bytes: 0,
            local: None,
            fault_id: None,
        }
    }
}
