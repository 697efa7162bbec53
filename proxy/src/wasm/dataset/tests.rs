use super::*;

fn dataset(kind: Kind, subject: Subject, keys: &[&str]) -> Dataset {
    let mut dataset = Dataset::new(kind, subject).expect("is a dataset");
    for key in keys {
        assert_eq!(dataset.add(key, key.as_bytes()), Ok(()), "{key}");
    }
    dataset.ready().expect("is ready");
    dataset.shrink();
    dataset
}

/// The value is the key.
fn found<'a>(dataset: &'a Dataset, subject: &str) -> &'a str {
    let entry = dataset.wanted(subject).and_then(|wanted| dataset.find(wanted));
    entry.map_or("", |entry| std::str::from_utf8(dataset.value(entry)).expect("is the key"))
}

fn refused(kind: Kind, subject: Subject, key: &str) -> String {
    match Dataset::new(kind, subject).expect("is a dataset").add(key, b"") {
        Err(Refused::Illegal(says)) => says,
        other => panic!("{key}: {other:?}"),
    }
}

#[test]
fn a_route_is_found_for_its_host_before_wildcards_before_every_host() {
    let routes = dataset(
        Kind::Exact,
        Subject::Route,
        &["a.shop.example/x", "*.shop.example/x", "*.example/x", "/x", "*.example/y", "/z"],
    );
    for (subject, key) in [
        ("a.shop.example/x", "a.shop.example/x"),
        ("b.shop.example/x", "*.shop.example/x"),
        ("shop.example/x", "*.example/x"),
        ("example/x", "/x"),
        ("a.shop.example/y", "*.example/y"),
        ("a.shop.example/z", "/z"),
        ("a.shop.example/", ""),
        ("*.shop.example/x", "*.shop.example/x"),
    ] {
        assert_eq!(found(&routes, subject), key, "{subject}");
    }
}

#[test]
fn a_longer_prefix_goes_before_a_nearer_host() {
    let routes = dataset(Kind::Prefix, Subject::Route, &["/a/b/c", "shop.example/a", "/a/b/", "shop.example/"]);
    for (subject, key) in [
        ("shop.example/a/b/c/d", "/a/b/c"),
        ("shop.example/a/b/c", "/a/b/c"),
        ("shop.example/a/b/cc", "/a/b/"),
        ("shop.example/a/b", "shop.example/a"),
        ("shop.example/ab", "shop.example/"),
        ("other.example/a", ""),
        ("other.example/a/b/", "/a/b/"),
    ] {
        assert_eq!(found(&routes, subject), key, "{subject}");
    }
}

#[test]
fn a_prefix_has_at_most_32_slashes_and_a_path_may_have_any_number() {
    let deepest = "/a".repeat(32);
    let paths = dataset(Kind::Prefix, Subject::Path, &[&deepest, "/b"]);
    assert_eq!(found(&paths, &format!("{deepest}/x")), deepest);
    assert_eq!(found(&paths, &deepest), deepest);
    assert_eq!(found(&paths, &format!("/b{}", "/".repeat(10_000))), "/b");
    assert_eq!(
        refused(Kind::Prefix, Subject::Path, &"/a".repeat(33)),
        "the prefix has 33 slashes, at most 32 are accepted"
    );
}

#[test]
fn a_suffix_covers_the_name_and_all_below_it() {
    let hosts = dataset(Kind::Suffix, Subject::Host, &["example", "shop.example"]);
    for (subject, key) in [
        ("shop.example", "shop.example"),
        ("a.b.shop.example", "shop.example"),
        ("myshop.example", "example"),
        ("xexample", ""),
    ] {
        assert_eq!(found(&hosts, subject), key, "{subject}");
    }
}

#[test]
fn the_smallest_network_around_an_address_answers() {
    let networks = dataset(
        Kind::Cidr,
        Subject::Peer,
        &[
            "10.0.0.0/8",
            "10.1.0.0/16",
            "10.1.2.3",
            "10.255.255.255/32",
            "192.0.2.0/24",
            "255.255.255.255",
            "2001:db8::/32",
            "2001:db8::1/128",
            "::/0",
            "10.1.0.0/16",
        ],
    );
    for (subject, key) in [
        ("9.255.255.255", ""),
        ("10.0.0.0", "10.0.0.0/8"),
        ("10.1.0.0", "10.1.0.0/16"),
        ("10.1.2.2", "10.1.0.0/16"),
        ("10.1.2.3", "10.1.2.3"),
        ("10.1.2.4", "10.1.0.0/16"),
        ("10.2.0.0", "10.0.0.0/8"),
        ("10.255.255.255", "10.255.255.255/32"),
        ("11.0.0.0", ""),
        ("::ffff:192.0.2.9", "192.0.2.0/24"),
        ("255.255.255.255", "255.255.255.255"),
        ("2001:db8::1", "2001:db8::1/128"),
        ("2001:db8::2", "2001:db8::/32"),
        ("ffff::", "::/0"),
    ] {
        assert_eq!(found(&networks, subject), key, "{subject}");
    }
    assert_eq!(
        refused(Kind::Cidr, Subject::Peer, "10.1.2.3/8"),
        "`10.1.2.3/8` is within a network, not one: write 10.0.0.0/8"
    );
    let mapped = refused(Kind::Cidr, Subject::Peer, "::ffff:198.51.100.0/120");
    assert!(mapped.contains("IPv4-mapped"), "{mapped}");
    for wrong in ["10.0.0.0/33", "::/129", "10.0.0.0/+8", "10.0.0/8", "", "everybody"] {
        assert!(refused(Kind::Cidr, Subject::Client, wrong).contains("is not a network such as"), "{wrong}");
    }
}

