//! The order machine: pure, so that every crash point is a unit test.

use contract::api::{DomainStep, State, Who};
use contract::{Bundle, ChallengeKind};

use super::gate::BUNDLES_DOWN;
use super::job::{Event, First, Held, Job, Status, Step, Task};
use super::steps::steps;
use super::{prefer, visit};
use crate::issue::{Facts, Failure, OrderState, Then};
use crate::precheck::Report;

/// Looks at a validation or a certificate in the making before the order is given up.
const POLLS_MAX: u32 = 120;
pub const POLL_SECONDS_MAX: u64 = 15;
/// Until a renewal that the CA refused for good is tried again all the same.
const REFUSED_RENEWAL_SECONDS: u64 = 24 * 3600;

/// How long a look that finds a fault is believed where the CA may see it otherwise.
const DOUBT_SECONDS: u64 = 24 * 3600;

/// How long a look counts for an order that waits in line.
const CHECKED_SECONDS_MAX: u64 = 600;

/// What is shown of an order that waits for a place.
pub(super) const LOOKED: &str = "in_line";
pub(super) const LOOKED_SAYS: &str = "looked at; waiting for its turn at the CA";

/// How orders are worked on: how long to wait after failures, and what belongs to a bundle.
#[derive(Debug, Clone)]
pub struct Pace {
    pub retry_seconds_min: u64,
    pub retry_seconds_max: u64,
    /// An RSA certificate beside the ECDSA one.
    pub rsa: bool,
    /// In order of preference, of domains that have no own.
    pub issuers: Vec<String>,
    /// How long a renewal waits for its issuer before it goes to another.
    pub renewals_wait_seconds: u64,
}

/// What an event makes of an order, and what to do about it. The caller stores the job before it does the tasks; a task
/// that answers gives the next event. Without tasks, nothing happens before `due_at`.
pub fn next(job: Job, event: Event, now: u64, pace: &Pace) -> (Job, Vec<Task>) {
    if matches!(event, Event::Due) && job.step.checked_at().is_none() {
        return resumed(job);
    }
    let (mut job, tasks) = on(job, event, now, pace);
    job.status.steps = steps(&job);
    (job, tasks)
}

