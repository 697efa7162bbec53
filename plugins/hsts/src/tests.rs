use latchkey_sdk::http::check;

use super::*;

const FACTS: Facts = Facts { now_ms: 0, scheme: Scheme::Https, ip_literal_host: false, rollout_bucket: 2500 };

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
    assert_eq!(sent(r#"{"max_age": 1}"#, &Facts { scheme: Scheme::Http, ..FACTS }), None);
    assert_eq!(sent(r#"{"max_age": 1}"#, &Facts { ip_literal_host: true, ..FACTS }), None);
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
    assert_eq!(sent(&config, &Facts { scheme: Scheme::Http, ..FACTS }), None);
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
