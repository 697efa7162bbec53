//! Several issuers: who is asked, and what becomes of orders whose first choice does not take them.

use std::time::Duration;

use contract::api::{BudgetPage, Domain, State};
use contract::journal::Page;

use crate::process::{CertService, LISTEN, wait_for};
use crate::scripted::{Ca, Script};

const QUICK: &str = "[issuance]\nretry_seconds_min = 1\nretry_seconds_max = 2\nrenewals_wait_seconds = 0\n";

/// Two CAs; `first` is preferred.
fn started(extra: &str) -> (CertService, Ca, Ca) {
    let mut service = CertService::new("");
    let of = |name: &str| {
        let folder = service.folder.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        Ca::start(&folder)
    };
    let (first, second) = (of("one"), of("two"));
    let issuers = format!("{}{}", first.issuer_named("first", extra), second.issuer_named("second", ""));
    let settings = format!("{QUICK}[domains]\nissuers = [\"first\", \"second\"]\n{issuers}");
    service.configure(LISTEN, &settings);
    service.start();
    (service, first, second)
}

fn actions(service: &CertService) -> Vec<(String, String)> {
    let page: Page = serde_json::from_slice(&service.get("/v1/audit").body).unwrap();
    page.entries.into_iter().map(|entry| (entry.action, entry.name)).collect()
}

fn told(service: &CertService, action: &str) -> usize {
    actions(service).into_iter().filter(|told| *told == (action.to_owned(), "first".to_owned())).count()
}

fn revision(service: &CertService, name: &str, wanted: u64) -> Domain {
    service.wait(name, |domain| {
        domain.code == "issued" && domain.certificate.as_ref().is_some_and(|c| c.revision == wanted)
    })
}

#[test]
fn a_ca_that_is_down_is_passed_over_and_comes_back_by_itself() {
    let (service, first, second) = started("");
    for _ in 0..3 {
        first.script("new-order", Script::Lost);
    }
    assert_eq!(service.put("shop.example", "").status, 201);
    let shop = service.wait_live("shop.example");
    assert_eq!((shop.issuer.as_str(), shop.issuers.len()), ("second", 0), "{shop:?}");
    let passed = &shop.passed_over[0];
    assert_eq!((passed.issuer.as_str(), passed.code.as_str()), ("first", "ca_unavailable"), "{shop:?}");
    assert_eq!((first.orders().len(), second.orders().len()), (0, 1));
    let budgets: BudgetPage = serde_json::from_slice(&service.get("/v1/budgets").body).unwrap();
    assert_eq!(budgets.issuers[0].code.as_deref(), Some("ca_unavailable"), "{budgets:?}");
    assert_eq!((told(&service, "issuer.closed"), told(&service, "issuer.opened")), (1, 0));
    let metrics = service.get("/metrics");
    for line in [
        "latchkey_certservice_orders_total{issuer=\"second\",result=\"issued\"} 1",
        "latchkey_certservice_orders_passed_over_total{code=\"ca_unavailable\",issuer=\"first\"} 1",
    ] {
        assert!(metrics.text().contains(line), "{line}");
    }
    assert!(!metrics.text().contains("issuer_closed_seconds{issuer=\"first\"} 0"));
    // It is back when its pause is over: the next order goes to it, and that is told.
    wait_for("the pause to end", || {
        let budgets: BudgetPage = serde_json::from_slice(&service.get("/v1/budgets").body).unwrap();
        budgets.issuers[0].closed_until.is_none().then_some(())
    });
    assert_eq!(service.call("POST", "/v1/domains/shop.example:renew", None, "").status, 202);
    let shop = revision(&service, "shop.example", 2);
    assert_eq!((shop.issuer.as_str(), shop.passed_over.len(), first.orders().len()), ("first", 0, 1), "{shop:?}");
    assert_eq!(first.orders()[0].replaces, None, "it never saw the certificate of the other");
    assert_eq!((told(&service, "issuer.closed"), told(&service, "issuer.opened")), (1, 1));
    // And what it has made itself, it replaces.
    assert_eq!(service.call("POST", "/v1/domains/shop.example:renew", None, "").status, 202);
    revision(&service, "shop.example", 3);
    assert!(first.orders()[1].replaces.is_some());
}

#[test]
fn a_limit_of_the_account_sends_orders_on_until_it_is_over() {
    let (service, first, second) = started("");
    let words = "too many new orders (300) from this account in the last 3h0m0s, retry after";
    first.script("new-order", Script::problem(429, "rateLimited", "Retry-After: 5\r\n", words));
    for name in ["one.example", "two.example"] {
        assert_eq!(service.put(name, "").status, 201);
        let domain = service.wait_live(name);
        assert_eq!((domain.issuer.as_str(), domain.passed_over[0].code.as_str()), ("second", "rate_limited"));
        assert!(domain.passed_over[0].says.contains("too many new orders"), "{domain:?}");
    }
    assert_eq!((first.orders().len(), second.orders().len()), (0, 2));
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(service.put("three.example", "").status, 201);
    assert_eq!(service.wait_live("three.example").issuer, "first");
}

