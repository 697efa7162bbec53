//! CAs that refuse, stall, lie and hang up, and what becomes of the orders.

use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use contract::api::{BudgetPage, State, Who};

use crate::edge::open_bundle;
use crate::process::{CertService, LISTEN, wait_for};
use crate::scripted::{Ca, Script};

const QUICK: &str = "[issuance]\nretry_seconds_min = 1\nretry_seconds_max = 2\n";

fn started(extra: &str) -> (CertService, Ca) {
    let mut service = CertService::new("");
    let ca = Ca::start(service.folder.path());
    service.configure(LISTEN, &format!("{QUICK}{}", ca.issuer(extra)));
    service.start();
    (service, ca)
}

fn budgets(service: &CertService, query: &str) -> BudgetPage {
    serde_json::from_slice(&service.get(&format!("/v1/budgets{query}")).body).unwrap()
}

#[test]
fn a_limit_of_the_account_stops_all_orders_and_is_told_with_its_end() {
    let (service, ca) = started("");
    let until = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() + 7200;
    let words = "too many new orders (300) from this account in the last 3h0m0s, retry after";
    ca.script("new-order", Script::problem(429, "rateLimited", "Retry-After: 7200\r\n", words));
    assert_eq!(service.put("first.example", "").status, 201);
    let first = service.wait("first.example", |domain| domain.code == "rate_limited");
    assert_eq!((first.state, first.who), (State::Working, Who::Nobody));
    assert!(first.says.contains("too many new orders") && first.next_check_at.unwrap() >= until, "{first:?}");
    // The next one does not even ask.
    assert_eq!(service.put("second.example", "").status, 201);
    let second = service.wait("second.example", |domain| domain.code == "rate_limited");
    assert!(second.next_check_at.unwrap() >= until, "{second:?}");
    assert_eq!(ca.orders().len(), 0);
    let issuer = budgets(&service, "").issuers.remove(0);
    assert!(issuer.closed_until.unwrap() >= until && issuer.in_line == 1, "{issuer:?}");
    assert_eq!(issuer.code.as_deref(), Some("rate_limited"));
}

#[test]
fn a_limit_or_a_pause_of_one_name_holds_up_no_other() {
    let (service, ca) = started("");
    let link = "https://ca.example/unpause?jwt=abc";
    let words = format!(
        "Your account is temporarily prevented from requesting certificates for paused.example and possibly others. Please visit: {link}"
    );
    ca.script("new-order", Script::problem(429, "rateLimited", "Retry-After: 3600\r\n", &words));
    assert_eq!(service.put("paused.example", "").status, 201);
    let paused = service.wait("paused.example", |domain| domain.code == "paused_by_ca");
    assert_eq!((paused.state, paused.who), (State::ActionNeeded, Who::Operator));
    let step = paused.steps.iter().find(|step| step.id == "order").unwrap();
    assert!(step.says.contains(link) && step.fix.is_some(), "{step:?}");
    assert_eq!(service.put("other.example", "").status, 201);
    service.wait_live("other.example");
}

#[test]
fn a_ca_that_is_away_for_a_while_is_asked_again_when_it_said() {
    let (service, ca) = started("");
    let page = Script::Answer { status: 503, headers: "Retry-After: 3\r\n", body: "<h1>maintenance</h1>".into() };
    ca.script("new-order", page);
    let begun = Instant::now();
    for name in ["one.example", "two.example"] {
        assert_eq!(service.put(name, "").status, 201);
    }
    for name in ["one.example", "two.example"] {
        service.wait_live(name);
    }
    assert!(begun.elapsed() >= Duration::from_secs(2));
    assert_eq!(ca.orders().len(), 2);
}

#[test]
fn lost_connections_and_slow_certificates_end_well() {
    let (service, ca) = started("");
    for path in ["new-order", "order", "finalize", "cert"] {
        ca.script(path, Script::Lost);
    }
    ca.script("finalize", Script::LostAfter);
    assert_eq!(service.put("lost.example", "").status, 201);
    service.wait_live("lost.example");
    assert_eq!(ca.orders().len(), 1, "the order that was begun is the one that ends");
    ca.script("new-order", Script::LostAfter);
    ca.script("finalize", Script::Slow(3));
    assert_eq!(service.put("slow.example", "").status, 201);
    service.wait_live("slow.example");
    // The CA had counted the one whose answer was lost.
    assert_eq!(ca.orders().len(), 3);
}

