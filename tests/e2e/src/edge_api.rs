//! The edge's admin API over TCP: roles, client certificates, the audit log, and the document that describes it.

use std::net::SocketAddr;
use std::process::Command;

use reqwest::Method;
use serde_json::{Value, json};
use support::api::Api;
use support::certservice::hex;
use support::edge::Edge;
use support::fleet::Plan;
use support::wait::{PATIENCE, until};
use support::{fail, port, program};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::world::{World, guest, output, repository, run, stderr, stdout};

const OPERATOR: &str = "the operator's token";
const VIEWER: &str = "the viewer's token";
const AWAY: &str = "a token for another network";
/// Of a request over TCP: beyond it no more is read.
const HEADER_BYTES_MAX: usize = 32 * 1024;
const OF_ONE_ADDRESS_MAX: usize = 256;
/// The run of Schemathesis, in seconds.
const SECONDS: &str = "20";

impl World {
    /// The edge listens on this address besides its socket; `more` are lines of `[admin.tcp]` and further sections.
    async fn over_tcp(&mut self, address: SocketAddr, more: &str) {
        let token = |role: &str, token: &str, more: &str| {
            let sha256 = hex(&contract::bundle::sha256(token.as_bytes()));
            format!("[[admin.tokens]]\nrole = \"{role}\"\nsha256 = \"{sha256}\"\n{more}")
        };
        let away = token("operator", AWAY, "networks = [\"10.0.0.0/8\"]\n");
        let tokens = [token("operator", OPERATOR, ""), token("viewer", VIEWER, ""), away].concat();
        self.fleet.edge_setup.settings = format!("[admin.tcp]\naddress = \"{address}\"\n{more}\n{tokens}");
        self.fleet.edge.process.stop().await.unwrap();
        self.fleet.edge = Edge::start(&self.fleet.edge_setup).await.unwrap();
    }
}

#[tokio::test]
async fn over_tcp_a_role_is_needed_and_every_change_is_told() {
    let mut world = World::start(Plan::default()).await;
    let address = port::free().unwrap();
    world.over_tcp(address, "").await;
    let as_caller = |token| Api::http(&format!("http://{address}"), token).unwrap();
    let (operator, viewer) = (as_caller(Some(OPERATOR)), as_caller(Some(VIEWER)));
    let config = world.config().to_string();
    for (caller, see, change) in [
        (as_caller(None), 401, 401),
        (as_caller(Some("no such token")), 401, 401),
        (as_caller(Some(AWAY)), 403, 403),
        (as_caller(Some(VIEWER)), 200, 403),
        (as_caller(Some(OPERATOR)), 200, 200),
    ] {
        for path in ["/healthz", "/readyz", "/metrics", "/v1/config", "/v1/plugins", "/v1/audit"] {
            assert_eq!(caller.get(path).await.unwrap().status, see, "{path}");
        }
        let put = caller.put("/v1/config?dry_run=true&message=try", config.clone()).await.unwrap();
        assert_eq!(put.status, change, "{}", put.text());
        assert!(put.status == 200 || put.content_type.as_deref() == Some("application/problem+json"));
    }
    assert_eq!(viewer.get("/v1/unknown").await.unwrap().status, 404, "who is known may learn it");
    assert_eq!(viewer.send(Method::DELETE, "/v1/config", &[], "").await.unwrap().status, 405);
    let unknown = viewer.get("/v1/plugins/unknown/crashes").await.unwrap();
    assert_eq!((unknown.status, unknown.json().unwrap()["code"].clone()), (404, json!("unknown_plugin")));
    let near = viewer.get("/v1/plugins/hst/crashes").await.unwrap().json().unwrap();
    assert!(near["detail"].as_str().unwrap().ends_with("`hst`; did you mean `hsts`?"), "{near}");

    let mut longer = world.config();
    longer["sites"][0]["plugins"][0]["config"]["max_age"] = 7.into();
    let path = "/v1/config?message=longer%20promises&by=Ada";
    operator.put(path, longer.to_string()).await.unwrap().expect(200).unwrap();
    let newest = operator.get("/v1/revisions").await.unwrap().json().unwrap()["revisions"][0].clone();
    let id = hex(&contract::bundle::sha256(OPERATOR.as_bytes()))[..8].to_owned();
    assert_eq!((&newest["who"]["caller"], &newest["who"]["by"]), (&json!(format!("operator:{id}")), &json!("Ada")));

    let audit = world.fleet.edge.admin.get("/v1/audit?limit=2").await.unwrap().json().unwrap();
    let (last, before) = (&audit["entries"][0], &audit["entries"][1]);
    assert_eq!((&last["method"], &last["path"], &last["status"]), (&json!("PUT"), &json!("/v1/config"), &json!(200)));
    assert_eq!((&last["who"], &last["from"]), (&json!(format!("operator:{id} for Ada")), &json!("127.0.0.1")));
    assert_eq!((&last["message"], &before["status"]), (&json!("longer promises"), &json!(405)));
    world.fleet.edge.push(&guest("hsts")).await.unwrap();
    let log = std::fs::read_to_string(world.fleet.edge_setup.data_folder().join("audit.log")).unwrap();
    assert!(log.lines().last().unwrap().contains("/v1/plugins/sha256:"), "over the socket too: {log}");
    for secret in [OPERATOR, VIEWER, "max_age"] {
        assert!(!log.contains(secret), "{log}");
    }

    let token = world.fleet.folder.write("admin.token", format!("{VIEWER}\n")).unwrap();
    let mut command = Command::new(program::own("latchkey").unwrap());
    command.args(["config", "audit", "--limit", "3", "--admin", &format!("http://{address}"), "--admin-token-file"]);
    let shown = output({
        command.arg(&token);
        command
    });
    let shown = stdout(&shown.await);
    assert!(shown.contains("403") || shown.contains("PUT /v1/plugins/sha256:"), "{shown}");
}

