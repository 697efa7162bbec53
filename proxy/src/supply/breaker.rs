//! When a source that hangs is left alone, so that what it would hold up goes to the next one at once. Pure: `now` is an
//! argument.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Failures in a row that begin a rest.
const FAILURES_MAX: u32 = 3;
const FIRST_REST: Duration = Duration::from_secs(1);
/// Each further rest is twice as long, up to this.
const REST_MAX: Duration = Duration::from_secs(30);

#[derive(Default)]
pub(super) struct Breaker(Mutex<State>);

#[derive(Default)]
struct State {
    failures: u32,
    /// Rests in a row.
    rests: u32,
    /// While it rests, and until one who has asked after the rest has had an answer.
    resting_until: Option<Instant>,
    /// That one is under way.
    probed: bool,
}

/// One who may ask. Dropped without a word, it has said nothing.
pub(super) struct Asking<'a> {
    breaker: &'a Breaker,
    probes: bool,
}

impl Breaker {
    /// None while it rests. After the rest one may ask, and the others still go on without.
    pub(super) fn ask(&self, now: Instant) -> Option<Asking<'_>> {
        let mut state = self.state();
        let probes = match state.resting_until {
            Some(until) if now < until || state.probed => return None,
            Some(_) => true,
            None => false,
        };
        state.probed = probes;
        Some(Asking { breaker: self, probes })
    }

    /// It has answered somebody who did not have to ask for leave. True if it was resting.
    pub(super) fn answered(&self) -> bool {
        std::mem::take(&mut *self.state()).resting_until.is_some()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Asking<'_> {
    /// True if it was resting, and is well again.
    pub(super) fn answered(self) -> bool {
        self.breaker.answered()
    }

    /// How long it rests, if this failure begins a rest.
    pub(super) fn failed(self, now: Instant) -> Option<Duration> {
        let mut state = self.breaker.state();
        state.failures = state.failures.saturating_add(1);
        let begins = self.probes || (state.failures >= FAILURES_MAX && state.resting_until.is_none());
        if !begins {
            return None;
        }
        let rest = FIRST_REST.saturating_mul(1 << state.rests.min(8)).min(REST_MAX);
        state.rests = state.rests.saturating_add(1);
        state.resting_until = Some(now + rest);
        Some(rest)
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if self.probes {
            self.breaker.state().probed = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fails(breaker: &Breaker, now: Instant) -> Option<Duration> {
        breaker.ask(now).unwrap().failed(now)
    }

    #[test]
    fn failures_in_a_row_begin_a_rest_and_an_answer_between_them_does_not() {
        let (breaker, now) = (Breaker::default(), Instant::now());
        assert_eq!((fails(&breaker, now), fails(&breaker, now)), (None, None));
        assert!(!breaker.ask(now).unwrap().answered());
        assert_eq!((fails(&breaker, now), fails(&breaker, now)), (None, None));
        assert_eq!(fails(&breaker, now), Some(FIRST_REST));
        assert!(breaker.ask(now).is_none());
        assert!(breaker.ask(now + FIRST_REST - Duration::from_millis(1)).is_none());
    }

    #[test]
    fn an_answer_to_somebody_else_ends_a_rest() {
        let (breaker, now) = (Breaker::default(), Instant::now());
        assert!(!breaker.answered());
        assert!((0..FAILURES_MAX).any(|_| fails(&breaker, now).is_some()) && breaker.ask(now).is_none());
        assert!(breaker.answered());
        assert!(breaker.ask(now).is_some());
    }

    #[test]
    fn those_that_were_under_way_do_not_prolong_a_rest() {
        let (breaker, now) = (Breaker::default(), Instant::now());
        let asking: Vec<_> = (0..10).map(|_| breaker.ask(now).unwrap()).collect();
        let rests: Vec<_> = asking.into_iter().filter_map(|asking| asking.failed(now)).collect();
        assert_eq!(rests, [FIRST_REST]);
        assert!(breaker.ask(now + FIRST_REST).is_some());
    }

    #[test]
    fn after_a_rest_one_asks_and_what_it_finds_holds_for_all() {
        let (breaker, mut now) = (Breaker::default(), Instant::now());
        let begin = |now| (0..FAILURES_MAX).filter_map(|_| fails(&breaker, now)).next().unwrap();
        let mut rests = vec![begin(now)];
        for _ in 0..7 {
            now += *rests.last().unwrap();
            let probe = breaker.ask(now).unwrap();
            assert!(breaker.ask(now).is_none(), "one at a time");
            rests.push(probe.failed(now).unwrap());
        }
        assert_eq!(rests.iter().map(Duration::as_secs).collect::<Vec<_>>(), [1, 2, 4, 8, 16, 30, 30, 30]);
        now += REST_MAX;
        // One that is given up has said nothing: the next one asks.
        drop(breaker.ask(now).unwrap());
        assert!(breaker.ask(now).unwrap().answered());
        let (one, other) = (breaker.ask(now), breaker.ask(now));
        assert!(one.is_some() && other.is_some());
        drop((one, other));
        assert_eq!(begin(now), FIRST_REST, "what was is forgotten");
    }
}
