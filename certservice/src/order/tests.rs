mod crowded;
mod in_dns;
mod second;
mod visits;

use contract::api::{DomainStep, State, Who};
use contract::sealed::Sealed;
use contract::{Bundle, Challenge, Hostname};

use super::*;
use crate::budget::Kind;
use crate::issue::{Facts, Failure, OrderState, Then};
use crate::precheck::Report;

const NOW: u64 = 1_800_000_000;
const PACE: Pace = pace(false);

const fn pace(rsa: bool) -> Pace {
    Pace { retry_seconds_min: 20, retry_seconds_max: 3600, rsa, issuers: Vec::new(), renewals_wait_seconds: 0 }
}

fn name() -> Hostname {
    Hostname::parse("shop.example").unwrap()
}

fn job(step: Step) -> Job {
    Job { step, ..Job::new(name(), "ca".into(), 0, NOW) }
}

fn url() -> String {
    "https://ca.example/order/1".into()
}

fn answer() -> Challenge {
    Challenge {
        domain: name(),
        token: "t".into(),
        kind: contract::ChallengeKind::Http01,
        key_authorization: "t.k".into(),
        expires_at: NOW + 60,
    }
}

pub(super) fn key() -> SealedKey {
    let empty = String::new;
    let sealed =
        Sealed { protected: empty(), recipients: vec![], aad: empty(), iv: empty(), ciphertext: empty(), tag: empty() };
    SealedKey { csr: vec![1, 2, 255], sealed }
}

fn bundle() -> Box<Bundle> {
    let (domain, key) = (name(), key().sealed);
    let issuer = "ca".into();
    Box::new(Bundle { domain, revision: 1, issuer, not_before: NOW, not_after: NOW + 90, x5c: vec![], key, rsa: None })
}

fn facts() -> Facts {
    let ari_id = Some("a.1".into());
    Facts {
        issued_by: "CN=ca".into(),
        serial: "01".into(),
        sha256: [1; 32],
        not_before: NOW,
        not_after: NOW + 90,
        ari_id,
    }
}

fn failure(then: Then) -> Failure {
    Failure::new("challenge_failed", "connection refused", State::ActionNeeded, Who::Customer, then)
}

fn ordered() -> Step {
    Step::Ordered { order: url() }
}
fn validating(polls: u32) -> Step {
    Step::Validating { order: url(), polls }
}
fn ready() -> Step {
    Step::Ready { order: Some(url()) }
}
fn keyed() -> Step {
    Step::Keyed { order: Some(url()), key: key() }
}
fn finalizing(polls: u32) -> Step {
    Step::Finalizing { order: url(), key: key(), polls }
}

#[test]
fn an_order_goes_from_registration_to_the_bundle() {
    let script: Vec<(Event, Step, Vec<Task>)> = vec![
        (Event::Due, Step::Queued, vec![Task::Check]),
        (Event::Checked(report(None, false)), Step::Ordering, vec![Task::Order]),
        (Event::Ordered(Some(url())), ordered(), vec![Task::Look { order: url() }]),
        (
            Event::Looked(OrderState::Pending(vec![answer()])),
            Step::Answering { order: url() },
            vec![Task::Publish(vec![answer()]), Task::Ask { order: url() }],
        ),
        (Event::Asked, validating(0), vec![Task::Look { order: url() }]),
        (Event::Looked(OrderState::Pending(vec![])), validating(1), vec![]),
        (Event::Due, validating(1), vec![Task::Look { order: url() }]),
        (Event::Looked(OrderState::Ready), ready(), vec![Task::Withdraw(vec![answer()]), Task::MakeKey]),
        (Event::KeyMade(key()), keyed(), vec![Task::Finalize { order: Some(url()), key: key() }]),
        (Event::Accepted, finalizing(0), vec![Task::Fetch { order: url(), key: key() }]),
        (Event::Pending, finalizing(1), vec![]),
        (Event::Due, finalizing(1), vec![Task::Fetch { order: url(), key: key() }]),
        (
            Event::Certified { bundle: bundle(), facts: facts() },
            Step::Issued { bundle: bundle(), facts: Box::new(facts()) },
            vec![Task::Announce(bundle())],
        ),
    ];
    let mut job = job(Step::Queued);
    for (event, step, tasks) in script {
        let shown = format!("{event:?}");
        let (next_job, next_tasks) = next(job, event, NOW, &PACE);
        assert_eq!((&next_job.step, next_tasks), (&step, tasks), "{shown}");
        let answering = matches!(step, Step::Answering { .. } | Step::Validating { .. });
        assert_eq!(next_job.answers.len(), usize::from(answering), "{shown}");
        job = next_job;
    }
    assert_eq!((job.status.state, job.status.code.as_str()), (State::Live, "issued"));
}