#[tokio::test]
async fn client_certificates_of_a_private_ca_have_roles() {
    let mut world = World::start(Plan::default()).await;
    let folder = world.fleet.folder.path().to_owned();
    let pki = async |arguments: &[&str]| {
        let mut command = Command::new(program::own("latchkey").unwrap());
        command.arg("pki").args(arguments).arg("--dir").arg(folder.join("pki"));
        let made = output(command).await;
        assert!(made.status.success(), "{}", stderr(&made));
    };
    pki(&["init"]).await;
    pki(&["issue", "server", "--host", "localhost"]).await;
    for (name, role) in [("ann", "operator"), ("vic", "viewer"), ("stranger", "edge")] {
        pki(&["issue", name, "--role", role]).await;
    }
    let address = port::free().unwrap();
    let file = |name: &str| folder.join("pki").join(name);
    let more = format!(
        "certificate_file = {:?}\nkey_file = {:?}\nclient_ca_file = {:?}\nclient_crl_file = {:?}\nclient_required = true\n\
         [[admin.certificates]]\nrole = \"operator\"\nuri = \"latchkey:operator/ann\"\n\
         [[admin.certificates]]\nrole = \"viewer\"\nuri = \"latchkey:viewer/*\"\n",
        file("server.pem"),
        file("server.key"),
        file("ca.pem"),
        file("crl.pem"),
    );
    world.over_tcp(address, &more).await;
    let config = world.fleet.folder.write("config.json", world.config().to_string()).unwrap();
    let status = async |name: Option<&str>, put: bool| {
        let answer = run("curl", |command| {
            command.args(["-sS", "--noproxy", "*", "--max-time", "30", "-o", "/dev/null", "-w", "%{http_code}"]);
            let url = format!("https://localhost:{}/v1/config", address.port());
            command.arg("--cacert").arg(file("ca.pem")).arg(url);
            if let Some(name) = name {
                command.arg("--cert").arg(file(&format!("{name}.pem"))).arg("--key").arg(file(&format!("{name}.key")));
            }
            if put {
                command.arg("--upload-file").arg(&config);
            }
        });
        stdout(&answer.await)
    };
    assert_eq!(status(None, false).await, "000", "no connection without a certificate");
    assert_eq!((status(Some("ann"), false).await, status(Some("ann"), true).await), ("200".into(), "200".into()));
    assert_eq!((status(Some("vic"), false).await, status(Some("vic"), true).await), ("200".into(), "403".into()));
    assert_eq!(status(Some("stranger"), false).await, "401", "of the same CA, but nobody names it");
    let mut command = Command::new(program::own("latchkey").unwrap());
    command.args(["config", "log", "--admin", &format!("https://localhost:{}", address.port())]);
    for (option, name) in [("ca", "ca.pem"), ("cert", "ann.pem"), ("key", "ann.key")] {
        command.arg(format!("--admin-{option}-file")).arg(file(name));
    }
    let shown = output(command).await;
    assert!(stdout(&shown).contains("touches 1 of 1 host"), "{}{}", stdout(&shown), stderr(&shown));
}

