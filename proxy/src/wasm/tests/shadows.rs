//! Shadows beside guests that answer at once and that ask other servers.

use futures_util::FutureExt;

use super::waiting::{Server, bound_on, reply};
use super::*;

#[test]
fn a_shadow_stands_on_the_plan_of_the_live_one_and_is_asked_each_time() {
    let live = hostile("memo").expect("is accepted");
    let shadow = Arc::new(live.on_terms(Terms::SHADOW));
    let beside = Shadow::new("hostile", shadow.clone(), 100.0, 0);
    for _ in 0..3 {
        let sample = beside.sample(&live).expect("of all calls");
        let said = live.on_request(&FACTS, &get("/a"));
        assert_eq!(said, Ok(Action::Deny(401)));
        sample.request(&said, &FACTS, &get("/a"));
    }
    let report = beside.report();
    assert_eq!((report.live.calls, report.live.without_call, report.shadow.calls), (1, 2, 3));
    assert_eq!((report.same, report.different), (1, 2), "the shadow counts on, in an instance of its own");
    assert!(Shadow::new("hostile", shadow, 0.0, 0).sample(&live).is_none());
}

#[test]
fn a_shadow_that_fails_again_and_again_is_not_asked_any_more() {
    let live = bind("redirects", r#"{"rules": []}"#);
    let failing = Arc::new(hostile("by-path").expect("is accepted").on_terms(Terms::SHADOW));
    let beside = Shadow::new("hostile", failing, 100.0, 0);
    let asked = (0..1100).filter(|_| match beside.sample(&live) {
        Some(sample) => {
            sample.request(&Ok(Action::Next), &FACTS, &get("/trap"));
            true
        }
        None => false,
    });
    assert_eq!(asked.count(), 1000);
    let report = beside.report();
    assert_eq!((report.shadow.faults["trap"], report.crashes.len()), (1000, 1));
    assert!(report.stopped.is_some());
}

/// Asks the live binding, and its shadow of that behaviour about the same.
fn waits_beside(
    live: &Arc<Binding>,
    behaviour: &str,
    server: &Arc<Server>,
    times: usize,
) -> contract::admin::ShadowReport {
    let shadow = bound_on(&HOST, behaviour, server, Terms::SHADOW).expect("is accepted");
    let beside = Shadow::new("hostile-waiting", shadow, 100.0, 0);
    for _ in 0..times {
        let sample = beside.sample(live).expect("of all calls");
        let mut asked = live.on_request_waiting(&FACTS, &get("/a"), true).now_or_never().expect("is answered at once");
        sample.waited(&mut asked, &FACTS, &get("/a"));
    }
    beside.report()
}

#[test]
fn a_shadow_of_one_that_waits_is_told_what_was_heard_and_asks_nobody() {
    let server = Server::at_once(reply(203));
    let live = bound_on(&HOST, "ask", &server, Terms::default()).expect("is accepted");
    let calls = |report: &contract::admin::ShadowReport| [report.same, report.different, report.not_compared];
    for (behaviour, counts, kind, told) in [
        ("ask", [2, 0, 0], "", ""),
        ("short", [2, 0, 0], "", ""),
        ("post", [0, 2, 0], "asks something else", "asks auth: POST /a"),
        ("five", [0, 2, 0], "asks something else", "asks auth: GET /a"),
        ("none", [0, 2, 0], "respond → next", "next"),
        ("trap-after", [0, 2, 0], "answered → failed (trap)", ""),
        ("spin-after", [0, 2, 0], "answered → failed (deadline)", "deadline"),
    ] {
        let before = server.asked().len();
        let report = waits_beside(&live, behaviour, &server, 2);
        assert_eq!(server.asked().len(), before + 2, "{behaviour}: only the live one asks");
        assert_eq!(calls(&report), counts, "{behaviour}: {report:?}");
        if let Some(found) = report.differences.first() {
            assert_eq!(found.kind, kind, "{behaviour}");
            assert!(found.examples[0].shadow.contains(told), "{behaviour}: {found:?}");
        }
        assert_eq!((report.live.calls, report.shadow.calls), (2, 2), "{behaviour}");
        let failed: u64 = report.shadow.faults.values().sum();
        assert_eq!(failed, if kind.contains("failed") { 2 } else { 0 }, "{behaviour}");
    }
    // Not by this way either.
    let shadow = bound_on(&HOST, "ask", &server, Terms::SHADOW).expect("is accepted");
    let before = server.asked().len();
    assert!(shadow.on_request(&FACTS, &get("/a")).is_err() && server.asked().len() == before);
}

#[test]
fn failures_of_servers_are_heard_too() {
    for why in [NoReply::TimedOut, NoReply::Unreachable, NoReply::Broken, NoReply::TooLarge] {
        let server = Server::at_once(Err(why));
        let live = bound_on(&HOST, "ask", &server, Terms::default()).expect("is accepted");
        assert_eq!(waits_beside(&live, "ask", &server, 1).same, 1, "{why:?}");
    }
}

#[test]
fn what_nobody_was_asked_is_not_compared() {
    let server = Server::at_once(reply(200));
    let live = bound_on(&HOST, "memo", &server, Terms::default()).expect("is accepted");
    let report = waits_beside(&live, "ask", &server, 3);
    assert_eq!((server.asked().len(), report.live.without_call), (1, 2));
    assert_eq!((report.calls, report.not_compared), (1, 2), "{report:?}");
    assert_eq!(waits_beside(&live, "none", &server, 3).different, 3, "which asks nobody");
}