/// What a look at the domain finds: nothing wrong, or a fault.
fn report(fault: Option<&str>, doubtful: bool) -> Report {
    let step = DomainStep {
        id: "dns".into(),
        ok: Some(fault.is_none()),
        code: fault.unwrap_or("points_here").into(),
        says: "seen".into(),
        fix: fault.map(|_| "mend it".into()),
        who: if fault.is_some() { Who::Customer } else { Who::Nobody },
    };
    Report { steps: vec![step], doubtful }
}

#[test]
fn no_order_leaves_before_the_look_finds_nothing_wrong() {
    let mut stands = job(Step::Queued);
    for failures in 1..=12 {
        let (next_job, tasks) = next(stands, Event::Checked(report(Some("no_record"), false)), NOW, &PACE);
        assert_eq!((&next_job.step, tasks, next_job.failures), (&Step::Queued, vec![], failures));
        assert!((20..=4500).contains(&(next_job.due_at - NOW)), "{}", next_job.due_at - NOW);
        stands = next_job;
    }
    let status = &stands.status;
    assert_eq!((status.state, status.code.as_str(), status.who), (State::ActionNeeded, "no_record", Who::Customer));
    let shown: Vec<_> = status.steps.iter().map(|step| (step.id.as_str(), step.ok)).collect();
    assert_eq!(shown, [("dns", Some(false)), ("order", None), ("certificate", None)]);
    // However long it lasts: a name without a record fails at the CA, too.
    let late = NOW + 365 * 86_400;
    let (stands, tasks) = next(stands, Event::Checked(report(Some("no_record"), false)), late, &PACE);
    assert_eq!(tasks, vec![]);
    let (stands, tasks) = next(stands, Event::Checked(report(None, false)), late, &PACE);
    assert_eq!(tasks, vec![Task::Order]);
    assert_eq!(stands.status.steps[0].ok, Some(true));
}

#[test]
fn what_the_ca_may_see_otherwise_is_ordered_once_a_day_all_the_same() {
    let doubtful = || Event::Checked(report(Some("wrong_answer"), true));
    let (stands, tasks) = next(job(Step::Queued), doubtful(), NOW + 86_399, &PACE);
    assert_eq!(tasks, vec![]);
    let (stands, tasks) = next(stands, doubtful(), NOW + 86_400, &PACE);
    assert_eq!(tasks, vec![Task::Order]);
    let (_, tasks) = next(stands, doubtful(), NOW + 86_401, &PACE);
    assert_eq!(tasks, vec![]);
}

fn held(whole: bool) -> Event {
    Event::Held(Held { until: NOW + 500, whole, code: "rate_limited".into(), says: "used up".into() })
}

