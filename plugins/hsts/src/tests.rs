use latchkey_sdk::http::{Certificate, Unwell, Visit, check};

use super::*;

const FACTS: Facts = Facts { rollout_bucket: 2500, ..Facts::EXAMPLE };

fn plan(config: &str) -> Hsts {
    check::<Hsts>(config).expect("is accepted").0.policy
}

fn sent(config: &str, facts: &Facts) -> Option<String> {
    let response = Response { host: "shop.example", path: "/", status: 200, wanted: &[] };
    match plan(config).on_response(facts, &response).edits.as_slice() {
        [] => None,
        [Edit::Set(field) | Edit::SetIfAbsent(field)] => String::from_utf8(field.value.clone()).ok(),
        other => panic!("{other:?}"),
    }
}

fn faults(config: &str) -> Vec<String> {
    let diagnostics = check::<Hsts>(config).expect_err("is refused");
    diagnostics.into_iter().map(|d| format!("{}: {}", d.at, d.message)).collect()
}

#[test]
fn sends_what_is_configured() {
    assert_eq!(sent(r#"{"max_age": 86400}"#, &FACTS).as_deref(), Some("max-age=86400"));
    let all = r#"{"max_age": 31536000, "include_subdomains": true, "preload": true}"#;
    assert_eq!(sent(all, &FACTS).as_deref(), Some("max-age=31536000; includeSubDomains; preload"));
}

#[test]
fn sends_zero_to_withdraw_the_promise() {
    assert_eq!(sent(r#"{"max_age": 0}"#, &FACTS).as_deref(), Some("max-age=0"));
}

#[test]
fn says_nothing_over_http_or_for_an_ip_address() {
    assert_eq!(sent(r#"{"max_age": 1}"#, &Facts { visit: Visit::empty(), ..FACTS }), None);
    assert_eq!(sent(r#"{"max_age": 1}"#, &Facts { visit: Visit::HTTPS | Visit::IP_LITERAL_HOST, ..FACTS }), None);
}

#[test]
fn rolls_out_by_bucket() {
    let at = |percent: u64| sent(&format!(r#"{{"max_age": 1, "rollout_percent": {percent}}}"#), &FACTS).is_some();
    assert_eq!([0, 25, 26, 100].map(at), [false, false, true, true]);
    let last = Facts { rollout_bucket: 9999, ..FACTS };
    assert!(sent(r#"{"max_age": 1}"#, &last).is_some());
    assert!(sent(r#"{"max_age": 1, "rollout_percent": 99}"#, &last).is_none());
}

#[test]
fn keeps_the_upstreams_header_only_if_asked() {
    assert_eq!(plan(r#"{"max_age": 1, "upstream_header": "replace"}"#).upstream, Upstream::Replace);
    assert_eq!(plan(r#"{"max_age": 1, "upstream_header": "keep"}"#).upstream, Upstream::Keep);
}

#[test]
fn preload_needs_the_whole_promise() {
    let config = r#"{"max_age": 86400, "preload": true, "rollout_percent": 50}"#;
    assert_eq!(
        faults(config),
        [
            "/preload: preload needs include_subdomains",
            "/preload: preload needs a max_age of at least 31536000, it is 86400",
            "/preload: preload needs a rollout_percent of 100, it is 50",
        ]
    );
}

#[test]
fn reports_all_faults_at_once() {
    let config = r#"{"maxage": 1, "preload": 1, "rollout_percent": 101, "upstream_header": "drop"}"#;
    assert_eq!(
        faults(config),
        [
            "/maxage: unknown key `maxage`",
            "/upstream_header: `drop` is not one of replace, keep, max",
            ": `max_age` is missing",
            "/preload: is 1, true or false is expected",
            "/rollout_percent: 101 is out of range, 0 to 100 are accepted",
        ]
    );
    let milliseconds = r#"{"max_age": 31536000000}"#;
    assert_eq!(faults(milliseconds), ["/max_age: 31536000000 is out of range, 0 to 315360000 are accepted"]);
}

#[test]
fn warns_of_a_rollout_to_nobody() {
    let (_, warnings) = check::<Hsts>(r#"{"max_age": 1, "rollout_percent": 0}"#).expect("is accepted");
    assert_eq!(warnings.len(), 1);
}

const DAY: u64 = 86_400_000;
/// 2026-12-01
const FIRST: u64 = 1_796_083_200_000;
const RAMP: &str = r#"{"stages": [
    {"from": "2026-12-01", "percent": 10, "max_age": 300},
    {"from": "2026-12-02", "percent": 10, "max_age": 86400},
    {"from": "2026-12-02", "percent": 50, "max_age": 300},
    {"from": "2026-12-09", "percent": 100, "max_age": 604800, "include_subdomains": true},
    {"from": "2026-12-16T12:00Z", "percent": 100, "max_age": 31536000, "include_subdomains": true, "preload": true}
]}"#;

#[test]
fn a_ramp_promises_more_from_day_to_day() {
    let at = |now_ms: u64, rollout_bucket: u16| sent(RAMP, &Facts { now_ms, rollout_bucket, ..FACTS });
    let age = |text: &str| Some(text.to_owned());
    assert_eq!(at(FIRST - 1000, 0), None);
    assert_eq!((at(FIRST, 999), at(FIRST, 1000)), (age("max-age=300"), None));
    let second = FIRST + DAY;
    assert_eq!([999, 4999, 5000].map(|bucket| at(second, bucket)), [age("max-age=86400"), age("max-age=300"), None]);
    assert_eq!(at(FIRST + 8 * DAY, 9999), age("max-age=604800; includeSubDomains"));
    let last = FIRST + 15 * DAY + DAY / 2;
    assert_eq!(at(last - 1000, 0), age("max-age=604800; includeSubDomains"));
    assert_eq!(at(last, 9999), age("max-age=31536000; includeSubDomains; preload"));
}

/// Over every bucket, a day later and a percent more never take a promise back.
#[test]
fn no_domain_loses_what_it_was_promised() {
    let policy = plan(RAMP);
    for bucket in 0..10_000 {
        let mut before = 0;
        for hours in 0..24 * 20 {
            let now = FIRST / 1000 + hours * 3600;
            let stage = policy.stages.iter().find(|stage| stage.has_begun(now) && stage.holds(bucket));
            let age = stage.map_or(0, |stage| stage.max_age);
            assert!(age >= before, "bucket {bucket} after {hours} hours");
            before = age;
        }
    }
}

#[test]
fn withdrawing_reaches_everybody_at_once() {
    let config = RAMP.replacen('{', r#"{"withdraw": true, "upstream_header": "keep","#, 1);
    let policy = plan(&config);
    assert_eq!(policy.upstream, Upstream::Replace, "the upstream's own promise goes too");
    for rollout_bucket in [0, 9999] {
        assert_eq!(sent(&config, &Facts { rollout_bucket, ..FACTS }).as_deref(), Some("max-age=0"));
    }
    assert_eq!(sent(r#"{"withdraw": true}"#, &FACTS).as_deref(), Some("max-age=0"));
    assert_eq!(sent(&config, &Facts { visit: Visit::empty(), ..FACTS }), None);
}

#[test]
fn the_longer_of_two_promises_stands() {
    let policy = plan(r#"{"max_age": 1000, "upstream_header": "max"}"#);
    let edits = |theirs: Option<&str>| {
        let wanted = [theirs.map(|theirs| theirs.as_bytes().to_vec())];
        policy
            .on_response(&FACTS, &Response { host: "shop.example", path: "/", status: 200, wanted: &wanted })
            .edits
            .len()
    };
    let longer = [Some("max-age=1001"), Some("includeSubDomains; Max-Age = \"5000\"")];
    assert_eq!(longer.map(edits), [0, 0]);
    let shorter = [None, Some("max-age=1000"), Some("max-age=5"), Some("nonsense"), Some("max-age=x")];
    assert_eq!(shorter.map(edits), [1, 1, 1, 1, 1]);
}

#[test]
fn a_ramp_is_checked_as_a_whole() {
    let config = r#"{"max_age": 1, "stages": [
        {"from": "2026-12-02", "percent": 0, "max_age": 300},
        {"from": "tomorrow", "percent": 10, "max_age": 300, "include_subdomains": true},
        {"from": "2026-12-02", "percent": 10, "max_age": 31536000, "include_subdomains": true, "preload": true},
        {"from": "2026-12-01", "percent": 20, "max_age": 86400}
    ]}"#;
    assert_eq!(
        faults(config),
        [
            "/max_age: belongs into the stages, where there are any",
            "/stages/0/percent: 0 is out of range, 1 to 100 are accepted",
            "/stages/1/from: `tomorrow` is not a date",
            "/stages/1/include_subdomains: is for a stage whose max_age is at least 604800 (a week), here it is 300",
            "/stages/2/preload: preload needs a percent of 100, it is 10",
            "/stages/2/preload: is for the last stage",
            "/stages/3: begins before the stage before it",
        ]
    );
    assert_eq!(faults(r#"{"stages": []}"#), ["/stages: has no stage"]);
    let (_, warnings) = check::<Hsts>(
        r#"{"stages": [{"from": "2026-12-01", "percent": 50, "max_age": 300}, {"from": "2026-12-02", "percent": 10, "max_age": 300}]}"#,
    )
    .expect("is accepted");
    assert_eq!(warnings[0].at, "/stages/1");
}

/// A certificate that has been unwell since `since`, and ends at `ends`.
fn unwell(as_what: fn(Unwell) -> Certificate, since_ms: u64, ends_ms: u64) -> Facts {
    Facts { certificate: as_what(Unwell { since_ms, ends_ms }), rollout_bucket: 0, ..FACTS }
}

#[test]
fn a_ramp_does_not_go_on_while_the_certificate_is_unwell() {
    let (since, ends) = (FIRST + DAY / 2, FIRST + 60 * DAY);
    for as_what in [Certificate::RenewalFailing as fn(Unwell) -> _, Certificate::HandshakeErrors] {
        let at = |now_ms| sent(RAMP, &Facts { now_ms, ..unwell(as_what, since, ends) });
        assert_eq!(at(since).as_deref(), Some("max-age=300"));
        assert_eq!(at(FIRST + 20 * DAY).as_deref(), Some("max-age=300"), "no stage begins that had not begun");
        let before = Facts { now_ms: FIRST + 20 * DAY, ..unwell(as_what, FIRST - DAY, ends) };
        assert_eq!(sent(RAMP, &before), None, "nor the first");
    }
    let well = Facts { now_ms: FIRST + 20 * DAY, rollout_bucket: 0, ..FACTS };
    assert!(sent(RAMP, &well).is_some_and(|sent| sent.starts_with("max-age=31536000")), "and goes on when it is well");
    assert_eq!(sent(RAMP, &Facts { certificate: Certificate::None, ..well }), None);
}

#[test]
fn no_promise_outlasts_a_certificate_that_ends() {
    let now = FIRST + 20 * DAY;
    let at = |left_ms: u64| sent(RAMP, &Facts { now_ms: now, ..unwell(Certificate::Ending, now, now + left_ms) });
    let hour = DAY / 24;
    assert_eq!(at(3 * DAY + hour / 2).as_deref(), Some("max-age=259200; includeSubDomains"));
    assert_eq!(at(hour).as_deref(), Some("max-age=3600; includeSubDomains"));
    assert_eq!([hour - 1, 0].map(at), [(); 2].map(|()| Some("max-age=300; includeSubDomains".to_owned())));
    let ended = Facts { now_ms: now, ..unwell(Certificate::Ending, now, now - DAY) };
    assert_eq!(sent(RAMP, &ended).as_deref(), Some("max-age=300; includeSubDomains"));
    let short = r#"{"max_age": 60}"#;
    let facts = Facts { now_ms: now, ..unwell(Certificate::Ending, now, now + DAY) };
    assert_eq!(sent(short, &facts).as_deref(), Some("max-age=60"), "never more than is configured");
}

#[test]
fn stepping_back_goes_for_the_upstreams_promise_too_where_the_longer_stands() {
    let policy = plan(r#"{"max_age": 31536000, "upstream_header": "max"}"#);
    let wanted = [Some(b"max-age=63072000".to_vec())];
    let response = Response { host: "shop.example", path: "/", status: 200, wanted: &wanted };
    let ending = unwell(Certificate::Ending, 0, DAY);
    assert_eq!(policy.on_response(&ending, &response).edits, [Edit::Set(header(FIELD, "max-age=86400"))]);
    assert_eq!(policy.on_response(&FACTS, &response).edits, []);
}

#[test]
fn what_is_done_about_it_can_be_chosen() {
    let with = |unhealthy: &str| RAMP.replacen('{', &format!(r#"{{"unhealthy": {unhealthy},"#), 1);
    let now = FIRST + 20 * DAY;
    let failing = Facts { now_ms: now, ..unwell(Certificate::RenewalFailing, FIRST, now + 10 * DAY) };
    let ignore = sent(&with(r#"{"renewal_failing": "ignore"}"#), &failing);
    assert!(ignore.is_some_and(|sent| sent.starts_with("max-age=31536000")));
    let ending = Facts { now_ms: now, ..unwell(Certificate::Ending, FIRST + 9 * DAY, now + DAY) };
    let hold = sent(&with(r#"{"ending": "hold"}"#), &ending);
    assert_eq!(hold.as_deref(), Some("max-age=604800; includeSubDomains"));
    assert_eq!(
        faults(&with(r#"{"handshake_errors": "step_back", "other": 1}"#)),
        [
            "/unhealthy/other: unknown key `other`",
            "/unhealthy/handshake_errors: `step_back` is not one of ignore, hold",
        ]
    );
    for certificate in [failing.certificate, ending.certificate, Certificate::None] {
        let facts = Facts { certificate, ..FACTS };
        assert_eq!(
            sent(r#"{"withdraw": true}"#, &facts).as_deref(),
            Some("max-age=0"),
            "a withdrawal waits for nothing"
        );
    }
}

#[test]
fn an_answer_is_never_given_again_once_it_would_be_another_one() {
    let policy = plan(RAMP);
    let response = Response { host: "shop.example", path: "/", status: 200, wanted: &[] };
    let ends = FIRST + 30 * DAY;
    for seconds in (0..86_400).step_by(7) {
        let now_ms = FIRST + 20 * DAY + seconds * 1000 + 999;
        let facts = Facts { now_ms, ..unwell(Certificate::Ending, FIRST + 19 * DAY, ends) };
        let changes = policy.on_response(&facts, &response);
        let holds_ms = u64::from(changes.memo.map_or(0, |memo| memo.for_ms));
        let last = Facts { now_ms: now_ms + holds_ms.saturating_sub(1), ..facts };
        assert_eq!(policy.on_response(&last, &response).edits, changes.edits, "after {seconds} s");
    }
}
