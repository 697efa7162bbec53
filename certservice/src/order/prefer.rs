//! Which of a domain's issuers an order goes to: the first, in order of preference, that takes it now. Pure.

use contract::api::{PassedOver, State};

use super::job::{Held, Job, Lane, Status, Step};
use super::machine::Pace;
use super::steps::steps;
use crate::issue::{Failure, Then};

/// Until an issuer that has refused a name for good is asked again, where another did not take it either.
const REFUSED_SECONDS: u64 = 24 * 3600;
/// Failures of an order in a row before it is begun anew with another issuer, whatever the other orders see.
const FAILURES_MAX: u32 = 3;

#[derive(Debug, PartialEq)]
pub(super) struct Choice {
    pub issuer: String,
    /// Those before it.
    pub passed: Vec<PassedOver>,
    /// Unix seconds; when it takes the order, where none does now.
    pub until: Option<u64>,
}

/// `held` says why an issuer takes no order now. `None` for an order that stays where it is: it has no other issuer, or a
/// first certificate of this one, or nobody is asked yet.
pub(super) fn choose(job: &Job, pace: &Pace, now: u64, held: impl Fn(&str) -> Option<Held>) -> Option<Choice> {
    let candidates = candidates(job, pace);
    if job.first.is_some() || job.step == Step::Awaited || candidates.is_empty() || *candidates == [job.issuer.as_str()]
    {
        return None;
    }
    let reason = |issuer: &String| match job.refused.iter().find(|r| r.issuer == *issuer && r.until > now) {
        Some(refused) => Some(refused.clone()),
        None if is_patient(job, pace, now) => None,
        None => held(issuer).filter(|held| held.until > now).map(|held| held.of(issuer)),
    };
    let reasons: Vec<_> = candidates.iter().map(reason).collect();
    let open = reasons.iter().position(Option::is_none);
    let soonest = || (0..reasons.len()).min_by_key(|at| reasons[*at].as_ref().map(|reason| reason.until));
    let at = open.or_else(soonest)?;
    Some(Choice {
        issuer: candidates[at].clone(),
        passed: reasons[..at].iter().flatten().cloned().collect(),
        until: reasons[at].as_ref().map(|reason| reason.until),
    })
}

/// When an order that waits for its issuer may go to another; `None` where there is none.
pub(super) fn others_at(job: &Job, pace: &Pace, now: u64, held: impl Fn(&str) -> Option<Held>) -> Option<u64> {
    if is_patient(job, pace, now) {
        return (candidates(job, pace).len() > 1).then_some(job.created_at + pace.renewals_wait_seconds);
    }
    let never = refusal(job, "", "", u64::MAX);
    let refused = std::iter::once(never).chain(job.refused.iter().cloned()).collect();
    let choice = choose(&Job { refused, ..job.clone() }, pace, now, held)?;
    choice.until.filter(|until| *until < u64::MAX)
}

/// The order begins anew with another issuer. What the one before knows of it is left to it.
pub(super) fn moved(job: Job, choice: Choice, now: u64) -> Job {
    let Choice { issuer, passed, until } = choice;
    let why = passed.iter().find(|passed| passed.issuer == job.issuer);
    let why = why.map_or_else(|| "it is preferred".to_owned(), |why| format!("{}: {}", why.issuer, why.says));
    let state = if job.renews { State::Live } else { State::Working };
    let says = format!("the next issuer, {issuer}, is asked ({why})");
    let status = Status { state, ..Status::working("next_issuer", &says) };
    let due_at = until.unwrap_or(now);
    let mut job = Job { issuer, passed, status, due_at, step: Step::Queued, spent: false, others_at: None, ..job };
    job.status.steps = steps(&job);
    job
}

/// Where an order goes on after a failure that another issuer may not have; `None` where it stays.
pub(super) fn after(job: &mut Job, failure: &Failure, pause: u64, now: u64, pace: &Pace) -> Option<Choice> {
    if candidates(job, pace).len() < 2 || !is_of_issuer(job, failure, pace, now) {
        return None;
    }
    let pause = match failure.then {
        Then::Retry { after } => pause.max(after),
        Then::Stop => REFUSED_SECONDS,
        Then::NewOrder | Then::NotReplacing => pause,
    };
    job.refused.retain(|refused| refused.issuer != job.issuer && refused.until > now);
    job.refused.push(refusal(job, &failure.code, &failure.says, now + pause));
    let choice = choose(job, pace, now, |_| None).filter(|choice| choice.issuer != job.issuer)?;
    let refused = |issuer: &String| job.refused.iter().any(|r| r.issuer == *issuer && r.code == NAME_REFUSED);
    match (choice.until, failure.then) {
        (None, _) => Some(choice),
        (Some(_), Then::Stop) if !candidates(job, pace).iter().all(refused) => Some(choice),
        (Some(_), _) => None,
    }
}

/// This issuer takes the name no longer, or not now; other names it does.
pub(super) fn short(job: &mut Job, held: &Held) {
    let refusal = held.of(&job.issuer);
    job.refused.retain(|refused| refused.issuer != job.issuer);
    job.refused.push(refusal);
}

const NAME_REFUSED: &str = "name_refused";

fn candidates<'a>(job: &'a Job, pace: &'a Pace) -> &'a [String] {
    if job.issuers.is_empty() { &pace.issuers } else { &job.issuers }
}

/// A renewal has time: it waits for the issuer that it is meant for, and spares the others an outage's worth of orders.
fn is_patient(job: &Job, pace: &Pace, now: u64) -> bool {
    job.lane == Lane::Renewal && now < job.created_at + pace.renewals_wait_seconds
}

/// What another CA may see otherwise. What is wrong with the domain itself all see.
fn is_of_issuer(job: &Job, failure: &Failure, pace: &Pace, now: u64) -> bool {
    match &*failure.code {
        "name_refused"
        | "paused_by_ca"
        | "ca_unsupported"
        | "no_wildcards"
        | "unknown_profile"
        | "unknown_issuer"
        | "caa_forbids"
        | "caa_forbids_inherited"
        | "order_refused"
        | "certificate_refused" => true,
        "rate_limited" | "account_refused" => !is_patient(job, pace, now),
        // The CA may have made the certificate already.
        "ca_unavailable" if matches!(job.step, Step::Keyed { .. } | Step::Finalizing { .. }) => false,
        "ca_unavailable" => job.failures >= FAILURES_MAX && !is_patient(job, pace, now),
        _ => false,
    }
}

fn refusal(job: &Job, code: &str, says: &str, until: u64) -> PassedOver {
    PassedOver { issuer: job.issuer.clone(), code: code.into(), says: says.into(), until }
}

#[cfg(test)]
#[path = "tests/prefer.rs"]
mod tests;
