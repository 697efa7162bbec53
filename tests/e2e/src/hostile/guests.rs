//! Guests that misbehave at every call, beside visitors of other sites; and components that are no plugins.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use support::fleet::Plan;
use support::program;
use tokio::task::JoinSet;

use super::{HOST, LOCAL, NEIGHBOUR, OTHER_HOST};
use crate::world::{World, guest, output, stderr};

/// Calls of each misdeed. `LATCHKEY_TEST_HOSTILE_CALLS` overrides it.
const CALLS: usize = 120;
const CALLERS: usize = 4;
/// What the allocator and the instances of a few threads may keep.
const SLACK_KIB: u64 = 48 << 10;
/// Far above what is measured: other work on the machine must not fail the test.
const P99_MAX: Duration = Duration::from_secs(5);

/// Host, path, and the status that comes of it.
const MISDEEDS: [(&str, &str, u16); 12] = [
    (OTHER_HOST, "/spin", 503),
    (OTHER_HOST, "/roots", 503),
    (OTHER_HOST, "/eat", 503),
    (OTHER_HOST, "/touch", 503),
    (OTHER_HOST, "/recurse", 503),
    (OTHER_HOST, "/trap", 503),
    (OTHER_HOST, "/vast", 503),
    (OTHER_HOST, "/edits", 503),
    (OTHER_HOST, "/crlf", 503),
    ("log.example", "/", 200),
    ("start-spin-far.example", "/", 503),
    ("start-touch-far.example", "/", 503),
];

impl World {
    /// The first site has the plugins of `config`, the others a hostile one each.
    async fn with_hostile_sites(&self) {
        let digest = self.fleet.edge.push(&guest("hostile")).await.unwrap();
        let mut document = self.config();
        document["plugins"]["hostile"] = json!({"digest": digest});
        document["sites"][0]["hosts"] = json!([HOST]);
        for (host, behaviour) in [
            (OTHER_HOST, "by-path"),
            ("log.example", "log"),
            ("start-spin-far.example", "start-spin-far"),
            ("start-touch-far.example", "start-touch-far"),
        ] {
            self.issue(host).await;
            let binding = json!({"plugin": "hostile", "config": {"behaviour": behaviour}, "on_failure": "closed"});
            let site = json!({"hosts": [host], "upstream": "sample", "plugins": [binding]});
            document["sites"].as_array_mut().unwrap().push(site);
        }
        self.fleet.edge.apply(&document).await.unwrap();
    }

    /// So many calls, from a few connections.
    async fn misbehaves(&self, host: &'static str, path: &'static str, status: u16, calls: usize) {
        let mut callers = JoinSet::new();
        for _ in 0..CALLERS {
            let visitor = self.visitor().await;
            callers.spawn(async move {
                let mut connection = visitor.https(host).await.unwrap();
                for _ in 0..calls.div_ceil(CALLERS) {
                    let answer = match connection.get(host, path).await {
                        Ok(answer) => answer,
                        Err(_) => {
                            connection = visitor.https(host).await.unwrap();
                            connection.get(host, path).await.unwrap()
                        }
                    };
                    assert_eq!(answer.status, status, "{host}{path}");
                }
            });
        }
        while let Some(caller) = callers.join_next().await {
            caller.unwrap();
        }
    }

