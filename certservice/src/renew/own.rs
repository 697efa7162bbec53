//! Certificates that somebody has brought along: when their owners are warned, and of what. Pure, but for the search.

use contract::api::{DomainStep, State, Who};

use crate::order::Status;
use crate::store::{Store, StoreError};

const DAY: u64 = 86_400;
/// Time enough to buy another one.
const WARN_SECONDS_MAX: u64 = 30 * DAY;
const BATCH: u32 = 100;
const FIX: &str =
    "upload a new one (`latchkey cert upload`), or remove it (`latchkey cert rm`): then the issuers make one";

/// A third of the lifetime before the end, at most 30 days.
pub fn warn_at(not_before: u64, not_after: u64) -> u64 {
    not_after - (not_after.saturating_sub(not_before) / 3).min(WARN_SECONDS_MAX).min(not_after)
}

/// How such a domain stands, and when it is looked at again.
pub fn standing(not_before: u64, not_after: u64, now: u64) -> (Status, Option<u64>) {
    let warn_at = warn_at(not_before, not_after);
    if now < warn_at {
        let says = "the certificate that was uploaded is served".to_owned();
        return (status(State::Live, "own_certificate", says, Who::Nobody), Some(warn_at));
    }
    ending(not_after, now)
}

fn ending(not_after: u64, now: u64) -> (Status, Option<u64>) {
    if now < not_after {
        let (left, unit) = match (not_after - now) / DAY {
            0 | 1 => ((not_after - now) / 3600, "hours"),
            days => (days, "days"),
        };
        let says = format!("the certificate that was uploaded ends in {left} {unit}, and nobody renews it but you");
        return (status(State::ActionNeeded, "own_certificate_ends", says, Who::Saas), Some(not_after));
    }
    let says = "the certificate that was uploaded has ended; visitors are turned away".to_owned();
    (status(State::ActionNeeded, "own_certificate_ended", says, Who::Saas), None)
}

fn status(state: State, code: &str, says: String, who: Who) -> Status {
    let acts = who != Who::Nobody;
    let step = DomainStep {
        id: "certificate".into(),
        ok: Some(!acts),
        code: code.into(),
        says: says.clone(),
        fix: acts.then(|| FIX.to_owned()),
        who,
    };
    Status { state, code: code.into(), says, who, steps: vec![step] }
}

/// Warns those whose time has come.
pub async fn warn(store: &Store, now: u64) -> Result<(), StoreError> {
    for (name, not_after, warn_at) in store.own_ending(now, BATCH).await? {
        // It is past what was set for it, whenever it began.
        let (status, next) = ending(not_after, now);
        tracing::warn!(%name, code = status.code, "a certificate that was uploaded comes to its end");
        store.warn_own(&name, warn_at, &status, next).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_warned_in_time_and_again_at_the_end() {
        let (from, to) = (1_800_000_000, 1_800_000_000 + 90 * DAY);
        let at = |now| {
            let (status, next) = standing(from, to, now);
            (status.code, status.state, status.steps[0].fix.is_some(), next)
        };
        assert_eq!(at(from), ("own_certificate".into(), State::Live, false, Some(to - 30 * DAY)));
        let warned = at(to - 30 * DAY);
        assert_eq!(warned, ("own_certificate_ends".into(), State::ActionNeeded, true, Some(to)));
        assert_eq!(at(to), ("own_certificate_ended".into(), State::ActionNeeded, true, None));
        assert!(standing(from, to, to - 10 * DAY).0.says.contains("in 10 days"));
        assert!(standing(from, to, to - DAY).0.says.contains("in 24 hours"));
        // A short one is not warned of from its beginning.
        assert_eq!(warn_at(from, from + 6 * DAY), from + 4 * DAY);
        assert_eq!(warn_at(from, from + 398 * DAY), from + 368 * DAY);
    }
}
