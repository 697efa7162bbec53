//! Domains whose certificate is ordered when the first visitor comes, through the real service.

use contract::api::{OrderWhen, State};

use crate::databases::on_each_database;
use crate::edge::open_bundle;
use crate::http::Answer;
use crate::pebble::set_up_with;
use crate::precheck::{dns, orders};
use crate::process::{CertService, INTERNAL, LISTEN, wait_for};
use crate::scripted::{Ca, Script};

const FIRST_VISIT: &str = r#"{"order": "first_visit"}"#;

/// What an edge asks because somebody has come.
fn visit(service: &CertService, name: &str) -> Answer {
    service.get(&format!("/v1/bundles/{name}"))
}

fn parked(service: &CertService, name: &str) {
    let waits = |domain: &contract::api::Domain| domain.code == "awaits_visit" && domain.next_check_at.is_none();
    let domain = service.wait(name, waits);
    assert_eq!((domain.state, domain.order), (State::Working, OrderWhen::FirstVisit));
}

/// Entries of the journal, and domains: what there is of everything that somebody has changed.
fn changes(service: &CertService) -> (u64, usize, usize) {
    let journal = service.get("/v1/audit?limit=1000").json();
    let entries = journal["entries"].as_array().unwrap();
    let domains = service.get("/v1/domains?limit=1000").json()["domains"].as_array().unwrap().len();
    (entries.last().map_or(0, |entry| entry["seq"].as_u64().unwrap()), domains, jobs(service))
}

fn jobs(service: &CertService) -> usize {
    let metrics = service.get("/metrics");
    let lines = metrics.text().lines().filter(|line| line.starts_with("latchkey_certservice_jobs{"));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<usize>().unwrap()).sum()
}

#[test]
fn nothing_is_ordered_before_a_visit_and_killed_between_visit_and_order_it_goes_on() {
    on_each_database(|database| {
        let mut service = CertService::new("");
        let ca = Ca::start(service.folder.path());
        let quick = "[issuance]\nretry_seconds_min = 1\nretry_seconds_max = 2\n";
        service.configure(LISTEN, &[quick, &ca.issuer(""), &database.settings(&service)].concat());
        service.start();
        assert_eq!(service.put("a.example", FIRST_VISIT).status, 201);
        assert_eq!(service.put("now.example", "").status, 201);
        parked(&service, "a.example");
        service.wait_live("now.example");
        assert_eq!((ca.orders().len(), jobs(&service)), (1, 0));
        // It dies when the wish is stored and the CA has heard nothing of it.
        let process = service.process().id();
        ca.script("new-order", Script::Kill(process));
        let answer = visit(&service, "a.example");
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{}", answer.text());
        service.wait_killed();
        assert_eq!(ca.orders().len(), 1);
        service.start();
        // Nobody comes again.
        service.wait_live("a.example");
        assert_eq!(ca.orders().len(), 2);
        let bundle = visit(&service, "a.example");
        open_bundle(bundle.text(), "a.example", &service.verify_keys(), &service.edge);
        let metrics = service.get("/metrics");
        assert!(metrics.text().contains("latchkey_certservice_first_visits_total{result=\"issued\"} 1"));
        assert!(metrics.text().contains("latchkey_certservice_first_visit_seconds_count 1"));
        // It is renewed by the clock, like any other.
        let served = service.get("/v1/domains/a.example/certificate").json();
        assert!(served["renew_at"].as_u64().is_some(), "{served}");
    });
}

#[test]
fn a_visit_to_a_name_that_nobody_registered_or_that_is_gone_makes_nothing() {
    let service = CertService::started(INTERNAL);
    for name in ["shop.example", "gone.example"] {
        assert_eq!(service.put(name, FIRST_VISIT).status, 201);
        parked(&service, name);
    }
    assert_eq!(service.call("DELETE", "/v1/domains/gone.example", None, "").status, 204);
    let before = changes(&service);
    for n in 0..300 {
        for name in [format!("n{n}.unknown.example"), format!("n{n}.shop.example"), "gone.example".to_owned()] {
            let answer = visit(&service, &name);
            assert_eq!((answer.status, answer.json()["code"].as_str()), (404, Some("unknown_domain")), "{name}");
        }
    }
    assert_eq!(changes(&service), before);
    let metrics = service.get("/metrics");
    let mut counts = metrics.text().lines().filter(|line| line.starts_with("latchkey_certservice_first_visits_total{"));
    assert!(counts.all(|line| line.ends_with(" 0")), "{}", metrics.text());
}