fn on(job: Job, event: Event, now: u64, pace: &Pace) -> (Job, Vec<Task>) {
    match (&job.step, event) {
        (Step::Ordering, Event::Failed(failure)) if failure.then == Then::NotReplacing => {
            // Without it the order counts like any other: it goes through the limits again.
            let job = in_line(job, now);
            (Job { replaces: None, spent: false, ..job }, vec![])
        }
        (_, Event::Failed(failure)) => failed(job, failure, now, pace),
        (_, Event::Looked(OrderState::Invalid(failure))) => failed(job, failure, now, pace),
        (Step::InLine { checked_at } | Step::Looked { checked_at }, Event::Due) => {
            // Who has waited for long may have moved.
            let stale = now > checked_at + CHECKED_SECONDS_MAX;
            if stale { (job, vec![Task::Check]) } else { ordering(job) }
        }
        (Step::Awaited, Event::Checked(report)) => visit::looked_at(Job { looked_at: now, ..job }, &report, now, pace),
        (Step::Queued | Step::InLine { .. } | Step::Looked { .. }, Event::Checked(report)) => {
            checked(job, &report, now, pace)
        }
        (Step::Queued | Step::InLine { .. } | Step::Looked { .. }, Event::Held(held)) => {
            wait_in_line(job, held, now, pace)
        }
        (Step::Queued, Event::Crowded) => {
            let job = in_line(job, now);
            let step = job.step.clone();
            go(job, step, LOOKED, LOOKED_SAYS, [])
        }
        (Step::Ordering, Event::Ordered(Some(order))) => {
            let look = Task::Look { order: order.clone() };
            go(job, Step::Ordered { order }, "ordered", "the CA has the order", [look])
        }
        (Step::Ordering, Event::Ordered(None)) => ready(job, None),
        (Step::Ordered { order } | Step::Validating { order, .. }, Event::Looked(OrderState::Ready)) => {
            let order = order.clone();
            ready(job, Some(order))
        }
        (Step::Ordered { order }, Event::Looked(OrderState::Pending(answers))) => {
            let order = order.clone();
            if answers.iter().any(|answer| answer.kind == ChallengeKind::Dns01) {
                let (says, tasks) = ("the answer to the CA is put into DNS", [Task::Present(answers.clone())]);
                return go(Job { answers, ..job }, Step::Presenting { order }, "presenting", says, tasks);
            }
            let tasks = [Task::Publish(answers.clone()), Task::Ask { order: order.clone() }];
            go(Job { answers, ..job }, Step::Answering { order }, "answering", "the answer to the CA stands", tasks)
        }
        (Step::Presenting { order }, Event::Presented(seconds)) => {
            let order = order.clone();
            let job = Job { due_at: now + seconds, ..job };
            go(job, Step::Answering { order }, "answering", "the answer to the CA spreads in DNS", [])
        }
        (Step::Answering { order }, Event::Asked) => {
            let order = order.clone();
            let look = Task::Look { order: order.clone() };
            let says = "the CA checks that the domain points here";
            go(job, Step::Validating { order, polls: 0 }, "validating", says, [look])
        }
        (Step::Validating { order, polls }, Event::Looked(OrderState::Pending(_))) => {
            let (order, polls) = (order.clone(), *polls);
            wait(job, polls, now, pace, |polls| Step::Validating { order, polls })
        }
        (Step::Ready { order }, Event::KeyMade(key)) => {
            let order = order.clone();
            let finalize = Task::Finalize { order: order.clone(), key: key.clone() };
            go(job, Step::Keyed { order, key }, "finalizing", "the certificate is asked for", [finalize])
        }
        (Step::Keyed { order: Some(order), key }, Event::Accepted) => {
            let (order, key) = (order.clone(), key.clone());
            let fetch = Task::Fetch { order: order.clone(), key: key.clone() };
            let step = Step::Finalizing { order, key, polls: 0 };
            go(job, step, "finalizing", "the CA makes the certificate", [fetch])
        }
        (Step::Finalizing { order, key, polls }, Event::Pending) => {
            let (order, key, polls) = (order.clone(), key.clone(), *polls);
            wait(job, polls, now, pace, |polls| Step::Finalizing { order, key, polls })
        }
        (Step::Keyed { .. } | Step::Finalizing { .. }, Event::Certified { bundle, facts }) => {
            certified(job, bundle, facts, now, pace)
        }
        (step, event) => {
            let says = format!("an order that is {} can't go on from {}", step.name(), event.name());
            failed(job, Failure::ours(says, Then::NewOrder), now, pace)
        }
    }
}

/// What a step does when its time comes, whether it was interrupted or waits.
fn resumed(job: Job) -> (Job, Vec<Task>) {
    let tasks = match &job.step {
        Step::Queued | Step::Awaited | Step::InLine { .. } | Step::Looked { .. } => vec![Task::Check],
        Step::Ordering => vec![Task::Order],
        Step::Ordered { order } | Step::Validating { order, .. } => vec![Task::Look { order: order.clone() }],
        Step::Presenting { .. } => vec![Task::Present(job.answers.clone())],
        Step::Answering { order } => vec![Task::Publish(job.answers.clone()), Task::Ask { order: order.clone() }],
        Step::Ready { .. } => vec![Task::MakeKey],
        Step::Keyed { order, key } => vec![Task::Finalize { order: order.clone(), key: key.clone() }],
        Step::Finalizing { order, key, .. } => vec![Task::Fetch { order: order.clone(), key: key.clone() }],
        Step::Issued { .. } | Step::Stopped | Step::Parked => vec![],
    };
    (job, tasks)
}

/// No order leaves before the look finds nothing wrong. Where the CA may see it otherwise, one is tried each day.
fn checked(mut job: Job, report: &Report, now: u64, pace: &Pace) -> (Job, Vec<Task>) {
    (job.checks, job.looked_at) = (report.steps.clone(), now);
    let Some(fault) = report.fault() else {
        return ordering(job);
    };
    let doubted_at = job.doubted_at.max(job.created_at);
    if report.doubtful && now >= doubted_at + DOUBT_SECONDS {
        return ordering(Job { doubted_at: now, ..job });
    }
    // Whoever came did not come here: this was not the visit that it waits for.
    let step = if job.visited_at.is_some() { Step::Awaited } else { job.step };
    let fault = fault_found(fault);
    failed(Job { step, ..job }, fault, now, pace)
}