#[test]
fn where_all_wait_an_order_keeps_its_place_in_line() {
    let (waits, tasks) = next(job(Step::Queued), held(true), NOW, &PACE);
    assert_eq!((&waits.step, tasks, waits.failures), (&Step::InLine { checked_at: NOW }, vec![], 0));
    assert_eq!((waits.stage(), waits.place(), waits.due_at), (Stage::InLine, NOW, NOW + 500));
    let status = &waits.status;
    assert_eq!((status.state, status.code.as_str(), status.who), (State::Working, "rate_limited", Who::Nobody));
    let order = status.steps.iter().find(|step| step.id == "order").unwrap();
    assert_eq!((order.ok, order.code.as_str()), (None, "rate_limited"));
    // Its turn comes: it leaves at once, and after long it is looked at first.
    let (leaves, tasks) = next(waits.clone(), Event::Due, NOW + 600, &PACE);
    assert_eq!((&leaves.step, tasks), (&Step::Ordering, vec![Task::Order]));
    let (stays, tasks) = next(waits.clone(), Event::Due, NOW + 601, &PACE);
    assert_eq!((&stays.step, tasks), (&waits.step, vec![Task::Check]));
    let (again, _) = next(waits.clone(), held(true), NOW + 9, &PACE);
    assert_eq!(again.step, waits.step);
    // A renewal goes by the end of what it replaces.
    let renewal = Job { deadline: NOW + 77, ..Job::new(name(), "ca".into(), 4, NOW) };
    let (renewal, _) = next(renewal, held(true), NOW, &PACE);
    assert_eq!((renewal.lane, renewal.place(), renewal.status.state), (Lane::Renewal, NOW + 77, State::Live));
}

#[test]
fn where_only_one_name_waits_it_comes_back_later() {
    let (waits, tasks) = next(job(Step::Queued), held(false), NOW, &PACE);
    assert_eq!((&waits.step, tasks, waits.failures, waits.due_at), (&Step::Queued, vec![], 0, NOW + 500));
    assert_eq!(waits.status.steps.iter().find(|step| step.id == "order").unwrap().code, "rate_limited");
}

#[test]
fn a_replacement_that_the_ca_refuses_is_ordered_without_naming_what_it_replaces() {
    let renewal = Job { replaces: Some("a.1".into()), spent: true, ..Job::new(name(), "ca".into(), 4, NOW) };
    assert_eq!(renewal.kind(), Kind::Replacement);
    let renewal = Job { step: Step::Ordering, ..renewal };
    let (again, tasks) = next(renewal, Event::Failed(failure(Then::NotReplacing)), NOW, &PACE);
    assert_eq!((&again.step, tasks, again.failures), (&Step::Looked { checked_at: NOW }, vec![], 0));
    assert_eq!((again.replaces.as_deref(), again.spent, again.kind()), (None, false, Kind::Renewal));
    let (again, tasks) = next(again, Event::Due, NOW, &PACE);
    assert_eq!((&again.step, tasks), (&Step::Ordering, vec![Task::Order]));
}

#[test]
fn an_order_that_never_reached_the_ca_is_charged_once() {
    let spent = Job { spent: true, ..job(Step::Ordering) };
    let (again, _) = next(spent.clone(), Event::Failed(failure(Then::Retry { after: 0 })), NOW, &PACE);
    assert_eq!((&again.step, again.spent), (&Step::Queued, true));
    let (anew, _) = next(spent, Event::Failed(failure(Then::NewOrder)), NOW, &PACE);
    assert!(!anew.spent);
}

#[test]
fn each_step_is_shown_with_what_to_do() {
    let shown = |job: &Job, id: &str| job.status.steps.iter().find(|step| step.id == id).unwrap().clone();
    let (failed, _) = next(job(validating(1)), Event::Failed(failure(Then::NewOrder)), NOW, &PACE);
    let order = shown(&failed, "order");
    assert_eq!(
        (order.ok, order.code.as_str(), order.says.as_str()),
        (Some(false), "challenge_failed", "connection refused")
    );
    assert!(order.fix.is_some() && order.who == Who::Customer);
    assert_eq!(shown(&failed, "certificate").ok, None);
    let (agreed, _) = next(job(ordered()), Event::Looked(OrderState::Ready), NOW, &PACE);
    assert_eq!((shown(&agreed, "order").ok, shown(&agreed, "certificate").ok), (Some(true), None));
    let refused = Failure::new("certificate_refused", "x", State::Working, Who::Operator, Then::Retry { after: 0 });
    let (refused, _) = next(job(finalizing(0)), Event::Failed(refused), NOW, &PACE);
    assert_eq!(shown(&refused, "certificate").code, "certificate_refused");
    let (issued, _) = next(job(keyed()), Event::Certified { bundle: bundle(), facts: facts() }, NOW, &PACE);
    assert_eq!((shown(&issued, "order").ok, shown(&issued, "certificate").ok), (Some(true), Some(true)));
    let renewal = Job::new(name(), "ca".into(), 4, NOW);
    assert_eq!(shown(&renewal, "certificate").ok, Some(true));
}