/// A connection of its own on which this was sent.
async fn sent(address: SocketAddr, bytes: impl AsRef<[u8]>) -> TcpStream {
    let mut connection = TcpStream::connect(address).await.unwrap();
    connection.write_all(bytes.as_ref()).await.unwrap();
    connection
}

async fn answered(mut connection: TcpStream) -> String {
    let mut answer = Vec::new();
    // A reset is as good an ending as any.
    let _ = timeout(PATIENCE, connection.read_to_end(&mut answer)).await.expect("the edge to close");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_change_is_told_though_nobody_waits_for_its_answer() {
    let mut world = World::start(Plan::default()).await;
    let address = port::free().unwrap();
    world.over_tcp(address, "").await;
    let mut longer = world.config();
    longer["sites"][0]["plugins"][0]["config"]["max_age"] = 8.into();
    let body = longer.to_string();
    let head = format!(
        "PUT /v1/config?message=abandoned HTTP/1.1\r\nhost: edge\r\nauthorization: Bearer {OPERATOR}\r\ncontent-length: {}",
        body.len()
    );
    drop(sent(address, format!("{head}\r\n\r\n{body}")).await);
    let told = until("the change in the audit log", PATIENCE, async || {
        let audit = world.fleet.edge.admin.get("/v1/audit?limit=1").await?.json()?;
        let told = audit["entries"][0]["message"] == "abandoned" && audit["entries"][0]["status"] == 200;
        if told { Ok(()) } else { fail(audit.to_string()) }
    });
    told.await.unwrap();
    let newest = world.fleet.edge.admin.get("/v1/revisions").await.unwrap().json().unwrap()["revisions"][0].clone();
    assert_eq!(newest["message"], "abandoned", "it is in force");
}

#[tokio::test]
async fn who_is_unknown_fills_no_log_and_a_page_in_a_browser_changes_nothing() {
    let mut world = World::start(Plan::default()).await;
    let address = port::free().unwrap();
    world.over_tcp(address, "").await;
    let [stranger, operator] =
        ["no such token", OPERATOR].map(|token| Api::http(&format!("http://{address}"), Some(token)).unwrap());
    for _ in 0..50 {
        assert_eq!(stranger.put("/v1/config", "{}").await.unwrap().status, 401);
    }
    let from_a_page = [("origin", "https://elsewhere.example")];
    let refused = operator.send(Method::POST, "/v1/revisions/1/revert", &from_a_page, "").await.unwrap();
    assert_eq!((refused.status, refused.json().unwrap()["code"].clone()), (403, json!("from_a_page")));
    assert_eq!(operator.send(Method::GET, "/v1/revisions", &from_a_page, "").await.unwrap().status, 200);
    let audit = operator.get("/v1/audit").await.unwrap().json().unwrap();
    let entries = audit["entries"].as_array().unwrap();
    let (told, unknown) = (&entries[0], entries.iter().filter(|entry| entry["who"] == "unknown").count());
    assert_eq!(
        (&told["path"], &told["status"], unknown),
        (&json!("/v1/revisions/1/revert"), &json!(403), 10),
        "{audit}"
    );
}

#[tokio::test]
async fn a_connection_is_bounded_before_anybody_knows_whose_it_is() {
    let mut world = World::start(Plan::default()).await;
    let address = port::free().unwrap();
    world.over_tcp(address, "").await;
    let mut head = format!("GET /healthz HTTP/1.1\r\nauthorization: Bearer {OPERATOR}\r\nx: ");
    head.extend(std::iter::repeat_n('a', HEADER_BYTES_MAX - head.len()));
    let refused = answered(sent(address, &head).await).await;
    assert!(refused.starts_with("HTTP/1.1 431 "), "{refused}");
    head.truncate(HEADER_BYTES_MAX - 1000);
    let taken = answered(sent(address, format!("{head}\r\nconnection: close\r\n\r\n")).await).await;
    assert!(taken.starts_with("HTTP/1.1 200 "), "{taken}");

    let mut open = Vec::new();
    for _ in 0..OF_ONE_ADDRESS_MAX {
        open.push(sent(address, "GET").await);
    }
    let healthz = format!("GET /healthz HTTP/1.1\r\nauthorization: Bearer {OPERATOR}\r\nconnection: close\r\n\r\n");
    let mut crowded = TcpStream::connect(address).await.unwrap();
    // It may be gone before it is written to.
    let _ = crowded.write_all(healthz.as_bytes()).await;
    assert_eq!(answered(crowded).await, "", "one address does not take all places");
    assert_eq!(world.fleet.edge.admin.get("/healthz").await.unwrap().status, 200, "the socket has places of its own");
    drop(open);
    let again = until("places to be free again", PATIENCE, async || {
        let answer = answered(sent(address, &healthz).await).await;
        if answer.starts_with("HTTP/1.1 200 ") { Ok(()) } else { fail(answer) }
    });
    again.await.unwrap();
}

#[tokio::test]
async fn only_the_process_that_serves_answers_over_tcp() {
    let mut world = World::start(Plan::default()).await;
    let address = port::free().unwrap();
    world.over_tcp(address, "").await;
    let pid = async || {
        // On a connection of its own: the system chooses who accepts it.
        let operator = Api::http(&format!("http://{address}"), Some(OPERATOR)).unwrap();
        operator.get("/readyz").await.unwrap().json().unwrap()["pid"].as_u64().unwrap()
    };
    let before = pid().await;
    // A request under way keeps the process of before alive.
    let slow = sent(world.fleet.edge_setup.http, "GET / HTTP/1.1\r\n").await;
    let mut upgrade = Command::new(program::own("latchkey-proxy").unwrap());
    upgrade.arg("upgrade").arg("--config").arg(world.fleet.edge_setup.boot_file_path());
    let upgraded = output(upgrade).await;
    assert!(upgraded.status.success(), "{}", stderr(&upgraded));
    let left = until("the process of before to leave the address", PATIENCE, async || {
        for _ in 0..20 {
            if pid().await == before {
                return fail("it answers still");
            }
        }
        Ok(())
    });
    left.await.unwrap();
    assert!(std::path::Path::new(&format!("/proc/{before}")).exists(), "it ended, which shows nothing");
    drop(slow);
    world.fleet.edge.process.ended().await.unwrap();
}

async fn printed() -> String {
    let mut command = Command::new(program::own("latchkey-proxy").unwrap());
    command.arg("openapi");
    stdout(&output(command).await)
}

#[tokio::test]
async fn the_document_that_is_checked_in_is_the_one_that_the_code_makes() {
    let checked_in = std::fs::read_to_string(repository().join("docs/openapi-edge.json")).unwrap();
    assert!(printed().await == checked_in, "write it anew: latchkey-proxy openapi > docs/openapi-edge.json");
}

#[tokio::test]
async fn the_document_and_the_roles_say_the_same() {
    let mut world = World::start(Plan::default()).await;
    let address = port::free().unwrap();
    world.over_tcp(address, "").await;
    let viewer = Api::http(&format!("http://{address}"), Some(VIEWER)).unwrap();
    let document: Value = serde_json::from_str(&printed().await).unwrap();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let path = path.replace("{number}", "1").replace("{plugin}", "hsts").replace("{digest}", "sha256:00");
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let answer = viewer.send(method.clone(), &path, &[], "{}").await.unwrap();
            let allowed = operation["x-roles"].as_array().unwrap().contains(&json!("viewer"));
            assert_eq!(answer.status != 403, allowed, "{method} {path}: {}", answer.text());
        }
    }
}

