//! The look before an order, with a DNS server of the test's own and a real CA.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use contract::api::{CheckReport, State, Who};

use crate::pebble::{Pebble, Responder, set_up_with};
use crate::process::{CertService, LISTEN, wait_for};

/// Tells the DNS server what to answer.
pub fn dns(pebble: &Pebble, action: &str, body: &str) {
    let mut stream = TcpStream::connect(("127.0.0.1", pebble.dns_management)).unwrap();
    let head = format!("POST /{action} HTTP/1.1\r\nHost: dns\r\nConnection: close\r\n");
    write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{action} {body}: {answer}");
}

fn check(service: &CertService, name: &str) -> CheckReport {
    let answer = service.call("POST", &format!("/v1/domains/{name}:check"), None, "");
    assert_eq!(answer.status, 200, "{answer:?}");
    serde_json::from_slice(&answer.body).unwrap()
}

/// Orders that the CA has taken, by its own log: a request that it refuses for its nonce is none.
pub fn orders(service: &CertService) -> usize {
    let log = std::fs::read_to_string(service.path("pebble.log")).unwrap();
    log.matches("Added order").count()
}

#[test]
fn no_order_leaves_before_the_domain_points_here_and_then_one_does() {
    let (service, pebble, _responder) = set_up_with("caa_names = [\"pebble.example\"]\n");
    let elsewhere = r#"{"host": "shop.example.", "addresses": ["198.51.100.9"]}"#;
    let only = |tag: &str, at: &str, value: &str| {
        format!(r#"{{"host": "{at}.", "policies": [{{"tag": "{tag}", "value": "{value}"}}]}}"#)
    };
    dns(&pebble, "add-a", elsewhere);
    assert_eq!(service.put("shop.example", "").status, 201);
    let domain = service.wait("shop.example", |domain| domain.code == "wrong_address");
    assert_eq!((domain.state, domain.who), (State::ActionNeeded, Who::Customer));
    assert!(domain.says.contains("198.51.100.9") && domain.next_check_at.is_some(), "{domain:?}");
    let step = |id: &str| domain.steps.iter().find(|step| step.id == id).unwrap();
    assert!(step("dns").fix.as_ref().unwrap().contains("shop.example A 127.0.0.1"), "{domain:?}");
    assert_eq!((step("order").ok, step("certificate").ok), (None, None));

    // A CAA record of the parent counts; nothing of it reaches the CA.
    dns(&pebble, "clear-a", r#"{"host": "shop.example."}"#);
    dns(&pebble, "add-caa", &only("issue", "example", "ca.example"));
    let domain = service.wait("shop.example", |domain| domain.code == "caa_forbids_inherited");
    assert!(domain.says.contains("ca.example"), "{domain:?}");
    assert_eq!(orders(&service), 0);
    // One of its own comes first.
    dns(&pebble, "add-caa", &only("issue", "shop.example", "pebble.example"));
    let live = service.wait_live("shop.example");
    assert!(live.steps.iter().all(|step| step.ok == Some(true)), "{live:?}");
    assert_eq!(orders(&service), 1);
}

/// Takes connections and says nothing; knows how many were open at once.
fn silent(port: u16) -> Arc<AtomicUsize> {
    let (open, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let listener = TcpListener::bind(("127.0.0.3", port)).unwrap();
    let told = most.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            most.fetch_max(open.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            let open = open.clone();
            std::thread::spawn(move || {
                let _ = stream.unwrap().read_to_end(&mut Vec::new());
                open.fetch_sub(1, Ordering::Relaxed);
            });
        }
    });
    told
}

#[test]
fn a_tenant_whose_servers_say_nothing_holds_up_nobody_else() {
    let mut service = CertService::new("");
    let pebble = Pebble::start(service.folder.path(), "");
    let issuer = pebble.issuer("").replace("[issuance]\n", "[issuance]\nconcurrency = 1\n");
    let issuer = issuer.replace("addresses = [\"127.0.0.1\"]", "addresses = [\"127.0.0.1\", \"127.0.0.3\"]");
    service.configure(LISTEN, &issuer);
    service.start();
    let _responder = Responder::edge(pebble.http_port, &service);
    let most = silent(pebble.http_port);
    assert_eq!(service.put("good.example", r#"{"tenant": "good"}"#).status, 201);
    service.wait_live("good.example");
    let names: Vec<_> = (0..16).map(|n| format!("silent{n}.example")).collect();
    for name in &names {
        dns(&pebble, "add-a", &format!(r#"{{"host": "{name}.", "addresses": ["127.0.0.3"]}}"#));
        assert_eq!(service.put(name, r#"{"tenant": "silent"}"#).status, 201);
        assert_eq!(service.get(&format!("/v1/bundles/{name}")).status, 503);
    }
    let renew = |name: &str| service.call("POST", &format!("/v1/domains/{name}:renew"), None, "").status;
    wait_for("the silent ones to be looked at", || (most.load(Ordering::Relaxed) >= 4).then_some(()));
    assert_eq!(renew("good.example"), 202);
    service.wait("good.example", |domain| {
        names.iter().for_each(|name| assert_eq!(renew(name), 202));
        domain.code == "issued" && domain.certificate.as_ref().is_some_and(|certificate| certificate.revision == 2)
    });
    // Half of eight.
    assert_eq!(most.load(Ordering::Relaxed), 4);
}

#[test]
fn a_check_says_what_is_wrong_and_asks_no_ca() {
    let (service, pebble, responder) = set_up_with("");
    for name in ["gone.example", "six.example", "broken.example", "proxied.example", "good.example"] {
        dns(&pebble, "set-servfail", &format!(r#"{{"host": "{name}."}}"#));
        assert_eq!(service.put(name, "").status, 201);
        let domain = service.wait(name, |domain| domain.code != "queued");
        assert_eq!((domain.code.as_str(), domain.state), ("dns_failed", State::ActionNeeded), "{domain:?}");
    }
    for name in ["six.example", "proxied.example", "good.example", "gone.example"] {
        dns(&pebble, "clear-servfail", &format!(r#"{{"host": "{name}."}}"#));
    }
    dns(&pebble, "add-aaaa", r#"{"host": "six.example.", "addresses": ["2001:db8:9::9"]}"#);
    dns(&pebble, "set-cname", r#"{"host": "gone.example.", "target": "nowhere.example."}"#);
    dns(&pebble, "set-servfail", r#"{"host": "nowhere.example."}"#);
    let fault = |name: &str| {
        let report = check(&service, name);
        let fault = report.steps.iter().find(|step| step.ok == Some(false));
        assert_eq!(report.passed, fault.is_none());
        fault.map(|fault| fault.code.clone())
    };
    assert_eq!(fault("six.example").as_deref(), Some("stale_ipv6"));
    assert_eq!(fault("broken.example").as_deref(), Some("dns_failed"));
    responder.silent.store(true, Ordering::Relaxed);
    let report = check(&service, "proxied.example");
    let http = report.steps.iter().find(|step| step.id == "http").unwrap();
    assert_eq!((http.ok, http.code.as_str(), http.who), (Some(false), "wrong_answer", Who::Operator), "{report:?}");
    assert!(http.says.contains("404"), "{http:?}");
    responder.silent.store(false, Ordering::Relaxed);
    assert_eq!(fault("good.example"), None);
    let unknown = service.call("POST", "/v1/domains/stranger.example:check", None, "");
    assert_eq!((unknown.status, unknown.json()["code"].as_str()), (404, Some("unknown_domain")));
    let unknown = service.call("POST", "/v1/domains/good.example:polish", None, "");
    assert_eq!((unknown.status, unknown.json()["code"].as_str()), (404, Some("unknown_path")));
}

#[test]
fn a_name_that_leads_elsewhere_by_cname_and_a_port_that_nobody_serves_are_told_apart() {
    let mut service = CertService::new("");
    let pebble = Pebble::start(service.folder.path(), "");
    let ours = "addresses = [\"127.0.0.1\", \"127.0.0.3\"]\ncnames = [\"edge.saas.example\"]";
    service.configure(LISTEN, &pebble.issuer("").replace("addresses = [\"127.0.0.1\"]", ours));
    service.start();
    let _responder = Responder::edge(pebble.http_port, &service);
    for (name, target) in [("other.shop.example", "parking.example"), ("right.example", "edge.saas.example")] {
        dns(&pebble, "set-cname", &format!(r#"{{"host": "{name}.", "target": "{target}."}}"#));
    }
    dns(&pebble, "add-a", r#"{"host": "parking.example.", "addresses": ["198.51.100.9"]}"#);
    // Nobody takes connections there.
    dns(&pebble, "add-a", r#"{"host": "closed.example.", "addresses": ["127.0.0.3"]}"#);
    for name in ["other.shop.example", "closed.example", "right.example"] {
        assert_eq!(service.put(name, "").status, 201);
    }
    let domain = service.wait("other.shop.example", |domain| domain.code == "wrong_address");
    assert_eq!((domain.state, domain.who), (State::ActionNeeded, Who::Customer));
    let step = domain.steps.iter().find(|step| step.id == "dns").unwrap();
    assert!(step.says.contains("198.51.100.9"), "{step:?}");
    assert!(step.fix.as_ref().unwrap().contains("edge.saas.example"), "{step:?}");

    let domain = service.wait("closed.example", |domain| domain.code == "port_80_unreachable");
    assert_eq!((domain.state, domain.who), (State::ActionNeeded, Who::Operator), "the address is ours: {domain:?}");
    let step = |id: &str| domain.steps.iter().find(|step| step.id == id).unwrap();
    assert_eq!((step("dns").code.as_str(), step("http").ok), ("points_here", Some(false)));
    assert!(step("http").says.contains("127.0.0.3"), "{domain:?}");
    service.wait_live("right.example");
    assert_eq!(orders(&service), 1);
}
