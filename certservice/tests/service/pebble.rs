//! With a real ACME CA: Pebble, its DNS by challtestsrv, and a responder that answers http-01 as an edge does.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use certservice::challenge::{find, find_self_check};
use certservice::clock::now;
use certservice::config::Config;
use certservice::store::Store;
use contract::api::{State, Who};
use contract::signed::{VerifyKeys, verify};
use contract::{Challenge, Hostname};
use tokio::runtime::Runtime;

use crate::ca::write_certificates;
use crate::crash::{Counted, KID, assert_crashed_in, crash_everywhere};
use crate::databases::on_each_database;
use crate::edge::{is_bound_to_certificate, open_bundle};
use crate::http::exchange;
use crate::internal::assert_not_leaked;
use crate::process::{CertService, LISTEN, Running, free_port, wait_for};

fn binary(name: &str) -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/latchkey/bin");
    let folder = std::env::var_os("LATCHKEY_TEST_BIN_DIR").map_or_else(home, PathBuf::from);
    let path = folder.join(name);
    assert!(path.exists(), "{} is missing; `make test` installs it, or set LATCHKEY_TEST_BIN_DIR", path.display());
    path
}

pub struct Pebble {
    directory: String,
    /// Where it looks for http-01 answers.
    pub http_port: u16,
    /// Its DNS server, and where that is told what to answer.
    pub dns: u16,
    pub dns_management: u16,
    log: PathBuf,
    _processes: [Running; 2],
}

impl Pebble {
    /// Starts it with its files in `folder`; `extra` are more settings.
    pub fn start(folder: &Path, extra: &str) -> Self {
        Self::start_with_dns(folder, extra, None)
    }

    /// `resolver`: a DNS server that runs already.
    pub fn start_with_dns(folder: &Path, extra: &str, resolver: Option<u16>) -> Self {
        let [acme, management, http, tls, dns, dns_management] = std::array::from_fn(|_| free_port());
        write_certificates(folder);
        let at = |name: &str| folder.join(name).display().to_string();
        let config = format!(
            r#"{{"pebble": {{"listenAddress": "127.0.0.1:{acme}", "managementListenAddress": "127.0.0.1:{management}",
            "certificate": "{}", "privateKey": "{}", "httpPort": {http}, "tlsPort": {tls}, "ocspResponderURL": ""{extra}}}}}"#,
            at("ca-server.pem"),
            at("ca-server.key"),
        );
        std::fs::write(folder.join("pebble.json"), config).unwrap();
        let quiet = |command: &mut Command, log: &str| {
            let log = std::fs::File::create(folder.join(log)).unwrap();
            let command = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
            Running(command.spawn().unwrap())
        };
        let mut dns_server = Command::new(binary("pebble-challtestsrv"));
        dns_server.args(["-defaultIPv4", "127.0.0.1", "-defaultIPv6", "", "-http01", "", "-https01", ""]);
        dns_server.args(["-tlsalpn01", "", "-doh", "", "-dnsserver", &format!("127.0.0.1:{dns}")]);
        dns_server.args(["-management", &format!("127.0.0.1:{dns_management}")]);
        let dns_server = quiet(&mut dns_server, "challtestsrv.log");
        let resolver = resolver.unwrap_or(dns);
        let mut ca = Command::new(binary("pebble"));
        ca.args(["-config", &at("pebble.json"), "-dnsserver", &format!("127.0.0.1:{resolver}")]);
        ca.env("PEBBLE_VA_NOSLEEP", "1");
        let ca = quiet(&mut ca, "pebble.log");
        for port in [acme, dns_management] {
            wait_for("Pebble", || TcpStream::connect(("127.0.0.1", port)).ok());
        }
        let directory = format!("https://127.0.0.1:{acme}/dir");
        let log = folder.join("pebble.log");
        Self { directory, http_port: http, dns: resolver, dns_management, log, _processes: [ca, dns_server] }
    }

    /// By its log.
    pub fn counted(&self) -> Counted {
        let log = std::fs::read_to_string(&self.log).unwrap();
        let count = |words: &str| log.matches(words).count();
        Counted { orders: count("Added order"), certificates: count("Issued certificate serial") }
    }

    pub fn issuer(&self, extra: &str) -> String {
        format!(
            "[issuance]\nretry_seconds_min = 1\nretry_seconds_max = 2\n[[issuers]]\nname = \"pebble\"\nkind = \"acme\"\n\
             directory = \"{}\"\ncontact = [\"mailto:ops@example.com\"]\nroot_file = \"ca-root.pem\"\n{extra}\
             [precheck]\naddresses = [\"127.0.0.1\"]\nresolver = \"127.0.0.1:{}\"\nhttp_port = {}\n",
            self.directory, self.dns, self.http_port
        )
    }
}

