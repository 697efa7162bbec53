//! The feed of changes, off-boarding, and how far edges are.

use contract::Hostname;
use contract::api::{Change, ChangePage};

use crate::edge::open_bundle;
use crate::http::Answer;
use crate::process::{CertService, INTERNAL, LISTEN, wait_for};
use crate::scripted::{Ca, Script};

fn page(service: &CertService, query: &str) -> ChangePage {
    let answer = service.get(&format!("/v1/changes{query}"));
    assert_eq!(answer.status, 200, "{answer:?}");
    serde_json::from_slice(&answer.body).unwrap()
}

fn change(cursor: u64, domain: &str, revision: impl Into<Option<u64>>) -> Change {
    let domain = Hostname::parse(domain).unwrap();
    Change { cursor, domain, revision: revision.into(), renewal_failing_since: None }
}

/// One after the other, so that their cursors are known.
fn issue(service: &CertService, names: &[&str]) {
    for name in names {
        assert_eq!(service.put(name, "").status, 201);
        service.wait_live(name);
    }
}

fn delete(service: &CertService, name: &str) -> Answer {
    service.call("DELETE", &format!("/v1/domains/{name}"), None, "")
}

#[test]
fn an_edge_reads_what_changed_page_by_page() {
    let service = CertService::started(INTERNAL);
    assert_eq!(page(&service, ""), ChangePage { changes: vec![], cursor: 0, more: false });
    issue(&service, &["c.example", "a.example", "b.example"]);
    let (c, a, b) = (change(1, "c.example", 1), change(2, "a.example", 1), change(3, "b.example", 1));
    let expected = |changes: &[&Change], cursor, more| ChangePage {
        changes: changes.iter().map(|&change| change.clone()).collect(),
        cursor,
        more,
    };
    assert_eq!(page(&service, ""), expected(&[&c, &a, &b], 3, false));
    assert_eq!(page(&service, "?since=0&limit=10000"), expected(&[&c, &a, &b], 3, false));
    assert_eq!(page(&service, "?limit=2"), expected(&[&c, &a], 2, true));
    assert_eq!(page(&service, "?since=2&limit=1"), expected(&[&b], 3, false));
    assert_eq!(page(&service, "?since=3"), expected(&[], 3, false));
    // From a later day than the database is of.
    assert_eq!(page(&service, "?since=18446744073709551615"), expected(&[], 3, false));
}

#[test]
fn a_bad_query_is_refused_with_a_reason() {
    let service = CertService::started(INTERNAL);
    for (query, code, says) in [
        ("since=-1", "invalid_since", "since is `-1`"),
        ("since=", "invalid_since", "since is ``"),
        ("since=18446744073709551616", "invalid_since", "18446744073709551616"),
        ("limit=0", "invalid_limit", "limit is `0`; it must be 1 to 10000"),
        ("limit=10001", "invalid_limit", "limit is `10001`; it must be 1 to 10000"),
        ("sinse=7", "invalid_query", "sinse"),
        ("since=1&since=2", "invalid_query", "since"),
    ] {
        let answer = service.get(&format!("/v1/changes?{query}"));
        assert_eq!((answer.status, answer.header("content-type")), (400, Some("application/problem+json")), "{query}");
        assert_eq!(answer.json()["code"], code, "{query}");
        assert!(answer.json()["detail"].as_str().unwrap().contains(says), "{query}: {answer:?}");
    }
}