#[test]
fn an_issuer_without_orders_goes_straight_to_the_key() {
    let (job, tasks) = next(job(Step::Ordering), Event::Ordered(None), NOW, &PACE);
    assert_eq!((&job.step, tasks), (&Step::Ready { order: None }, vec![Task::MakeKey]));
    let (job, tasks) = next(job, Event::KeyMade(key()), NOW, &PACE);
    assert_eq!(tasks, vec![Task::Finalize { order: None, key: key() }]);
    let (job, _) = next(job, Event::Certified { bundle: bundle(), facts: facts() }, NOW, &PACE);
    assert!(matches!(job.step, Step::Issued { .. }));
}

#[test]
fn authorizations_that_are_still_good_need_no_answer() {
    let (job, tasks) = next(job(ordered()), Event::Looked(OrderState::Ready), NOW, &PACE);
    assert_eq!((&job.step, tasks), (&ready(), vec![Task::MakeKey]));
}

/// A crash after a step was stored: what is stored goes on with the same order and the same CSR.
#[test]
fn after_a_crash_each_step_goes_on_where_it_stood() {
    let look = || vec![Task::Look { order: url() }];
    for (step, tasks) in [
        (Step::Queued, vec![Task::Check]),
        (Step::Ordering, vec![Task::Order]),
        (ordered(), look()),
        (Step::Answering { order: url() }, vec![Task::Publish(vec![answer()]), Task::Ask { order: url() }]),
        (validating(3), look()),
        (ready(), vec![Task::MakeKey]),
        (keyed(), vec![Task::Finalize { order: Some(url()), key: key() }]),
        (finalizing(3), vec![Task::Fetch { order: url(), key: key() }]),
    ] {
        let stored = Job { answers: vec![answer()], ..job(step) };
        let text = serde_json::to_string(&stored).unwrap();
        let read: Job = serde_json::from_str(&text).unwrap();
        assert_eq!(read, stored);
        let (resumed, resumed_tasks) = next(read, Event::Due, NOW + 9, &PACE);
        assert_eq!((resumed, resumed_tasks), (stored, tasks));
    }
}

#[test]
fn waits_longer_between_looks_and_gives_up_in_the_end() {
    let mut job = job(validating(0));
    let mut pauses = Vec::new();
    while matches!(job.step, Step::Validating { .. }) {
        let (next_job, tasks) = next(job, Event::Looked(OrderState::Pending(vec![])), NOW, &PACE);
        assert!(tasks.is_empty());
        pauses.push(next_job.due_at - NOW);
        job = next_job;
    }
    assert_eq!(pauses[..6], [1, 2, 4, 8, 15, 15]);
    assert_eq!(pauses.len(), 121);
    assert_eq!((&job.step, job.failures, job.status.code.as_str()), (&Step::Queued, 1, "ca_unavailable"));
}

#[test]
fn a_failure_keeps_the_order_or_gives_it_up() {
    let kept = Job { answers: vec![answer()], ..job(validating(2)) };
    let (job, tasks) = next(kept.clone(), Event::Failed(failure(Then::Retry { after: 0 })), NOW, &PACE);
    assert_eq!((&job.step, job.answers.len(), tasks), (&validating(2), 1, vec![]));
    assert_eq!((job.status.state, job.status.who, job.failing_since), (State::ActionNeeded, Who::Customer, None));
    assert_eq!((job.status.code.as_str(), job.status.says.as_str()), ("challenge_failed", "connection refused"));

    for event in [Event::Failed(failure(Then::NewOrder)), Event::Looked(OrderState::Invalid(failure(Then::NewOrder)))] {
        let (job, tasks) = next(kept.clone(), event, NOW, &PACE);
        assert_eq!((&job.step, job.answers.len()), (&Step::Queued, 0));
        assert_eq!(tasks, vec![Task::Withdraw(vec![answer()])]);
    }
    let (job, tasks) = next(kept, Event::Failed(failure(Then::Stop)), NOW, &PACE);
    assert_eq!((&job.step, tasks), (&Step::Stopped, vec![Task::Withdraw(vec![answer()])]));
}

