//! A budget of so many per second, shared by all threads without a lock: the generic cell rate algorithm (ITU-T I.371).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

pub(super) struct Budget {
    started: Instant,
    /// Nanoseconds since `started` at which the budget is whole again.
    whole_at: AtomicU64,
    interval: u64,
    burst: u64,
}

impl Budget {
    /// `burst` is what may be taken at once after a rest.
    pub(super) fn new(per_second: u32, burst: u32) -> Self {
        let interval = 1_000_000_000 / u64::from(per_second.max(1));
        let burst = interval * u64::from(burst.max(1));
        Self { started: Instant::now(), whole_at: AtomicU64::new(0), interval, burst }
    }

    pub(super) fn take(&self) -> bool {
        self.take_at(u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    fn take_at(&self, now: u64) -> bool {
        let taken = |whole_at: u64| {
            let next = whole_at.max(now) + self.interval;
            (next <= now + self.burst).then_some(next)
        };
        self.whole_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn gives_a_burst_then_its_rate() {
        let budget = Budget::new(10, 5);
        let taken = |now: u64, tries: u32| (0..tries).filter(|_| budget.take_at(now)).count();
        assert_eq!(taken(0, 100), 5);
        assert_eq!(taken(SECOND / 10, 100), 1);
        assert_eq!(taken(SECOND / 10, 100), 0);
        let over_ten_seconds: usize = (2..=100).map(|tenth| taken(SECOND / 10 * tenth, 50)).sum();
        assert_eq!(over_ten_seconds, 99);
        assert_eq!(taken(1000 * SECOND, 100), 5);
    }
}
