//! Leaves a plugin alone that fails again and again: each failed call may take a thousand times what a good one does, and
//! the thread serves others too. Per binding and registered domain, so that one customer's trouble is not another's; per
//! thread, so without a lock; nothing while all is well.

use std::cell::RefCell;

use hashbrown::HashMap;

use super::types::{Fault, Tenant};

/// So many failed calls within the window open it, where they are at least half of all.
const FAULTS: u32 = 20;
/// A call that has used up its time has cost the others on its thread the most: it counts for so many.
const FAULTS_OF_DEADLINE: u32 = 4;
const WINDOW_MS: u64 = 10_000;
/// How long it stays open at first; twice as long after each try that fails.
const REST_MS: u64 = 1_000;
const REST_MS_MAX: u64 = 60_000;
/// Of a thread. Beyond it the others start anew.
const KNOWN_MAX: usize = 1024;

thread_local! {
    static KNOWN: RefCell<HashMap<(u64, Tenant), Breaker>> = RefCell::default();
}

/// Since the first failed call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Breaker {
    since_ms: u64,
    calls: u32,
    faults: u32,
    /// Of the failed ones.
    weight: u32,
    /// Not called before; 0 while it is closed.
    rests_until_ms: u64,
    rest_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Call,
    /// Not called, for so many milliseconds more.
    Rest(u64),
}

/// Whether the plugin is to be called.
pub(super) fn asks(place: u64, tenant: Tenant, now_ms: u64) -> Verdict {
    KNOWN.with_borrow(|known| match known.is_empty() {
        true => Verdict::Call,
        false => known.get(&(place, tenant)).map_or(Verdict::Call, |breaker| breaker.asks(now_ms)),
    })
}

pub(super) fn went_well(place: u64, tenant: Tenant, now_ms: u64) {
    KNOWN.with_borrow_mut(|known| {
        if known.is_empty() {
            return;
        }
        if let Some(breaker) = known.get_mut(&(place, tenant))
            && breaker.went_well(now_ms)
        {
            known.remove(&(place, tenant));
        }
    });
}

/// For how long it is left alone from now on, if that begins or goes on.
pub(super) fn failed(place: u64, tenant: Tenant, now_ms: u64, fault: &Fault) -> Option<u64> {
    let weight = if matches!(fault, Fault::Deadline) { FAULTS_OF_DEADLINE } else { 1 };
    KNOWN.with_borrow_mut(|known| {
        if known.len() >= KNOWN_MAX && !known.contains_key(&(place, tenant)) {
            known.clear();
        }
        known.entry((place, tenant)).or_insert(Breaker::new(now_ms)).failed(now_ms, weight)
    })
}

impl Breaker {
    fn new(now_ms: u64) -> Self {
        Self { since_ms: now_ms, calls: 0, faults: 0, weight: 0, rests_until_ms: 0, rest_ms: REST_MS }
    }

    fn asks(self, now_ms: u64) -> Verdict {
        match self.rests_until_ms.saturating_sub(now_ms) {
            0 => Verdict::Call,
            // The clock was set back: no rest is as long.
            left if left > self.rest_ms => Verdict::Call,
            left => Verdict::Rest(left),
        }
    }

    /// True where there is nothing to remember any more.
    fn went_well(&mut self, now_ms: u64) -> bool {
        self.calls = self.calls.saturating_add(1);
        self.rests_until_ms > 0 || now_ms.saturating_sub(self.since_ms) > WINDOW_MS
    }

    fn failed(&mut self, now_ms: u64, weight: u32) -> Option<u64> {
        let tried = self.rests_until_ms > 0;
        if !tried && now_ms.saturating_sub(self.since_ms) > WINDOW_MS {
            *self = Self::new(now_ms);
        }
        self.calls = self.calls.saturating_add(1);
        self.faults = self.faults.saturating_add(1);
        self.weight = self.weight.saturating_add(weight);
        if !tried && (self.weight < FAULTS || self.faults < self.calls / 2) {
            return None;
        }
        if tried {
            self.rest_ms = (self.rest_ms * 2).min(REST_MS_MAX);
        }
        self.rests_until_ms = now_ms.saturating_add(self.rest_ms);
        Some(self.rest_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fail_at(breaker: &mut Breaker, times: u32, now_ms: u64) -> Option<u64> {
        (0..times).map(|_| breaker.failed(now_ms, 1)).last().flatten()
    }

    #[test]
    fn rests_after_many_failures_and_longer_after_each_try_that_fails() {
        let mut breaker = Breaker::new(0);
        assert_eq!(fail_at(&mut breaker, FAULTS - 1, 10), None);
        assert_eq!(breaker.asks(10), Verdict::Call);
        assert_eq!(breaker.failed(10, 1), Some(REST_MS));
        assert_eq!((breaker.asks(500), breaker.asks(1010)), (Verdict::Rest(510), Verdict::Call));
        assert_eq!(breaker.failed(1010, 1), Some(2 * REST_MS));
        assert_eq!(breaker.asks(3000), Verdict::Rest(10));
        let longest = (0..20).map(|n| breaker.failed(4000 + n, 1)).last().flatten();
        assert_eq!(longest, Some(REST_MS_MAX));
        assert!(breaker.went_well(1_000_000), "one good answer, and nothing is held against it");
    }

    #[test]
    fn a_clock_that_is_set_back_prolongs_no_rest() {
        let mut breaker = Breaker::new(10_000_000);
        fail_at(&mut breaker, FAULTS, 10_000_000);
        assert_eq!(breaker.asks(10_000_000), Verdict::Rest(REST_MS));
        assert_eq!(breaker.asks(10_000_000 - 3_600_000), Verdict::Call);
    }

    #[test]
    fn failures_of_a_few_visitors_do_not_stop_the_others() {
        let mut breaker = Breaker::new(0);
        for now_ms in 0..1000 {
            assert_eq!(breaker.failed(now_ms, FAULTS_OF_DEADLINE), None, "at {now_ms}");
            for _ in 0..2 {
                assert!(!breaker.went_well(now_ms));
            }
        }
        assert!(breaker.went_well(WINDOW_MS + 1), "its window is over");
        let mut slow = Breaker::new(0);
        assert!((0..100).all(|n| slow.failed(n * 1000, 1).is_none()), "one in a second is not many");
    }

    #[test]
    fn what_is_known_is_bounded_and_apart_for_each_domain() {
        for tenant in 0..3000 {
            assert_eq!(failed(1, Tenant(tenant), 0, &Fault::Memory), None);
        }
        KNOWN.with_borrow(|known| assert!(known.len() <= KNOWN_MAX));
        assert_eq!((0..FAULTS).filter_map(|_| failed(2, Tenant(1), 0, &Fault::Memory)).count(), 1);
        assert_eq!((0..5).filter_map(|_| failed(3, Tenant(1), 0, &Fault::Deadline)).count(), 1, "it takes the longest");
        assert_eq!((asks(2, Tenant(1), 0), asks(2, Tenant(2), 0)), (Verdict::Rest(REST_MS), Verdict::Call));
        went_well(2, Tenant(1), REST_MS);
        assert_eq!(asks(2, Tenant(1), 0), Verdict::Call);
    }
}
