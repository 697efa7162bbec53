//! The RSA certificate beside the ECDSA one.

use super::*;
use crate::issue::KeyKind;

const BOTH: Pace = pace(true);

fn both() -> Box<Bundle> {
    let rsa = Some(contract::Second { x5c: vec!["rsa".into()], key: key().sealed });
    Box::new(Bundle { rsa, ..*bundle() })
}

/// An order whose first certificate is here.
fn half() -> Job {
    let certified = Event::Certified { bundle: bundle(), facts: facts() };
    let (job, tasks) = next(job(finalizing(0)), certified, NOW, &BOTH);
    assert_eq!((&job.step, job.spent, tasks), (&Step::Looked { checked_at: NOW }, false, vec![]));
    job
}

#[test]
fn a_second_order_brings_the_rsa_certificate_and_both_are_issued() {
    let ecdsa = job(Step::Queued);
    assert_eq!((ecdsa.key_kind(), half().key_kind()), (KeyKind::EcdsaP256, KeyKind::Rsa2048));
    let mut job = half();
    for (event, step) in [
        (Event::Due, Step::Ordering),
        (Event::Ordered(Some(url())), ordered()),
        (Event::Looked(OrderState::Ready), ready()),
        (Event::KeyMade(key()), keyed()),
        (Event::Accepted, finalizing(0)),
    ] {
        job = next(job, event, NOW, &BOTH).0;
        assert_eq!((&job.step, job.key_kind()), (&step, KeyKind::Rsa2048));
    }
    let other = Facts { serial: "02".into(), ..facts() };
    let (job, tasks) = next(job, Event::Certified { bundle: both(), facts: other }, NOW, &BOTH);
    // What is shown is the first certificate.
    assert_eq!(job.step, Step::Issued { bundle: both(), facts: Box::new(facts()) });
    assert_eq!((tasks, job.first), (vec![Task::Announce(both())], None));
}

#[test]
fn a_crash_between_the_two_keeps_the_first_certificate() {
    let stored: Job = serde_json::from_str(&serde_json::to_string(&half()).unwrap()).unwrap();
    assert_eq!(stored, half());
    let (resumed, tasks) = next(stored, Event::Due, NOW, &BOTH);
    assert_eq!((resumed.first, tasks), (half().first, vec![Task::Order]));
}

#[test]
fn a_second_order_that_would_have_to_wait_delays_nothing() {
    let says = "no orders left".to_owned();
    let held = Held { until: NOW + 3600, whole: true, code: "rate_limited".into(), says };
    let (job, tasks) = next(half(), Event::Held(held), NOW, &BOTH);
    assert_eq!(job.step, Step::Issued { bundle: bundle(), facts: Box::new(facts()) });
    assert_eq!(tasks, vec![Task::Announce(bundle())]);
    assert!(job.status.says.contains("no orders left"), "{}", job.status.says);
}

#[test]
fn a_second_order_that_fails_delays_nothing() {
    for then in [Then::Retry { after: 60 }, Then::NewOrder, Then::Stop] {
        let answering = Job { step: Step::Answering { order: url() }, answers: vec![answer()], ..half() };
        let (job, tasks) = next(answering, Event::Failed(failure(then)), NOW, &BOTH);
        assert_eq!(job.step, Step::Issued { bundle: bundle(), facts: Box::new(facts()) });
        assert_eq!(tasks, vec![Task::Announce(bundle()), Task::Withdraw(vec![answer()])]);
        assert_eq!((job.status.state, job.status.code.as_str()), (State::Live, "issued"));
        assert!(job.status.says.contains("connection refused"), "{}", job.status.says);
    }
}

#[test]
fn orders_stored_before_there_were_second_certificates_go_on() {
    let text = serde_json::to_string(&job(ordered())).unwrap();
    assert!(!text.contains("first"));
    assert_eq!(serde_json::from_str::<Job>(&text).unwrap().first, None);
}
