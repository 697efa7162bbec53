//! Bundles in a database of their own: what each database holds, a crash between the two, and one of them down.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

use contract::api::{DoctorReport, State, Who};

use crate::databases::{Database, Mysql, on_each_split};
use crate::edge::open_bundle;
use crate::process::{CertService, INTERNAL, LISTEN, wait_for};
use crate::scripted::{Ca, Script};

const QUICK: &str = "[issuance]\nretry_seconds_min = 1\nretry_seconds_max = 2\n";

fn serves(service: &CertService, name: &str) -> contract::Bundle {
    let answer = service.get(&format!("/v1/bundles/{name}"));
    open_bundle(answer.text(), name, &service.verify_keys(), &service.edge).0
}

/// The process is killed when a bundle is there and the other database does not know yet: a first one, and a renewal.
#[test]
fn killed_between_the_two_databases_it_serves_one_certificate_then_the_other() {
    on_each_split(|database| {
        let mut service = CertService::new("");
        let ca = Ca::start(service.folder.path());
        service.configure(LISTEN, &[QUICK, &ca.issuer(""), &database.settings(&service)].concat());
        service.start();
        for revision in [1, 2] {
            let ready = Arc::new(Barrier::new(2));
            ca.script("cert", Script::Held(ready.clone()));
            match revision {
                1 => assert_eq!(service.put("shop.example", "").status, 201),
                _ => assert_eq!(service.call("POST", "/v1/domains/shop.example:renew", None, "").status, 202),
            }
            // The CA has made it; nobody can write to the other database while it answers.
            ready.wait();
            let held = database.hold_up(&service);
            ready.wait();
            let there = match revision {
                1 => "SELECT COUNT(*) FROM bundles WHERE revision = 1",
                _ => "SELECT COUNT(*) FROM bundles WHERE revision = 2",
            };
            wait_for("the bundle", || (database.count_bundles(&service, there) == 1).then_some(()));
            service.kill();
            drop(held);
            service.start();
            if revision == 2 {
                // The one before is served all the time.
                serves(&service, "shop.example");
            }
            service.wait("shop.example", |domain| domain.certificate.as_ref().is_some_and(|c| c.revision == revision));
            assert_eq!(serves(&service, "shop.example").revision, revision);
            let made = usize::try_from(revision).unwrap();
            assert_eq!((ca.signed(), ca.orders().len()), (made, made), "one more was made");
        }
        let one = "SELECT COUNT(*) FROM bundles WHERE revision = 2 AND key_set IS NOT NULL";
        wait_for("the first to go", || {
            let all = database.count_bundles(&service, "SELECT COUNT(*) FROM bundles");
            (all == 1 && database.count_bundles(&service, one) == 1).then_some(())
        });
        assert_eq!(service.get("/v1/custody").json()["bundles"], 1);
        // Without its other half it does not begin.
        service.kill();
        let alone = match database.bundles() {
            None => "",
            Some(_) => "[store]\nurl_file = \"store.url\"\n",
        };
        service.configure(LISTEN, &[QUICK, &ca.issuer(""), alone].concat());
        let ended = service.command().stderr(Stdio::piped()).output().unwrap();
        let told = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(ended.status.code() == Some(1) && told.contains("set `store.bundles`"), "{told}");
    });
}

