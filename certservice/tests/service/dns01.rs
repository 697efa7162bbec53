//! dns-01 with a real CA (Pebble): by a webhook that feeds its DNS, and by updates of a real name server (BIND).

use std::io::{BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use contract::api::{State, Who};
use ring::hmac;
use serde_json::Value;

use crate::crash::{assert_crashed_in, crash_everywhere};
use crate::databases::on_each_database;
use crate::edge::open_bundle;
use crate::pebble::Pebble;
use crate::process::{CertService, LISTEN, Running, free_port, wait_for};

const SECRET: &str = "a-secret-of-sixteen-bytes";
const ISSUER: &str = "challenges = [\"http-01\", \"dns-01\"]\ncaa_names = [\"pebble.example\"]\n";

/// Tells challtestsrv, DNS of the CA, by its management port.
fn manage(port: u16, path: &str, body: &Value) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let body = body.to_string();
    let head =
        format!("POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all((head + &body).as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// A program that changes a zone: checks the signature, and passes the record on to challtestsrv.
struct Hook {
    url: String,
    told: Arc<Mutex<Vec<(String, String)>>>,
    /// The next call fails.
    fails: Arc<Mutex<u32>>,
}

impl Hook {
    fn start(management: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/dns", listener.local_addr().unwrap());
        let (told, fails) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<Mutex<u32>>::default());
        let (log, left) = (told.clone(), fails.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = BufReader::new(stream.unwrap());
                while let Some((path, headers, body)) = crate::http::read_request(&mut stream) {
                    let of =
                        |name: &str| headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
                    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
                    let signed = [of("latchkey-timestamp").unwrap().as_bytes(), b".", &body].concat();
                    let tag = of("latchkey-signature").unwrap();
                    let tag = tag.strip_prefix("v1=").unwrap().as_bytes();
                    let tag: Vec<u8> = tag
                        .chunks(2)
                        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
                        .collect();
                    let genuine = hmac::verify(&key, &signed, &tag).is_ok();
                    let body: Value = serde_json::from_slice(&body).unwrap();
                    let fqdn = body["fqdn"].as_str().unwrap().to_owned();
                    let fails = std::mem::replace(&mut *left.lock().unwrap(), 0) > 0;
                    let status = match (genuine && !fails, path.as_str()) {
                        (true, "/dns/present") => {
                            let record = serde_json::json!({"host": fqdn, "value": body["value"]});
                            manage(management, "/set-txt", &record);
                            "200 OK"
                        }
                        (true, "/dns/cleanup") => {
                            manage(management, "/clear-txt", &serde_json::json!({"host": fqdn}));
                            "204 No Content"
                        }
                        (true, _) => "404 Not Found",
                        (false, _) => "500 Internal Server Error",
                    };
                    log.lock().unwrap().push((path, fqdn));
                    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
                    stream.get_mut().write_all(answer.as_bytes()).unwrap();
                }
            }
        });
        Self { url, told, fails }
    }

    fn told(&self, path: &str, fqdn: &str) -> bool {
        self.told.lock().unwrap().contains(&(path.to_owned(), fqdn.to_owned()))
    }
}

/// `[[dns]]` of a webhook, whose secret lies in the service's folder.
pub fn by_webhook(service: &CertService, url: &str) -> String {
    service.write_secret("dns.secret", SECRET);
    format!(
        "[[dns]]\nname = \"hook\"\nkind = \"webhook\"\nzones = [\"own.example\", \"acme.saas.example\"]\nwait_seconds = 0\n\
         url = \"{url}\"\nsecret_file = \"dns.secret\"\n"
    )
}

fn with_webhook() -> (CertService, Pebble, Hook) {
    let mut service = CertService::new("");
    let pebble = Pebble::start(service.folder.path(), "");
    let hook = Hook::start(pebble.dns_management);
    let dns = by_webhook(&service, &hook.url);
    service.configure(LISTEN, &format!("{}{dns}", pebble.issuer(ISSUER)));
    service.start();
    (service, pebble, hook)
}

#[test]
fn a_crash_at_each_point_of_an_order_in_dns_loses_nothing() {
    on_each_database(|database| {
        let service = CertService::new("");
        let pebble = Pebble::start(service.folder.path(), "");
        let hook = Hook::start(pebble.dns_management);
        let settings = [
            pebble.issuer("challenges = [\"dns-01\"]\n"),
            by_webhook(&service, &hook.url),
            database.settings(&service),
        ];
        service.configure(LISTEN, &settings.concat());
        let points = crash_everywhere(&service, "pebble", Some(&|| pebble.counted()));
        let steps = ["ordering", "ordered", "presenting", "answering", "validating", "ready", "keyed", "finalizing"];
        assert_crashed_in(&points, &steps);
    });
}

