//! Certificates that somebody brings along.

use contract::api::{CertificatePage, Domain, State, Who};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::json;

use crate::edge::{is_bound_to_certificate, open_bundle};
use crate::internal::assert_not_leaked;
use crate::process::{CertService, INTERNAL, free_port, wait_for};

const CERTIFICATE: &str = "/v1/domains/shop.example/certificate";

/// Chain, key in PEM, and the key's bytes; valid for so many days from yesterday on.
fn brought(name: &str, days: u64) -> (String, String, Vec<u8>) {
    let valid = |params: &mut CertificateParams| {
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        let now = std::time::UNIX_EPOCH.elapsed().unwrap();
        params.not_before = epoch + now - std::time::Duration::from_secs(86_400);
        params.not_after = epoch + now + std::time::Duration::from_secs(days * 86_400);
    };
    let mut ca = CertificateParams::default();
    ca.distinguished_name.push(rcgen::DnType::CommonName, "A CA that sells");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    valid(&mut ca);
    let (ca_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let root = ca.self_signed(&ca_key).unwrap().pem();
    let mut leaf = CertificateParams::new(vec![name.to_owned()]).unwrap();
    valid(&mut leaf);
    let leaf = leaf.signed_by(&key, &Issuer::new(ca, ca_key)).unwrap().pem();
    (format!("{leaf}{root}"), key.serialize_pem(), key.serialized_der().to_vec())
}

fn put(service: &CertService, chain: &str, key: &str) -> crate::http::Answer {
    service.call("PUT", CERTIFICATE, None, &json!({"chain": chain, "key": key}).to_string())
}

fn page(service: &CertService) -> CertificatePage {
    serde_json::from_slice(&service.get(CERTIFICATE).body).unwrap()
}

#[test]
fn it_is_served_and_never_renewed_and_its_key_stands_nowhere() {
    let service = CertService::started(INTERNAL);
    let (chain, key, pkcs8) = brought("shop.example", 90);
    let answer = put(&service, &chain, &key);
    assert_eq!(answer.status, 201, "{answer:?}");
    let domain: Domain = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!((domain.state, domain.code.as_str(), domain.issuer.as_str()), (State::Live, "own_certificate", "own"));
    let sealed = service.get("/v1/bundles/shop.example");
    let (bundle, opened) = open_bundle(sealed.text(), "shop.example", &service.verify_keys(), &service.edge);
    assert_eq!((bundle.revision, &opened[..]), (1, &pkcs8[..]));
    assert!(is_bound_to_certificate(&bundle));
    let shown = page(&service);
    assert_eq!((shown.renew_at, shown.chain.len(), shown.certificate.revision), (None, 2, 1));
    assert_eq!(shown.warn_at, Some(shown.certificate.not_after - 30 * 86_400));
    for verb in ["renew", "revoke"] {
        let answer = service.call("POST", &format!("/v1/domains/shop.example:{verb}"), None, "");
        assert_eq!((answer.status, answer.json()["code"].as_str()), (409, Some("own_certificate")));
    }
    // Another one replaces it.
    let (chain, key, second) = brought("shop.example", 60);
    assert_eq!(put(&service, &chain, &key).status, 200);
    let sealed = service.get("/v1/bundles/shop.example");
    let (bundle, opened) = open_bundle(sealed.text(), "shop.example", &service.verify_keys(), &service.edge);
    assert_eq!((bundle.revision, &opened[..]), (2, &second[..]));
    let metrics = service.get("/metrics");
    assert!(metrics.text().contains("latchkey_certservice_own_certificates{code=\"own_certificate\"} 1"));
    assert_not_leaked(&service, &pkcs8);
    assert_not_leaked(&service, &second);
}

#[test]
fn its_owner_is_warned_of_the_end_and_goes_back_to_the_issuers() {
    let service = CertService::started(INTERNAL);
    let (chain, key, _) = brought("shop.example", 10);
    let answer = put(&service, &chain, &key);
    let domain: Domain = serde_json::from_slice(&answer.body).unwrap();
    // With 10 of 11 days left there is time.
    assert_eq!(domain.code, "own_certificate", "{domain:?}");
    let (chain, key, _) = brought("shop.example", 0);
    assert_eq!(put(&service, &chain, &key).json()["code"], "invalid_certificate", "it has ended");
    // As time would.
    let database = service.path("data/certservice.db");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let execute = |statement: &'static str| {
        runtime.block_on(async {
            let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&database);
            let mut connection = <sqlx::SqliteConnection as sqlx::Connection>::connect_with(&options).await.unwrap();
            sqlx::query(statement).execute(&mut connection).await.unwrap();
        });
    };
    execute("UPDATE domains SET warn_at = 1");
    let store = certservice::config::StoreUrl::Sqlite(database.clone());
    runtime.block_on(async {
        let store = certservice::store::Store::open(&store.into()).await.unwrap();
        certservice::renew::own::warn(&store, certservice::clock::now()).await.unwrap();
    });
    let warned = service.domain("shop.example");
    assert_eq!(
        (warned.state, warned.code.as_str(), warned.who),
        (State::ActionNeeded, "own_certificate_ends", Who::Saas)
    );
    assert!(warned.says.contains(" days") && warned.steps[0].fix.is_some(), "{warned:?}");
    assert_eq!(page(&service).warn_at, Some(page(&service).certificate.not_after));
    let answer = service.call("DELETE", CERTIFICATE, None, "");
    assert_eq!(answer.status, 202, "{answer:?}");
    let domain = service.wait("shop.example", |domain| domain.issuer == "internal");
    assert_eq!((domain.state, domain.code.as_str(), domain.certificate.unwrap().revision), (State::Live, "issued", 2));
    let again = service.call("DELETE", CERTIFICATE, None, "");
    assert_eq!((again.status, again.json()["code"].as_str()), (409, Some("not_own")));
    // An issued one gives way to an upload, too.
    let (chain, key, _) = brought("shop.example", 90);
    assert_eq!(put(&service, &chain, &key).status, 200);
    assert_eq!(page(&service).certificate.revision, 3);
    let actions = service.get("/v1/audit");
    for action in ["certificate.uploaded", "certificate.given_up", "certificate.issued"] {
        assert!(actions.text().contains(action), "{action}");
    }
}