#[test]
fn who_has_the_one_database_has_no_sealed_key_and_off_boarding_takes_it_from_the_other() {
    on_each_split(|database| {
        let mut service = CertService::new("");
        let settings = [INTERNAL, "[issuance]\nrsa = true\n", &database.settings(&service)].concat();
        service.configure(LISTEN, &settings);
        service.start();
        for name in ["a.example", "b.example"] {
            assert_eq!(service.put(name, "").status, 201);
            service.wait_live(name);
        }
        let bundle = serves(&service, "a.example");
        let sealed: Vec<_> = bundle.certificates().map(|(_, key)| key.ciphertext.clone()).collect();
        assert_eq!(sealed.len(), 2);
        if database.bundles().is_none() {
            let has = |file: &str| {
                let text = [file.to_owned(), format!("{file}-wal")].map(|file| std::fs::read(service.path(&file)));
                let text = text.into_iter().flatten().flatten().collect::<Vec<_>>();
                sealed.iter().any(|key| text.windows(key.len()).any(|part| part == key.as_bytes()))
            };
            assert!(has("bundles.db") && !has("data/certservice.db"));
        }
        assert_eq!(service.call("DELETE", "/v1/domains/a.example", None, "").status, 204);
        wait_for("the bundle to go", || {
            let left = "SELECT COUNT(*) FROM bundles WHERE domain = 'a.example'";
            (database.count_bundles(&service, left) == 0).then_some(())
        });
        serves(&service, "b.example");
        let report: DoctorReport = serde_json::from_slice(&service.get("/v1/doctor").body).unwrap();
        let check = report.checks.iter().find(|check| check.id == "bundle store").unwrap();
        assert!(check.ok.is_some(), "{check:?}");
    });
}