/// Answers http-01 on the port where Pebble looks, with what CertService gives an edge.
pub struct Responder {
    pub silent: Arc<AtomicBool>,
}

impl Responder {
    /// `find` looks a host and a token up.
    fn start(port: u16, find: impl Fn(&str, &str) -> Option<Challenge> + Send + 'static) -> Self {
        let silent = Arc::new(AtomicBool::new(false));
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let flag = silent.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                let asked = read_request(&stream).filter(|_| !flag.load(Ordering::Relaxed));
                let (status, body) = match asked.and_then(|(host, token)| find(&host, &token)) {
                    Some(challenge) => ("200 OK", challenge.key_authorization),
                    None => ("404 Not Found", String::new()),
                };
                let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
                let _ = (&stream).write_all((head + &body).as_bytes());
            }
        });
        Self { silent }
    }

    /// As an edge does: what CertService signed, and nothing else.
    pub fn edge(port: u16, service: &CertService) -> Self {
        let (socket, keys) = (service.path("cs.sock"), service.path("data/signing.pub"));
        Self::start(port, move |host, token| {
            let path = format!("/v1/challenges/{host}/{token}");
            let answer = exchange(UnixStream::connect(&socket).ok()?, "GET", &path, None, b"");
            let keys = VerifyKeys::from_pems([std::fs::read_to_string(&keys).ok()?.as_str()]).ok()?;
            verify(answer.text(), &keys).ok().filter(|_| answer.status == 200)
        })
    }
}

fn read_request(stream: &TcpStream) -> Option<(String, String)> {
    let lines = BufReader::new(stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
    let lines: Vec<String> = lines.collect();
    let token = lines.first()?.split(' ').nth(1)?.strip_prefix("/.well-known/acme-challenge/")?;
    let host = lines.iter().find_map(|line| line.strip_prefix("Host: "))?.split(':').next()?;
    Some((host.to_owned(), token.to_owned()))
}

fn set_up() -> (CertService, Pebble, Responder) {
    set_up_with("")
}

pub fn set_up_with(extra: &str) -> (CertService, Pebble, Responder) {
    let mut service = CertService::new("");
    let pebble = Pebble::start(service.folder.path(), r#", "domainBlocklist": ["blocked-domain.example"]"#);
    service.configure(LISTEN, &pebble.issuer(extra));
    service.start();
    let responder = Responder::edge(pebble.http_port, &service);
    (service, pebble, responder)
}

#[test]
fn a_domain_gets_its_certificate_over_acme() {
    let (service, _pebble, _responder) = set_up();
    for name in ["shop.example", "xn--bcher-kva.example", "a.b.c.example"] {
        assert_eq!(service.put(name, "").status, 201);
    }
    for name in ["shop.example", "xn--bcher-kva.example", "a.b.c.example"] {
        let certificate = service.wait_live(name).certificate.unwrap();
        assert!(certificate.issued_by.contains("Pebble Intermediate"), "{certificate:?}");
        let answer = service.get(&format!("/v1/bundles/{name}"));
        let (bundle, key) = open_bundle(answer.text(), name, &service.verify_keys(), &service.edge);
        assert!(is_bound_to_certificate(&bundle));
        assert_eq!(bundle.chain().unwrap().len(), 2);
        assert_not_leaked(&service, &key);
    }
    let account = service.path("data/accounts/pebble.json");
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&account.metadata().unwrap().permissions()) & 0o777, 0o600);
    let log = service.log();
    assert_eq!(log.matches("made an ACME account").count(), 1);
    assert!(!log.contains("key_pkcs8") && !log.contains("BEGIN"));
}

