//! Orders that wait for a visitor.

use contract::api::OrderWhen;

use super::*;

fn awaited() -> Job {
    job(Step::Queued).when(OrderWhen::FirstVisit)
}

#[test]
fn no_order_leaves_before_a_visitor_comes_and_a_domain_that_is_ready_rests() {
    let waits = awaited();
    assert_eq!((waits.status.code.as_str(), waits.status.state), (AWAITED, State::Working));
    assert_eq!((waits.stage(), next(waits.clone(), Event::Due, NOW, &PACE).1), (Stage::ToCheck, vec![Task::Check]));
    let (rests, tasks) = next(waits, Event::Checked(report(None, false)), NOW, &PACE);
    assert_eq!((&rests.step, tasks), (&Step::Parked, vec![]));
    let codes: Vec<_> = rests.status.steps.iter().map(|step| step.code.as_str()).collect();
    assert_eq!(codes, ["points_here", AWAITED, "not_issued"]);
}

#[test]
fn what_is_wrong_with_a_domain_is_told_before_anybody_comes_and_looked_at_less_and_less() {
    let mut waits = awaited();
    let mut pauses = Vec::new();
    for _ in 0..16 {
        let found = Event::Checked(report(Some("no_record"), false));
        let (after, tasks) = next(waits, found, NOW, &PACE);
        assert_eq!((&after.step, tasks), (&Step::Awaited, vec![]));
        assert_eq!((after.status.code.as_str(), after.status.state), ("no_record", State::ActionNeeded));
        pauses.push(after.due_at - NOW);
        waits = after;
    }
    assert!((20..=25).contains(&pauses[0]) && pauses[15] >= 24 * 3600, "{pauses:?}");
    let order = waits.status.steps.iter().find(|step| step.id == "order").unwrap();
    assert_eq!(order.code, AWAITED);
    // A doubt is none to be tried out while nobody has come.
    let doubtful = Event::Checked(report(Some("port_80_unreachable"), true));
    assert_eq!(next(waits.clone(), doubtful, NOW + 40 * 86_400, &PACE).0.step, Step::Awaited);
    let (rests, _) = next(waits, Event::Checked(report(None, false)), NOW, &PACE);
    assert_eq!((rests.step, rests.failures, rests.status.code.as_str()), (Step::Parked, 0, AWAITED));
}

#[test]
fn a_visitor_brings_the_order_and_goes_first() {
    let come = awaited().visited(NOW + 5);
    assert_eq!(
        (&come.step, come.lane, come.due_at, come.visited_at),
        (&Step::Queued, Lane::Visitor, NOW + 5, Some(NOW + 5))
    );
    let (leaves, tasks) = next(come, Event::Checked(report(None, false)), NOW + 5, &PACE);
    assert_eq!((leaves.step, tasks), (Step::Ordering, vec![Task::Order]));
}

#[test]
fn a_visit_to_a_domain_that_does_not_lead_here_brings_no_order_and_is_not_repeated() {
    let come = awaited().visited(NOW);
    let (again, tasks) = next(come.clone(), Event::Checked(report(Some("no_record"), false)), NOW, &PACE);
    assert_eq!((&again.step, tasks), (&Step::Awaited, vec![]));
    assert!(again.waits_again(&come) && again.visited_at == Some(NOW) && again.due_at >= NOW + 20, "{again:?}");
    assert_eq!(again.status.code, "no_record");
    // Without a visitor an order is tried again and again.
    let (order, _) = next(job(Step::Queued), Event::Checked(report(Some("no_record"), false)), NOW, &PACE);
    assert_eq!(order.step, Step::Queued);
}

#[test]
fn an_order_that_waits_for_a_visitor_goes_to_no_other_issuer() {
    let pace = Pace { issuers: vec!["ca".into(), "other".into()], ..PACE };
    let found = Event::Checked(report(Some("caa_forbids"), false));
    let (after, _) = next(awaited(), found, NOW, &pace);
    assert_eq!((after.step, after.issuer.as_str()), (Step::Awaited, "ca"));
}

#[test]
fn what_the_ca_refuses_a_visitors_order_is_tried_again_like_any_other() {
    let come = Job { step: validating(1), ..awaited().visited(NOW) };
    let (after, _) = next(come, Event::Failed(failure(Then::NewOrder)), NOW, &PACE);
    assert_eq!((&after.step, after.status.code.as_str()), (&Step::Queued, "challenge_failed"));
}
