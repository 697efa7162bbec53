//! Edge keys by the API: who is sealed to, while CertService runs and after it starts anew.

use contract::api::{Custody, EdgeKeyInfo, KeyPage, KeyState};
use contract::sealed::EdgeKey;

use crate::edge::open_bundle;
use crate::process::{CertService, INTERNAL, wait_for};

fn add(service: &CertService, pool: &str, edge: &EdgeKey, query: &str) -> (u16, serde_json::Value) {
    let body = serde_json::json!({"pool": pool, "public_key": edge.public_pem().unwrap()}).to_string();
    let answer = service.call("POST", &format!("/v1/keys{query}"), None, &body);
    (answer.status, answer.json())
}

fn retire(service: &CertService, kid: &str, query: &str) -> (u16, serde_json::Value) {
    let answer = service.call("DELETE", &format!("/v1/keys/{kid}{query}"), None, "");
    (answer.status, answer.json())
}

fn keys(service: &CertService) -> Vec<EdgeKeyInfo> {
    serde_json::from_slice::<KeyPage>(&service.get("/v1/keys").body).unwrap().keys
}

fn custody(service: &CertService) -> Custody {
    serde_json::from_slice(&service.get("/v1/custody").body).unwrap()
}

#[test]
fn a_key_that_is_added_opens_what_comes_and_one_that_is_retired_stays_so() {
    let mut service = CertService::started(INTERNAL);
    assert_eq!(service.put("before.example", "").status, 201);
    service.wait_live("before.example");
    let new = EdgeKey::generate(3072).unwrap();
    let poll = |service: &CertService, edge: &EdgeKey| service.get_as_edge("/v1/changes", edge.kid()).status;
    assert_eq!(poll(&service, &new), 400);
    assert_eq!(add(&service, "new", &new, "?dry_run=true").0, 200);
    assert_eq!(keys(&service).len(), 1, "a dry run");
    let (status, shown) = add(&service, "new", &new, "");
    assert_eq!(
        (status, &shown["kid"], &shown["bits"], &shown["state"]),
        (201, &new.kid().into(), &3072.into(), &"active".into())
    );
    assert_eq!(add(&service, "new", &new, "").0, 200);
    assert_eq!(poll(&service, &new), 200);
    assert_eq!(service.put("after.example", "").status, 201);
    service.wait_live("after.example");
    for (name, edge) in [("before.example", &service.edge), ("after.example", &service.edge), ("after.example", &new)] {
        let answer = service.get(&format!("/v1/bundles/{name}"));
        open_bundle(answer.text(), name, &service.verify_keys(), edge);
    }
    let report = custody(&service);
    let mut numbers: Vec<_> = report.keys.iter().map(|key| (&*key.pool, key.sealed, key.missing, key.alone)).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [("boot", 2, 0, 1), ("new", 1, 1, 0)]);

    let old = service.edge.kid().to_owned();
    let (status, refused) = retire(&service, &old, "");
    assert_eq!((status, refused["code"].as_str()), (409, Some("unreadable")));
    assert!(refused["detail"].as_str().unwrap().starts_with("1 bundles"), "{refused}");
    let (status, told) = retire(&service, &old, "?dry_run=true&force=true");
    assert_eq!((status, &told["retired"], &told["unreadable"]), (200, &false.into(), &1.into()));
    assert_eq!(retire(&service, &old, "?force=true").0, 200);
    assert_eq!(poll(&service, &service.edge), 400, "it follows no changes any more");
    let (status, refused) = retire(&service, new.kid(), "?force=true");
    assert_eq!((status, refused["code"].as_str()), (409, Some("last_key")));
    assert_eq!(custody(&service).unreadable, 1);
    let doctor = service.get("/v1/doctor").json();
    let check = doctor["checks"].as_array().unwrap().iter().find(|check| check["id"] == "custody").unwrap().clone();
    assert_eq!(check["ok"], false, "{check}");

    // The boot file names it still, and does not bring it back.
    service.kill();
    service.start();
    let mut states: Vec<_> = keys(&service).iter().map(|key| (key.pool.clone(), key.state, key.boot_file)).collect();
    // Of the same second, so in any order.
    states.sort_by(|(a, ..), (b, ..)| a.cmp(b));
    assert_eq!(states, [("boot".into(), KeyState::Retired, true), ("new".into(), KeyState::Active, false)]);
    assert!(service.log().contains("names a key that was retired"));
    // What the other one opens is rid of the retired one.
    wait_for("the entries of the retired key to be gone", || {
        let report = custody(&service);
        let old = report.keys.iter().find(|key| key.kid == old).unwrap();
        (old.sealed == 1).then_some(())
    });
    let answer = service.get("/v1/bundles/after.example");
    let (bundle, _) = open_bundle(answer.text(), "after.example", &service.verify_keys(), &new);
    assert_eq!(bundle.key.recipients.len(), 1);
}

#[test]
fn what_is_no_edge_key_is_refused_with_a_reason() {
    let service = CertService::started(INTERNAL);
    let call = |query: &str, body: &str| {
        let answer = service.call("POST", &format!("/v1/keys{query}"), None, body);
        (
            answer.status,
            answer.json()["code"].as_str().unwrap_or_default().to_owned(),
            answer.json()["detail"].to_string(),
        )
    };
    let key = EdgeKey::generate(2048).unwrap();
    let body = |pool: &str, pem: &str| serde_json::json!({"pool": pool, "public_key": pem}).to_string();
    for (query, body, code, says) in [
        ("", body("a b", &key.public_pem().unwrap()), "invalid_pool", "`a b`"),
        ("", body("a", &key.private_pem().unwrap()), "invalid_key", "this is a private key"),
        ("", body("a", "nonsense"), "invalid_key", "BEGIN PUBLIC KEY"),
        ("", "[]".to_owned(), "invalid_body", "no JSON object"),
        ("", r#"{"pool": "a"}"#.to_owned(), "invalid_body", "public_key"),
        ("?dryrun=true", body("a", "x"), "invalid_query", "dryrun"),
    ] {
        let (status, refused, detail) = call(query, &body);
        assert_eq!((status, refused.as_str()), (400, code), "{detail}");
        assert!(detail.contains(says), "{says}: {detail}");
        assert!(!detail.contains("MII"), "no part of a key is told: {detail}");
    }
    assert_eq!(retire(&service, "none", "").1["code"], "unknown_key");
    assert_eq!(retire(&service, "none", "?forse=true").1["code"], "invalid_query");
    assert_eq!(keys(&service).len(), 1);
}