#[test]
fn the_key_of_a_domain_that_is_gone_is_forgotten() {
    let (service, ca) = started("");
    let keys = |wanted: &str| {
        let line = format!("latchkey_certservice_keys_in_memory {wanted}\n");
        wait_for(&line, || service.get("/metrics").text().contains(&line).then_some(()));
    };
    // The CA makes the certificate for as long as it is looked at.
    ca.script("finalize", Script::Slow(1000));
    assert_eq!(service.put("gone.example", "").status, 201);
    wait_for("a look at the order that finds nothing", || {
        let metrics = service.get("/metrics");
        metrics.text().contains("latchkey_certservice_jobs{step=\"finalizing\"} 1\n").then_some(())
    });
    keys("1");
    assert_eq!(service.call("DELETE", "/v1/domains/gone.example", None, "").status, 204);
    keys("0");
    assert_eq!(service.put("stays.example", "").status, 201);
    service.wait_live("stays.example");
    keys("0");
}

#[test]
fn a_certificate_of_somebody_else_is_not_served() {
    let (service, ca) = started("");
    ca.script("finalize", Script::Impostor);
    assert_eq!(service.put("shop.example", "").status, 201);
    let domain = service.wait("shop.example", |domain| domain.code == "certificate_refused");
    assert!(domain.certificate.is_none() && domain.who == Who::CertificateAuthority, "{domain:?}");
    let live = service.wait_live("shop.example");
    assert_eq!(live.certificate.unwrap().revision, 1);
    let answer = service.get("/v1/bundles/shop.example");
    open_bundle(answer.text(), "shop.example", &service.verify_keys(), &service.edge);
}

#[test]
fn no_more_orders_leave_than_the_limit_allows_and_the_rest_waits_in_line() {
    let (mut service, ca) = started("limits = { orders = { count = 2, seconds = 36000 } }\n");
    for n in 0..5 {
        assert_eq!(service.put(&format!("n{n}.example"), "").status, 201);
    }
    let live = |service: &CertService| {
        (0..5).filter(|n| service.domain(&format!("n{n}.example")).state == State::Live).count()
    };
    for n in 0..5 {
        service.wait(&format!("n{n}.example"), |domain| domain.code == "rate_limited" || domain.code == "issued");
    }
    assert_eq!((live(&service), ca.orders().len()), (2, 2));
    let issuer = budgets(&service, "?domain=n0.example").issuers.remove(0);
    let orders = &issuer.limits[0];
    assert_eq!((issuer.in_line, orders.limit.as_str(), orders.left, orders.count), (3, "orders", 0, 2));
    assert!(orders.next_at.is_some() && issuer.closed_until.is_none());
    let waits =
        (0..5).map(|n| service.domain(&format!("n{n}.example"))).find(|domain| domain.state != State::Live).unwrap();
    let step = waits.steps.iter().find(|step| step.id == "order").unwrap();
    assert!(step.says.contains("`orders`") && step.says.contains("2 in 10 hours"), "{waits:?}");
    // What is spent stays spent.
    service.kill();
    service.start();
    service.wait_live(&format!(
        "n{}.example",
        (0..5).find(|n| service.domain(&format!("n{n}.example")).state == State::Live).unwrap()
    ));
    assert_eq!((live(&service), ca.orders().len()), (2, 2));
    assert!(
        service.get("/metrics").text().contains("latchkey_certservice_budget_left{issuer=\"ca\",limit=\"orders\"} 0")
    );
}

#[test]
fn no_more_orders_are_open_at_the_ca_than_there_are_places_however_many_were_looked_at() {
    let mut service = CertService::new("");
    let ca = Ca::start(service.folder.path());
    service.configure(LISTEN, &[QUICK, "concurrency = 1\nrsa = true\n", &ca.issuer("")].concat());
    service.start();
    let held = Arc::new(Barrier::new(2));
    ca.script("new-order", Script::Held(held.clone()));
    let names: Vec<_> = (0..5).map(|n| format!("n{n}.example")).collect();
    for name in &names {
        assert_eq!(service.put(name, "").status, 201);
    }
    held.wait();
    let waits = |name: &&String| service.wait(name, |domain| domain.code != "queued").code == "in_line";
    assert_eq!((names.iter().filter(waits).count(), ca.orders().len()), (4, 1));
    held.wait();
    for name in &names {
        service.wait_live(name);
    }
    // An RSA certificate beside each.
    assert_eq!((ca.open_most(), ca.orders().len(), ca.signed()), (1, 10, 10));
}