pub(super) fn fault_found(fault: &DomainStep) -> Failure {
    let then = Then::Retry { after: 0 };
    Failure::new(fault.code.clone(), fault.says.clone(), State::ActionNeeded, fault.who, then)
}

/// The order is about to leave; the caller stores this together with what it takes from the CA's limits.
fn ordering(job: Job) -> (Job, Vec<Task>) {
    go(job, Step::Ordering, "ordering", "the CA is asked", [Task::Order])
}

/// It waits for its turn, with nothing wrong. Where its issuer takes nothing it is asked at once what that means for it.
fn in_line(job: Job, now: u64) -> Job {
    Job { step: Step::Looked { checked_at: now }, others_at: Some(now), ..job }
}

/// It keeps its place where everybody waits, and comes back later where only it does.
fn wait_in_line(mut job: Job, held: Held, now: u64, pace: &Pace) -> (Job, Vec<Task>) {
    if job.first.is_some() {
        let then = Then::Retry { after: 0 };
        return failed(job, Failure::new(held.code, held.says, State::Working, Who::Nobody, then), now, pace);
    }
    let state = if job.serves(now) { State::Live } else { State::Working };
    let Held { until, whole, code, says } = held;
    let who = match code.as_str() {
        "rate_limited" => Who::Nobody,
        BUNDLES_DOWN => Who::Operator,
        _ => Who::CertificateAuthority,
    };
    job.status = Status { state, code, says, who, steps: Vec::new() };
    job.due_at = until.max(now + 1);
    match (&job.step, whole) {
        (step, true) => {
            // One that was stale has just been looked at again.
            let fresh = step.checked_at().filter(|checked_at| now <= checked_at + CHECKED_SECONDS_MAX);
            job.step = Step::InLine { checked_at: fresh.unwrap_or(now) };
        }
        (_, false) => job.step = Step::Queued,
    }
    (job, vec![])
}

/// The CA has seen what it wanted: the answers go, the key comes.
fn ready(mut job: Job, order: Option<String>) -> (Job, Vec<Task>) {
    let answers = std::mem::take(&mut job.answers);
    let withdraw = (!answers.is_empty()).then_some(Task::Withdraw(answers));
    let tasks = withdraw.into_iter().chain([Task::MakeKey]);
    go(job, Step::Ready { order }, "finalizing", "the certificate is asked for", tasks)
}

/// The first certificate is put by while a second one is obtained; then both are served.
fn certified(job: Job, bundle: Box<Bundle>, facts: Facts, now: u64, pace: &Pace) -> (Job, Vec<Task>) {
    match job.first.clone() {
        Some(first) => issued(job, bundle, first.facts, Status::issued()),
        None if pace.rsa => {
            // It takes from the CA's limits by itself, and replaces nothing: the first one did.
            let first = Some(Box::new(First { bundle: *bundle, facts }));
            let job = Job { first, failures: 0, spent: false, replaces: None, due_at: now, ..in_line(job, now) };
            let step = job.step.clone();
            go(job, step, "rsa", "a second certificate, for clients without ECDSA, is asked for", [])
        }
        None => issued(job, bundle, facts, Status::issued()),
    }
}

fn issued(job: Job, bundle: Box<Bundle>, shown: Facts, status: Status) -> (Job, Vec<Task>) {
    let announce = Task::Announce(bundle.clone());
    let step = Step::Issued { bundle, facts: Box::new(shown) };
    (Job { step, status, failures: 0, first: None, answers: Vec::new(), ..job }, vec![announce])
}

fn go(job: Job, step: Step, code: &str, says: &str, tasks: impl IntoIterator<Item = Task>) -> (Job, Vec<Task>) {
    // What went wrong last stays shown until it is over.
    let status = match (job.renews, job.failures) {
        (_, 1..) => job.status,
        (true, 0) => Status::renewing(),
        (false, 0) => Status::working(code, says),
    };
    (Job { step, status, ..job }, tasks.into_iter().collect())
}

