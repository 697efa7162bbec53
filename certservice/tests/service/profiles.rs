//! Kinds of certificates, as the CA offers them.

use contract::api::{State, Who};

use crate::pebble::{Pebble, Responder};
use crate::process::{CertService, LISTEN};

const PROFILES: &str = r#", "profiles": {
    "classic": {"description": "as ever", "validityPeriod": 7776000},
    "shortlived": {"description": "for days", "validityPeriod": 576000}}"#;

fn seconds(service: &CertService, name: &str) -> u64 {
    let certificate = service.domain(name).certificate.unwrap();
    certificate.not_after - certificate.not_before
}

#[test]
fn a_profile_is_chosen_by_the_issuer_or_by_the_domain_and_kept_on_renewal() {
    let mut service = CertService::new("");
    let pebble = Pebble::start(service.folder.path(), PROFILES);
    service.configure(LISTEN, &pebble.issuer("profile = \"shortlived\"\n"));
    service.start();
    let _responder = Responder::edge(pebble.http_port, &service);
    assert_eq!(service.put("short.example", "").status, 201);
    assert_eq!(service.put("long.example", r#"{"profile": "classic"}"#).status, 201);
    for name in ["short.example", "long.example"] {
        service.wait_live(name);
    }
    assert!(seconds(&service, "short.example") <= 576_000, "{}", seconds(&service, "short.example"));
    assert!(seconds(&service, "long.example") > 80 * 86_400, "{}", seconds(&service, "long.example"));
    assert_eq!(service.domain("long.example").profile.as_deref(), Some("classic"));
    let renewed = |name: &str, wanted: u64| {
        assert_eq!(service.call("POST", &format!("/v1/domains/{name}:renew"), None, "").status, 202);
        service.wait(name, |domain| {
            domain.code == "issued" && domain.certificate.as_ref().is_some_and(|c| c.revision == wanted)
        });
    };
    renewed("long.example", 2);
    assert!(seconds(&service, "long.example") > 80 * 86_400, "the profile was dropped on renewal");
    // Another wish takes effect with the next order; an empty one is the issuer's.
    assert_eq!(service.put("long.example", r#"{"profile": ""}"#).status, 200);
    renewed("long.example", 3);
    assert!(seconds(&service, "long.example") <= 576_000);
    for (profile, code) in [("tlsserver", "unknown_profile"), ("a b", "invalid_profile")] {
        let answer = service.put("other.example", &format!(r#"{{"profile": "{profile}"}}"#));
        assert_eq!((answer.status, answer.json()["code"].as_str()), (400, Some(code)));
    }
    let answer = service.put("other.example", r#"{"profile": "tlsserver"}"#);
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("`tlsserver`") && detail.contains("pebble offers: classic, shortlived"), "{detail}");
}

#[test]
fn an_issuer_whose_profile_its_ca_does_not_offer_says_so_before_any_order() {
    let mut service = CertService::new("");
    let pebble = Pebble::start(service.folder.path(), PROFILES);
    service.configure(LISTEN, &pebble.issuer("profile = \"tlsserver\"\n"));
    service.start();
    let _responder = Responder::edge(pebble.http_port, &service);
    assert_eq!(service.put("shop.example", "").status, 201);
    let domain = service.wait("shop.example", |domain| domain.code == "unknown_profile");
    assert_eq!((domain.state, domain.who), (State::ActionNeeded, Who::Operator));
    assert!(domain.says.contains("no profile `tlsserver`; it offers: classic, shortlived"), "{domain:?}");
    let doctor = service.get("/v1/doctor");
    assert!(doctor.text().contains("it offers no profile `tlsserver`"), "{}", doctor.text());
    // The domain may choose for itself.
    assert_eq!(service.put("shop.example", r#"{"profile": "classic"}"#).status, 200);
    service.wait_live("shop.example");
}
