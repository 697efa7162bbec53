//! How much a binding may say in the log over time: what its guests write at each call is little, and calls are many. Of all
//! threads together; constant memory, no lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

const BYTES_PER_SECOND: u64 = 4 << 10;
const BURST_BYTES: u64 = 64 << 10;
/// Time, level and names around a message.
const LINE_BYTES: u64 = 100;
const NANOS_PER_BYTE: u64 = 1_000_000_000 / BYTES_PER_SECOND;

pub(super) struct Says {
    started: Instant,
    /// Nanoseconds since the start: when it may say as much at once as at first.
    whole_at: AtomicU64,
    left_out: AtomicU64,
}

impl Says {
    pub(super) fn new() -> Self {
        Self { started: Instant::now(), whole_at: AtomicU64::new(0), left_out: AtomicU64::new(0) }
    }

    /// Whether a message is worth being made.
    pub(super) fn has_room(&self) -> bool {
        self.whole_at.load(Ordering::Relaxed) + LINE_BYTES * NANOS_PER_BYTE <= self.now() + BURST_BYTES * NANOS_PER_BYTE
    }

    /// None where it is to be left out; else how many were left out since the last that was not.
    pub(super) fn take(&self, message: &str) -> Option<u64> {
        self.take_at(message.len() as u64, self.now())
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn take_at(&self, bytes: u64, now: u64) -> Option<u64> {
        let cost = (bytes + LINE_BYTES) * NANOS_PER_BYTE;
        let taken = |whole_at: u64| {
            let next = whole_at.max(now) + cost;
            (next <= now + BURST_BYTES * NANOS_PER_BYTE).then_some(next)
        };
        match self.whole_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken) {
            Ok(_) => Some(self.left_out.swap(0, Ordering::Relaxed)),
            Err(_) => {
                self.left_out.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_said_and_then_what_its_rate_allows() {
        let says = Says::new();
        let second = 1_000_000_000;
        let said = |now: u64, tries: usize| (0..tries).filter_map(|_| says.take_at(412, now)).collect::<Vec<_>>();
        assert_eq!(said(0, 1000).len() as u64, BURST_BYTES / 512);
        let later = said(second, 1000);
        assert_eq!(later.len() as u64, BYTES_PER_SECOND / 512);
        assert_eq!(later[0], 1000 - BURST_BYTES / 512, "it is told how many were left out");
        assert_eq!(later[1..], [0; 7]);
        assert_eq!((2..=60).map(|n| said(n * second, 50).len()).sum::<usize>() as u64, 59 * BYTES_PER_SECOND / 512);
        assert_eq!(said(1000 * second, 1000).len() as u64, BURST_BYTES / 512, "rested");
        assert_eq!(says.take_at(1 << 40, 5000 * second), None, "whatever is said at once");
    }

    #[test]
    fn nothing_is_made_that_would_be_left_out() {
        let says = Says::new();
        assert!(says.has_room());
        while says.take("x").is_some() {}
        assert!(!says.has_room());
    }
}
