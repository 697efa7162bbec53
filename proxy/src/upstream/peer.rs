//! One address of an upstream, and what is known of its health.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use pingora::upstreams::peer::HttpPeer;

/// Failed requests in a row that make a peer rest.
const FAILURES_MAX: u32 = 5;
const FIRST_REST: Duration = Duration::from_secs(10);
/// Each further rest is twice as long, up to FIRST_REST × 2^REST_DOUBLINGS_MAX.
const REST_DOUBLINGS_MAX: u32 = 4;

pub(super) struct Peer {
    pub(super) address: SocketAddr,
    /// Which of the upstream's origins resolved to it.
    pub(super) origin: usize,
    pub(super) weight: u32,
    /// What Pingora is told; cloned for each request.
    pub(super) template: HttpPeer,
    /// Requests that it is serving.
    open: AtomicUsize,
    checks: Checks,
    requests: Requests,
}

/// What active checks say. Written by one task.
struct Checks {
    up: AtomicBool,
    /// Results in a row that say otherwise than `up`.
    against: AtomicU32,
}

/// What visitors' requests say.
#[derive(Default)]
struct Requests {
    failures: AtomicU32,
    rests: AtomicU32,
    resting_until: AtomicU64,
}

impl Peer {
    pub(super) fn new(address: SocketAddr, origin: usize, weight: u32, template: HttpPeer) -> Self {
        let checks = Checks { up: AtomicBool::new(true), against: AtomicU32::new(0) };
        Self { address, origin, weight, template, open: AtomicUsize::new(0), checks, requests: Requests::default() }
    }

    /// Not taken out by active checks.
    pub(super) fn is_up(&self) -> bool {
        self.checks.up.load(Relaxed)
    }

    /// Left alone for a while, because requests failed.
    pub(super) fn rests(&self) -> bool {
        // The clock is asked only of peers that failed.
        let until = self.requests.resting_until.load(Relaxed);
        until > 0 && until > now_ms()
    }

    pub(super) fn open(&self) -> usize {
        self.open.load(Relaxed)
    }

    /// The result of an active check; the new state if it changes with this one.
    pub(super) fn checked(&self, passed: bool, fails: u32, passes: u32) -> Option<bool> {
        let Checks { up, against } = &self.checks;
        if passed == up.load(Relaxed) {
            against.store(0, Relaxed);
            return None;
        }
        let needed = if passed { passes } else { fails };
        if against.fetch_add(1, Relaxed) + 1 < needed {
            return None;
        }
        against.store(0, Relaxed);
        up.store(passed, Relaxed);
        Some(passed)
    }

    /// An answer other than 5xx.
    pub(super) fn request_served(&self) {
        let Requests { failures, rests, resting_until } = &self.requests;
        // Nearly always there is nothing to forget: a load keeps the cache line shared between the threads.
        if failures.load(Relaxed) > 0 {
            failures.store(0, Relaxed);
            rests.store(0, Relaxed);
            resting_until.store(0, Relaxed);
        }
    }

    /// No connection, no answer, or 5xx. Says how long the peer rests, where it begins to.
    pub(super) fn request_failed(&self) -> Option<Duration> {
        self.request_failed_at(now_ms())
    }

    fn request_failed_at(&self, now: u64) -> Option<Duration> {
        let Requests { failures, rests, resting_until } = &self.requests;
        let until = resting_until.load(Relaxed);
        if failures.fetch_add(1, Relaxed) + 1 < FAILURES_MAX || until > now {
            return None;
        }
        let rest = FIRST_REST * 2u32.pow(rests.load(Relaxed).min(REST_DOUBLINGS_MAX));
        let rest_ms = u64::try_from(rest.as_millis()).unwrap_or(u64::MAX);
        // Of several that fail at the same time, one begins the rest.
        resting_until.compare_exchange(until, now.saturating_add(rest_ms), Relaxed, Relaxed).ok()?;
        rests.fetch_add(1, Relaxed);
        Some(rest)
    }
}

/// Counts as one of the peer's open requests until it is dropped.
pub(super) struct Held(pub(super) Arc<Peer>);

impl Held {
    pub(super) fn new(peer: Arc<Peer>) -> Self {
        peer.open.fetch_add(1, Relaxed);
        Self(peer)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

/// Of a clock that only goes forward; never 0.
pub(super) fn now_ms() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer() -> Peer {
        let address: SocketAddr = "127.0.0.1:1".parse().unwrap();
        Peer::new(address, 0, 1, HttpPeer::new(address, false, String::new()))
    }

    #[test]
    fn checks_in_a_row_take_a_peer_out_and_back() {
        let peer = peer();
        assert_eq!((peer.checked(false, 2, 3), peer.checked(true, 2, 3), peer.is_up()), (None, None, true));
        assert_eq!((peer.checked(false, 2, 3), peer.checked(false, 2, 3), peer.is_up()), (None, Some(false), false));
        assert_eq!((peer.checked(true, 2, 3), peer.checked(true, 2, 3)), (None, None));
        assert_eq!((peer.checked(false, 2, 3), peer.is_up()), (None, false));
        assert_eq!((peer.checked(true, 2, 3), peer.checked(true, 2, 3)), (None, None));
        assert_eq!((peer.checked(true, 2, 3), peer.is_up()), (Some(true), true));
    }

    #[test]
    fn failures_in_a_row_make_a_peer_rest_longer_each_time_until_it_serves() {
        let peer = peer();
        const NONE: [Duration; 0] = [];
        let fail = |now, times: usize| (0..times).filter_map(|_| peer.request_failed_at(now)).collect::<Vec<_>>();
        assert_eq!(fail(1, 4), NONE);
        peer.request_served();
        assert_eq!(fail(1, 4), NONE);
        assert_eq!(fail(1, 1), [FIRST_REST]);
        assert!(peer.rests());
        assert_eq!(fail(10_000, 20), NONE, "it rests already");
        assert_eq!(fail(10_001, 1), [FIRST_REST * 2], "one more failure after the rest is enough");
        let mut now = 10_001;
        let mut last = FIRST_REST * 2;
        for _ in 0..5 {
            now += u64::try_from(last.as_millis()).unwrap();
            last = fail(now, 1)[0];
        }
        assert_eq!(last, FIRST_REST * 16);
        peer.request_served();
        assert!(!peer.rests());
        assert_eq!(fail(now, 5), [FIRST_REST]);
    }

    #[test]
    fn open_requests_are_counted_until_they_end() {
        let peer = Arc::new(peer());
        let (first, second) = (Held::new(peer.clone()), Held::new(peer.clone()));
        assert_eq!(peer.open(), 2);
        drop((first, second));
        assert_eq!(peer.open(), 0);
    }
}