#[test]
fn a_host_that_no_request_could_have_is_refused() {
    for (kind, subject, key) in [
        (Kind::Exact, Subject::Host, "Shop.example"),
        (Kind::Exact, Subject::Host, "shop.example."),
        (Kind::Suffix, Subject::Host, "*.shop.example"),
        (Kind::Suffix, Subject::Host, ".shop.example"),
        (Kind::Exact, Subject::Route, "SHOP.example/x"),
        (Kind::Prefix, Subject::Route, "*.*.example/x"),
    ] {
        let says = refused(kind, subject, key);
        assert!(says.contains("lower case") || says.contains("how a host is written"), "{key}: {says}");
    }
}

#[test]
fn the_first_expression_that_matches_answers_for_its_host() {
    let routes =
        dataset(Kind::Regex, Subject::Route, &[r"^/a/\d+$", "^/a/", "shop.example^/a/7", "*.shop.example^/a/8$"]);
    for (subject, key) in [
        ("x.example/a/7", r"^/a/\d+$"),
        ("x.example/a/b", "^/a/"),
        ("shop.example/a/77", "shop.example^/a/7"),
        ("shop.example/a/8", r"^/a/\d+$"),
        ("b.shop.example/a/8", "*.shop.example^/a/8$"),
        ("x.example/b", ""),
    ] {
        assert_eq!(found(&routes, subject), key, "{subject}");
    }
    let long = |bytes: usize| format!("x.example/a/{}", "b".repeat(bytes - 3));
    assert_eq!((found(&routes, &long(512)), found(&routes, &long(513))), ("^/a/", ""));
}

#[test]
fn refuses_expressions_that_cost_too_much_or_are_none() {
    let refused = |pattern: &str| refused(Kind::Regex, Subject::Path, pattern);
    assert_eq!(refused("/a"), "`/a` does not begin with ^");
    assert_eq!(refused("^(a{500}){500}"), "`^(a{500}){500}` takes more than 65536 bytes when it is compiled");
    assert_eq!(refused("^/("), "`^/(`: error: unclosed group");
    let mut full = dataset(Kind::Regex, Subject::Path, &[]);
    for number in 0..1000 {
        assert_eq!(full.add(&format!("^/{number}$"), b""), Ok(()));
    }
    assert!(matches!(full.add("^/x", b""), Err(Refused::Illegal(says)) if says.contains("at most 1000")));
}

#[test]
fn an_expression_says_how_a_text_begins() {
    let refused = |pattern: &str| refused(Kind::Regex, Subject::Path, pattern);
    assert_eq!(refused("^/a|/b"), "`^/a|/b`: an alternative does not begin with ^: write ^(?:…|…)");
    assert!(refused("^*/a").contains("does not begin with ^"));
    let either = dataset(Kind::Regex, Subject::Path, &["^/a|^/b$", "^(?i:/C)", r"^/\xe9.$"]);
    for (path, key) in
        [("/ax", "^/a|^/b$"), ("/b", "^/a|^/b$"), ("/bx", ""), ("x/b", ""), ("/c", "^(?i:/C)"), ("/C", "^(?i:/C)")]
    {
        assert_eq!(found(&either, path), key, "{path}");
    }
    assert_eq!(found(&either, "/é"), "", "a path is bytes, and this is two others");
}

/// What takes a table for itself is the first of many tables, or the last, and the order stands.
#[test]
fn expressions_that_multiply_each_other_get_tables_of_their_own() {
    let mut keys: Vec<String> = (0..100).map(|number| format!("^/(.*)/old-{number}/(.*)$")).collect();
    keys.push("^/.*".to_owned());
    let paths = dataset(Kind::Regex, Subject::Path, &keys.iter().map(String::as_str).collect::<Vec<_>>());
    for (path, key) in [
        ("/a/old-7/b", "^/(.*)/old-7/(.*)$"),
        ("/a/old-99/old-98/", "^/(.*)/old-98/(.*)$"),
        ("/old-7/", "^/.*"),
        ("//old-0/b/old-50/c", "^/(.*)/old-0/(.*)$"),
    ] {
        assert_eq!(found(&paths, path), key, "{path}");
    }
}