#[test]
fn a_renewal_does_not_stand_behind_a_limit_that_it_takes_nothing_of() {
    let (service, ca) = started("limits = { orders = { count = 2, seconds = 36000 } }\n");
    for name in ["n0.example", "n1.example"] {
        assert_eq!(service.put(name, "").status, 201);
        service.wait_live(name);
    }
    let renewed = |name: &str, revision: u64| {
        assert_eq!(service.call("POST", &format!("/v1/domains/{name}:renew"), None, "").status, 202);
        let is_renewed = |domain: &contract::api::Domain| {
            domain.code == "issued" && domain.certificate.as_ref().is_some_and(|c| c.revision == revision)
        };
        service.wait(name, is_renewed);
    };
    for n in 2..14 {
        assert_eq!(service.put(&format!("n{n}.example"), "").status, 201);
    }
    for n in 2..14 {
        service.wait(&format!("n{n}.example"), |domain| domain.code == "rate_limited");
    }
    renewed("n0.example", 2);
    // Nor one that was in line already, because the CA wanted to be left alone for a while.
    let away = Script::Answer { status: 503, headers: "Retry-After: 3\r\n", body: "<h1>maintenance</h1>".into() };
    ca.script("new-order", away);
    renewed("n1.example", 2);
    assert_eq!(ca.orders().len(), 4);
    let waits = service.domain("n2.example");
    assert_eq!((waits.code.as_str(), budgets(&service, "").issuers[0].in_line), ("rate_limited", 12), "{waits:?}");
}

#[test]
fn a_window_that_is_over_renews_at_once_and_names_what_it_replaces() {
    let (service, ca) = started("");
    let now = i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap();
    ca.suggest((now - 7200, now - 3600));
    // The CA has replaced it already, it says.
    assert_eq!(service.put("shop.example", "").status, 201);
    let revision = |wanted: u64| {
        service.wait("shop.example", |domain| {
            domain.code == "issued" && domain.certificate.as_ref().is_some_and(|c| c.revision == wanted)
        })
    };
    let first = revision(1);
    // What has replaced one is not replaced at once, whatever the CA says of each.
    revision(2);
    let serial = first.certificate.unwrap().serial;
    let replaced = ca.orders()[1].replaces.clone().unwrap();
    let told =
        base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, replaced.split_once('.').unwrap().1);
    let told: String = told.unwrap().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(told, serial);
}

#[test]
fn the_window_that_the_ca_suggests_is_shown_and_holds_the_instant() {
    let (service, ca) = started("");
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let (start, end) = (now + 86_400, now + 2 * 86_400);
    ca.suggest((i64::try_from(start).unwrap(), i64::try_from(end).unwrap()));
    assert_eq!(service.put("shop.example", "").status, 201);
    service.wait_live("shop.example");
    let page = wait_for("the window", || {
        let page = service.get("/v1/domains/shop.example/certificate").json();
        page["window"].is_object().then_some(page)
    });
    assert_eq!(page["window"], serde_json::json!({"start": start, "end": end}));
    assert!((start..end).contains(&page["renew_at"].as_u64().unwrap()), "{page}");
}

