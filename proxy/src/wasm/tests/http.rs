use super::*;

fn set(name: &str, value: &str) -> Edit {
    Edit::Set { name: name.to_owned(), value: value.as_bytes().to_vec() }
}

#[test]
fn hsts_is_asked_about_responses_only() {
    let binding = bind("hsts", r#"{"max_age": 86400}"#);
    assert_eq!(binding.hooks(), Hooks { response: true, ..Hooks::default() });
    assert_eq!(binding.plugin().name(), "hsts");
}

#[test]
fn hsts_sends_the_header_over_https_to_names_in_the_rollout() {
    let binding = bind("hsts", r#"{"max_age": 86400, "include_subdomains": true, "rollout_percent": 26}"#);
    let sent = |facts| binding.on_response(facts, &get("/"), &get("/"));
    let header = set("strict-transport-security", "max-age=86400; includeSubDomains");
    assert_eq!(sent(&FACTS), Ok([header].into()));
    assert_eq!(sent(&RequestFacts { https: false, ..FACTS }), Ok([].into()));
    assert_eq!(sent(&RequestFacts { ip_host: true, ..FACTS }), Ok([].into()));
    assert_eq!(sent(&RequestFacts { rollout_bucket: 2600, ..FACTS }), Ok([].into()));
}

#[test]
fn hsts_refuses_a_bad_configuration_with_every_fault() {
    let faults = faults("hsts", r#"{"max_age": 300, "preload": true, "rollout": 5}"#);
    let at: Vec<_> = faults.iter().filter_map(|fault| fault.split(':').next()).collect();
    assert_eq!(at, ["/rollout", "/preload", "/preload"]);
}

#[test]
fn warnings_come_with_the_binding() {
    let binding = bind("hsts", r#"{"max_age": 1, "rollout_percent": 0}"#);
    let warnings: Vec<_> = binding.warnings().iter().map(|d| (d.severity, d.at.as_str())).collect();
    assert_eq!(warnings, [(Severity::Warning, "/rollout_percent")]);
    assert!(bind("hsts", r#"{"max_age": 1}"#).warnings().is_empty());
}

#[test]
fn redirects_answer_or_let_pass() {
    let config = r#"{"rules": [{"from": "/old", "to": "/new", "status": 308, "match": "prefix"},
                               {"from": "/gone", "to": "https://other.example/", "query": "drop"}]}"#;
    let binding = bind("redirects", config);
    assert_eq!(binding.hooks(), Hooks { request: true, ..Hooks::default() });
    let asked = |path, query| binding.on_request(&FACTS, &Exchange { query, ..get(path) });
    let redirect =
        |status, location: &str| Ok(Action::Redirect { status, location: location.to_owned(), edits: Vec::new() });
    assert_eq!(asked("/old/a", Some("q=1")), redirect(308, "/new/a?q=1"));
    assert_eq!(asked("/gone", Some("q=1")), redirect(301, "https://other.example/"));
    assert_eq!(asked("/older", None), Ok(Action::Next));
}

#[test]
fn the_largest_configuration_starts() {
    let rules: Vec<_> = (0..1000).map(|n| format!(r#"{{"from": "/page/{n}", "to": "/other/{n}"}}"#)).collect();
    let binding = bind("redirects", &format!(r#"{{"rules": [{}]}}"#, rules.join(",")));
    let action = binding.on_request(&FACTS, &get("/page/999"));
    assert!(matches!(action, Ok(Action::Redirect { location, .. }) if location == "/other/999"));
}

#[test]
fn only_wanted_fields_are_passed() {
    let binding = bind("require-header", r#"{"header": "X-Edge-Key", "status": 401}"#);
    let asked = |name| {
        let request = BTreeMap::from([(name, "any")]);
        binding.on_request(&FACTS, &Exchange { request, ..get("/") })
    };
    assert_eq!(asked("x-edge-key"), Ok(Action::Next));
    assert_eq!(asked("x-other"), Ok(Action::Deny(401)));
}

#[test]
fn a_plugin_is_not_asked_about_what_is_not_its_class() {
    let http = bind("hsts", r#"{"max_age": 1}"#);
    let fault = http.expect("https", ([192, 0, 2, 1], 1).into()).err().map(|fault| fault.reason());
    assert_eq!(fault, Some("unavailable"));
    let connection = bind("proxy-policy", r#"{"trusted": []}"#);
    let fault = connection.on_request(&FACTS, &get("/")).err().map(|fault| fault.reason());
    assert_eq!(fault, Some("unavailable"));
    assert_eq!(connection.hooks(), Hooks::default());
}

#[test]
fn rollout_buckets_are_stable_and_spread() {
    // Written down so that a change of the hash, which would shuffle every rollout, is seen.
    assert_eq!([rollout_bucket("shop.example"), rollout_bucket("example.com")], [8924, 8806]);
    let low = (0..10_000).filter(|n| rollout_bucket(&format!("{n}.example")) < 1000).count();
    assert!((900..1100).contains(&low), "{low} of 10,000 domains are in the first tenth");
}

/// With as many instructions as traffic has.
#[test]
fn the_costliest_expressions_end_within_a_call() {
    let host = Host::new(Settings::default()).expect("starts");
    let plugin = host.load(&guest("redirects")).expect("is a plugin");
    for (pattern, path) in [
        // Nearly every state of these is alive at each byte.
        (format!("^/({})0$", "[a-z]*".repeat(30)), "/a"),
        (format!("^/{}$", "(.*)".repeat(9)), "/a"),
        (format!("^/(?:{})0", ".*".repeat(30)), "/a"),
        (format!("^/(?:{})0", "[ab-fg-z0-9_]*".repeat(20)), "/a"),
        (format!("^/(?:{})", "a?".repeat(30)), "/a"),
        ("^/(?:(?:(?:a|b|c|/)*)*)*0".to_owned(), "/a"),
        (format!("^/{}$", "([^/]*)(?:/|$)?".repeat(9)), "/a/b"),
        (format!("^/(?:{})*0", ["aa", "ab", "ac", "ad", "ae", "af"].repeat(6).join("|")), "/aa"),
    ] {
        // With and without its groups.
        let to = if pattern.contains("^/(?") { "/to" } else { "/$1" };
        let config = format!(r#"{{"rules": [{{"from": "{pattern}", "to": "{to}", "match": "regex"}}]}}"#);
        let binding = host.bind(&plugin, &config, &Tables::default()).expect("is accepted");
        // As long as is compared with it: what the warning says.
        let told = binding.warnings().first();
        let told = told.map_or("512", |warning| warning.message.split(' ').nth(4).unwrap_or_default());
        let length: usize = told.parse().expect("a number of bytes");
        let path: &'static str = Box::leak(format!("{path:a<length$}").into_boxed_str());
        assert!(binding.on_request(&FACTS, &get(path)).is_ok(), "{pattern}, {length} bytes");
        println!("{pattern}: {length} bytes of path, {:?}", binding.usage());
    }
}

#[test]
fn expressions_that_could_not_end_in_time_are_refused() {
    let rule = |n: usize| format!(r#"{{"from": "^/(?:[a-z0-9]{{0,4}}){{2}}{n}", "to": "/to", "match": "regex"}}"#);
    let rules = |count: usize| format!(r#"{{"rules": [{}]}}"#, (0..count).map(rule).collect::<Vec<_>>().join(","));
    let warned = bind("redirects", &rules(3));
    assert!(warned.warnings()[0].message.starts_with("paths of more than "), "{:?}", warned.warnings());
    let refused = faults("redirects", &rules(40));
    assert!(refused[0].starts_with("/rules: the regular expressions "), "{refused:?}");
    let one = faults("redirects", r#"{"rules": [{"from": "^/([a-z]{0,50}){50}", "to": "/to", "match": "regex"}]}"#);
    assert!(one[0].contains("size limit"), "{one:?}");
}

#[test]
fn an_answer_is_given_again_only_where_what_it_depends_on_is_the_same() {
    let binding = hostile("memo").expect("is accepted");
    let status =
        |binding: &Binding, exchange: &Exchange, facts: &RequestFacts| match binding.on_request(facts, exchange) {
            Ok(Action::Deny(status)) => status,
            other => panic!("{other:?}"),
        };
    let other_host = Exchange { host: "other.example", path: "/a", ..Exchange::default() };
    assert_eq!(status(&binding, &get("/a"), &FACTS), 401);
    assert_eq!(status(&binding, &get("/a"), &FACTS), 401, "no call");
    assert_eq!(status(&binding, &other_host, &FACTS), 401, "it does not depend on the host");
    assert_eq!(status(&binding, &get("/b"), &FACTS), 402);
    let later = RequestFacts { now_ms: FACTS.now_ms + 60_000, ..FACTS };
    assert_eq!(status(&binding, &get("/a"), &later), 403, "its time is over");
    let plain = RequestFacts { https: false, ..FACTS };
    assert_eq!(status(&binding, &get("/a"), &plain), 404, "the scheme always counts");
    let anew = HOST.bind(&plugin("hostile"), r#"{"behaviour": "memo"}"#, &Tables::default()).expect("is accepted");
    assert_eq!(status(&anew, &get("/a"), &FACTS), 401, "another binding has answers of its own");
    binding.ask_always(true);
    assert_ne!(status(&binding, &get("/b"), &FACTS), 402);
}

#[test]
fn an_answer_that_depends_on_nothing_stands_for_all() {
    let nothing = hostile("memo-nothing").expect("is accepted");
    for path in ["/a", "/b"] {
        assert_eq!(nothing.on_request(&FACTS, &get(path)), Ok(Action::Deny(401)));
    }
}

#[test]
fn a_fifth_combination_is_asked_about_each_time() {
    let many = hostile("memo-many").expect("is accepted");
    // Each answer depends on one thing more: another host, path, query, bucket and status never have the same.
    let exchange = |host, path, query| Exchange { host, path, query, ..Exchange::default() };
    let visits = [
        exchange("a.example", "/a", None),
        exchange("b.example", "/b", None),
        exchange("c.example", "/c", Some("c")),
        exchange("d.example", "/d", Some("d")),
        exchange("e.example", "/e", Some("e")),
    ];
    let asked = |n: u16, bits: u64| {
        let facts = RequestFacts { now_ms: 64_000 + bits, rollout_bucket: n, ..FACTS };
        many.on_request(&facts, &visits[usize::from(n)])
    };
    let first: Vec<_> = [1, 3, 7, 15, 13].into_iter().zip(0..).map(|(bits, n)| asked(n, bits)).collect();
    assert_eq!(first, (401..=405).map(|status| Ok(Action::Deny(status))).collect::<Vec<_>>());
    assert_eq!(asked(3, 15), Ok(Action::Deny(404)), "the fourth combination is kept");
    assert_eq!(asked(4, 13), Ok(Action::Deny(406)), "the fifth is not");
}

#[test]
fn the_memo_of_hsts_ends_when_the_next_stage_begins() {
    let config = r#"{"stages": [{"from": "2023-11-14", "percent": 100, "max_age": 300},
                                {"from": "2023-11-14T22:20Z", "percent": 100, "max_age": 600}]}"#;
    let binding = bind("hsts", config);
    let begins = 1_700_000_400_000;
    let age = |now_ms: u64| {
        let edits = binding.on_response(&RequestFacts { now_ms, ..FACTS }, &get("/"), &get("/")).expect("answers");
        match &edits[..] {
            [Edit::Set { value, .. }] => String::from_utf8_lossy(value).into_owned(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(age(begins - 2001), "max-age=300");
    assert_eq!(age(begins - 1), "max-age=300");
    assert_eq!(age(begins), "max-age=600");
}

#[test]
fn an_answer_for_a_certificate_that_is_well_is_not_given_for_one_that_is_not() {
    let config = r#"{"stages": [{"from": "2020-01-01", "percent": 100, "max_age": 300},
                                {"from": "2023-11-10", "percent": 100, "max_age": 31536000}]}"#;
    let binding = bind("hsts", config);
    let now = FACTS.now_ms / 1000;
    let age = |standing| {
        let edits = binding.on_response(&RequestFacts { standing, ..FACTS }, &get("/"), &get("/")).expect("answers");
        edits.iter().map(ToString::to_string).collect::<Vec<_>>().concat()
    };
    let sent = |age: u64| format!("set strict-transport-security: max-age={age}");
    let unwell = |since: u64, left: u64| Unwell { since: now - since, ends: now + left };
    let day = 86_400;
    assert_eq!(age(Standing::Healthy), sent(31_536_000));
    assert_eq!(age(Standing::RenewalFailing(unwell(10 * day, 20 * day))), sent(300));
    assert_eq!(age(Standing::RenewalFailing(unwell(day, 20 * day))), sent(31_536_000), "the stage had begun");
    assert_eq!(age(Standing::HandshakeErrors(unwell(10 * day, 60 * day))), sent(300));
    assert_eq!(age(Standing::Ending(unwell(day, 2 * day))), sent(2 * day));
    assert_eq!(age(Standing::Ending(unwell(day, day))), sent(day), "of another certificate");
    assert_eq!(age(Standing::None), "");
    assert_eq!(age(Standing::Healthy), sent(31_536_000), "again");
}

#[test]
fn rules_that_decide_are_known_also_where_no_call_is_made() {
    let binding = bind("redirects", r#"{"rules": [{"from": "/a", "to": "/x"}, {"from": "/b", "to": "/y"}]}"#);
    let used = |at: u64| -> Vec<u32> {
        binding.rules().unused_since(at).filter(|unused| unused.last.is_some()).map(|unused| unused.rule).collect()
    };
    let ask = |path: &'static str, now_ms: u64| {
        assert!(matches!(
            binding.on_request(&RequestFacts { now_ms, ..FACTS }, &get(path)),
            Ok(Action::Redirect { .. } | Action::Next)
        ));
    };
    let later = u64::from(u32::MAX) * 20;
    assert_eq!((binding.rules().count(), used(later)), (2, vec![]));
    ask("/b", FACTS.now_ms);
    ask("/c", FACTS.now_ms);
    assert_eq!(used(later), [1]);
    // The same answer, 59 seconds later, from memory.
    let minute = FACTS.now_ms / 60_000;
    ask("/b", FACTS.now_ms + 59_000);
    assert_eq!(used((minute + 1) * 60), [1]);
    assert_eq!(used(minute * 60), [0u32; 0], "it has decided since");
}

#[test]
fn what_is_asked_of_another_time_is_not_held_against_a_plugin() {
    let host = Host::new(Settings::default()).expect("starts");
    let plugin = host.load(&guest("hostile")).expect("is a plugin");
    let binding = host.bind(&plugin, r#"{"behaviour": "edit-crlf"}"#, &Tables::default()).expect("is accepted");
    let later = RequestFacts { now_ms: FACTS.now_ms + 86_400_000, ..FACTS };
    let reason = |asked: Result<usize, Fault>| asked.err().map(|fault| fault.reason());
    let previewed = || reason(binding.ask_on_response(&later, &get("/"), &get("/")).map(|edits| edits.len()));
    let served = || reason(binding.on_response(&FACTS, &get("/"), &get("/")).map(|edits| edits.len()));
    for _ in 0..100 {
        assert_eq!(previewed(), Some("output"));
    }
    for _ in 0..20 {
        assert_eq!(served(), Some("output"));
    }
    assert_eq!((served(), previewed()), (Some("resting"), Some("output")), "nor does that keep it from being asked");
}