/// Schemathesis makes up requests from the document, good and bad ones, and checks each answer against it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_running_edge_answers_as_the_document_says() {
    let mut world = World::start(Plan::default()).await;
    let address = port::free().unwrap();
    world.over_tcp(address, "").await;
    let home = std::path::PathBuf::from(std::env::var_os("HOME").unwrap());
    let mut command = Command::new(home.join(".cache/latchkey/venv/bin/st"));
    command.arg("--config-file").arg(repository().join("tests/schemathesis-edge.toml"));
    command.args(["--no-color", "run"]).arg(repository().join("docs/openapi-edge.json"));
    command.args(["--url", &format!("http://{address}"), "--header", &format!("Authorization: Bearer {OPERATOR}")]);
    command.args(["--seed", "1", "--max-time", SECONDS, "--request-timeout", "30", "--continue-on-failure"]);
    // The database of examples belongs to this run.
    command.current_dir(world.fleet.folder.path());
    let ran = output(command).await;
    let text = stdout(&ran);
    assert!(ran.status.success(), "{text}{}", stderr(&ran));
    let line = text.lines().find(|line| line.contains(" generated, ")).expect("a count of requests");
    let count: u32 = line.trim().split(' ').next().unwrap().parse().unwrap();
    assert!(count > 100, "only {line}");
}
