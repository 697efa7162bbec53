//! Shadows beside guests that answer at once and that ask other servers.

use futures_util::FutureExt;

use super::super::binding::under_way_here;
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

/// What a body came to in the live binding, while its shadow was shown it too.
fn body_beside(live: &Arc<Binding>, beside: &Arc<Shadow>, path: &'static str, pieces: &[&str]) -> Result<(), Fault> {
    let fields = BTreeMap::from([("content-type", "text/plain")]);
    let (request, answer) = (get(path), Exchange { response: fields, ..get(path) });
    let sample = beside.body_sample().expect("of all bodies");
    let begun = live.begin(&FACTS, &request, Some(&answer), None, true);
    let mut both = sample.begin(&begun, &FACTS, &request, Some(&answer), None, true);
    let mut body = begun?;
    for (at, piece) in pieces.iter().enumerate() {
        let end = at + 1 == pieces.len();
        let passed = body.as_mut().map_or(Ok(Passed::AsItIs), |body| body.push(piece.as_bytes(), end));
        both = both.take().and_then(|both| {
            both.push(piece.as_bytes(), end, Live { body: body.as_ref(), passed: &passed, took: Duration::ZERO })
        });
        if matches!(passed?, Passed::Refused(_)) {
            break;
        }
    }
    assert!(both.is_none(), "{path}: with the live one's end it is over");
    Ok(())
}

fn shadow_of(binding: &Arc<Binding>) -> Arc<Shadow> {
    Arc::new(Shadow::new("shadow", Arc::new(binding.on_terms(Terms::SHADOW)), 100.0, 0))
}

#[test]
fn the_same_says_the_same_of_bodies() {
    let live = hostile("bodies").expect("is accepted");
    for path in ["/", "/watch/nothing", "/change/shout", "/change/hold", "/change/sizes", "/watch/refuse"] {
        let beside = shadow_of(&live);
        body_beside(&live, &beside, path, &["ab", "c", "d"]).expect("no fault");
        let report = beside.report();
        assert_eq!((report.same, report.different, report.not_compared), (1, 0, 0), "{path}: {report:?}");
        assert_eq!((report.live.calls, report.shadow.calls), (1, 1), "{path}");
        assert!(report.instructions_ratio.is_none_or(|ratio| (0.5..2.0).contains(&ratio)), "{path}: {report:?}");
    }
    for path in ["/watch/trap", "/change/late", "/watch/begin"] {
        let beside = shadow_of(&live);
        assert!(body_beside(&live, &beside, path, &["ab", "c"]).is_err());
        let report = beside.report();
        assert_eq!((report.same, report.live.faults["trap"], report.shadow.faults["trap"]), (1, 1, 1), "{path}");
    }
}

#[test]
fn what_another_configuration_makes_of_bodies_is_told() {
    let rewrite = |replace: &str| bind("rewrite", &format!(r#"{{"replace": [{replace}], "refuse": ["attack"]}}"#));
    let text = |with: &str| rewrite(&format!(r#"{{"find": "aa", "with": "{with}"}}"#));
    let live = text("bb");
    for (shadow, kind, told) in [
        (text("cc"), "response-body: content", "change, 5 bytes"),
        (text("c"), "response-body: length", "change, 4 bytes"),
        (hostile("bodies-up").expect("is accepted"), "response-body: content", "pass, 5 bytes"),
        (hostile("bodies").expect("is accepted"), "response-body: content", "watch, 5 bytes"),
    ] {
        let beside = shadow_of(&shadow);
        body_beside(&live, &beside, "/watch/nothing", &["xa", "ayz"]).expect("no fault");
        let report = beside.report();
        assert_eq!((&report.differences[0].kind[..], report.calls), (kind, 1), "{report:?}");
        let example = &report.differences[0].examples[0];
        assert_eq!((&example.live[..], &example.shadow[..]), ("change, 5 bytes", told));
        assert_eq!(example.about, "shop.example/watch/nothing");
    }
    // The other way round: what the live one lets pass, the shadow sees.
    let passing = bind("hsts", r#"{"max_age": 1}"#);
    for (path, kind) in [
        ("/watch/refuse", "response-body: go on → refuse"),
        ("/watch/nothing", "response-body: pass → watch"),
        ("/change/spin", "answered → failed (deadline)"),
        ("/change/huge", "answered → failed (output)"),
        ("/watch/eat", "answered → failed (memory)"),
        ("/watch/begin", "answered → failed (trap)"),
    ] {
        let beside = shadow_of(&hostile("bodies").expect("is accepted"));
        let begun = passing.hooks().response_body;
        assert!(!begun, "it is asked about no body");
        let sample = beside.body_sample().expect("of all bodies");
        let both = sample.begin(&Ok(None), &FACTS, &get(path), Some(&get(path)), None, true);
        let pushed = both.and_then(|both| {
            both.push(b"abc", true, Live { body: None, passed: &Ok(Passed::AsItIs), took: Duration::ZERO })
        });
        assert!(pushed.is_none(), "{path}");
        let report = beside.report();
        assert_eq!((&report.differences[0].kind[..], report.live.without_call), (kind, 1), "{path}: {report:?}");
    }
}

#[test]
fn a_shadow_takes_no_place_of_a_live_body() {
    let settings = Settings { bodies_per_thread_max: 2, ..Settings::default() };
    let host = Host::new(settings).expect("starts");
    let plugin = host.load(&guest("hostile")).expect("is a plugin");
    let live = host.bind(&plugin, r#"{"behaviour": "bodies"}"#, &Tables::default()).expect("is accepted");
    let beside = shadow_of(&live);
    let begin = || {
        let (request, sample) = (get("/watch/nothing"), beside.body_sample().expect("of all bodies"));
        let begun = live.begin(&FACTS, &request, None, None, true);
        let both = sample.begin(&begun, &FACTS, &request, None, None, true);
        (begun.expect("has a place"), both)
    };
    let (first, second) = (begin(), begin());
    assert!(first.1.is_some() && second.1.is_none());
    assert_eq!((under_way_here(), beside.report().not_compared), ([2, 1], 1));
    drop((first, second));
    assert_eq!((under_way_here(), beside.report().calls), ([0, 0], 0), "what is broken off is not compared");
    let (Some(body), Some(both)) = begin() else { panic!("is shown to both") };
    both.let_go(body.let_go());
    assert_eq!((beside.report().same, under_way_here()), (1, [0, 0]), "as of HEAD");
}
