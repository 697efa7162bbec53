//! How often something may happen, for each key that a policy counts by: constant memory, no lock. The generic cell rate
//! algorithm (ITU-T I.371): a cell holds the moment at which its budget is whole again.

use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::says::Says;

/// Keys that share a place; more than these push each other out.
const WAYS: usize = 4;
const SETS: usize = 16_384;
const MINUTE: u64 = 60_000_000_000;
/// One in 10 microseconds.
const PER_MINUTE_MAX: u32 = 6_000_000;
const BURST_MAX: u32 = 1_000_000;

/// Of one binding: 1 MiB once something is counted.
pub(super) struct Rates {
    /// Of the log.
    pub(super) says: Says,
    started: Instant,
    hasher: RandomState,
    sets: OnceLock<Box<[[Cell; WAYS]]>>,
}

/// Two threads that change one at the same moment may let one more pass.
#[derive(Default)]
struct Cell {
    key: AtomicU64,
    /// Nanoseconds since the start.
    whole_at: AtomicU64,
}

impl Rates {
    pub(super) fn new() -> Self {
        Self { says: Says::new(), started: Instant::now(), hasher: RandomState::new(), sets: OnceLock::new() }
    }

    pub(super) fn take(&self, key: &[u8], per_minute: u32, burst: u32) -> bool {
        let now = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.take_at(key, per_minute, burst, now)
    }

    /// Counts anew.
    pub(super) fn forget(&self) {
        let cells = self.sets.get().into_iter().flat_map(|sets| sets.iter().flatten());
        cells.for_each(|cell| cell.whole_at.store(0, Ordering::Relaxed));
    }

    fn take_at(&self, key: &[u8], per_minute: u32, burst: u32, now: u64) -> bool {
        let interval = MINUTE / u64::from(per_minute.clamp(1, PER_MINUTE_MAX));
        let burst = interval * u64::from(burst.clamp(1, BURST_MAX));
        // Under a key of this binding: nobody can choose keys that fall into one place.
        let hash = self.hasher.hash_one(key);
        let sets = self.sets.get_or_init(|| (0..SETS).map(|_| Default::default()).collect());
        let Some(set) = sets.get(usize::try_from(hash % SETS as u64).unwrap_or_default()) else { return true };
        let cell = set.iter().find(|cell| cell.key.load(Ordering::Relaxed) == hash).or_else(|| {
            // The one that is whole the soonest has the least to lose.
            let free = set.iter().min_by_key(|cell| cell.whole_at.load(Ordering::Relaxed))?;
            free.whole_at.store(0, Ordering::Relaxed);
            free.key.store(hash, Ordering::Relaxed);
            Some(free)
        });
        let taken = |whole_at: u64| {
            let next = whole_at.max(now).saturating_add(interval);
            (next <= now.saturating_add(burst)).then_some(next)
        };
        cell.is_none_or(|cell| cell.whole_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(rates: &Rates, key: &str, now: u64, tries: usize) -> usize {
        (0..tries).filter(|_| rates.take_at(key.as_bytes(), 60, 5, now)).count()
    }

    #[test]
    fn gives_a_burst_then_its_rate() {
        let rates = Rates::new();
        let second = MINUTE / 60;
        assert_eq!(taken(&rates, "a", 0, 100), 5);
        assert_eq!(taken(&rates, "a", second - 1, 100), 0);
        assert_eq!(taken(&rates, "a", second, 100), 1);
        assert_eq!((2..=60).map(|n| taken(&rates, "a", n * second, 50)).sum::<usize>(), 59);
        assert_eq!(taken(&rates, "a", 1000 * second, 100), 5);
        rates.forget();
        assert_eq!(taken(&rates, "a", 1000 * second, 100), 5);
    }

    #[test]
    fn one_key_does_not_spend_anothers_budget() {
        let rates = Rates::new();
        assert_eq!(taken(&rates, "a", 0, 100), 5);
        let others = (0..1000).filter(|n| taken(&rates, &format!("k{n}"), 0, 1) == 1).count();
        assert_eq!(others, 1000);
        assert_eq!(taken(&rates, "a", 0, 100), 0);
    }

    #[test]
    fn any_number_of_keys_takes_the_same_memory() {
        let rates = Rates::new();
        for n in 0..4 * (SETS * WAYS) as u64 {
            assert!(rates.take_at(&n.to_le_bytes(), 60, 1, n));
        }
        assert_eq!(rates.sets.get().map(|sets| std::mem::size_of_val(&**sets)), Some(1 << 20));
    }

    #[test]
    fn absurd_rates_are_bounded() {
        let rates = Rates::new();
        assert!(rates.take_at(b"a", 0, 0, 0) && !rates.take_at(b"a", 0, 0, 0));
        assert!((0..1000).all(|_| rates.take_at(b"b", u32::MAX, u32::MAX, 0)));
    }
}