/// Between CertService and its database of bundles.
struct Relay {
    url: String,
    open: Arc<AtomicBool>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl Relay {
    fn start(to: &Mysql) -> Self {
        let url = to.url();
        let (before, rest) = url.split_once('@').unwrap();
        let (host, after) = rest.split_once('/').unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("{before}@{}/{after}", listener.local_addr().unwrap());
        let (open, streams) = (Arc::new(AtomicBool::new(true)), Arc::<Mutex<Vec<TcpStream>>>::default());
        let (host, is_open, all) = (host.to_owned(), open.clone(), streams.clone());
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                if !is_open.load(Ordering::SeqCst) {
                    continue;
                }
                let far = TcpStream::connect(&host).unwrap();
                for (from, to) in [(&near, &far), (&far, &near)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    all.lock().unwrap().push(from.try_clone().unwrap());
                    std::thread::spawn(move || pass(from, to));
                }
            }
        });
        Self { url, open, streams }
    }

    fn cut(&self) {
        self.open.store(false, Ordering::SeqCst);
        for stream in self.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn mend(&self) {
        self.open.store(true, Ordering::SeqCst);
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream) {
    let mut bytes = [0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut bytes) {
        if to.write_all(&bytes[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

/// Its database of bundles can be cut off; not where that is SQLite's file, which does not go down.
fn behind_relay(database: &Database) -> Option<(Relay, CertService, Ca)> {
    let relay = Relay::start(database.bundles()?);
    let mut service = CertService::new("");
    let ca = Ca::start(service.folder.path());
    let settings = database.settings(&service);
    service.write_secret("bundles.url", &relay.url);
    service.configure(LISTEN, &[QUICK, &ca.issuer(""), &settings].concat());
    service.start();
    Some((relay, service, ca))
}

fn up(service: &CertService) -> Option<String> {
    let metrics = service.get("/metrics").text().to_owned();
    metrics.lines().find_map(|line| line.strip_prefix("latchkey_certservice_bundle_store_up ")).map(str::to_owned)
}

#[test]
fn while_the_database_of_bundles_is_down_no_order_leaves_and_all_else_is_told_and_goes_on() {
    on_each_split(|database| {
        let Some((relay, service, ca)) = behind_relay(database) else { return };
        assert_eq!(service.put("before.example", "").status, 201);
        service.wait_live("before.example");
        assert_eq!((service.get("/readyz").status, up(&service).as_deref()), (200, Some("1")));

        relay.cut();
        let down = wait_for("the look at it", || {
            let answer = service.get("/readyz");
            (answer.status == 503).then_some(answer)
        });
        assert_eq!(down.json()["code"], "bundle_store_unavailable");
        let bundle = service.get("/v1/bundles/before.example");
        assert_eq!((bundle.status, &bundle.json()["code"]), (503, &"bundle_store_unavailable".into()));
        assert!(bundle.text().contains("the database of bundles did not answer"), "{}", bundle.text());
        wait_for("the metric", || (up(&service).as_deref() == Some("0")).then_some(()));
        let report: DoctorReport = serde_json::from_slice(&service.get("/v1/doctor").body).unwrap();
        let of = |id: &str| report.checks.iter().find(|check| check.id == id).unwrap();
        assert_eq!((of("store").ok.is_some(), of("bundle store").ok), (true, Some(false)), "{report:?}");
        // Domains are taken, looked at and explained; nothing leaves for the CA.
        assert_eq!(service.put("during.example", "").status, 201);
        let held = service.wait("during.example", |domain| domain.code == "bundle_store_unavailable");
        assert_eq!((held.state, held.who), (State::Working, Who::Operator));
        assert!(held.steps.iter().any(|step| step.fix.as_deref().is_some_and(|fix| fix.contains("store.bundles"))));
        std::thread::sleep(Duration::from_secs(2));
        assert_eq!(ca.orders().len(), 1, "an order left although its key could not be kept");
        assert_eq!(service.get("/v1/changes?since=0").status, 200);
        assert_eq!(service.call("DELETE", "/v1/domains/before.example", None, "").status, 204);

        relay.mend();
        service.wait_live("during.example");
        serves(&service, "during.example");
        assert_eq!((service.get("/readyz").status, ca.orders().len()), (200, 2));
        wait_for("what went meanwhile to go there, too", || {
            let left = "SELECT COUNT(*) FROM bundles WHERE domain = 'before.example'";
            (database.count_bundles(&service, left) == 0).then_some(())
        });
    });
}

/// It goes down when an order has left: the key is not asked for before it is kept, and nothing is lost.
#[test]
fn an_order_that_has_left_waits_with_its_key_for_the_database_of_bundles() {
    on_each_split(|database| {
        let Some((relay, service, ca)) = behind_relay(database) else { return };
        for (request, name) in [("order", "a.example"), ("cert", "b.example")] {
            let (ready, orders, signed) = (Arc::new(Barrier::new(2)), ca.orders().len(), ca.signed());
            ca.script(request, Script::Held(ready.clone()));
            assert_eq!(service.put(name, "").status, 201);
            ready.wait();
            relay.cut();
            ready.wait();
            wait_for("a try", || service.log().contains("an order could not be stored").then_some(()));
            assert_eq!(service.domain(name).certificate, None);
            assert_eq!(ca.signed() - signed, usize::from(request == "cert"), "a key that was not kept was certified");
            relay.mend();
            service.wait_live(name);
            serves(&service, name);
            assert_eq!((ca.orders().len() - orders, ca.signed() - signed), (1, 1), "{request}");
        }
    });
}

/// As docs/certservice.md has them.
#[test]
fn accounts_with_the_grants_that_are_documented_suffice() {
    const REST: &str = "SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, INDEX, REFERENCES";
    const BUNDLES: &str = "SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, INDEX";
    let docs = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/certservice.md")).unwrap();
    assert!(docs.contains(&format!("`{REST}`")) && docs.contains(&format!("`{BUNDLES}`")));
    on_each_split(|database| {
        let (Some(bundles), Some(rest)) = (database.bundles(), database.rest()) else { return };
        let mut service = CertService::new("");
        let settings = [INTERNAL, &database.settings(&service)].concat();
        service.write_secret("store.url", rest.account("latchkey_rest", REST));
        service.write_secret("bundles.url", bundles.account("latchkey_bundles", BUNDLES));
        service.configure(LISTEN, &settings);
        for _ in 0..2 {
            service.start();
            assert!(service.put("shop.example", "").status < 300);
            service.wait_live("shop.example");
            serves(&service, "shop.example");
            service.kill();
        }
    });
}
