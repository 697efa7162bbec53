//! Answers that stand in DNS.

use super::*;

fn answers() -> Vec<Challenge> {
    vec![Challenge { kind: contract::ChallengeKind::Dns01, ..answer() }]
}

fn presenting() -> Step {
    Step::Presenting { order: url() }
}

#[test]
fn an_answer_is_put_into_dns_and_spreads_before_the_ca_looks() {
    let looked = Event::Looked(OrderState::Pending(answers()));
    let (order, tasks) = next(job(ordered()), looked, NOW, &PACE);
    assert_eq!((&order.step, tasks), (&presenting(), vec![Task::Present(answers())]));
    // After a crash it is put there again.
    assert_eq!(next(order.clone(), Event::Due, NOW, &PACE).1, vec![Task::Present(answers())]);
    let (order, tasks) = next(order, Event::Presented(30), NOW, &PACE);
    assert_eq!((&order.step, order.due_at, tasks), (&Step::Answering { order: url() }, NOW + 30, vec![]));
    let (order, tasks) = next(order, Event::Due, NOW + 30, &PACE);
    assert_eq!(tasks, [Task::Publish(answers()), Task::Ask { order: url() }]);
    let (order, _) = next(order, Event::Asked, NOW + 30, &PACE);
    let (_, tasks) = next(order, Event::Looked(OrderState::Ready), NOW + 31, &PACE);
    assert_eq!(tasks, [Task::Withdraw(answers()), Task::MakeKey]);
}

#[test]
fn a_zone_that_can_not_be_changed_keeps_the_order_and_tries_again() {
    let says = Failure::new("dns_update_failed", "refused", State::Working, Who::Operator, Then::Retry { after: 0 });
    let (order, tasks) = next(Job { answers: answers(), ..job(presenting()) }, Event::Failed(says), NOW, &PACE);
    assert_eq!((&order.step, order.answers.len(), tasks), (&presenting(), 1, vec![]));
    assert!(order.due_at >= NOW + 20 && order.status.code == "dns_update_failed", "{:?}", order.status);
    // The CA gives it up: what stands in DNS goes.
    let gone = Event::Looked(OrderState::Invalid(failure(Then::NewOrder)));
    let (order, tasks) = next(Job { answers: answers(), ..job(validating(3)) }, gone, NOW, &PACE);
    assert_eq!((&order.step, tasks), (&Step::Queued, vec![Task::Withdraw(answers())]));
}
