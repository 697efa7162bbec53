//! `kill -9` of the real process: in each request to the CA and to DNS, at any time, and beside a second instance.

use std::io::{BufReader, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

use certservice::config::Config;
use certservice::service::Service;
use tokio::runtime::Runtime;

use crate::databases::{Database, on_each_database, on_each_layout};
use crate::dns01::by_webhook;
use crate::edge::open_bundle;
use crate::process::{CertService, INTERNAL, LISTEN, Running, wait_for};
use crate::scripted::{Ca, Script, kill};

const QUICK: &str = "[issuance]\nretry_seconds_min = 1\nretry_seconds_max = 2\n";

fn started(database: &Database, extra: &str) -> (CertService, Ca) {
    let mut service = CertService::new("");
    let ca = Ca::start(service.folder.path());
    service.configure(LISTEN, &[QUICK, &ca.issuer(extra), &database.settings(&service)].concat());
    service.start();
    (service, ca)
}

/// The process is killed while the CA has one request of each kind, before and after the CA does it. Whatever the CA has
/// counted is gone on with, and each certificate that it signs is served, with its key.
fn killed_in_each_request(service: &mut CertService, ca: &Ca, number: &mut usize, requests: &[&str]) {
    for request in requests {
        for after in [false, true] {
            *number += 1;
            let name = format!("kill{number}.own.example");
            let (process, signed) = (service.process().id(), ca.signed());
            ca.script(request, if after { Script::KillAfter(process) } else { Script::Kill(process) });
            assert_eq!(service.put(&name, "").status, 201);
            service.wait_killed();
            service.start();
            assert_eq!(service.wait_live(&name).certificate.unwrap().revision, 1);
            let orders = ca.orders().iter().filter(|order| order.name == name).count();
            // Nobody was told of the one that the CA had counted.
            let untold = usize::from(*request == "new-order" && after);
            assert_eq!((orders, ca.signed() - signed), (1 + untold, 1), "{request}, after it: {after}");
            serves(service, &name);
        }
    }
}

fn serves(service: &CertService, name: &str) {
    let answer = service.get(&format!("/v1/bundles/{name}"));
    open_bundle(answer.text(), name, &service.verify_keys(), &service.edge);
}

#[test]
fn killed_in_any_request_to_the_ca_it_goes_on_with_the_same_order_and_key() {
    on_each_layout(|database| {
        let (mut service, ca) = started(database, "");
        ca.want("http-01");
        let requests = ["nonce", "new-order", "order", "authz", "challenge", "finalize", "cert"];
        killed_in_each_request(&mut service, &ca, &mut 0, &requests);
        // Answers to tls-alpn-01 take the same steps.
        service.kill();
        let settings = [QUICK, &ca.issuer("challenges = [\"tls-alpn-01\"]\n"), &database.settings(&service)];
        service.configure(LISTEN, &settings.concat());
        service.start();
        ca.want("tls-alpn-01");
        killed_in_each_request(&mut service, &ca, &mut 100, &["challenge", "finalize"]);
    });
}

/// Puts no record anywhere, and kills the process where it is told to.
struct Hook {
    url: String,
    /// The calls of each path that it has taken.
    taken: Arc<Mutex<Vec<String>>>,
    kills: Arc<Mutex<Option<KillAt>>>,
}

/// Path, process, and whether the call is taken before.
type KillAt = (&'static str, u32, bool);

impl Hook {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/dns", listener.local_addr().unwrap());
        let (taken, kills) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<Mutex<Option<KillAt>>>::default());
        let (log, orders) = (taken.clone(), kills.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = BufReader::new(stream.unwrap());
                while let Some((path, ..)) = crate::http::read_request(&mut stream) {
                    let ends = orders.lock().unwrap().take_if(|(at, ..)| path == format!("/dns/{at}"));
                    if ends.is_none_or(|(.., after)| after) {
                        log.lock().unwrap().push(path);
                    }
                    if let Some((_, process, _)) = ends {
                        kill(process);
                        break;
                    }
                    stream.get_mut().write_all(b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n").unwrap();
                }
            }
        });
        Self { url, taken, kills }
    }

    fn count(&self, path: &str) -> usize {
        self.taken.lock().unwrap().iter().filter(|taken| *taken == path).count()
    }
}