#[test]
fn what_is_faulty_is_refused_whole_and_in_clear_it_is_never_taken() {
    let service = CertService::started(INTERNAL);
    let (chain, key, _) = brought("other.example", 90);
    let (_, other_key, _) = brought("other.example", 90);
    let answer = put(&service, &chain, &other_key);
    assert_eq!((answer.status, answer.json()["code"].as_str()), (400, Some("invalid_certificate")));
    let errors = answer.json()["errors"].as_array().unwrap().clone();
    assert!(errors.iter().any(|error| error["at"] == "/key") && errors.iter().any(|error| error["at"] == "/chain/0"));
    for body in [String::new(), "{}".to_owned(), format!("[\"{chain}\"]"), json!({"key": key, "chain": 1}).to_string()]
    {
        let answer = service.call("PUT", CERTIFICATE, None, &body);
        assert_eq!((answer.status, answer.json()["code"].as_str()), (400, Some("invalid_body")));
        assert!(!answer.text().contains("PRIVATE"), "{answer:?}");
    }
    let long = json!({"chain": chain, "key": " ".repeat(256 * 1024)}).to_string();
    assert_eq!(service.call("PUT", CERTIFICATE, None, &long).status, 413);
    assert_eq!(service.get("/v1/domains/shop.example").status, 404, "nothing was registered");

    let mut clear = CertService::new("");
    let address = format!("127.0.0.1:{}", free_port());
    let token = format!(
        "[[tokens]]\nrole = \"operator\"\nsha256 = \"{}\"\n",
        contract::bundle::sha256(b"t").iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    );
    clear.configure(&format!("[listen]\naddress = \"{address}\"\n"), &format!("{token}{INTERNAL}"));
    clear.spawn();
    let stream = wait_for("the API", || std::net::TcpStream::connect(&address).ok());
    let (chain, key, _) = brought("shop.example", 90);
    let body = json!({"chain": chain, "key": key}).to_string();
    let answer = crate::http::exchange(stream, "PUT", CERTIFICATE, Some("t"), body.as_bytes());
    assert_eq!((answer.status, answer.json()["code"].as_str()), (403, Some("plain_connection")));
}