    /// Visits the healthy site until told to stop: how long each took.
    async fn visits(&self, over: Arc<AtomicBool>) -> tokio::task::JoinHandle<Vec<Duration>> {
        let visitor = self.visitor().await.from(NEIGHBOUR);
        tokio::spawn(async move {
            let mut connection = visitor.https(HOST).await.unwrap();
            let mut took = Vec::new();
            while !over.load(Ordering::Relaxed) || took.len() < 100 {
                let asked = Instant::now();
                let answer = connection.get(HOST, "/").await.unwrap();
                assert_eq!((answer.status, answer.header("strict-transport-security").is_some()), (200, true));
                took.push(asked.elapsed());
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            took
        })
    }

    async fn config_etag(&self) -> Option<String> {
        self.fleet.edge.admin.get("/v1/config").await.unwrap().etag
    }
}

fn p99(mut took: Vec<Duration>) -> Duration {
    took.sort();
    took[took.len() * 99 / 100]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guests_that_misbehave_at_every_call_harm_no_other_site() {
    let calls = std::env::var("LATCHKEY_TEST_HOSTILE_CALLS").map_or(CALLS, |count| count.parse().unwrap());
    let world = World::start(Plan::default()).await;
    world.issue(HOST).await;
    world.with_hostile_sites().await;
    // Once each, so that what is kept of them is there before it is weighed.
    for (host, path, status) in MISDEEDS {
        world.misbehaves(host, path, status, CALLERS).await;
    }
    let alone = p99(world.visits(Arc::new(AtomicBool::new(true))).await.await.unwrap());
    let before = world.resident_kib();
    for (host, path, status) in MISDEEDS {
        let over = Arc::new(AtomicBool::new(false));
        let healthy = world.visits(over.clone()).await;
        let began = Instant::now();
        world.misbehaves(host, path, status, calls).await;
        let took = began.elapsed();
        over.store(true, Ordering::Relaxed);
        let beside = p99(healthy.await.unwrap());
        println!("{host}{path}: {calls} calls in {took:?}; p99 of the healthy site {beside:?}, alone {alone:?}");
        assert!(beside < P99_MAX, "{host}{path}: {beside:?}");
    }
    let after = world.resident_kib();
    println!("{before} KiB before, {after} KiB after");
    assert!(after < before + SLACK_KIB, "{before} KiB, then {after} KiB");
    assert!(world.metric(LOCAL, "plugin_fault").await >= (10 * calls) as f64);
    world.still_serves(HOST).await;
}

#[tokio::test]
async fn a_plan_that_does_not_end_is_refused_and_what_serves_stays() {
    let world = World::start(Plan::default()).await;
    world.issue(HOST).await;
    world.with_hostile_sites().await;
    let (etag, before) = (world.config_etag().await, world.resident_kib());
    for (behaviour, says) in [
        ("plan-spin", "ran past its deadline"),
        ("plan-eat", "more memory than its limit"),
        ("plan-trap", "trapped"),
        ("plan-dataset", ""),
        ("plan-expressions", "do not fit into tables"),
        ("plan-big", "not acceptable"),
        ("start-spin", "ran past its deadline"),
        ("start-trap", "trapped"),
    ] {
        let mut document: Value = world.fleet.edge.admin.get("/v1/config").await.unwrap().json().unwrap();
        document["sites"][1]["plugins"][0]["config"]["behaviour"] = behaviour.into();
        let over = Arc::new(AtomicBool::new(false));
        let healthy = world.visits(over.clone()).await;
        let reply = world.fleet.edge.admin.put("/v1/config", document.to_string()).await.unwrap();
        over.store(true, Ordering::Relaxed);
        let beside = p99(healthy.await.unwrap());
        let told = reply.json().unwrap();
        assert_eq!((reply.status, &told["errors"][0]["at"]), (422, &json!("/sites/1/plugins/0/config")), "{told:#}");
        assert!(told["errors"][0]["says"].as_str().unwrap().contains(says), "{behaviour}: {told:#}");
        assert!(beside < P99_MAX, "{behaviour}: {beside:?}");
        println!("{behaviour}: {}; p99 of the healthy site {beside:?}", told["errors"][0]["says"]);
    }
    assert_eq!(world.config_etag().await, etag);
    let after = world.resident_kib();
    println!("{before} KiB before, {after} KiB after");
    assert!(after < before + 3 * SLACK_KIB, "{before} KiB, then {after} KiB");
}

/// The bytes with one name for another of the same length.
fn renamed(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut out = bytes.to_vec();
    let places: Vec<_> = (0..out.len()).filter(|at| out[*at..].starts_with(from.as_bytes())).collect();
    assert!(!places.is_empty(), "{from} is not in it");
    places.into_iter().for_each(|at| out[at..at + to.len()].copy_from_slice(to.as_bytes()));
    out
}

#[tokio::test]
async fn what_is_no_plugin_is_refused_with_its_reason_and_what_serves_stays() {
    let world = World::start(Plan::default()).await;
    world.issue(HOST).await;
    let etag = world.config_etag().await;
    let hsts = std::fs::read(guest("hsts")).unwrap();
    let edge = &world.fleet.edge;
    for (bytes, says) in [
        (std::fs::read(guest("other-world")).unwrap(), "does not export latchkey:edge/control"),
        (renamed(&hsts, "http-policy@", "http-polity@"), "does not export latchkey:edge/connection or http-policy"),
        (renamed(&hsts, "@0.2.1", "@9.2.0"), "component speaks latchkey:edge 9.2.0"),
        (renamed(&hsts, "latchkey:edge/log@0.2.1", "wasi:cli/terminal@0.2.0"), "which is not granted"),
        (hsts[..hsts.len() / 2].to_vec(), "not a valid component"),
        (b"\0asm\x01\0\0\0".to_vec(), "a core module, not a component"),
        (Vec::new(), "it starts with nothing"),
    ] {
        let (_, reply) = edge.upload(bytes).await.unwrap();
        assert_eq!((reply.status, reply.json().unwrap()["code"].clone()), (422, json!("invalid_plugin")));
        assert!(reply.text().contains(says), "{says}: {}", reply.text());
    }
    let digest = format!("sha256:{}", "0".repeat(64));
    let unsigned = edge.admin.send(Method::PUT, &format!("/v1/plugins/{digest}"), &[], hsts).await.unwrap();
    assert_eq!(unsigned.status, 400, "and signatures are tried in `signatures`");
    let mut command = Command::new(program::own("latchkey").unwrap());
    command.args(["plugin", "push"]).arg(guest("other-world"));
    command.env("LATCHKEY_ADMIN", format!("unix:{}", world.fleet.edge_setup.admin_socket().display()));
    let pushed = output(command).await;
    assert_eq!(pushed.status.code(), Some(1), "{}", stderr(&pushed));
    assert_eq!(world.config_etag().await, etag);
    let answer = world.https(HOST).await.get(HOST, "/").await.unwrap();
    assert_eq!(answer.header("strict-transport-security"), Some("max-age=86400"));
}
