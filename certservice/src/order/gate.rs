//! Which issuers take orders now, as this instance knows it: from the store, from the CA's last words, and from what was
//! short last. Memory only; the store has what other instances must know.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::job::{Event, Held};
use crate::budget::Shortage;
use crate::issue::Then;
use crate::store::IssuerState;

/// No pause is longer: one that seems so was noted while a clock was wrong.
pub const PAUSE_SECONDS_MAX: u64 = 8 * 24 * 3600;
/// Failures of the CA itself, in a row, before it is left alone for a while.
const FAILURES_MAX: u32 = 3;
const CLOSED_SECONDS_MIN: u64 = 5;
const CLOSED_SECONDS_MAX: u64 = 300;

/// No order leaves while its key could not be kept.
pub(super) const BUNDLES_DOWN: &str = "bundle_store_unavailable";

impl Held {
    pub(super) fn by_bundles(until: u64) -> Self {
        let says =
            "the database of bundles does not answer, so a key could not be kept; no order leaves before it does";
        Self { until, whole: true, code: BUNDLES_DOWN.to_owned(), says: says.to_owned() }
    }
}

#[derive(Default)]
pub(super) struct Gate(Mutex<HashMap<String, Seen>>);

#[derive(Default)]
struct Seen {
    failures: u32,
    /// Some instance has closed it and none has seen it work since.
    ill: bool,
    /// Told by the store.
    closed: Option<Held>,
    /// The account's own budget.
    short: Option<Held>,
}

/// What an event says of its issuer.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    Nothing,
    /// It works again.
    Open,
    Close {
        until: u64,
        code: String,
        says: String,
    },
}

impl Gate {
    fn with<T>(&self, issuer: &str, act: impl FnOnce(&mut Seen) -> T) -> T {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        act(all.entry(issuer.to_owned()).or_default())
    }

    pub(super) fn refresh(&self, states: &[IssuerState], now: u64) {
        for state in states {
            let pauses = (now + 1..=now + PAUSE_SECONDS_MAX).contains(&state.closed_until);
            let closed = pauses.then(|| Held {
                until: state.closed_until,
                whole: true,
                code: state.code.clone(),
                says: state.says.clone(),
            });
            self.with(&state.name, |seen| (seen.closed, seen.ill) = (closed, state.failures > 0));
        }
    }

    pub(super) fn short(&self, issuer: &str, shortage: &Shortage) {
        if shortage.is_of_issuer() {
            self.with(issuer, |seen| seen.short = Some(Held::from(shortage)));
        }
    }

    /// Why no order leaves to this issuer now; `counts`: one that takes of the account's limits.
    pub(super) fn held(&self, issuer: &str, counts: bool, now: u64) -> Option<Held> {
        self.with(issuer, |seen| {
            [seen.closed.as_ref(), seen.short.as_ref().filter(|_| counts)]
                .into_iter()
                .flatten()
                .filter(|held| held.until > now)
                .max_by_key(|h| h.until)
                .cloned()
        })
    }

