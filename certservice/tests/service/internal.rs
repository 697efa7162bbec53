//! With the internal CA.

use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::Instant;

use openssl::x509::X509;
use openssl::x509::store::X509StoreBuilder;

use crate::edge::{is_bound_to_certificate, open_bundle};
use crate::process::{CertService, INTERNAL, files, wait_for};

#[test]
fn a_domain_goes_live_and_only_the_edge_can_open_its_key() {
    let service = CertService::started(INTERNAL);
    let answer = service.put("Shop.Localhost", "");
    assert_eq!(answer.status, 201, "{answer:?}");
    let domain = service.wait_live("shop.localhost");
    let certificate = domain.certificate.unwrap();
    assert_eq!((certificate.revision, certificate.issued_by.as_str()), (1, "CN=Latchkey internal CA (internal)"));
    assert_eq!(service.put("shop.localhost", "").status, 200);

    let answer = service.get("/v1/bundles/shop.localhost");
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/jose")));
    let (bundle, key) = open_bundle(answer.text(), "shop.localhost", &service.verify_keys(), &service.edge);
    assert!(is_bound_to_certificate(&bundle));
    assert_eq!((bundle.revision, bundle.issuer.as_str()), (1, "internal"));

    // The chain leads to the CA of the folder, by OpenSSL's judgement.
    let ca = X509::from_pem(&std::fs::read(service.path("data/internal-ca/internal/ca.pem")).unwrap()).unwrap();
    let mut roots = X509StoreBuilder::new().unwrap();
    roots.add_cert(ca).unwrap();
    let leaf = X509::from_der(&bundle.chain().unwrap()[0]).unwrap();
    let mut context = openssl::x509::X509StoreContext::new().unwrap();
    let (roots, untrusted) = (roots.build(), openssl::stack::Stack::new().unwrap());
    assert!(context.init(&roots, &leaf, &untrusted, |context| context.verify_cert()).unwrap());

    assert_not_leaked(&service, &key);
}

/// The key must not stand in any file of the service, its log included, in any usual encoding.
pub fn assert_not_leaked(service: &CertService, pkcs8: &[u8]) {
    let pair = openssl::pkey::PKey::private_key_from_der(pkcs8).unwrap();
    let scalar = pair.ec_key().unwrap().private_key().to_vec();
    assert!(scalar.len() >= 30);
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into_bytes();
    let base64 = openssl::base64::encode_block(pkcs8);
    // From the middle, so that line breaks and alignment don't hide it.
    let url_safe = base64.replace('+', "-").replace('/', "_");
    let needles = [
        scalar.clone(),
        hex(&scalar),
        hex(&scalar).to_ascii_uppercase(),
        base64.as_bytes()[60..100].to_vec(),
        url_safe.as_bytes()[60..100].to_vec(),
        format!("{scalar:?}").trim_matches(['[', ']']).as_bytes().to_vec(),
    ];
    let all = files(service.folder.path());
    assert!(all.iter().any(|file| file.ends_with("certservice.db-wal")), "{all:?}");
    for file in all.iter().filter(|file| !file.ends_with("cs.sock")) {
        let bytes = std::fs::read(file).unwrap();
        for needle in &needles {
            assert!(!bytes.windows(needle.len()).any(|window| window == needle), "{} holds the key", file.display());
        }
    }
}

#[test]
fn a_domain_that_has_no_certificate_says_so() {
    // Nothing listens there: the order fails and is retried much later.
    let acme = "[[issuers]]\nname = \"down\"\nkind = \"acme\"\ndirectory = \"https://127.0.0.1:1/dir\"\n\
        precheck = false\n";
    let service = CertService::started(&format!("{INTERNAL}{acme}"));
    assert_eq!(service.get("/v1/bundles/none.example").json()["code"], "unknown_domain");
    assert_eq!(service.put("down.example", r#"{"issuer": "down"}"#).status, 201);
    let domain = service.wait("down.example", |domain| domain.code == "ca_unavailable");
    assert!(domain.says.contains("127.0.0.1:1") || domain.says.contains("refused"), "{domain:?}");
    assert!(domain.next_check_at.unwrap() >= domain.created_at + 20);
    let answer = service.get("/v1/bundles/down.example");
    assert_eq!((answer.status, answer.json()["code"].as_str()), (503, Some("not_issued")));
    assert!((1..=60).contains(&answer.header("retry-after").unwrap().parse::<u64>().unwrap()));
    assert!(answer.json()["detail"].as_str().unwrap().contains("ca_unavailable"));

    // And it holds up nobody else.
    assert_eq!(service.put("up.example", "").status, 201);
    service.wait_live("up.example");
    let metrics = service.get("/metrics");
    assert!(metrics.text().contains("latchkey_certservice_orders_total{issuer=\"down\",result=\"ca_unavailable\"} 1"));
    assert!(metrics.text().contains("latchkey_certservice_jobs{step=\"queued\"} 1"));
}

#[test]
fn many_domains_go_live_whatever_the_concurrency() {
    let service = CertService::started(&format!("{INTERNAL}[issuance]\nconcurrency = 3\n"));
    let names: Vec<_> = (0..50).map(|n| format!("n{n}.example")).collect();
    let begun = Instant::now();
    for name in &names {
        assert_eq!(service.put(name, "").status, 201);
    }
    for name in &names {
        service.wait_live(name);
    }
    println!("50 domains live after {:?}", begun.elapsed());
    let first = service.get("/v1/domains?limit=30").json();
    let second = service.get(&format!("/v1/domains?limit=30&after={}", first["next"].as_str().unwrap())).json();
    assert_eq!((first["domains"].as_array().unwrap().len(), second["domains"].as_array().unwrap().len()), (30, 20));
    assert!(second.get("next").is_none());
}

#[test]
fn sigterm_stops_it_and_a_stale_socket_does_not_stop_the_next() {
    let mut service = CertService::started(INTERNAL);
    let mode = service.path("cs.sock").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // A second one must not take the socket over.
    let second = service.command().stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&second.stderr).contains("another process serves it"));
    assert_eq!(service.get("/healthz").status, 200);

    let id = service.process().id();
    let stopped = std::process::Command::new("kill").arg("-TERM").arg(id.to_string()).status().unwrap();
    assert!(stopped.success());
    let status = wait_for("the end", || service.process().try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
    assert!(!service.path("cs.sock").exists());

    service.start();
    service.kill();
    assert!(service.path("cs.sock").exists());
    service.start();
    assert_eq!(service.get("/readyz").status, 200);
}

#[test]
fn a_faulty_boot_file_is_refused_with_all_its_faults() {
    let service = CertService::new("[isuers]\n[issuance]\nconcurrency = \"8\"\n[store]\nurl = 7\n");
    for check in [&["--check"][..], &[]] {
        let output = service.command().args(check).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        let says = String::from_utf8(output.stderr).unwrap();
        for part in [
            ":6:2: unknown setting `isuers` (did you mean `issuers`?)",
            ":8:15: expected a whole number, found a string",
            ":10:7: expected a string, found 7",
            ": setting `issuers` is missing",
        ] {
            assert!(says.contains(part), "{part}\n{says}");
        }
    }
    let good = CertService::new(INTERNAL);
    assert_eq!(good.command().arg("--check").status().unwrap().code(), Some(0));
    assert!(!good.path("data").exists(), "a check must not make anything");
}
