//! What an operator sees of the traffic: the access log, and the hosts that are asked for most.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use support::edge::Edge;
use support::fleet::Plan;
use support::wait::{PATIENCE, until};
use support::{fail, port, program, proxy_header};

use crate::s_client::{Version, Visit};
use crate::world::{BALANCER, CLIENT, World, client, output, stderr, stdout};

const HOST: &str = "shop.example";
const BROKEN_HOST: &str = "broken.example";

/// A world whose proxy writes an access log, and a host whose server is not there.
async fn world(settings: &str) -> (World, PathBuf) {
    let mut world = World::start(Plan::default()).await;
    world.fleet.edge.process.stop().await.unwrap();
    let log = world.fleet.folder.path().join("access.json");
    world.fleet.edge_setup.settings = format!("[access_log]\nto = {log:?}\n{settings}\n");
    world.fleet.edge = Edge::start(&world.fleet.edge_setup).await.unwrap();
    let mut config = world.config();
    config["upstreams"]["gone"] = json!({"url": format!("http://{}", port::free().unwrap())});
    let site = json!({"hosts": [BROKEN_HOST], "upstream": "gone"});
    config["sites"].as_array_mut().unwrap().push(site);
    world.fleet.edge.apply(&config).await.unwrap();
    world.issue(HOST).await;
    (world, log)
}

