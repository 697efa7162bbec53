use latchkey_sdk::http::check;

use super::*;

const FACTS: Facts = Facts::EXAMPLE;

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
    policy.on_request(&FACTS, &Request { host, path, query, wanted: &[] }).action
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
    for to in [
        "https://WWW.shop.example/a",
        "https://www.shop.example:443/a",
        "http://www.shop.example/a",
        "https://www.shop.example/a#top",
    ] {
        let policy = plan(&format!(r#"[{{"from": "/a", "to": "{to}"}}]"#));
        assert_eq!(asked(&policy, "www.shop.example", "/a"), Action::Next, "{to}");
    }
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
        {"from": "/a", "to": "/b", "host": "https://shop.example", "query": "mrege"}, 7]"#;
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
            "/rules/4/status",
            "/rules/4/to",
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
    assert_eq!(
        faults(r#"[{"from": "^/blog/(.*)$", "match": "regex", "to": "/blog/new/$1"}]"#),
        [
            "/rules/0/to: redirects without end: /blog/new/x -> /blog/new/new/x -> /blog/new/new/new/x -> /blog/new/new/new/new/x"
        ]
    );
    assert_eq!(
        faults(r#"[{"from": "^/a/(\\d+)$", "match": "regex", "to": "/b/$1"}, {"from": "/b", "match": "prefix", "to": "/a"}]"#).len(),
        1
    );
    // Of these each one ends, or leads where it is, or to a host that may not be ours.
    plan(
        r#"[{"from": "^/(.*)//(.*)$", "match": "regex", "to": "/$1/$2"}, {"from": "^/same/(.*)$", "match": "regex", "to": "/same/$1"},
            {"from": "^/moved/(.*)$", "match": "regex", "to": "https://new.example/moved/old/$1"}, {"from": "^/p/([a-z]+)$", "match": "regex", "to": "/p/$1/all"}]"#,
    );
    // Rules for every host go on where they lead.
    let both = r#"[{"from": "/a", "to": "https://shop.example/b"}, {"from": "/b", "to": "https://shop.example/a"}]"#;
    assert_eq!(faults(both).len(), 2, "{:?}", faults(both));
}

/// `at: message` of every warning.
fn warnings(rules: &str) -> Vec<String> {
    let (_, warnings) = check::<Redirects>(&format!(r#"{{"rules": {rules}}}"#)).expect("is accepted");
    warnings.into_iter().map(|d| format!("{}: {} ({})", d.at, d.message, d.hint.unwrap_or_default())).collect()
}

#[test]
fn expressions_come_last_and_in_their_order() {
    let policy = plan(
        r#"[{"from": "^/blog/(\\d+)-(.*)$", "match": "regex", "to": "/posts/$1/$2?old=1"}, {"from": "^/blog/.*", "match": "regex", "to": "/posts"},
            {"from": "/blog/7-x", "to": "/exact"}, {"from": "/blog/pre", "to": "/prefix", "match": "prefix"}]"#,
    );
    assert_eq!(sent(&policy, "/blog/12-a b"), to("/posts/12/a%20b?old=1"));
    assert_eq!(sent(&policy, "/blog/12-a?q=1"), to("/posts/12/a?old=1&q=1"));
    assert_eq!(sent(&policy, "/blog/other"), to("/posts"));
    assert_eq!(sent(&policy, "/blog/7-x"), to("/exact"));
    assert_eq!(sent(&policy, "/blog/pre/1"), to("/prefix/1"));
    assert_eq!(sent(&policy, "/blo"), None);
}

#[test]
fn long_paths_are_compared_with_no_expression() {
    let policy = plan(r#"[{"from": "^/blog/.*", "match": "regex", "to": "/posts"}]"#);
    let path = |length: usize| format!("/blog/{}", "x".repeat(length - 6));
    assert_eq!(sent(&policy, &path(expression::PATH_BYTES_MAX)), to("/posts"));
    assert_eq!(sent(&policy, &path(expression::PATH_BYTES_MAX + 1)), None);
}

#[test]
fn a_group_never_names_a_host() {
    let policy = plan(
        r#"[{"from": "^/go(.*)$", "match": "regex", "to": "/$1"}, {"from": "^/b(.*)$", "match": "regex", "to": "https://a.example/$1$$"}]"#,
    );
    assert_eq!(sent(&policy, "/go//evil.example"), to("/evil.example"));
    assert_eq!(sent(&policy, r"/go/\evil.example"), to("/evil.example"));
    assert_eq!(sent(&policy, "/b.evil.example"), to("https://a.example/.evil.example$"));
    let optional = plan(
        r#"[{"from": "^/(?:(en|de)/)?blog/(.*)$", "match": "regex", "to": "/$1/news/$2"}, {"from": "^/([a-z]*)/(.*)$", "match": "regex", "to": "/$1/$2"}]"#,
    );
    assert_eq!(sent(&optional, "/blog/x"), to("/news/x"));
    assert_eq!(sent(&optional, "//evil.example"), to("/evil.example"));
    let faults = faults(
        r#"[{"from": "^/a(.*)$", "match": "regex", "to": "https://$1/"}, {"from": "^/b$", "match": "regex", "to": "/$1"},
            {"from": "^/c$", "match": "regex", "to": "/$x"}, {"from": "c", "match": "regex", "to": "/"}, {"from": "^/(", "match": "regex", "to": "/"}]"#,
    );
    let says = [
        "lets the visitor choose the host",
        "`$1` is a group that",
        "has a $ that names no group",
        "in the middle of a path",
        "`^/(`",
    ];
    assert_eq!(faults.len(), says.len(), "{faults:#?}");
    for (fault, says) in faults.iter().zip(says) {
        assert!(fault.contains(says), "{fault}");
    }
}

#[test]
fn the_nearest_host_wins() {
    let policy = plan(
        r#"[{"from": "/a", "to": "/all"}, {"from": "/a", "to": "/wild", "host": "*.example"}, {"from": "/a", "to": "/deep", "host": "*.shop.example"},
            {"from": "/a", "to": "/one", "host": "x.shop.example"}]"#,
    );
    let at = |host: &str| match asked(&policy, host, "/a") {
        Action::Redirect(redirect) => redirect.location,
        other => panic!("{other:?}"),
    };
    let hosts = ["x.shop.example", "y.shop.example", "shop.example", "example", "shop.test"];
    assert_eq!(hosts.map(at), ["/one", "/deep", "/wild", "/all", "/all"]);
}

#[test]
fn merges_queries_and_tells_what_is_gone() {
    let policy = plan(
        r#"[{"from": "/a", "to": "/b?x=1&y=2", "query": "merge"}, {"from": "/c", "to": "/d", "query": "merge"}, {"from": "/gone", "status": 410}]"#,
    );
    assert_eq!(sent(&policy, "/a?x=9&z=3"), to("/b?x=1&y=2&z=3"));
    assert_eq!(sent(&policy, "/c?x=9"), to("/d?x=9"));
    assert!(matches!(asked(&policy, "shop.example", "/gone"), Action::Respond(LocalResponse { status: 410, .. })));
    assert_eq!(
        faults(r#"[{"from": "/gone", "status": 410, "to": "/x"}]"#),
        ["/rules/0/to: leads nowhere, since its status is 410"]
    );
}

#[test]
fn names_chains_and_rules_that_are_never_reached() {
    assert_eq!(
        warnings(
            r#"[{"from": "/a", "to": "/b"}, {"from": "/b", "to": "/c"}, {"from": "/c", "to": "https://shop.example/d"}]"#
        ),
        [
            "/rules/0/to: is a chain of rules 0, 1, 2 (counted from 0) (send it to `https://shop.example/d` at once)",
            "/rules/1/to: is a chain of rules 1, 2 (counted from 0) (send it to `https://shop.example/d` at once)",
        ]
    );
    let shadowed = warnings(
        r#"[{"from": "^/blog/(.*)$", "match": "regex", "to": "/x/$1"}, {"from": "/blog", "to": "/y", "match": "prefix"}]"#,
    );
    assert!(shadowed[0].starts_with("/rules/0/from: is never reached: the prefix `/blog` of rule 1"), "{shadowed:?}");
    for reached in ["^/blog(.*)$", "^/blo", "^/(blog/x|y)$"] {
        let rules = format!(
            r#"[{{"from": "{reached}", "match": "regex", "to": "/x"}}, {{"from": "/blog", "to": "/elsewhere", "match": "prefix"}}]"#
        );
        assert_eq!(warnings(&rules), Vec::<String>::new(), "{reached}");
    }
}

#[test]
fn an_expression_is_skipped_only_where_it_can_not_match() {
    for (pattern, begins) in [
        ("^/a/b.c", "/a/b"),
        ("^/ab?c", "/a"),
        ("^/ab*", "/a"),
        ("^/a{2}", "/"),
        ("^/a|b", ""),
        ("/a", ""),
        ("^/a+", "/a"),
    ] {
        assert_eq!(expression::beginning(pattern), begins, "{pattern}");
    }
}

#[test]
fn accepts_the_limit_of_expressions_and_refuses_one_more() {
    let rules = |count: usize| {
        let rules: Vec<_> =
            (0..count).map(|n| format!(r#"{{"from": "^/{n}$", "match": "regex", "to": "/to"}}"#)).collect();
        format!("[{}]", rules.join(","))
    };
    assert_eq!(sent(&plan(&rules(50)), "/49"), to("/to"));
    assert_eq!(faults(&rules(51)), ["/rules/50: is one regular expression too many, at most 50 are accepted"]);
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
            let (kind, status, query) = (table::Kind::Prefix, Status::Found, Query::Keep);
            (String::new(), table::Rule { number: 0, from: from.clone(), kind, to: "/".to_owned(), status, query })
        };
        let tables = Tables::new(from.iter().map(rule).collect(), 0);
        for path in &paths {
            let covers = |from: &&String| {
                path.strip_prefix(from.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || from.ends_with('/'))
            };
            let expected = from.iter().filter(covers).max_by_key(|from| from.len());
            let found = tables.find("shop.example", path).map(|found| &found.rule.from);
            assert_eq!(found, expected, "{path} among every {skip}th");
        }
    }
}