#[test]
fn a_wildcard_is_issued_by_a_signed_webhook_and_its_record_goes_again() {
    let (service, _pebble, hook) = with_webhook();
    *hook.fails.lock().unwrap() = 1;
    assert_eq!(service.put("*.own.example", "").status, 201);
    let live = service.wait_live("*.own.example");
    assert!(live.steps.iter().any(|step| step.id == "delegation" && step.code == "own_zone"), "{live:?}");
    let answer = service.get("/v1/bundles/*.own.example");
    let (bundle, _) = open_bundle(answer.text(), "*.own.example", &service.verify_keys(), &service.edge);
    let leaf = openssl::x509::X509::from_der(&bundle.chain().unwrap()[0]).unwrap();
    let names = leaf.subject_alt_names().unwrap();
    assert_eq!((names.len(), names[0].dnsname()), (1, Some("*.own.example")));
    assert!(hook.told("/dns/present", "_acme-challenge.own.example."));
    wait_for("the record to go", || hook.told("/dns/cleanup", "_acme-challenge.own.example.").then_some(()));
    // No edge was ever asked for it.
    assert_eq!(service.get("/v1/challenges/own.example/x").status, 404);
}

#[test]
fn a_customer_delegates_the_challenge_and_is_told_how_before_any_order() {
    let (service, pebble, hook) = with_webhook();
    assert_eq!(service.put("*.shop.example", "").status, 201);
    let lost = service.wait("*.shop.example", |domain| domain.code == "dns_not_delegated");
    assert_eq!((lost.state, lost.who), (State::ActionNeeded, Who::Customer));
    let step = lost.steps.iter().find(|step| step.id == "delegation").unwrap();
    let fix = "set _acme-challenge.shop.example CNAME shop.example.own.example";
    assert_eq!(step.fix.as_deref(), Some(fix), "{lost:?}");
    let target = "shop.example.acme.saas.example.";
    let cname = serde_json::json!({"host": "_acme-challenge.shop.example.", "target": target});
    manage(pebble.dns_management, "/set-cname", &cname);
    let live = service.wait_live("*.shop.example");
    assert!(live.steps.iter().any(|step| step.code == "delegated"), "{live:?}");
    assert!(hook.told("/dns/present", target), "{:?}", hook.told.lock().unwrap());
    // Its own CAA record for wildcards counts, that for other names does not.
    let caa = serde_json::json!({"host": "wild.shop.example.", "policies": [
        {"tag": "issue", "value": "pebble.example"}, {"tag": "issuewild", "value": "other.example"}]});
    manage(pebble.dns_management, "/add-caa", &caa);
    let cname = serde_json::json!({"host": "_acme-challenge.wild.shop.example.", "target": "w.acme.saas.example."});
    manage(pebble.dns_management, "/set-cname", &cname);
    assert_eq!(service.put("*.wild.shop.example", "").status, 201);
    let forbidden = service.wait("*.wild.shop.example", |domain| domain.code == "caa_forbids");
    assert!(forbidden.says.contains("other.example"), "{forbidden:?}");
}

#[test]
fn a_wildcard_needs_an_issuer_that_can_and_is_never_one_of_a_public_suffix() {
    let (service, ..) = with_webhook();
    for (name, code) in
        [("*.co.uk", "public_suffix"), ("*.example", "invalid_name"), ("*.*.own.example", "invalid_name")]
    {
        let answer = service.put(name, "");
        assert_eq!((answer.status, answer.json()["code"].as_str()), (400, Some(code)), "{name}");
    }
    let mut plain = CertService::new("");
    let pebble = Pebble::start(plain.folder.path(), "");
    plain.configure(LISTEN, &pebble.issuer(""));
    plain.start();
    let answer = plain.put("*.own.example", "");
    assert_eq!((answer.status, answer.json()["code"].as_str()), (400, Some("no_wildcards")));
    assert!(answer.json()["detail"].as_str().unwrap().contains("dns-01"));
}

