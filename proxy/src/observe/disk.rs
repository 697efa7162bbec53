//! A disk that is full, read-only or broken: counted each time, told from time to time, with what to do.

use std::io::{Error, ErrorKind};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::METRICS;

/// Between two lines of the log: a full disk fails with each name.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// `what` could not be done, and `then` is what comes of it.
pub fn disk_failed(what: &str, then: &str, error: &Error) {
    static TOLD: Seldom = Seldom::new();
    METRICS.disk_errors.inc();
    if let Some(untold) = TOLD.turn(now_ms()) {
        tracing::warn!(%error, untold, "{what}: {then}; {}", advice(error.kind()));
    }
}

fn advice(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "free space on the file system of data_dir, or enlarge it (also its inodes, `df -i`); nothing needs a restart"
        }
        ErrorKind::ReadOnlyFilesystem => {
            "the file system of data_dir is read-only: look at the kernel's log, remount it"
        }
        ErrorKind::PermissionDenied => "data_dir and all in it must belong to the user of the proxy",
        _ => "look at the file system of data_dir and at the kernel's log",
    }
}

/// Says no more often than so, and how often it has kept silent since.
struct Seldom {
    next: AtomicU64,
    untold: AtomicU64,
}

impl Seldom {
    const fn new() -> Self {
        Self { next: AtomicU64::new(0), untold: AtomicU64::new(0) }
    }

    fn turn(&self, now_ms: u64) -> Option<u64> {
        let next = self.next.load(Relaxed);
        let after = now_ms + TELL_EVERY.as_millis() as u64;
        if now_ms < next || self.next.compare_exchange(next, after, Relaxed, Relaxed).is_err() {
            self.untold.fetch_add(1, Relaxed);
            return None;
        }
        Some(self.untold.swap(0, Relaxed))
    }
}

/// Of a clock that only goes forward.
fn now_ms() -> u64 {
    static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_at_once_and_then_seldom() {
        let seldom = Seldom::new();
        let turns: Vec<_> = [0, 1, 9_999, 10_000, 10_001, 30_000].into_iter().map(|now| seldom.turn(now)).collect();
        assert_eq!(turns, [Some(0), None, None, Some(2), None, Some(1)]);
    }

    #[test]
    fn what_to_do_is_said() {
        assert!(advice(Error::from_raw_os_error(28).kind()).starts_with("free space"));
        assert!(advice(Error::from_raw_os_error(30).kind()).contains("read-only"));
        assert!(advice(Error::from_raw_os_error(5).kind()).contains("kernel's log"));
    }
}
