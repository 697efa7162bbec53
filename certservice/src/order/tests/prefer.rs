use contract::Hostname;
use contract::api::{State, Who};

use super::*;
use crate::order::{Event, Task, next};

const NOW: u64 = 1_800_000_000;

fn pace() -> Pace {
    let issuers = ["a", "b", "c"].map(str::to_owned).to_vec();
    Pace { retry_seconds_min: 20, retry_seconds_max: 3600, rsa: false, issuers, renewals_wait_seconds: 100 }
}

fn job(issuer: &str, served: u64) -> Job {
    Job::new(Hostname::parse("shop.example").unwrap(), issuer.into(), served, NOW)
}

/// Which issuers are left alone, and for how long.
fn closed<'a>(issuers: &'a [(&str, u64)]) -> impl Fn(&str) -> Option<Held> + 'a {
    |issuer| {
        let (_, seconds) = issuers.iter().find(|(name, _)| *name == issuer)?;
        Some(Held { until: NOW + seconds, whole: true, code: "ca_unavailable".into(), says: "gone".into() })
    }
}

fn failed(code: &'static str, then: Then) -> Event {
    Event::Failed(Failure::new(code, "because", State::Blocked, Who::Operator, then))
}

#[test]
fn the_first_that_is_open_is_taken_and_the_others_are_named() {
    let chosen = |issuer: &str, held: &[(&str, u64)]| {
        let choice = choose(&job(issuer, 0), &pace(), NOW, closed(held)).unwrap();
        let passed: Vec<_> = choice.passed.iter().map(|passed| (passed.issuer.clone(), passed.until - NOW)).collect();
        (choice.issuer, passed, choice.until.map(|until| until - NOW))
    };
    assert_eq!(chosen("a", &[]), ("a".into(), vec![], None));
    assert_eq!(chosen("a", &[("a", 9)]), ("b".into(), vec![("a".into(), 9)], None));
    assert_eq!(chosen("a", &[("a", 9), ("b", 5)]), ("c".into(), vec![("a".into(), 9), ("b".into(), 5)], None));
    // Where none is open, whichever is so first.
    assert_eq!(chosen("a", &[("a", 9), ("b", 5), ("c", 7)]), ("b".into(), vec![("a".into(), 9)], Some(5)));
    // What was closed until now is open.
    assert_eq!(chosen("a", &[("a", 0)]).0, "a");
    // The preferred one is back.
    assert_eq!(chosen("c", &[("a", 9)]).0, "b");
}

#[test]
fn an_order_with_one_issuer_or_half_a_bundle_stays() {
    let one = Pace { issuers: vec!["a".into()], ..pace() };
    assert_eq!(choose(&job("a", 0), &one, NOW, closed(&[("a", 9)])), None);
    assert_eq!(others_at(&job("a", 0), &one, NOW, closed(&[("a", 9)])), None);
    let own = Job { issuers: vec!["b".into()], ..job("b", 0) };
    assert_eq!(choose(&own, &pace(), NOW, closed(&[("b", 9)])), None);
    // Another preference moves it.
    assert_eq!(choose(&Job { issuer: "a".into(), ..own }, &pace(), NOW, closed(&[])).unwrap().issuer, "b");
}

#[test]
fn in_line_it_is_looked_at_again_when_another_opens() {
    let held = [("a", 5), ("b", 50), ("c", 20)];
    assert_eq!(others_at(&job("a", 0), &pace(), NOW, closed(&held)), Some(NOW + 20));
    assert_eq!(others_at(&job("b", 0), &pace(), NOW, closed(&held)), Some(NOW + 5));
}

