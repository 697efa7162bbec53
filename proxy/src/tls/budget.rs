//! Budgets of so many per second, shared by all threads without a lock: the generic cell rate algorithm (ITU-T I.371).

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// One rate for many keys in constant memory: keys whose hash falls into one cell share it.
pub(super) struct Budgets {
    rate: Rate,
    /// Nanoseconds since the start at which a cell's budget is whole again.
    cells: Box<[AtomicU64]>,
    hasher: RandomState,
}

struct Rate {
    started: Instant,
    interval: u64,
    burst: u64,
}

impl Budgets {
    /// `burst` is what may be taken at once after a rest.
    pub(super) fn new(per_second: u32, burst: u32, cells: usize) -> Self {
        let interval = 1_000_000_000 / u64::from(per_second.max(1));
        let burst = interval * u64::from(burst.max(1));
        let cells = (0..cells.max(1)).map(|_| AtomicU64::new(0)).collect();
        Self { rate: Rate { started: Instant::now(), interval, burst }, cells, hasher: RandomState::new() }
    }

    pub(super) fn take(&self, key: impl Hash) -> bool {
        let cell = self.hasher.hash_one(key) % self.cells.len() as u64;
        let now = u64::try_from(self.rate.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.rate.take_at(&self.cells[cell as usize], now)
    }
}

impl Rate {
    fn take_at(&self, whole_at: &AtomicU64, now: u64) -> bool {
        let taken = |whole_at: u64| {
            let next = whole_at.max(now) + self.interval;
            (next <= now + self.burst).then_some(next)
        };
        whole_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn gives_a_burst_then_its_rate() {
        let budget = Budgets::new(10, 5, 1);
        let taken = |now: u64, tries: u32| (0..tries).filter(|_| budget.rate.take_at(&budget.cells[0], now)).count();
        assert_eq!(taken(0, 100), 5);
        assert_eq!(taken(SECOND / 10, 100), 1);
        assert_eq!(taken(SECOND / 10, 100), 0);
        let over_ten_seconds: usize = (2..=100).map(|tenth| taken(SECOND / 10 * tenth, 50)).sum();
        assert_eq!(over_ten_seconds, 99);
        assert_eq!(taken(1000 * SECOND, 100), 5);
    }

    #[test]
    fn one_key_does_not_spend_anothers_budget() {
        let budgets = Budgets::new(1, 3, 1 << 16);
        assert_eq!((0..100).filter(|_| budgets.take("a")).count(), 3);
        assert!(budgets.take("b"));
    }
}