#[test]
fn killed_while_an_answer_goes_into_dns_or_out_it_goes_on_with_the_same_order() {
    on_each_database(|database| {
        let hook = Hook::start();
        let mut service = CertService::new("");
        let ca = Ca::start(service.folder.path());
        let issuer = ca.issuer("challenges = [\"dns-01\"]\n");
        let settings = [QUICK, &issuer, &by_webhook(&service, &hook.url), &database.settings(&service)];
        service.configure(LISTEN, &settings.concat());
        service.start();
        ca.want("dns-01");
        let mut number = 0;
        for (call, after) in [("present", false), ("present", true), ("cleanup", false), ("cleanup", true)] {
            number += 1;
            let name = format!("dns{number}.own.example");
            *hook.kills.lock().unwrap() = Some((call, service.process().id(), after));
            let presented = hook.count("/dns/present");
            assert_eq!(service.put(&name, "").status, 201);
            service.wait_killed();
            service.start();
            service.wait_live(&name);
            // Doing it twice does no harm; not doing it would.
            let again = usize::from(call == "present" && after);
            assert_eq!(hook.count("/dns/present") - presented, 1 + again, "{call}, after it: {after}");
            let orders = ca.orders().iter().filter(|order| order.name == name).count();
            assert_eq!((orders, ca.signed()), (1, number), "{call}, after it: {after}");
            serves(&service, &name);
        }
        killed_in_each_request(&mut service, &ca, &mut 0, &["new-order", "challenge"]);
    });
}

#[test]
fn killing_the_process_at_any_time_loses_nothing() {
    on_each_layout(|database| {
        let mut service = CertService::new("");
        let settings = format!("{INTERNAL}[issuance]\nconcurrency = 2\n{}", database.settings(&service));
        service.configure(LISTEN, &settings);
        service.start();
        let names: Vec<_> = (0..40).map(|n| format!("n{n}.example")).collect();
        for name in &names {
            assert_eq!(service.put(name, "").status, 201);
        }
        for life in 0..10 {
            service.kill();
            service.start();
            std::thread::sleep(Duration::from_millis(life * 7));
        }
        for name in &names {
            assert_eq!(service.wait_live(name).certificate.unwrap().revision, 1);
            serves(&service, name);
        }
        let lives = service.log().matches("\"serving\"").count();
        assert_eq!(lives, 11, "{}", service.log());
    });
}

/// What was looked at while the CA has the only order that it may have.
#[test]
fn no_more_orders_are_open_than_there_are_places_and_those_in_line_survive_a_kill() {
    on_each_layout(|database| {
        let mut service = CertService::new("");
        let ca = Ca::start(service.folder.path());
        let settings = [QUICK, "concurrency = 1\n", &ca.issuer(""), &database.settings(&service)];
        service.configure(LISTEN, &settings.concat());
        service.start();
        let names: Vec<_> = (0..5).map(|n| format!("n{n}.example")).collect();
        let held = Arc::new(Barrier::new(2));
        ca.script("new-order", Script::Held(held.clone()));
        assert_eq!(service.put(&names[0], "").status, 201);
        held.wait();
        for name in &names[1..] {
            assert_eq!(service.put(name, "").status, 201);
        }
        for name in &names[1..] {
            let waits = service.wait(name, |domain| domain.code != "queued");
            let order = waits.steps.iter().find(|step| step.id == "order").unwrap();
            assert_eq!((waits.code.as_str(), order.code.as_str()), ("in_line", "in_line"), "{waits:?}");
        }
        let counted = "latchkey_certservice_jobs{step=\"looked\"} 4\n";
        wait_for(counted, || service.get("/metrics").text().contains(counted).then_some(()));
        assert_eq!(ca.orders().len(), 1);
        service.kill();
        held.wait();
        service.start();
        for name in &names {
            assert_eq!(service.wait_live(name).certificate.unwrap().revision, 1, "{name}");
            serves(&service, name);
        }
        // Nobody was told of the first one, which stays open.
        assert_eq!((ca.orders().len(), ca.signed(), ca.open_most()), (6, 5, 2));
    });
}