#[test]
fn our_own_reckoning_of_a_limit_sends_orders_on_as_well() {
    let (service, first, second) = started("limits = { orders = { count = 1, seconds = 36000 } }\n");
    for n in 0..4 {
        assert_eq!(service.put(&format!("n{n}.example"), "").status, 201);
    }
    for n in 0..4 {
        service.wait_live(&format!("n{n}.example"));
    }
    assert_eq!((first.orders().len(), second.orders().len()), (1, 3));
}

#[test]
fn a_name_that_one_ca_refuses_is_tried_with_the_next_and_blocked_when_none_takes_it() {
    let (service, first, second) = started("");
    let refusal = || Script::problem(400, "rejectedIdentifier", "", "policy forbids the name");
    first.script("new-order", refusal());
    assert_eq!(service.put("shop.example", "").status, 201);
    let shop = service.wait_live("shop.example");
    assert_eq!((shop.issuer.as_str(), shop.passed_over[0].code.as_str()), ("second", "name_refused"));
    let words = "Your account is temporarily prevented from requesting certificates for x. Please visit: https://ca.example/unpause";
    first.script("new-order", Script::problem(429, "rateLimited", "Retry-After: 3600\r\n", words));
    assert_eq!(service.put("paused.example", "").status, 201);
    let paused = service.wait_live("paused.example");
    assert_eq!((paused.issuer.as_str(), paused.passed_over[0].code.as_str()), ("second", "paused_by_ca"));
    first.script("new-order", refusal());
    second.script("new-order", refusal());
    assert_eq!(service.put("evil.example", "").status, 201);
    let evil = service.wait("evil.example", |domain| domain.state == State::Blocked);
    assert_eq!(evil.code, "name_refused");
    // Others are still with the first.
    assert_eq!(service.put("other.example", "").status, 201);
    assert_eq!(service.wait_live("other.example").issuer, "first");
    // Asked again by an operator, it begins with the first.
    assert_eq!(service.put("evil.example", "").status, 200);
    assert_eq!(service.wait_live("evil.example").issuer, "first");
}

#[test]
fn a_domain_has_its_own_order_of_preference_and_changes_it() {
    let (service, first, second) = started("");
    for (body, status, code) in [
        (r#"{"issuers": ["second", "third"]}"#, 400, "unknown_issuer"),
        (r#"{"issuers": ["second", "second"]}"#, 400, "invalid_issuers"),
        (r#"{"issuer": "first", "issuers": ["second"]}"#, 400, "invalid_issuers"),
    ] {
        let answer = service.put("shop.example", body);
        assert_eq!((answer.status, answer.json()["code"].as_str()), (status, Some(code)), "{body}");
    }
    assert_eq!(service.put("shop.example", r#"{"issuers": ["second"]}"#).status, 201);
    let shop = service.wait_live("shop.example");
    assert_eq!((shop.issuer.as_str(), shop.issuers), ("second", vec!["second".to_owned()]));
    // The one it has is served until it is renewed.
    let answer = service.put("shop.example", r#"{"issuers": ["first", "second"]}"#);
    assert_eq!((answer.status, answer.json()["issuer"].as_str()), (200, Some("second")));
    assert_eq!(service.call("POST", "/v1/domains/shop.example:renew", None, "").status, 202);
    assert_eq!(revision(&service, "shop.example", 2).issuer, "first");
    assert_eq!((first.orders().len(), second.orders().len()), (1, 1));
    assert!(actions(&service).contains(&("domain.issuers_changed".to_owned(), "shop.example".to_owned())));
    // Back to the boot file's.
    assert_eq!(service.put("shop.example", r#"{"issuers": []}"#).status, 200);
    assert!(service.domain("shop.example").issuers.is_empty());
    // What waits for a CA that is gone goes to another as soon as it is told to.
    let words = "too many new orders from this account";
    second.script("new-order", Script::problem(429, "rateLimited", "Retry-After: 7200\r\n", words));
    assert_eq!(service.put("waits.example", r#"{"issuer": "second"}"#).status, 201);
    service.wait("waits.example", |domain| domain.code == "rate_limited");
    assert_eq!(service.put("waits.example", r#"{"issuers": ["second", "first"]}"#).status, 200);
    assert_eq!(service.wait_live("waits.example").issuer, "first");
}