#[test]
fn an_operator_renews_and_revokes_and_already_replaced_is_no_obstacle() {
    let (service, ca) = started("");
    assert_eq!(service.put("shop.example", "").status, 201);
    service.wait_live("shop.example");
    ca.script("new-order", Script::problem(409, "alreadyReplaced", "", "it was replaced before"));
    let revision = |wanted: u64| {
        service.wait("shop.example", |domain| {
            domain.code == "issued" && domain.certificate.as_ref().is_some_and(|c| c.revision == wanted)
        })
    };
    let post = |verb: &str, body: &str| service.call("POST", &format!("/v1/domains/shop.example:{verb}"), None, body);
    assert_eq!(post("renew", "").status, 202);
    revision(2);
    assert_eq!((ca.orders().len(), ca.orders()[1].replaces.clone()), (2, None));
    let refused = post("revoke", r#"{"reason": "boredom"}"#);
    assert_eq!((refused.status, refused.json()["code"].as_str()), (400, Some("invalid_body")));
    assert_eq!((post("revoke", r#"{"reason": "key_compromise"}"#).status, ca.revoked()), (202, 1));
    revision(3);
    assert!(ca.orders()[2].replaces.is_some());
    ca.script("revoke", Script::problem(403, "unauthorized", "", "not yours"));
    let refused = post("revoke", "");
    assert_eq!((refused.status, refused.json()["code"].as_str()), (502, Some("ca_refused")));
    assert!(refused.json()["detail"].as_str().unwrap().contains("not yours"));
    let none = service.call("POST", "/v1/domains/none.example:renew", None, "");
    assert_eq!(none.status, 404);
}

#[test]
fn no_certificate_waits_for_the_rsa_one_beside_it_where_the_ca_takes_no_orders() {
    let mut service = CertService::new("");
    let ca = Ca::start(service.folder.path());
    service.configure(LISTEN, &format!("{QUICK}rsa = true\n{}", ca.issuer("")));
    service.start();
    let held = Arc::new(Barrier::new(2));
    ca.script("finalize", Script::Held(held.clone()));
    assert_eq!(service.put("shop.example", "").status, 201);
    held.wait();
    let words = "too many new orders (300) from this account in the last 3h0m0s";
    ca.script("new-order", Script::problem(429, "rateLimited", "Retry-After: 7200\r\n", words));
    assert_eq!(service.put("other.example", "").status, 201);
    service.wait("other.example", |domain| domain.code == "rate_limited");
    held.wait();
    let live = service.wait_live("shop.example");
    assert!(live.says.contains("RSA") && live.says.contains("300"), "{live:?}");
}

#[test]
fn a_revocation_takes_both_certificates_back() {
    let mut service = CertService::new("");
    let ca = Ca::start(service.folder.path());
    service.configure(LISTEN, &format!("{QUICK}rsa = true\n{}", ca.issuer("")));
    service.start();
    assert_eq!(service.put("shop.example", "").status, 201);
    service.wait_live("shop.example");
    let body = r#"{"reason": "key_compromise"}"#;
    assert_eq!(service.call("POST", "/v1/domains/shop.example:revoke", None, body).status, 202);
    assert_eq!(ca.revoked(), 2);
}

#[test]
fn the_doctor_finds_a_ca_that_is_ill_and_a_clock_that_is_wrong() {
    let mut service = CertService::new("");
    let ca = Ca::start(service.folder.path());
    let settings = format!("{QUICK}[precheck]\naddresses = [\"127.0.0.1\"]\n{}", ca.issuer(""));
    service.configure(LISTEN, &settings);
    service.start();
    let look = || -> contract::api::DoctorReport {
        let answer = service.get("/v1/doctor");
        serde_json::from_slice(&answer.body).unwrap_or_else(|_| panic!("{}", answer.text()))
    };
    let of = |report: &contract::api::DoctorReport, id: &str| {
        let check = report.checks.iter().find(|check| check.id == id);
        check.unwrap_or_else(|| panic!("{id} is not in {report:?}")).clone()
    };
    let well = look();
    for id in ["store", "ca ca"] {
        assert_eq!(of(&well, id).ok, Some(true), "{well:?}");
    }
    // This machine's disk may be full; on its port 80 listens nobody, or an edge of somebody else: it is told.
    for id in ["disk", "port 80 of 127.0.0.1"] {
        assert!(of(&well, id).ok.is_some(), "{well:?}");
    }
    assert_eq!(of(&well, "certificates").ok, None);
    let hour_ago = Script::Answer {
        status: 200,
        headers: "Date: Thu, 01 Jan 2026 00:00:00 GMT\r\n",
        body: r#"{"newOrder": "https://x"}"#.into(),
    };
    ca.script("dir", hour_ago);
    let late = look();
    assert_eq!(of(&late, "clock").ok, Some(false), "{late:?}");
    assert!(of(&late, "clock").says.contains("ahead of") && of(&late, "clock").fix.is_some());
    ca.script("dir", Script::Answer { status: 503, headers: "", body: "<h1>maintenance</h1>".into() });
    let ill = look();
    assert!(!ill.passed && of(&ill, "ca ca").says.contains("503"), "{ill:?}");
    assert!(of(&ill, "ca ca").fix.is_some());
    ca.script("dir", Script::Lost);
    assert_eq!(of(&look(), "ca ca").ok, Some(false));
    ca.script("dir", Script::Answer { status: 200, headers: "", body: "{}".into() });
    assert!(of(&look(), "ca ca").says.contains("no ACME directory"));
}