fn wait(job: Job, polls: u32, now: u64, pace: &Pace, step: impl FnOnce(u32) -> Step) -> (Job, Vec<Task>) {
    if polls >= POLLS_MAX {
        let says = format!("the CA did not come to an end within {POLLS_MAX} looks");
        return failed(job, Failure { then: Then::NewOrder, ..Failure::unreachable(says, 0) }, now, pace);
    }
    let due_at = now + (1 << polls.min(10)).min(POLL_SECONDS_MAX);
    (Job { step: step(polls + 1), due_at, ..job }, vec![])
}

pub(super) fn failed(mut job: Job, failure: Failure, now: u64, pace: &Pace) -> (Job, Vec<Task>) {
    // Nobody waits for the second certificate: the first is served, and the next renewal tries again.
    if let Some(first) = job.first.take() {
        let withdraw = (!job.answers.is_empty()).then(|| Task::Withdraw(std::mem::take(&mut job.answers)));
        let First { bundle, facts } = *first;
        let (job, mut tasks) = issued(job, Box::new(bundle), facts, Status::issued_alone(&failure));
        tasks.extend(withdraw);
        return (job, tasks);
    }
    job.failures = job.failures.saturating_add(1);
    if job.renews {
        job.failing_since.get_or_insert(now);
    }
    let pause = pause_seconds(&job, pace);
    if let Some(choice) = prefer::after(&mut job, &failure, pause, now, pace) {
        let withdraw = (!job.answers.is_empty()).then(|| Task::Withdraw(std::mem::take(&mut job.answers)));
        return (prefer::moved(job, choice, now), withdraw.into_iter().collect());
    }
    let state = if job.serves(now) { State::Live } else { failure.state };
    let steps = Vec::new();
    job.status = Status { state, code: failure.code.into_owned(), says: failure.says, who: failure.who, steps };
    let mut tasks = Vec::new();
    if !matches!(failure.then, Then::Retry { .. }) && !job.answers.is_empty() {
        tasks.push(Task::Withdraw(std::mem::take(&mut job.answers)));
    }
    match failure.then {
        Then::Retry { after } => {
            if matches!(job.step, Step::Ordering) || job.step.checked_at().is_some() {
                job.step = Step::Queued;
            }
            job.due_at = now + pause.max(after);
        }
        Then::NewOrder | Then::NotReplacing => {
            job.step = Step::Queued;
            job.spent = false;
            job.due_at = now + pause;
        }
        // While a certificate is served, giving up for good would only hide that it will end.
        Then::Stop if job.renews => {
            job.step = Step::Queued;
            job.spent = false;
            job.due_at = now + pause.max(REFUSED_RENEWAL_SECONDS);
        }
        // What the CA's limits lost to it is given back.
        Then::Stop => (job.step, job.spent) = (Step::Stopped, false),
    }
    (job, tasks)
}

/// Doubles with each failure; a quarter of it is jitter that depends on the name, so that names which failed together
/// don't come back together.
fn pause_seconds(job: &Job, pace: &Pace) -> u64 {
    let doublings = job.failures.saturating_sub(1).min(32);
    let most = if job.step == Step::Awaited { visit::LOOK_SECONDS_MAX } else { pace.retry_seconds_max };
    let pause = pace.retry_seconds_min.saturating_mul(1 << doublings).min(most);
    let digest = contract::bundle::sha256(format!("{} {}", job.domain, job.failures).as_bytes());
    pause + pause * u64::from(digest[0]) / 1024
}

impl Step {
    /// Of an order in line: when it was looked at.
    fn checked_at(&self) -> Option<u64> {
        match self {
            Self::InLine { checked_at } | Self::Looked { checked_at } => Some(*checked_at),
            _ => None,
        }
    }
}

impl Event {
    fn name(&self) -> &'static str {
        match self {
            Self::Due => "due",
            Self::Checked(_) => "checked",
            Self::Held(_) => "held",
            Self::Crowded => "crowded",
            Self::Ordered(_) => "ordered",
            Self::Looked(_) => "looked",
            Self::Presented(_) => "presented",
            Self::Asked => "asked",
            Self::KeyMade(_) => "key made",
            Self::Accepted => "accepted",
            Self::Pending => "pending",
            Self::Certified { .. } => "certified",
            Self::Failed(_) => "failed",
        }
    }
}