fn lines(log: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// The first line of which that is true, once it is there.
async fn line(log: &Path, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    let found = until(what, PATIENCE, async || match lines(log).into_iter().find(&is) {
        Some(line) => Ok(line),
        None => fail(format!("{:#?}", lines(log))),
    });
    found.await.unwrap()
}

#[tokio::test]
async fn a_line_of_the_access_log_tells_all_of_a_request() {
    let (world, log) = world("").await;
    let balanced = world.visitor().await.from(BALANCER).beginning_with(world.v2());
    let mut connection = balanced.https(HOST).await.unwrap();
    assert_eq!(
        connection.send("POST", HOST, "/a?token=hunter2", &[("cookie", "hunter3")], b"12345").await.unwrap().status,
        200
    );
    assert_eq!(connection.get(HOST, "/old").await.unwrap().status, 308);

    let served = line(&log, "the first request", |line| line["path"] == "/a").await;
    for (name, expected) in [
        ("listener", json!("https")),
        ("client", json!(CLIENT)),
        ("sni", json!(HOST)),
        ("host", json!(HOST)),
        ("method", json!("POST")),
        ("tls", json!("TLSv1.3")),
        ("group", json!("X25519MLKEM768")),
        ("resumed", json!(false)),
        ("http", json!("1.1")),
        ("status", json!(200)),
        ("body_bytes_in", json!(5)),
        ("answer", json!("upstream")),
        ("upstream", json!("sample")),
        ("upstream_address", json!(world.upstream.address.to_string())),
        ("tries", json!(1)),
        ("reused", json!(false)),
        ("revision", json!(2)),
    ] {
        assert_eq!(served[name], expected, "{name}: {served:#}");
    }
    assert!(served["peer"].as_str().unwrap().starts_with("127.0.0.2:"), "{served:#}");
    assert!(served["body_bytes_out"].as_u64().unwrap() > 50, "{served:#}");
    for name in ["duration_us", "connect_us", "first_byte_us"] {
        assert!(served[name].is_u64(), "{name}: {served:#}");
    }
    assert!(served["duration_us"].as_u64() >= served["first_byte_us"].as_u64());
    assert!(served["cipher"].as_str().unwrap().starts_with("TLS_") && served["tier"].is_string(), "{served:#}");
    let plugins = served["plugins"].as_array().unwrap();
    let verdict = |name: &str| plugins.iter().find(|plugin| plugin["name"] == name).unwrap()["verdict"].clone();
    assert_eq!((verdict("hsts"), verdict("redirects")), (json!("edit"), json!("next")), "{served:#}");
    assert!(plugins.iter().all(|plugin| plugin["us"].as_u64().unwrap() > 0), "{served:#}");

    let redirected = line(&log, "the redirect", |line| line["path"] == "/old").await;
    assert_eq!((&redirected["answer"], &redirected["status"]), (&json!("plugin"), &json!(308)));
    assert!(redirected.get("upstream").is_none() && redirected.get("culprit").is_none());
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(!text.contains("hunter"), "neither queries nor header values are logged");
}

#[tokio::test]
async fn the_access_log_has_what_a_trusted_proxy_header_said() {
    let (world, log) = world("").await;
    let fields = [
        proxy_header::tlv(0x05, b"id \"7\""),
        proxy_header::tlv(0xea, b"\x01vpce-0123456789abcdef0"),
        proxy_header::tlv(0xee, &[1, 0x78, 0x56, 0x34, 0x12]),
        proxy_header::tlv(0xe0, &u64::MAX.to_be_bytes()),
    ];
    let header = proxy_header::v2_with(client(), world.fleet.edge_setup.https, &fields.concat());
    let balanced = world.visitor().await.from(BALANCER).beginning_with(header);
    assert_eq!(balanced.https(HOST).await.unwrap().get(HOST, "/said").await.unwrap().status, 200);
    let said = line(&log, "the request", |line| line["path"] == "/said").await;
    assert_eq!((&said["unique_id"], &said["aws_vpce_id"]), (&json!("id \"7\""), &json!("vpce-0123456789abcdef0")));
    assert_eq!((&said["azure_link_id"], &said["gcp_psc_id"]), (&json!(0x1234_5678), &json!(u64::MAX.to_string())));
    assert_eq!(said["client"], CLIENT);

    assert_eq!(world.https(HOST).await.get(HOST, "/direct").await.unwrap().status, 200);
    let direct = line(&log, "a direct request", |line| line["path"] == "/direct").await;
    for name in ["unique_id", "aws_vpce_id", "azure_link_id", "gcp_psc_id"] {
        assert!(direct.get(name).is_none(), "{direct:#}");
    }
}

#[tokio::test]
async fn the_access_log_has_the_group_of_the_key_exchange_also_of_a_resumed_session() {
    let (world, log) = world("").await;
    for (version, offered, expected) in [
        (Version::Tls13, "X25519", "x25519"),
        (Version::Tls13, "P-384", "secp384r1"),
        (Version::Tls12, "P-256", "secp256r1"),
    ] {
        let session = world.fleet.folder.path().join(format!("{version:?}-{expected}.session"));
        let visit = Visit::to(world.fleet.edge_setup.https, version, HOST).with("-groups").with(offered);
        let seen = visit.clone().keeping(&session).go().await;
        assert_eq!(seen.status(), Some(200), "{}", seen.text);
        let of = |line: &Value, resumed: bool| line["group"] == expected && line["resumed"] == resumed;
        line(&log, "a full handshake", |line| of(line, false)).await;
        assert!(visit.resuming(&session).go().await.resumed);
        line(&log, "a resumed one", |line| of(line, true)).await;
    }
}

#[tokio::test]
async fn the_id_on_the_page_of_a_fault_is_in_both_logs_with_its_culprit() {
    let (world, log) = world("sample_one_in = 1000000\nquery = true").await;
    world.issue(BROKEN_HOST).await;
    let answer = world.https(BROKEN_HOST).await.get(BROKEN_HOST, "/x?q=1").await.unwrap();
    assert_eq!(answer.status, 502);
    let page = answer.text();
    let id = page.split("Fault ").nth(1).unwrap_or_else(|| panic!("{page}")).trim();
    let line = line(&log, "the fault", |line| line["id"] == id).await;
    assert_eq!((&line["culprit"], &line["status"], &line["query"]), (&json!("upstream"), &json!(502), &json!("q=1")));
    assert!(line["error"].as_str().unwrap().contains("Connect"), "{line:#}");
    assert!(line.get("connect_us").is_none() && line["tries"] == 1, "{line:#}");
    world.says(&[id]).await;
}

#[tokio::test]
async fn what_is_refused_is_logged_as_it_came_and_harms_no_line() {
    let (world, log) = world("").await;
    let refused = world.plain().http().await.unwrap().get("evil\"host,\\other", "/refused").await.unwrap();
    assert_eq!(refused.status, 400);
    let line = line(&log, "the refusal", |line| line["path"] == "/refused").await;
    assert_eq!((&line["host_sent"], &line["answer"]), (&json!("evil\"host,\\other"), &json!("bad_host")));
    assert!(line.get("host").is_none() && line.get("tls").is_none() && line["listener"] == "http");
}

#[tokio::test]
async fn a_hangup_opens_the_access_log_anew_and_a_stop_finishes_it() {
    let (mut world, log) = world("").await;
    let mut connection = world.https(HOST).await;
    connection.get(HOST, "/1").await.unwrap();
    line(&log, "the first request", |line| line["path"] == "/1").await;
    let moved = log.with_extension("1");
    std::fs::rename(&log, &moved).unwrap();
    world.fleet.edge.process.signal(support::process::Signal::HUP);
    until("the new file", PATIENCE, async || if log.exists() { Ok(()) } else { fail("not there") }).await.unwrap();
    connection.get(HOST, "/2").await.unwrap();
    drop(connection);
    world.fleet.edge.process.stop().await.unwrap();
    assert!(lines(&moved).iter().all(|line| line["path"] != "/2"));
    assert_eq!(lines(&log).iter().filter(|line| line["path"] == "/2").count(), 1);
}

#[tokio::test]
async fn the_hosts_that_are_asked_for_most_are_known() {
    let (world, _) = world("").await;
    world.issue(BROKEN_HOST).await;
    let visitor = world.visitor().await;
    let mut connection = visitor.https(HOST).await.unwrap();
    for _ in 0..5 {
        connection.get(HOST, "/").await.unwrap();
    }
    visitor.https(BROKEN_HOST).await.unwrap().get(BROKEN_HOST, "/").await.unwrap();
    for name in ["a.scanned.example", "b.scanned.example", "scanned.example"] {
        assert!(visitor.https(name).await.is_err());
    }
    for (by, first, at_least) in [
        ("requests", HOST, 5),
        ("bytes", HOST, 100),
        ("errors", BROKEN_HOST, 1),
        ("unknown_sni", "scanned.example", 3),
        ("handshakes", HOST, 1),
    ] {
        let ranking = top(&world, by).await;
        let found = ranking["names"].as_array().unwrap().iter().find(|ranked| ranked["name"] == first);
        let found = found.unwrap_or_else(|| panic!("{first} is not in {ranking:#}"));
        assert!(found["at_least"].as_u64().unwrap() >= at_least, "{ranking:#}");
        assert!(by == "handshakes" || ranking["names"][0]["name"] == first, "{ranking:#}");
    }
    assert_eq!(top(&world, "errors").await["total"], 1);

    let mut command = Command::new(program::own("latchkey").unwrap());
    command.args(["top", "--by", "unknown-sni", "-n", "1"]);
    command.env("LATCHKEY_ADMIN", format!("unix:{}", world.fleet.edge_setup.admin_socket().display()));
    let shown = output(command).await;
    assert!(stdout(&shown).contains("3  scanned.example"), "{}{}", stdout(&shown), stderr(&shown));

    for query in ["by=host", "n=0", "n=257", "n=x", "of=requests"] {
        let refused = world.fleet.edge.admin.get(&format!("/v1/top?{query}")).await.unwrap();
        assert_eq!(refused.status, 400, "{query}: {}", refused.text());
        assert_eq!(refused.json().unwrap()["code"], "bad_query");
    }
}

async fn top(world: &World, by: &str) -> Value {
    world.fleet.edge.admin.get(&format!("/v1/top?by={by}&n=256")).await.unwrap().json().unwrap()
}
