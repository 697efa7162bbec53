use latchkey_sdk::http::check;

use super::*;

const FACTS: Facts = Facts { now_ms: 0, scheme: Scheme::Https, ip_literal_host: false, rollout_bucket: 0 };

fn plan(rules: &str) -> Redirects {
    check::<Redirects>(&format!(r#"{{"rules": {rules}}}"#)).expect("is accepted").0.policy
}

/// `at: message`.
fn faults(rules: &str) -> Vec<String> {
    let diagnostics = check::<Redirects>(&format!(r#"{{"rules": {rules}}}"#)).expect_err("is refused");
    diagnostics.into_iter().map(|d| format!("{}: {}", d.at, d.message)).collect()
}

fn asked(policy: &Redirects, host: &str, target: &str) -> Action {
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    policy.on_request(&FACTS, &Request { host, path, query, wanted: &[] })
}

fn sent(policy: &Redirects, target: &str) -> Option<String> {
    match asked(policy, "shop.example", target) {
        Action::Redirect(redirect) => Some(redirect.location),
        Action::Next => None,
        other => panic!("{other:?}"),
    }
}

fn to(location: &str) -> Option<String> {
    Some(location.to_owned())
}

#[test]
fn exact_beats_prefix_and_the_longest_prefix_wins() {
    let policy = plan(
        r#"[{"from": "/", "to": "https://root.example", "match": "prefix", "host": "other.example"},
            {"from": "/a", "to": "/one", "match": "prefix"}, {"from": "/a/b", "to": "/two", "match": "prefix"},
            {"from": "/a/b/c", "to": "/three"}, {"from": "/a-b", "to": "/four", "match": "prefix"}]"#,
    );
    assert_eq!(sent(&policy, "/a/b/c"), to("/three"));
    assert_eq!(sent(&policy, "/a/b/c/d"), to("/two/c/d"));
    assert_eq!(sent(&policy, "/a/bc"), to("/one/bc"));
    assert_eq!(sent(&policy, "/a/z"), to("/one/z"));
    assert_eq!(sent(&policy, "/a-b/z"), to("/four/z"));
    assert_eq!(sent(&policy, "/b"), None);
}

#[test]
fn a_prefix_ends_at_a_slash() {
    let policy = plan(
        r#"[{"from": "/old", "to": "/new", "match": "prefix"}, {"from": "/dir/", "to": "/d", "match": "prefix"}]"#,
    );
    assert_eq!(sent(&policy, "/old"), to("/new"));
    assert_eq!(sent(&policy, "/old/"), to("/new/"));
    assert_eq!(sent(&policy, "/older"), None);
    assert_eq!(sent(&policy, "/dir/x"), to("/d/x"));
    assert_eq!(sent(&policy, "/dir"), None);
}

#[test]
fn a_rule_for_this_host_beats_one_for_all() {
    let policy = plan(
        r#"[{"from": "/a", "to": "/all"}, {"from": "/a", "to": "/mine", "host": "Shop.example"},
            {"from": "/b", "to": "/theirs", "host": "other.example"},
            {"from": "/p", "to": "/all", "match": "prefix"}, {"from": "/p", "to": "/mine", "match": "prefix", "host": "shop.example"}]"#,
    );
    assert_eq!(sent(&policy, "/a"), to("/mine"));
    assert_eq!(sent(&policy, "/b"), None);
    assert_eq!(sent(&policy, "/p/x"), to("/mine/x"));
}

#[test]
fn keeps_the_query_unless_told_to_drop_it() {
    let policy = plan(
        r#"[{"from": "/a", "to": "/b"}, {"from": "/c", "to": "/d?x=1#end"}, {"from": "/e", "to": "/f", "query": "drop"}]"#,
    );
    assert_eq!(sent(&policy, "/a?q=1&r"), to("/b?q=1&r"));
    assert_eq!(sent(&policy, "/a?"), to("/b?"));
    assert_eq!(sent(&policy, "/c?q=1"), to("/d?x=1&q=1#end"));
    assert_eq!(sent(&policy, "/e?q=1"), to("/f"));
}

#[test]
fn sends_the_configured_status() {
    let policy = plan(r#"[{"from": "/a", "to": "/b"}, {"from": "/c", "to": "/d", "status": 308}]"#);
    let status = |path| match asked(&policy, "shop.example", path) {
        Action::Redirect(redirect) => redirect.status,
        other => panic!("{other:?}"),
    };
    assert_eq!(status("/a"), RedirectStatus::MovedPermanently);
    assert_eq!(status("/c"), RedirectStatus::PermanentRedirect);
}

#[test]
fn a_visitor_cannot_choose_the_host() {
    let policy = plan(
        r#"[{"from": "/x/", "to": "https://shop.example", "match": "prefix"}, {"from": "/y", "to": "/", "match": "prefix"}]"#,
    );
    assert_eq!(sent(&policy, "/x/.evil.example/"), to("https://shop.example/.evil.example/"));
    assert_eq!(sent(&policy, "/x/@evil.example"), to("https://shop.example/@evil.example"));
    assert_eq!(sent(&policy, "/y//evil.example"), to("/evil.example"));
    assert_eq!(sent(&policy, r"/y/\evil.example"), to("/%5Cevil.example"));
}

#[test]
fn what_a_uri_may_not_hold_is_encoded() {
    let policy = plan(r#"[{"from": "/a", "to": "/b", "match": "prefix"}]"#);
    assert_eq!(sent(&policy, "/a/{é}?q=\"x y\"%20"), to("/b/%7B%C3%A9%7D?q=%22x%20y%22%20"));
}

#[test]
fn does_not_redirect_to_what_was_asked_for() {
    let policy = plan(r#"[{"from": "/", "to": "https://www.shop.example", "match": "prefix"}]"#);
    assert_eq!(sent(&policy, "/x?q"), to("https://www.shop.example/x?q"));
    assert_eq!(asked(&policy, "www.shop.example", "/x?q"), Action::Next);
    assert_eq!(asked(&policy, "www.shop.example", "/"), Action::Next);
}

#[test]
fn refuses_a_visitor_whose_location_would_be_too_long() {
    let policy = plan(r#"[{"from": "/a", "to": "/b", "match": "prefix"}]"#);
    let longest = format!("/a/{}", "x".repeat(LOCATION_BYTES_MAX - 3));
    assert_eq!(sent(&policy, &longest).map(|location| location.len()), Some(LOCATION_BYTES_MAX));
    assert_eq!(asked(&policy, "shop.example", &format!("{longest}x")), Action::Deny(414));
}

#[test]
fn refuses_every_bad_rule_with_its_place() {
    let rules = r#"[{"from": "a", "to": "/b"}, {"from": "/a?x", "to": "b"}, {"from": "/a b", "to": "//evil.example"},
        {"from": "/a", "to": "/b\r\nSet-Cookie: x"}, {"from": "/a", "to": "javascript:alert(1)", "status": 304},
        {"form": "/a", "to": "https://user@shop.example/"}, {"from": "/a", "to": "/b?x", "match": "prefix"},
        {"from": "/a", "to": "/b", "host": "https://shop.example", "query": "merge"}, 7]"#;
    let faults = faults(rules);
    let at: Vec<_> = faults.iter().filter_map(|fault| fault.split(':').next()).collect();
    assert_eq!(
        at,
        [
            "/rules/0/from",
            "/rules/1/from",
            "/rules/1/to",
            "/rules/2/from",
            "/rules/2/to",
            "/rules/3/to",
            "/rules/4/to",
            "/rules/4/status",
            "/rules/5/form",
            "/rules/5",
            "/rules/5/to",
            "/rules/6/to",
            "/rules/7/host",
            "/rules/7/query",
            "/rules/8",
        ],
        "{faults:#?}"
    );
    assert!(faults[5].contains(r"has the character '\r'"), "{}", faults[5]);
}

#[test]
fn refuses_repeated_rules_and_circles() {
    assert_eq!(
        faults(r#"[{"from": "/a", "to": "/b"}, {"from": "/a", "to": "/c"}]"#),
        ["/rules/1/from: repeats `/a` of rule 0 (counted from 0)"]
    );
    assert_eq!(faults(r#"[{"from": "/a", "to": "/a"}]"#), ["/rules/0/to: redirects in a circle: /a -> /a"]);
    assert_eq!(
        faults(r#"[{"from": "/a", "to": "/b"}, {"from": "/b", "to": "/a?x"}]"#),
        ["/rules/0/to: redirects in a circle: /a -> /b -> /a", "/rules/1/to: redirects in a circle: /b -> /a -> /b"]
    );
    assert_eq!(
        faults(r#"[{"from": "/a", "to": "/a/b", "match": "prefix"}]"#),
        ["/rules/0/to: redirects without end: /a -> /a/b -> /a/b/b -> /a/b/b/b"]
    );
    let here = r#"[{"from": "/a", "to": "https://shop.example/a", "host": "shop.example"}]"#;
    assert_eq!(faults(here), ["/rules/0/to: redirects in a circle: /a -> /a"]);
    plan(r#"[{"from": "/a", "to": "https://other.example/a", "host": "shop.example"}]"#);
}

#[test]
fn accepts_the_limit_of_rules_and_refuses_one_more() {
    let rules = |count: usize| {
        let rules: Vec<_> = (0..count).map(|n| format!(r#"{{"from": "/{n}", "to": "/to"}}"#)).collect();
        format!("[{}]", rules.join(","))
    };
    assert_eq!(sent(&plan(&rules(1000)), "/999"), to("/to"));
    assert_eq!(faults(&rules(1001)), ["/rules: has 1001 entries, at most 1000 are accepted"]);
}

#[test]
fn finds_the_same_prefix_as_trying_them_all() {
    // All paths of up to four characters: every way in which prefixes nest.
    let alphabet = ['/', '-', 'a', '0'];
    let mut paths = vec!["/".to_owned()];
    for length in 1..4 {
        let longest: Vec<_> = paths.iter().filter(|path| path.len() == length).cloned().collect();
        paths.extend(longest.iter().flat_map(|path| alphabet.map(|char| format!("{path}{char}"))));
    }
    for skip in 1..7 {
        let from: Vec<_> = paths.iter().skip(skip).step_by(skip).cloned().collect();
        let rule = |from: &String| {
            let (status, prefix, keep_query) = (Status::Found, true, true);
            (String::new(), table::Rule { from: from.clone(), to: "/".to_owned(), status, prefix, keep_query })
        };
        let tables = Tables::new(from.iter().map(rule).collect());
        for path in &paths {
            let covers = |from: &&String| {
                path.strip_prefix(from.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || from.ends_with('/'))
            };
            let expected = from.iter().filter(covers).max_by_key(|from| from.len());
            let found = tables.find("shop.example", path).map(|rule| &rule.from);
            assert_eq!(found, expected, "{path} among every {skip}th");
        }
    }
}
