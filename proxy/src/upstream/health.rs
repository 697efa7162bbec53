//! Active checks: a GET to each peer, at an interval, on a connection of its own, as visitors' requests are sent.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use futures_util::future::join_all;
use pingora::connectors::http::Connector;
use pingora::http::RequestHeader;
use pingora::{Error, ErrorType, Result};
use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::Upstream;
use super::peer::Peer;
use super::settings::HealthSettings;

/// Of all upstreams together.
const CHECKS_AT_ONCE_MAX: usize = 64;

/// One for all: each holds the system's roots in memory.
static CONNECTOR: LazyLock<Connector> = LazyLock::new(|| Connector::new(None));
static PERMITS: Semaphore = Semaphore::const_new(CHECKS_AT_ONCE_MAX);

impl Upstream {
    /// Begins to check its peers, where the configuration says so. Called once it is in force.
    pub fn watch(self: &Arc<Self>) {
        if let Some(health) = self.settings.health.clone() {
            self.checking.get_or_init(|| tokio::spawn(check_for_ever(self.clone(), health)).abort_handle());
        }
    }

    /// Ends the checks: it is no longer in force.
    pub fn retire(&self) {
        if let Some(task) = self.checking.get() {
            task.abort();
        }
    }
}

async fn check_for_ever(upstream: Arc<Upstream>, health: HealthSettings) {
    let mut turn = interval(Duration::from_secs(health.interval_seconds));
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turn.tick().await;
        let Some(peers) = upstream.peers.load_full() else { continue };
        join_all(peers.list.iter().map(|peer| check(&upstream, peer, &health))).await;
    }
}

async fn check(upstream: &Upstream, peer: &Peer, health: &HealthSettings) {
    let Ok(_permit) = PERMITS.acquire().await else { return };
    let at_most = Duration::from_secs(health.timeout_seconds);
    let answer = timeout(at_most, ask(upstream, peer, &health.path)).await;
    let failure = match answer {
        Ok(Ok(200..=299)) => None,
        Ok(Ok(status)) => Some(format!("answered {status}, not 2xx")),
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some(format!("no answer within {} s", at_most.as_secs())),
    };
    let (name, address) = (&upstream.name, peer.address);
    match (peer.checked(failure.is_none(), health.fails, health.passes), failure) {
        (Some(true), _) => tracing::info!(upstream = name, %address, "the peer passes its health check again"),
        (Some(false), Some(why)) => tracing::warn!(upstream = name, %address, why, "the peer fails its health check"),
        _ => {}
    }
}

/// The status of the answer.
async fn ask(upstream: &Upstream, peer: &Peer, path: &str) -> Result<u16> {
    let mut request = RequestHeader::build("GET", path.as_bytes(), Some(3))?;
    let origin = upstream.origins.get(peer.origin).ok_or_else(|| Error::new(ErrorType::InternalError))?;
    request.insert_header("host", origin.authority())?;
    request.insert_header("user-agent", concat!("latchkey-proxy/", env!("CARGO_PKG_VERSION"), " (health check)"))?;
    let mut template = peer.template.clone();
    if upstream.speaks_h2() {
        // No room for a second request: the connector does not keep the connection, which ends with the session.
        template.options.max_h2_streams = 1;
    } else {
        // Over HTTP/2 it would be a malformed request (RFC 9113 section 8.2.2).
        request.insert_header("connection", "close")?;
    }
    upstream.introduce_as(&mut template, None)?;
    let (mut session, _) = CONNECTOR.get_http_session(&template).await?;
    session.write_request_header(Box::new(request)).await?;
    session.finish_request_body().await?;
    loop {
        session.read_response_header().await?;
        match session.response_header().map(|response| response.status) {
            // 101 would not be followed by another.
            Some(status) if status.is_informational() && status.as_u16() != 101 => {}
            Some(status) => return Ok(status.as_u16()),
            None => return Err(Error::explain(ErrorType::ReadError, "no head of an answer")),
        }
    }
}