#[test]
fn pauses_double_up_to_the_limit_with_jitter_and_respect_the_ca() {
    let mut job = job(Step::Queued);
    let mut pauses = Vec::new();
    for _ in 0..12 {
        job = next(job, Event::Failed(failure(Then::Retry { after: 0 })), NOW, &PACE).0;
        pauses.push(job.due_at - NOW);
    }
    for (at, pause) in pauses.iter().enumerate() {
        let base = (20 << at).min(3600);
        assert!((base..=base + base / 4).contains(pause), "{pauses:?}");
    }
    let (job, _) = next(job, Event::Failed(failure(Then::Retry { after: 90_000 })), NOW, &PACE);
    assert_eq!(job.due_at, NOW + 90_000);
    let many = Job { failures: u32::MAX, ..job };
    assert!(next(many, Event::Failed(failure(Then::NewOrder)), NOW, &PACE).0.due_at <= NOW + 4500);
}

#[test]
fn a_failure_stays_shown_until_a_certificate_comes() {
    let (job, _) = next(job(Step::Queued), Event::Failed(failure(Then::Retry { after: 0 })), NOW, &PACE);
    let (job, _) = next(Job { step: Step::Ordering, ..job }, Event::Ordered(Some(url())), NOW, &PACE);
    assert_eq!(job.status.code, "challenge_failed");
    let (job, _) =
        next(Job { step: keyed(), ..job }, Event::Certified { bundle: bundle(), facts: facts() }, NOW, &PACE);
    assert_eq!((job.status.code.as_str(), job.failures), ("issued", 0));
}

#[test]
fn a_renewal_that_fails_leaves_the_domain_live() {
    let renewal = Job::new(name(), "ca".into(), 4, NOW);
    assert_eq!((renewal.revision, renewal.status.state), (5, State::Live));
    let renewal = Job { step: Step::Ordering, ..renewal };
    let (job, _) = next(renewal, Event::Ordered(Some(url())), NOW, &PACE);
    assert_eq!((job.status.state, job.status.code.as_str()), (State::Live, "renewing"));
    let (job, _) = next(job, Event::Failed(failure(Then::NewOrder)), NOW, &PACE);
    assert_eq!((job.status.state, job.status.code.as_str()), (State::Live, "challenge_failed"));
    assert_eq!(job.failing_since, Some(NOW));
    let (again, _) = next(job.clone(), Event::Failed(failure(Then::NewOrder)), NOW + 60, &PACE);
    assert_eq!((again.failures, again.failing_since), (2, Some(NOW)), "since the first");
    // Until there is nothing to be served any more.
    let failed_at = |now| {
        let job = Job { deadline: NOW + 100, step: ordered(), ..job.clone() };
        next(job, Event::Failed(failure(Then::NewOrder)), now, &PACE).0.status.state
    };
    assert_eq!((failed_at(NOW + 99), failed_at(NOW + 100)), (State::Live, State::ActionNeeded));
}

#[test]
fn a_renewal_that_is_refused_for_good_is_tried_again_each_day() {
    let renewal = Job::new(name(), "ca".into(), 4, NOW);
    let (job, _) = next(renewal, Event::Failed(failure(Then::Stop)), NOW, &PACE);
    assert_eq!((&job.step, job.due_at - NOW, job.status.state), (&Step::Queued, 86_400, State::Live));
}

#[test]
fn an_event_out_of_place_costs_the_order_not_the_service() {
    for (step, event) in [
        (Step::Queued, Event::Asked),
        (ordered(), Event::Looked(OrderState::Valid)),
        (validating(0), Event::Looked(OrderState::Processing)),
        (ready(), Event::Accepted),
        (finalizing(0), Event::KeyMade(key())),
    ] {
        let (job, _) = next(job(step), event, NOW, &PACE);
        assert_eq!((&job.step, job.status.code.as_str(), job.failures), (&Step::Queued, "internal_error", 1));
    }
}
