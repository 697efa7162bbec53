//! New certificates that tenants ask for, by `:renew` and `:revoke`: so many an hour.

use crate::access::{APP, OPERATOR, OTHER_APP, tokens};
use crate::databases::on_each_database;
use crate::http::Answer;
use crate::process::{CertService, INTERNAL, LISTEN, wait_for};
use crate::scripted::Ca;

fn ask(service: &CertService, name: &str, verb: &str, token: &str) -> Answer {
    service.call("POST", &format!("/v1/domains/{name}:{verb}"), Some(token), "")
}

/// Waits until it is served.
fn revision(service: &CertService, name: &str, revision: u64) {
    let path = format!("/v1/domains/{name}");
    wait_for("the certificate", || {
        let domain = service.call("GET", &path, Some(OPERATOR), "").json();
        (domain["certificate"]["revision"] == revision && domain["code"] == "issued").then_some(())
    });
}

#[test]
fn a_tenants_token_asks_for_so_many_new_certificates_and_is_told_when_for_more() {
    let settings = format!("{INTERNAL}[domains]\nrenews_per_hour_max = 2\n{}", tokens());
    let mut service = CertService::started(&settings);
    for (name, token) in [("one.example", APP), ("two.example", OTHER_APP)] {
        assert_eq!(service.call("PUT", &format!("/v1/domains/{name}"), Some(token), "").status, 201);
        revision(&service, name, 1);
    }
    for number in [2, 3] {
        assert_eq!(ask(&service, "one.example", "renew", APP).status, 202);
        revision(&service, "one.example", number);
    }
    // Also after a restart.
    service.kill();
    service.start();
    let refused = ask(&service, "one.example", "renew", APP);
    let problem = refused.json();
    assert_eq!((refused.status, problem["code"].as_str()), (429, Some("renews_used_up")), "{problem}");
    let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=1800).contains(&seconds), "{seconds}");
    let says = problem["detail"].as_str().unwrap();
    for part in
        ["tenant `one`", "2 new certificates an hour", "renews_per_hour_max", "operator", &format!("in {seconds} s")]
    {
        assert!(says.contains(part), "{part}: {says}");
    }
    let left = service.call("GET", "/v1/budgets?domain=one.example", Some(OPERATOR), "").json()["renews"].clone();
    assert_eq!((&left["scope"], &left["left"], &left["limit"]), (&"one".into(), &0.into(), &"renews".into()), "{left}");
    // Others have theirs, and operators need none.
    assert_eq!(ask(&service, "two.example", "renew", OTHER_APP).status, 202);
    revision(&service, "two.example", 2);
    assert_eq!(ask(&service, "one.example", "renew", OPERATOR).status, 202);
    revision(&service, "one.example", 4);
}

#[test]
fn a_tenants_token_revokes_so_many_certificates_and_an_operator_any() {
    on_each_database(|database| {
        let mut service = CertService::new("");
        let ca = Ca::start(service.folder.path());
        let settings = [ca.issuer(""), database.settings(&service), tokens()].concat();
        service.configure(LISTEN, &format!("[domains]\nrenews_per_hour_max = 2\n{settings}"));
        service.start();
        for (name, token) in [("one.example", APP), ("two.example", OTHER_APP)] {
            assert_eq!(service.call("PUT", &format!("/v1/domains/{name}"), Some(token), "").status, 201);
            revision(&service, name, 1);
        }
        // Both take of the same.
        for (number, verb) in [(2, "renew"), (3, "revoke")] {
            assert_eq!(ask(&service, "one.example", verb, APP).status, 202);
            revision(&service, "one.example", number);
        }
        service.kill();
        service.start();
        let refused = ask(&service, "one.example", "revoke", APP);
        let problem = refused.json();
        assert_eq!((refused.status, problem["code"].as_str()), (429, Some("renews_used_up")), "{problem}");
        let says = problem["detail"].as_str().unwrap();
        assert!(says.contains("tenant `one`") && says.contains("was not revoked"), "{says}");
        assert!((1..=1800).contains(&refused.header("retry-after").unwrap().parse::<u64>().unwrap()));
        assert_eq!(ca.revoked(), 1, "the CA was asked all the same");
        let told = service.call("GET", "/v1/audit", Some(OPERATOR), "").json();
        let told =
            told["entries"].as_array().unwrap().iter().filter(|told| told["action"] == "certificate.revocation_asked");
        assert_eq!(told.count(), 1);
        assert_eq!(ask(&service, "two.example", "revoke", OTHER_APP).status, 202);
        assert_eq!(ask(&service, "one.example", "revoke", OPERATOR).status, 202);
        revision(&service, "one.example", 4);
        assert_eq!(ca.revoked(), 3);
    });
}