#[test]
fn a_renewal_waits_for_its_issuer_and_then_goes_on() {
    let (renewal, held) = (job("a", 3), [("a", 5000)]);
    let chosen = |now| choose(&renewal, &pace(), now, closed(&held)).unwrap().issuer;
    assert_eq!((chosen(NOW), chosen(NOW + 99), chosen(NOW + 100)), ("a".into(), "a".into(), "b".into()));
    assert_eq!(others_at(&renewal, &pace(), NOW, closed(&held)), Some(NOW + 100));
    // It can't replace what another CA has made.
    let (mut renewal, limits) = (Job { replaces: Some("x.y".into()), ..renewal }, crate::budget::Kind::Replacement);
    assert_eq!((renewal.replaces(), renewal.kind()), (Some("x.y"), limits));
    renewal.issuer = "b".into();
    assert_eq!((renewal.replaces(), renewal.kind()), (None, crate::budget::Kind::New));
}

#[test]
fn what_the_domain_has_wrong_keeps_an_order_where_it_is() {
    for (code, then, moves) in [
        ("name_refused", Then::Stop, true),
        ("paused_by_ca", Then::Retry { after: 60 }, true),
        ("rate_limited", Then::Retry { after: 60 }, true),
        ("caa_forbids", Then::NewOrder, true),
        ("certificate_refused", Then::NewOrder, true),
        ("challenge_failed", Then::NewOrder, false),
        ("internal_error", Then::Retry { after: 0 }, false),
        ("ca_unavailable", Then::Retry { after: 0 }, false),
    ] {
        let (job, tasks) = next(Job { step: Step::Ordering, ..job("a", 0) }, failed(code, then), NOW, &pace());
        assert_eq!((job.issuer == "b", tasks), (moves, Vec::<Task>::new()), "{code}");
        if moves {
            assert_eq!((&job.step, job.due_at, job.status.state), (&Step::Queued, NOW, State::Working), "{code}");
            assert_eq!((job.passed[0].issuer.as_str(), job.passed[0].code.as_str()), ("a", code));
            assert!(job.status.says.contains("b, is asked (a: because)"), "{:?}", job.status);
        }
    }
}

#[test]
fn a_name_is_blocked_when_all_have_refused_it() {
    let mut order = Job { step: Step::Ordering, ..job("a", 0) };
    for issuer in ["b", "c"] {
        (order, _) = next(Job { step: Step::Ordering, ..order }, failed("name_refused", Then::Stop), NOW, &pace());
        assert_eq!(order.issuer, issuer);
    }
    (order, _) = next(Job { step: Step::Ordering, ..order }, failed("name_refused", Then::Stop), NOW, &pace());
    assert_eq!((&order.step, order.status.state), (&Step::Stopped, State::Blocked));
    // One that has only put it off is waited for.
    let mut order = Job { step: Step::Ordering, ..job("a", 0) };
    let later = Then::Retry { after: 500 };
    for (code, then) in [("name_refused", Then::Stop), ("rate_limited", later), ("name_refused", Then::Stop)] {
        (order, _) = next(Job { step: Step::Ordering, ..order }, failed(code, then), NOW, &pace());
    }
    assert_eq!((order.issuer.as_str(), &order.step, order.due_at), ("b", &Step::Queued, NOW + 500));
}

#[test]
fn a_ca_that_dies_half_way_keeps_an_order_no_longer_than_three_failures_take() {
    let down = || Event::Failed(Failure::unreachable("gone", 0));
    let validating = Step::Validating { order: "https://a/1".into(), polls: 0 };
    let mut order = Job { step: validating, ..job("a", 0) };
    for failures in 1..3 {
        (order, _) = next(order, down(), NOW, &pace());
        assert_eq!((order.issuer.as_str(), order.failures), ("a", failures));
    }
    (order, _) = next(order, down(), NOW, &pace());
    assert_eq!((order.issuer.as_str(), &order.step), ("b", &Step::Queued));
    // What it has certified already is waited for.
    let key = crate::order::tests::key();
    let finalizing = Step::Finalizing { order: "https://a/1".into(), key, polls: 0 };
    let (order, _) = next(Job { step: finalizing, failures: 9, ..job("a", 0) }, down(), NOW, &pace());
    assert_eq!(order.issuer, "a");
}