/// Another instance on the same store, at `second.sock`.
fn second(first: &CertService) -> Running {
    let settings = std::fs::read_to_string(first.path("cs.toml")).unwrap().replace("cs.sock", "second.sock");
    std::fs::write(first.path("second.toml"), settings).unwrap();
    let log = std::fs::File::options().append(true).create(true).open(first.path("second.log")).unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_latchkey-certservice"));
    command.arg("--config").arg(first.path("second.toml")).stderr(log);
    let running = Running(command.spawn().unwrap());
    wait_for("the second instance", || UnixStream::connect(first.path("second.sock")).ok());
    running
}

#[test]
fn two_instances_on_one_store_make_no_order_twice_and_take_over_from_a_dead_one() {
    on_each_database(|database| {
        let (mut first, ca) = started(database, "");
        let _second = second(&first);
        for n in 0..30 {
            assert_eq!(first.put(&format!("n{n}.example"), "").status, 201);
        }
        for n in 0..30 {
            first.wait_live(&format!("n{n}.example"));
        }
        let mut names: Vec<_> = ca.orders().into_iter().map(|order| order.name).collect();
        names.sort();
        names.dedup();
        assert_eq!((names.len(), ca.orders().len()), (30, 30), "an order was made twice");
        // Whoever has it dies half-way; the other goes on with the same order.
        ca.script("finalize", Script::Slow(8));
        assert_eq!(first.put("orphan.example", "").status, 201);
        first.wait("orphan.example", |domain| domain.code == "finalizing");
        first.kill();
        let socket = first.path("second.sock");
        wait_for("the other instance to go on", || {
            let stream = UnixStream::connect(&socket).unwrap();
            let answer = crate::http::exchange(stream, "GET", "/v1/domains/orphan.example", None, b"");
            (answer.json()["code"] == "issued").then_some(())
        });
        assert_eq!(ca.orders().len(), 31, "the other began a new order");
    });
}

/// Both die and come back again and again while they fight for the same names.
#[test]
fn two_instances_that_are_killed_in_turns_issue_each_name_once() {
    on_each_layout(|database| {
        let (mut first, ca) = started(database, "");
        let mut other = second(&first);
        let names: Vec<_> = (0..40).map(|n| format!("n{n}.example")).collect();
        for name in &names {
            assert_eq!(first.put(name, "").status, 201);
        }
        let mut kills = 0;
        for life in 0..6 {
            std::thread::sleep(Duration::from_millis(5 + life * 15));
            kills += 1;
            if life % 2 == 0 {
                first.kill();
                first.start();
            } else {
                drop(other);
                other = second(&first);
            }
        }
        for name in &names {
            assert_eq!(first.wait_live(name).certificate.unwrap().revision, 1, "{name}");
            serves(&first, name);
        }
        assert_eq!(ca.signed(), names.len(), "a certificate was made that nobody has");
        // Each kill may lose the answers to the orders that one instance had under way.
        let (orders, concurrency) = (ca.orders().len(), 8);
        assert!((names.len()..=names.len() + kills * concurrency).contains(&orders), "{orders} orders");
    });
}

/// The service assembled in-process, as `main` does it, refuses what the kill tests rely on: two on one socket.
#[test]
fn a_second_service_on_the_same_socket_is_refused() {
    let service = CertService::started(INTERNAL);
    let config = Config::load(&service.path("cs.toml")).unwrap();
    let error = Runtime::new().unwrap().block_on(Service::build(config)).err().unwrap();
    assert!(error.contains("another process serves it"), "{error}");
}
