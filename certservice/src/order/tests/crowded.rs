//! Orders that were looked at while others had all places.

use super::*;

fn looked(job: Job) -> Job {
    let (job, tasks) = next(job, Event::Crowded, NOW, &PACE);
    assert_eq!((&job.step, tasks), (&Step::Looked { checked_at: NOW }, vec![]));
    job
}

#[test]
fn without_a_place_an_order_waits_in_line_with_what_its_look_has_found() {
    let waits = looked(job(Step::Queued));
    assert_eq!((waits.stage(), waits.place(), waits.failures), (Stage::InLine, NOW, 0));
    let stored: Job = serde_json::from_str(&serde_json::to_string(&waits).unwrap()).unwrap();
    assert_eq!(stored, waits);
    // Its turn comes: it leaves at once, and after long it is looked at first.
    let (leaves, tasks) = next(waits.clone(), Event::Due, NOW + 600, &PACE);
    assert_eq!((&leaves.step, tasks), (&Step::Ordering, vec![Task::Order]));
    let (stale, tasks) = next(waits.clone(), Event::Due, NOW + 601, &PACE);
    assert_eq!((&stale.step, tasks), (&waits.step, vec![Task::Check]));
    let (leaves, _) = next(stale.clone(), Event::Checked(report(None, false)), NOW + 602, &PACE);
    assert_eq!(leaves.step, Step::Ordering);
    let (moved_away, _) = next(stale, Event::Checked(report(Some("no_record"), false)), NOW + 602, &PACE);
    assert_eq!((&moved_away.step, moved_away.status.code.as_str()), (&Step::Queued, "no_record"));
    // A renewal that replaces goes by the end of what it replaces.
    let renewal = Job { deadline: NOW + 77, replaces: Some("a.1".into()), ..Job::new(name(), "ca".into(), 4, NOW) };
    let renewal = looked(renewal);
    assert_eq!((renewal.stage(), renewal.place()), (Stage::Uncounted, NOW + 77));
}

#[test]
fn who_waits_for_a_place_is_told_so_and_the_limit_once_that_is_why() {
    let order = |job: &Job| job.status.steps.iter().find(|step| step.id == "order").unwrap().clone();
    let waits = looked(job(Step::Queued));
    assert_eq!((waits.status.state, waits.status.code.as_str()), (State::Working, "in_line"));
    assert_eq!((order(&waits).ok, order(&waits).code.as_str()), (None, "in_line"));
    // Where its issuer is closed meanwhile it is not left waiting untold, nor kept from another issuer.
    assert_eq!(waits.others_at, Some(NOW));
    let (held, _) = next(waits.clone(), held(true), NOW + 9, &PACE);
    assert_eq!((&held.step, order(&held).code.as_str()), (&Step::InLine { checked_at: NOW }, "rate_limited"));
    // What went wrong last stays shown until it is over; it is not what the order waits for.
    let (failed, _) = next(job(Step::Queued), Event::Checked(report(Some("no_record"), false)), NOW, &PACE);
    let again = looked(Job { checks: report(None, false).steps, ..failed });
    assert_eq!((again.status.code.as_str(), order(&again).code.as_str()), ("no_record", "in_line"));
    let renewal = looked(Job::new(name(), "ca".into(), 4, NOW));
    assert_eq!((renewal.status.state, order(&renewal).code.as_str()), (State::Live, "in_line"));
}