/// BIND's `named`, primary for `acme.test`, whose key alone may change it; a name in it leads from the customer's zone.
fn named(folder: &Path) -> (Running, u16) {
    let port = free_port();
    let folder = folder.join("bind");
    std::fs::create_dir(&folder).unwrap();
    let zone = |name: &str, records: &str| {
        let soa = "$TTL 60\n@ IN SOA ns.acme.test. ops.acme.test. 1 60 60 60 60\n@ IN NS ns.acme.test.\n";
        std::fs::write(folder.join(format!("{name}.zone")), format!("{soa}{records}")).unwrap();
    };
    // The climb for CAA ends there.
    zone("test", "ns.acme IN A 127.0.0.1\n");
    zone("acme.test", "ns IN A 127.0.0.1\n");
    zone("shop.test", "_acme-challenge IN CNAME shop.test.acme.test.\n");
    let at = folder.display();
    let conf = format!(
        "key \"latchkey\" {{ algorithm hmac-sha256; secret \"bGF0Y2hrZXktdHNpZy1zZWNyZXQtb2YtMzItYnl0ZXM=\"; }};\n\
         options {{ directory \"{at}\"; listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }}; pid-file none;\n\
         session-keyfile none; recursion yes; allow-recursion {{ any; }}; allow-transfer {{ none; }}; notify no; dnssec-validation no; }};\n\
         controls {{ }};\n\
         zone \"test\" {{ type primary; file \"test.zone\"; }};\n\
         zone \"acme.test\" {{ type primary; file \"acme.test.zone\"; update-policy {{ grant latchkey zonesub TXT; }}; }};\n\
         zone \"shop.test\" {{ type primary; file \"shop.test.zone\"; }};\n"
    );
    std::fs::write(folder.join("named.conf"), conf).unwrap();
    let log = std::fs::File::create(folder.join("log")).unwrap();
    let mut command = Command::new("named");
    command.args(["-g", "-c"]).arg(folder.join("named.conf")).stdin(Stdio::null()).stderr(log);
    let path = std::env::var("PATH").unwrap_or_default();
    let process = command.env("PATH", format!("{path}:/usr/sbin:/sbin")).spawn();
    let process = Running(process.expect("named is missing; `make test` installs it (bind9)"));
    wait_for("named", || TcpStream::connect(("127.0.0.1", port)).ok());
    (process, port)
}

#[test]
fn a_real_name_server_takes_signed_updates_and_no_others() {
    let mut service = CertService::new("");
    let (_named, port) = named(service.folder.path());
    // The CA looks there, too.
    let pebble = Pebble::start_with_dns(service.folder.path(), "", Some(port));
    service.write_secret("tsig.key", "bGF0Y2hrZXktdHNpZy1zZWNyZXQtb2YtMzItYnl0ZXM=\n");
    let dns = |key: &str, name: &str| {
        format!(
            "[[dns]]\nname = \"bind\"\nkind = \"rfc2136\"\nzones = [\"acme.test\"]\nwait_seconds = 0\n\
             server = \"127.0.0.1:{port}\"\nkey_name = \"{name}\"\nkey_file = \"{key}\"\n"
        )
    };
    // First with a key that the server does not know.
    service.write_secret("other.key", "b3RoZXItc2VjcmV0LW90aGVyLXNlY3JldC1vdGhlcg==");
    let issuer = pebble.issuer("challenges = [\"dns-01\"]\n");
    service.configure(LISTEN, &format!("{issuer}{}", dns("other.key", "latchkey")));
    service.start();
    assert_eq!(service.put("*.shop.test", "").status, 201);
    let refused = service.wait("*.shop.test", |domain| domain.code == "dns_update_failed");
    assert_eq!((refused.state, refused.who), (State::Working, Who::Operator));
    assert!(refused.says.contains("without a good signature") && refused.says.contains("bind"), "{refused:?}");
    service.kill();
    service.configure(LISTEN, &format!("{issuer}{}", dns("tsig.key", "latchkey.")));
    service.start();
    let live = service.wait_live("*.shop.test");
    assert!(live.steps.iter().any(|step| step.code == "delegated"), "{live:?}");
    // A name and its wildcard have their answers under one name; each has its own.
    for name in ["shop.test", "a.acme.test"] {
        assert_eq!(service.put(name, "").status, 201);
    }
    service.wait_live("shop.test");
    service.wait_live("a.acme.test");
    let log = || std::fs::read_to_string(service.path("bind/log")).unwrap();
    let gone = || log().matches("deleting an RR at shop.test.acme.test TXT").count();
    wait_for("the records to be removed", || (gone() >= 2).then_some(()));
    assert!(log().matches("adding an RR at 'shop.test.acme.test' TXT").count() >= 2, "{}", log());
}