#[test]
fn an_off_boarded_domain_is_gone_and_comes_back_above_its_last_revision() {
    let service = CertService::started(INTERNAL);
    issue(&service, &["a.example", "b.example"]);
    let answer = delete(&service, "A.Example");
    assert_eq!((answer.status, answer.body.len()), (204, 0), "{answer:?}");
    for path in ["/v1/domains/a.example", "/v1/bundles/a.example"] {
        assert_eq!(service.get(path).json()["code"], "unknown_domain", "{path}");
    }
    assert_eq!(delete(&service, "a.example").json()["code"], "unknown_domain");
    assert_eq!(delete(&service, "-").json()["code"], "invalid_name");
    assert_eq!(page(&service, "").changes, [change(2, "b.example", 1), change(3, "a.example", None)]);

    assert_eq!(service.put("a.example", r#"{"tenant": "another"}"#).status, 201);
    assert_eq!(service.wait_live("a.example").certificate.unwrap().revision, 2);
    assert_eq!(page(&service, "?since=3").changes, [change(4, "a.example", 2)]);
    let answer = service.get("/v1/bundles/a.example");
    let (bundle, _) = open_bundle(answer.text(), "a.example", &service.verify_keys(), &service.edge);
    assert_eq!(bundle.revision, 2);
}

#[test]
fn an_order_ends_with_its_domain() {
    // A CA that takes connections and says nothing: the order is at work while its domain goes.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let directory = format!("https://{}/dir", silent.local_addr().unwrap());
    let acme =
        format!("[[issuers]]\nname = \"silent\"\nkind = \"acme\"\ndirectory = \"{directory}\"\nprecheck = false\n");
    let service = CertService::started(&format!("{INTERNAL}{acme}"));
    assert_eq!(service.put("a.example", r#"{"issuer": "silent"}"#).status, 201);
    let connection = silent.accept().unwrap();
    assert_eq!(delete(&service, "a.example").status, 204);
    drop((connection, silent));
    wait_for("the end of the order", || service.log().contains("an order ended with its domain").then_some(()));
    assert!(!service.log().contains("\"level\":\"ERROR\""), "{}", service.log());
    assert_eq!(service.get("/v1/domains").json()["domains"].as_array().unwrap().len(), 0);
    assert!(!service.get("/metrics").text().contains("latchkey_certservice_jobs{"));
    // No edge was ever told of it.
    assert_eq!(page(&service, "").changes, []);
}

#[test]
fn an_operator_sees_how_far_each_edge_is() {
    let service = CertService::started(INTERNAL);
    issue(&service, &["a.example", "b.example", "c.example"]);
    let edges = || service.get("/v1/edges").json();
    assert_eq!(edges(), serde_json::json!({"edges": [], "head": 3}));
    let poll = |edge: &str, since: u64| service.get_as_edge(&format!("/v1/changes?since={since}"), edge);

    let kid = service.edge.kid();
    assert_eq!(poll(kid, 1).status, 200);
    let seen = edges();
    let edge = &seen["edges"][0];
    assert_eq!((&edge["edge"], &edge["cursor"], &edge["behind"]), (&kid.into(), &1.into(), &2.into()), "{seen}");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert!(now.abs_diff(edge["seen_at"].as_u64().unwrap()) < 60, "{seen}");
    let metrics = || service.get("/metrics").text().to_owned();
    assert!(metrics().contains("\nlatchkey_changes_head 3\n") && metrics().contains("\nlatchkey_edges_behind_max 2\n"));

    // Who is not in the boot file is refused, and not taken down.
    for stranger in ["stranger", "", "\u{fc}"] {
        let answer = poll(stranger, 0);
        assert_eq!((answer.status, answer.json()["code"].as_str()), (400, Some("unknown_edge")), "{stranger:?}");
        assert!(answer.json()["detail"].as_str().unwrap().contains("public_keys"));
    }
    assert_eq!(poll(kid, 3).status, 200);
    assert_eq!((&edges()["edges"].as_array().unwrap().len(), &edges()["edges"][0]["behind"]), (&1, &0.into()));
    assert!(metrics().contains("\nlatchkey_edges_behind_max 0\n") && !metrics().contains(kid));
}

#[test]
fn a_renewal_that_the_ca_refuses_is_told_until_one_succeeds() {
    let mut service = CertService::new("");
    let ca = Ca::start(service.folder.path());
    let quick = "[issuance]\nretry_seconds_min = 1\nretry_seconds_max = 2\n";
    service.configure(LISTEN, &format!("{quick}{}", ca.issuer("")));
    service.start();
    issue(&service, &["shop.example", "other.example"]);
    for _ in 0..2 {
        ca.script("new-order", Script::problem(400, "malformed", "", "not this one, not now"));
    }
    assert_eq!(service.call("POST", "/v1/domains/shop.example:renew", None, "").status, 202);
    let told = wait_for("the edges to be told", || page(&service, "?since=2").changes.into_iter().next());
    assert_eq!((told.domain.as_str(), told.revision), ("shop.example", Some(1)), "{told:?}");
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    assert!(told.renewal_failing_since.is_some_and(|since| (now - 600..=now).contains(&since)), "{told:?}");
    let renewed = wait_for("the next certificate", || {
        page(&service, "?since=2").changes.into_iter().find(|change| change.revision == Some(2))
    });
    assert_eq!(renewed.renewal_failing_since, None);
    let other = page(&service, "").changes.into_iter().find(|change| change.domain.as_str() == "other.example");
    assert_eq!(other, Some(change(2, "other.example", 1)));
}