#[test]
fn the_limit_on_first_visits_says_which_until_when_and_what_to_do() {
    let settings = format!("{INTERNAL}[domains]\norder = \"first_visit\"\nfirst_visits_per_hour_max = 2\n");
    let mut service = CertService::started(&settings);
    for name in ["a.example", "b.example", "c.example", "d.example"] {
        assert_eq!(service.put(name, r#"{"tenant": "shop"}"#).status, 201);
        parked(&service, name);
    }
    for name in ["a.example", "b.example"] {
        assert_eq!(visit(&service, name).header("retry-after"), Some("1"));
        service.wait_live(name);
    }
    // Also after a restart.
    service.kill();
    service.start();
    let refused = visit(&service, "c.example");
    let says = refused.json()["detail"].as_str().unwrap().to_owned();
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("60")), "{says}");
    assert!(says.contains("tenant `shop`") && says.contains("first_visits_per_hour_max"), "{says}");
    let shown = service.domain("c.example");
    assert_eq!((shown.code.as_str(), shown.state), ("first_visits_used_up", State::Working));
    let until = shown.next_check_at.unwrap();
    assert!(shown.says.contains("2 orders an hour") && shown.says.contains(&until.to_string()), "{}", shown.says);
    let step = shown.steps.iter().find(|step| step.id == "order").unwrap();
    assert!(step.code == "first_visits_used_up" && step.fix.as_ref().is_some_and(|fix| fix.contains("operator")));
    let page = service.get(shown.page.as_ref().unwrap());
    assert!(page.status == 200 && page.text().contains("2 orders an hour"), "{}", page.text());
    assert_eq!(jobs(&service), 0, "who is refused leaves nothing behind");
    let left = &service.get("/v1/budgets?domain=c.example").json()["first_visits"];
    assert_eq!((&left["scope"], &left["count"], &left["left"]), (&"shop".into(), &2.into(), &0.into()), "{left}");
    assert_eq!(left["next_at"].as_u64(), Some(until));
    // Another tenant has its own, and who asks for an order needs none of it.
    assert_eq!(service.put("theirs.example", "").status, 201);
    parked(&service, "theirs.example");
    visit(&service, "theirs.example");
    service.wait_live("theirs.example");
    assert_eq!(service.call("POST", "/v1/domains/c.example:renew", None, "").status, 202);
    service.wait_live("c.example");
    assert_eq!(service.put("d.example", r#"{"order": "now"}"#).status, 200);
    service.wait_live("d.example");
}

#[test]
fn a_name_that_a_wildcard_covers_is_not_ordered() {
    let service = CertService::started(INTERNAL);
    assert_eq!(service.put("*.shop.example", "").status, 201);
    service.wait_live("*.shop.example");
    assert_eq!(service.put("a.shop.example", FIRST_VISIT).status, 201);
    let domain = service.wait("a.shop.example", |domain| domain.code == "covered_by_wildcard");
    assert!(domain.says.contains("*.shop.example"), "{}", domain.says);
    let answer = wait_for("a visit after the look", || Some(visit(&service, "a.shop.example")).filter(is_later));
    assert_eq!(answer.header("retry-after"), Some("60"), "{}", answer.text());
    wait_for("the look to be over", || (jobs(&service) == 0).then_some(()));
    assert_eq!(service.domain("a.shop.example").certificate, None);
}

fn is_later(answer: &Answer) -> bool {
    answer.status == 503 && answer.header("retry-after") != Some("1")
}

#[test]
fn lists_and_their_columns_say_when_names_are_ordered() {
    let service = CertService::started(INTERNAL);
    let send = |query: &str, media: &str, body: &str| {
        let stream = std::os::unix::net::UnixStream::connect(service.path("cs.sock")).unwrap();
        let headers = format!("Content-Type: {media}\r\n");
        crate::http::exchange_with(stream, "POST", &format!("/v1/imports{query}"), &headers, body.as_bytes())
    };
    let csv = "name,tenant,issuer,order\nnow.example,,,now\nlater.example\nwrong.example,,,soon\n";
    let list = send("?order=first_visit", "text/csv", csv);
    assert_eq!(list.status, 202, "{}", list.text());
    let ndjson = "{\"name\": \"other.example\", \"order\": \"first_visit\"}";
    assert_eq!(send("", "application/x-ndjson", ndjson).status, 202);
    assert_eq!(send("?order=soon", "text/csv", "a.example").status, 400);
    for name in ["later.example", "other.example"] {
        wait_for("the list", || (service.get(&format!("/v1/domains/{name}")).status == 200).then_some(()));
        parked(&service, name);
    }
    service.wait_live("now.example");
    let id = list.json()["id"].as_str().unwrap().to_owned();
    let errors = service.get(&format!("/v1/imports/{id}")).json()["errors"].clone();
    assert!(errors[0]["says"].as_str().unwrap().contains("order is `soon`; it takes now or first_visit"), "{errors}");
}

#[test]
fn what_is_wrong_with_the_dns_is_told_before_anybody_comes_and_a_visit_brings_no_order_until_it_is_mended() {
    let (service, pebble, _responder) = set_up_with("");
    dns(&pebble, "add-a", r#"{"host": "shop.example.", "addresses": ["198.51.100.9"]}"#);
    assert_eq!(service.put("shop.example", FIRST_VISIT).status, 201);
    let domain = service.wait("shop.example", |domain| domain.code == "wrong_address");
    assert_eq!((domain.state, domain.order), (State::ActionNeeded, OrderWhen::FirstVisit));
    let page = service.get(domain.page.as_ref().unwrap());
    assert!(page.text().contains("198.51.100.9"), "{}", page.text());
    // Who comes there by force brings a look, and nothing else.
    let count = |result: &str| {
        let line = format!("latchkey_certservice_first_visits_total{{result=\"{result}\"}} ");
        let metrics = service.get("/metrics");
        metrics.text().lines().find_map(|found| found.strip_prefix(&line)?.parse::<u32>().ok()).unwrap()
    };
    wait_for("a visit that is taken", || {
        visit(&service, "shop.example");
        (count("ordered") == 1).then_some(())
    });
    wait_for("the visit to come to nothing", || (count("failed") == 1).then_some(()));
    let again = service.wait("shop.example", |domain| domain.code == "wrong_address" && domain.next_check_at.is_some());
    assert_eq!((again.state, orders(&service)), (State::ActionNeeded, 0));

    dns(&pebble, "clear-a", r#"{"host": "shop.example."}"#);
    parked(&service, "shop.example");
    assert_eq!(orders(&service), 0);
    visit(&service, "shop.example");
    service.wait_live("shop.example");
    assert_eq!(orders(&service), 1);
}