#[test]
fn refuses_expressions_that_no_table_has_room_for() {
    let ready = |keys: &[String]| {
        let mut full = dataset(Kind::Regex, Subject::Route, &[]);
        for key in keys {
            assert_eq!(full.add(key, b""), Ok(()), "{key}");
        }
        full.ready().expect_err("is refused")
    };
    let counted = ready(&["shop.example^/.*a.{30}b".to_owned()]);
    assert!(counted.starts_with("host `shop.example`: `^/.*a.{30}b` needs more than 2097152 bytes"), "{counted}");
    let many: Vec<_> = (0..1000).map(|number| format!("^/(.*)/old-{number}/(.*)$")).collect();
    assert!(ready(&many).contains("do not fit into tables together"));
}

/// The same answer as a library gives that tries one after the other.
#[test]
fn tables_answer_as_the_expressions_do() {
    let parts = ["/", "a", "[a-c]", "(?:ab|b)", ".*", "b?", "(?i)A", "[^/]+", "a{2,3}", "$", r"\b", "c*"];
    let texts = ["/", "/a", "/ab", "/aab/c", "/A/b", "/abcabc", "/c/c/aa", "//", "/bbb$", "/a/b/c/"];
    let mut dice = 1u32;
    let mut roll = |sides: usize| {
        dice = dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (dice >> 16) as usize % sides
    };
    for _ in 0..200 {
        let pattern = |roll: &mut dyn FnMut(usize) -> usize| {
            format!("^{}", (0..=roll(4)).map(|_| parts[roll(parts.len())]).collect::<String>())
        };
        let mut keys: Vec<String> = (0..5).map(|_| pattern(&mut roll)).collect();
        keys.sort();
        keys.dedup();
        let paths = dataset(Kind::Regex, Subject::Path, &keys.iter().map(String::as_str).collect::<Vec<_>>());
        for text in texts {
            let first = keys.iter().find(|key| regex_lite::Regex::new(key).expect("is one").is_match(text));
            assert_eq!(found(&paths, text), first.map_or("", String::as_str), "{text} in {keys:?}");
        }
    }
}

#[test]
fn a_key_that_is_there_stands() {
    let mut routes = dataset(Kind::Exact, Subject::Route, &["/a"]);
    assert_eq!(routes.add("/a", b"other"), Err(Refused::Repeated));
    assert_eq!(found(&routes, "shop.example/a"), "/a");
}

#[test]
fn accepts_a_key_and_a_value_of_the_limit_and_refuses_one_byte_more() {
    let key = |bytes: usize| format!("/{}", "k".repeat(bytes - 1));
    let mut paths = dataset(Kind::Exact, Subject::Path, &[]);
    assert_eq!(paths.add(&key(2048), &vec![0; 8192]), Ok(()));
    assert!(
        matches!(paths.add(&key(2049), b""), Err(Refused::Illegal(says)) if says == "the key is 2049 bytes, at most 2048 are accepted")
    );
    assert!(
        matches!(paths.add("/v", &vec![0; 8193]), Err(Refused::Illegal(says)) if says == "the value is 8193 bytes, at most 8192 are accepted")
    );
    assert_eq!(paths.value(0).len(), 8192);
}

#[test]
fn refuses_pairs_that_make_no_sense() {
    for (kind, subject) in [
        (Kind::Suffix, Subject::Path),
        (Kind::Prefix, Subject::Host),
        (Kind::Cidr, Subject::Host),
        (Kind::Exact, Subject::Peer),
        (Kind::Regex, Subject::Client),
    ] {
        assert!(Dataset::new(kind, subject).is_err(), "{kind:?} {subject:?}");
    }
}

/// What it takes beside what the entries say: their places, their lengths and the index.
#[test]
fn an_entry_takes_at_most_20_bytes_more_than_it_says() {
    let keys: Vec<String> =
        (0..100_000).map(|number| format!("shop{}.example/old/page-{number}", number % 1000)).collect();
    let routes = dataset(Kind::Exact, Subject::Route, &keys.iter().map(String::as_str).collect::<Vec<_>>());
    let said: usize = keys.iter().map(|key| 2 * key.len()).sum();
    let more = (routes.bytes() - said) as f64 / keys.len() as f64;
    assert!(more <= 20.0, "{more}");
    for key in keys.iter().step_by(997) {
        assert_eq!(found(&routes, key), key);
    }
}