    /// Takes notice of how the CA behaves.
    pub(super) fn saw(&self, issuer: &str, event: &Event, now: u64) -> Verdict {
        self.with(issuer, |seen| match event {
            Event::Failed(failure) if failure.closes => {
                seen.failures = seen.failures.saturating_add(1);
                let asked = if let Then::Retry { after } = failure.then { after } else { 0 };
                let own = match seen.failures.checked_sub(FAILURES_MAX) {
                    Some(more) => (CLOSED_SECONDS_MIN << more.min(16)).min(CLOSED_SECONDS_MAX),
                    None => 0,
                };
                match asked.max(own) {
                    0 => Verdict::Nothing,
                    pause => {
                        let (code, says) = (failure.code.to_string(), failure.says.clone());
                        let held = Held { until: now + pause, whole: true, code: code.clone(), says: says.clone() };
                        seen.closed = Some(held);
                        Verdict::Close { until: now + pause, code, says }
                    }
                }
            }
            // An order that was under way goes on while others wait; that ends no pause. And an answer to a look says nothing
            // of whether new orders are taken.
            Event::Ordered(Some(_)) | Event::Accepted | Event::Certified { .. }
                if seen.closed.as_ref().is_none_or(|held| held.until <= now) =>
            {
                let was = std::mem::take(&mut seen.failures);
                seen.closed = None;
                if std::mem::take(&mut seen.ill) || was > 0 { Verdict::Open } else { Verdict::Nothing }
            }
            _ => Verdict::Nothing,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::{Limit, Name};
    use crate::issue::{Failure, OrderState};

    const NOW: u64 = 1_800_000_000;

    fn down(after: u64) -> Event {
        Event::Failed(Failure::unreachable("gone", after))
    }

    #[test]
    fn a_ca_that_fails_thrice_is_left_alone_for_longer_each_time() {
        let gate = Gate::default();
        assert_eq!(
            (gate.saw("ca", &down(0), NOW), gate.saw("ca", &down(0), NOW)),
            (Verdict::Nothing, Verdict::Nothing)
        );
        let mut pauses = Vec::new();
        for _ in 0..9 {
            let Verdict::Close { until, .. } = gate.saw("ca", &down(0), NOW) else { panic!() };
            pauses.push(until - NOW);
        }
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 300, 300, 300]);
        assert!(gate.held("ca", false, NOW + 299).is_some() && gate.held("ca", false, NOW + 300).is_none());
        assert!(gate.held("other", true, NOW).is_none());
        assert_eq!(gate.saw("ca", &Event::Accepted, NOW + 299), Verdict::Nothing, "it was told before the pause");
        assert_eq!(gate.saw("ca", &Event::Looked(OrderState::Ready), NOW + 300), Verdict::Nothing);
        assert_eq!(gate.saw("ca", &Event::Accepted, NOW + 300), Verdict::Open);
        assert!(gate.held("ca", true, NOW).is_none());
        assert_eq!(gate.saw("ca", &down(0), NOW), Verdict::Nothing);
    }

    #[test]
    fn a_limit_of_the_account_holds_only_what_takes_of_it() {
        let gate = Gate::default();
        let limit = Limit::new(300, 10_800);
        gate.short("ca", &Shortage { name: Name::Orders, scope: String::new(), limit, until: NOW + 36 });
        assert_eq!(gate.held("ca", true, NOW).map(|held| held.until), Some(NOW + 36));
        assert_eq!(gate.held("ca", false, NOW), None);
        gate.saw("ca", &down(60), NOW);
        assert_eq!(gate.held("ca", false, NOW).map(|held| held.until), Some(NOW + 60));
    }

    #[test]
    fn a_pause_of_years_was_noted_by_a_wrong_clock() {
        let gate = Gate::default();
        let closed = |closed_until| {
            let (code, says) = ("ca_unavailable".to_owned(), "gone".to_owned());
            gate.refresh(&[IssuerState { name: "ca".into(), closed_until, failures: 3, code, says }], NOW);
            gate.held("ca", true, NOW).is_some()
        };
        assert!(closed(NOW + PAUSE_SECONDS_MAX) && !closed(NOW + PAUSE_SECONDS_MAX + 1) && !closed(NOW));
    }

    #[test]
    fn a_pause_that_the_ca_asks_for_is_kept_at_once() {
        let gate = Gate::default();
        let verdict = gate.saw("ca", &down(7200), NOW);
        assert_eq!(verdict, Verdict::Close { until: NOW + 7200, code: "ca_unavailable".into(), says: "gone".into() });
        // A failure that is about one name only says nothing of the others.
        let gate = Gate::default();
        let of_name = Failure { closes: false, ..Failure::unreachable("x", 7200) };
        assert_eq!(gate.saw("ca", &Event::Failed(of_name), NOW), Verdict::Nothing);
    }
}