#[test]
fn a_name_that_does_not_point_here_waits_for_its_customer_and_holds_up_nobody() {
    let (service, _pebble, responder) = set_up_with("precheck = false\n");
    responder.silent.store(true, Ordering::Relaxed);
    assert_eq!(service.put("lost.example", "").status, 201);
    let domain = service.wait("lost.example", |domain| domain.code == "challenge_failed");
    assert_eq!((domain.state, domain.who), (State::ActionNeeded, Who::Customer));
    assert!(domain.says.contains("404"), "the CA's words are kept: {domain:?}");
    assert!(domain.next_check_at.unwrap() > domain.created_at);
    let answer = service.get("/v1/bundles/lost.example").json();
    assert!(answer["detail"].as_str().unwrap().contains("challenge_failed"));

    responder.silent.store(false, Ordering::Relaxed);
    assert_eq!(service.put("found.example", "").status, 201);
    service.wait_live("found.example");
    service.wait_live("lost.example");
    assert!(service.get("/metrics").text().contains("orders_total{issuer=\"pebble\",result=\"challenge_failed\"}"));
}

#[test]
fn a_restart_keeps_the_account_and_a_blocked_name_waits_for_an_operator() {
    let (mut service, _pebble, _responder) = set_up();
    assert_eq!(service.put("one.example", "").status, 201);
    service.wait_live("one.example");
    service.kill();
    service.start();
    assert_eq!(service.put("two.example", "").status, 201);
    service.wait_live("two.example");
    assert_eq!(service.log().matches("made an ACME account").count(), 1);

    // Pebble refuses this name for good.
    assert_eq!(service.put("blocked-domain.example", "").status, 201);
    let domain = service.wait("blocked-domain.example", |domain| domain.state == State::Blocked);
    assert_eq!((domain.code.as_str(), domain.who, domain.next_check_at), ("name_refused", Who::Operator, None));
    // An operator may ask again; the CA says the same.
    let orders = |service: &CertService| {
        let metrics = service.get("/metrics");
        let line = metrics
            .text()
            .lines()
            .find(|line| line.contains("orders_total{issuer=\"pebble\",result=\"name_refused\"}"))
            .unwrap();
        line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
    };
    assert_eq!(orders(&service), 1);
    assert_eq!(service.put("blocked-domain.example", "").status, 200);
    wait_for("the second refusal", || (orders(&service) == 2).then_some(()));
}

#[test]
fn an_account_can_be_bound_to_an_external_one() {
    let mut service = CertService::new("");
    let key = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    let keys = format!(r#", "externalAccountBindingRequired": true, "externalAccountMACKeys": {{"kid-1": "{key}"}}"#);
    let pebble = Pebble::start(service.folder.path(), &keys);
    service.configure(LISTEN, &pebble.issuer(""));
    service.start();
    let _responder = Responder::edge(pebble.http_port, &service);
    assert_eq!(service.put("shop.example", "").status, 201);
    let domain = service.wait("shop.example", |domain| domain.code == "account_refused");
    assert_eq!((domain.state, domain.who), (State::Working, Who::Operator));

    service.kill();
    service.write_secret("hmac", key);
    service.configure(LISTEN, &pebble.issuer("eab = { kid = \"kid-1\", hmac_key_file = \"hmac\" }\n"));
    service.start();
    service.wait_live("shop.example");
}

#[test]
fn a_crash_at_each_point_of_an_acme_order_loses_nothing() {
    on_each_database(|database| {
        let service = CertService::new("");
        let pebble = Pebble::start(service.folder.path(), "");
        service.configure(LISTEN, &format!("{}{}", pebble.issuer(""), database.settings(&service)));
        // The answers come from the same database as in `GET /v1/challenges`; there is no process to ask.
        std::fs::create_dir(service.path("data")).unwrap();
        let runtime = Runtime::new().unwrap();
        let config = Config::load(&service.path("cs.toml")).unwrap();
        let store = runtime.block_on(Store::open(&config.store)).unwrap();
        let _responder = Responder::start(pebble.http_port, move |host, token| {
            let host = Hostname::from_wire(host).ok()?;
            let own = find_self_check(&host, token, KID, now());
            own.or_else(|| runtime.block_on(find(&store, &host, token, now())).unwrap())
        });
        let points = crash_everywhere(&service, "pebble", Some(&|| pebble.counted()));
        let steps = ["ordering", "ordered", "answering", "validating", "ready", "keyed", "finalizing"];
        assert_crashed_in(&points, &steps);
    });
}
