//! Plugins that ask other servers while a request waits: real ones, well and ill.

mod crowds;
mod forged;
mod server;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use serde_json::{Value, json};
use support::edge::Edge;
use support::fleet::Plan;
use support::wait::{PATIENCE, until};
use support::{fail, port};
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

use self::server::Server;
use crate::protocols::{HTTP1, HTTP2, tls_to};
use crate::world::{World, guest};

const HOST: &str = "shop.example";
pub(crate) const ASKING: &str = "asking.example";
pub(crate) const GUARDED: &str = "guarded.example";
const WAITING: &str = "latchkey_plugin_waiting";
const CALLOUTS: &str = "latchkey_plugin_callouts_total";
/// Of the storm. `LATCHKEY_TEST_CALLOUTS` overrides it.
const STORM: usize = 10_000;
const CALLERS: usize = 100;
/// Far above what is measured: other work on the machine must not fail the test.
const P99_MAX: Duration = Duration::from_secs(2);
/// What the instances, stacks and connections of so many may keep.
const SLACK_KIB: u64 = 96 << 10;

pub(crate) struct Asked {
    pub(crate) world: World,
    pub(crate) server: Server,
}

impl Asked {
    pub(crate) async fn start() -> Self {
        let mut world = World::start(Plan::default()).await;
        world.fleet.edge.process.stop().await.unwrap();
        let log = world.fleet.folder.path().join("access.json");
        world.fleet.edge_setup.settings = format!("[access_log]\nto = {log:?}\n");
        world.fleet.edge = Edge::start(&world.fleet.edge_setup).await.unwrap();
        for host in [HOST, ASKING, GUARDED] {
            world.issue(host).await;
        }
        for name in ["hostile-waiting", "forward-auth"] {
            world.fleet.edge.push(&guest(name)).await.unwrap();
        }
        let asked = Self { world, server: Server::start("first", port::free().unwrap()).await };
        asked.world.fleet.edge.apply(&asked.config("ask", 500).await).await.unwrap();
        asked
    }

    /// One site without such plugins, one that asks for whatever path it is asked for, and one that is guarded.
    async fn config(&self, behaviour: &str, timeout_ms: u32) -> Value {
        let mut document = self.world.config();
        for name in ["hostile-waiting", "forward-auth"] {
            document["plugins"][name] = json!({"digest": self.world.fleet.edge.push(&guest(name)).await.unwrap()});
        }
        document["upstreams"]["auth"] = json!({"url": self.server.url()});
        document["sites"][0]["hosts"] = json!([HOST]);
        let asking = json!({
            "plugin": "hostile-waiting", "config": {"behaviour": behaviour}, "on_failure": "closed",
            "callouts": ["auth"], "callout_timeout_ms": timeout_ms,
        });
        let guarded = json!({
            "plugin": "forward-auth", "callouts": ["auth"],
            "config": {"upstream": "auth", "path": "/verify", "copy": ["x-user", "x-uri", "x-forwarded-user", "x-admin"]},
        });
        for (host, binding) in [(ASKING, asking), (GUARDED, guarded)] {
            let site = json!({"hosts": [host], "upstream": "sample", "plugins": [binding]});
            document["sites"].as_array_mut().unwrap().push(site);
        }
        document
    }

    pub(crate) async fn status(&self, path: &str) -> u16 {
        self.world.https(ASKING).await.get(ASKING, path).await.unwrap().status
    }

    async fn callouts(&self, result: &str) -> f64 {
        self.world.metric(CALLOUTS, result).await
    }

    /// Waits until so many calls are under way.
    async fn waiting(&self, count: f64) {
        let settled = until(format!("{count} calls to wait"), PATIENCE, async || {
            let now = self.world.metric(WAITING, "").await;
            if (now - count).abs() < 0.5 { Ok(()) } else { fail(format!("there are {now}")) }
        });
        settled.await.unwrap();
    }

    async fn nobody_hangs(&self) {
        let settled = until("the server to be left alone", PATIENCE, async || match self.server.hanging() {
            0 => Ok(()),
            count => fail(format!("{count} hang")),
        });
        settled.await.unwrap();
    }

    /// What an applied configuration is told.
    async fn refused(&self, change: impl FnOnce(&mut Value)) -> (u16, Value) {
        let mut document = self.config("ask", 500).await;
        change(&mut document);
        let reply = self.world.fleet.edge.admin.put("/v1/config", document.to_string()).await.unwrap();
        (reply.status, reply.json().unwrap())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn visitors_are_let_in_sent_away_and_refused_by_another_server() {
    let asked = Asked::start().await;
    let mut connection = asked.world.https(GUARDED).await;
    let mut get = async |cookie: Option<&str>| {
        let headers: Vec<_> =
            [("x-user", "forged")].into_iter().chain(cookie.map(|cookie| ("cookie", cookie))).collect();
        connection.send("GET", GUARDED, "/cart?a=b", &headers, b"").await.unwrap()
    };
    let allowed = get(Some("s=good")).await;
    assert_eq!(
        (allowed.status, allowed.seen("x-user"), allowed.seen("x-uri")),
        (200, Some("7".into()), Some("/cart?a=b".into()))
    );
    let denied = get(Some("s=bad")).await;
    assert_eq!((denied.status, denied.text().as_str(), denied.header("x-internal")), (403, "not you", None));
    let sent = get(None).await;
    assert_eq!(
        (sent.status, sent.header("location"), sent.header("set-cookie")),
        (302, Some("/login?from=here"), Some("state=1; Secure"))
    );
    assert_eq!((asked.callouts("answered").await, asked.server.asked()), (3.0, 3));

    let mut connection = asked.world.https(ASKING).await;
    let told = connection
        .send("GET", ASKING, "/echo", &[("cookie", "secret"), ("x-forwarded-for", "1.2.3.4")], b"")
        .await
        .unwrap()
        .text();
    assert!(told.starts_with("first\nGET /echo HTTP/1.1\n"), "{told}");
    assert!(told.to_ascii_lowercase().contains(&format!("host: {}\n", asked.server.address)), "{told}");
    assert!(
        told.to_ascii_lowercase().contains("cdn-loop: latchkey\n")
            && !told.contains("secret")
            && !told.contains("1.2.3.4"),
        "{told}"
    );

    for (name, status) in [("latchkey", 508), ("other", 200)] {
        let mut visitor = asked.world.https(ASKING).await;
        assert_eq!(visitor.send("GET", ASKING, "/echo", &[("cdn-loop", name)], b"").await.unwrap().status, status);
    }
    let log = asked.world.fleet.folder.path().join("access.json");
    let line = until("the access log", PATIENCE, async || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let found = lines.into_iter().find(|line| line["host"] == GUARDED && line["status"] == 403);
        found.map_or_else(|| fail(text.clone()), Ok)
    });
    let plugin = line.await.unwrap()["plugins"][0].clone();
    assert_eq!((&plugin["name"], &plugin["verdict"]), (&json!("forward-auth"), &json!("respond")));
    assert!(plugin["waited_us"].as_u64().unwrap() > 0 && plugin["us"].as_u64().unwrap() > 0, "{plugin}");
    assert_eq!(asked.world.metric("latchkey_plugin_faults_total", "").await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_server_does_wrong_is_told_in_time() {
    let mut asked = Asked::start().await;
    for (path, status, result) in [
        ("/hang", 504, "timed_out"),
        ("/trickle", 504, "timed_out"),
        ("/vast", 413, "too_large"),
        ("/half", 500, "broken"),
        ("/garbage", 500, "broken"),
        ("/echo", 200, "answered"),
    ] {
        let (before, began) = (asked.callouts(result).await, Instant::now());
        assert_eq!(asked.status(path).await, status, "{path}");
        assert_eq!(asked.callouts(result).await, before + 1.0, "{path}");
        println!("{path}: {status} after {:?}", began.elapsed());
    }
    let address = asked.server.address;
    let visitor = asked.world.visitor().await;
    let over = Arc::new(AtomicBool::new(false));
    let load = tokio::spawn({
        let over = over.clone();
        async move {
            let mut connection = visitor.https(ASKING).await.unwrap();
            while !over.load(Ordering::Relaxed) {
                let status = connection.get(ASKING, "/echo").await.unwrap().status;
                assert!([200, 500, 502].contains(&status), "{status}");
            }
        }
    });
    let gone = Server::start("other", port::free().unwrap()).await;
    drop(std::mem::replace(&mut asked.server, gone));
    let down = until("it to be missed", PATIENCE, async || match asked.status("/echo").await {
        502 => Ok(()),
        status => fail(status.to_string()),
    });
    down.await.unwrap();
    asked.server = Server::start("again", address).await;
    let back = until("it to be back", PATIENCE, async || match asked.status("/echo").await {
        200 => Ok(()),
        status => fail(status.to_string()),
    });
    back.await.unwrap();
    over.store(true, Ordering::Relaxed);
    load.await.unwrap();
    asked.waiting(0.0).await;
    asked.nobody_hangs().await;
    asked.world.still_serves(HOST).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_questions_that_hang_harms_no_other_site() {
    let storm = std::env::var("LATCHKEY_TEST_CALLOUTS").map_or(STORM, |count| count.parse().unwrap());
    let asked = Asked::start().await;
    asked.world.fleet.edge.apply(&asked.config("ask", 100).await).await.unwrap();
    let strike = async |count: usize| {
        let mut callers = JoinSet::new();
        for _ in 0..CALLERS {
            let visitor = asked.world.visitor().await;
            callers.spawn(async move {
                let mut connection = visitor.https(ASKING).await.unwrap();
                let mut statuses = [0, 0];
                for _ in 0..count.div_ceil(CALLERS) {
                    match connection.get(ASKING, "/hang").await.unwrap().status {
                        504 => statuses[0] += 1,
                        // Or its time was over before it came to ask, on a busy machine.
                        503 | 429 => statuses[1] += 1,
                        other => panic!("{other}"),
                    }
                }
                statuses
            });
        }
        let all = callers.join_all().await;
        all.into_iter().fold([0, 0], |[a, b]: [usize; 2], [c, d]| [a + c, b + d])
    };
    strike(CALLERS).await;
    let before = asked.world.resident_kib();
    let over = Arc::new(AtomicBool::new(false));
    let healthy = tokio::spawn({
        let (visitor, over) = (asked.world.visitor().await, over.clone());
        async move {
            let mut connection = visitor.https(HOST).await.unwrap();
            let mut took = Vec::new();
            while !over.load(Ordering::Relaxed) || took.len() < 100 {
                let began = Instant::now();
                assert_eq!(connection.get(HOST, "/").await.unwrap().status, 200);
                took.push(began.elapsed());
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            took.sort();
            took
        }
    });
    let began = Instant::now();
    let [waited, refused] = strike(storm).await;
    let took = began.elapsed();
    over.store(true, Ordering::Relaxed);
    let healthy = healthy.await.unwrap();
    let p99 = healthy[healthy.len() * 99 / 100];
    asked.waiting(0.0).await;
    asked.nobody_hangs().await;
    let after = asked.world.resident_kib();
    println!(
        "{storm} in {took:?}: {waited} waited, {refused} were refused; p50 of the healthy site {:?}, p99 {p99:?}; {before} KiB before, {after} KiB after",
        healthy[healthy.len() / 2]
    );
    assert!(waited > 0 && p99 < P99_MAX, "{waited} waited, {refused} were refused, {p99:?}");
    assert!(after < before + SLACK_KIB, "{before} KiB, then {after} KiB");
    assert_eq!(asked.status("/echo").await, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_visitor_who_leaves_takes_its_question_along() {
    let asked = Asked::start().await;
    asked.world.fleet.edge.apply(&asked.config("ask", 5000).await).await.unwrap();
    let mut stream = tls_to(&asked.world, ASKING, HTTP1).await;
    stream.write_all(format!("GET /hang HTTP/1.1\r\nhost: {ASKING}\r\n\r\n").as_bytes()).await.unwrap();
    asked.waiting(1.0).await;
    let left = Instant::now();
    drop(stream);
    asked.waiting(0.0).await;
    asked.nobody_hangs().await;
    assert!(left.elapsed() < Duration::from_secs(4), "{:?}", left.elapsed());
    let (mut client, connection) = h2::client::handshake(tls_to(&asked.world, ASKING, HTTP2).await).await.unwrap();
    let driver = tokio::spawn(connection);
    let request = |path: &str| Request::get(format!("https://{ASKING}{path}")).body(()).unwrap();
    let (answer, mut stream): (_, h2::SendStream<Bytes>) = client.send_request(request("/hang"), true).unwrap();
    asked.waiting(1.0).await;
    stream.send_reset(h2::Reason::CANCEL);
    drop(answer);
    asked.waiting(0.0).await;
    asked.nobody_hangs().await;
    let (answer, _) = client.send_request(request("/echo"), true).unwrap();
    assert_eq!(answer.await.unwrap().status(), 200, "the connection goes on");
    let (_answer, _) = client.send_request(request("/hang"), true).unwrap();
    asked.waiting(1.0).await;
    driver.abort();
    drop(client);
    asked.waiting(0.0).await;
    asked.nobody_hangs().await;
    assert_eq!(asked.callouts("abandoned").await, 3.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_waits_keeps_its_configuration_and_the_end_waits_for_it() {
    let mut asked = Asked::start().await;
    asked.world.fleet.edge.apply(&asked.config("ask", 5000).await).await.unwrap();
    let visitor = asked.world.visitor().await;
    let slow = || {
        let visitor = visitor.clone();
        tokio::spawn(async move {
            let answer = visitor.https(ASKING).await.unwrap().get(ASKING, "/slow").await.unwrap();
            (answer.status, answer.text())
        })
    };
    let waiting = slow();
    asked.waiting(1.0).await;
    let other = Server::start("second", port::free().unwrap()).await;
    let mut document = asked.config("ask", 5000).await;
    document["upstreams"]["auth"]["url"] = other.url().into();
    asked.world.fleet.edge.apply(&document).await.unwrap();
    assert!(asked.world.https(ASKING).await.get(ASKING, "/echo").await.unwrap().text().starts_with("second\n"));
    assert_eq!(waiting.await.unwrap(), (200, "first".to_owned()));
    let waiting = slow();
    asked.waiting(1.0).await;
    assert!(asked.world.fleet.edge.process.stop().await.unwrap().success());
    assert_eq!(waiting.await.unwrap(), (200, "second".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_that_asks_without_end_ends_and_others_go_on() {
    let asked = Asked::start().await;
    for (behaviour, status) in [
        ("storm", 503),
        ("spin-after", 503),
        ("trap-after", 503),
        ("lines", 409),
        ("vast", 503),
        ("five", 404),
        ("elsewhere", 403),
    ] {
        asked.world.fleet.edge.apply(&asked.config(behaviour, 500).await).await.unwrap();
        for _ in 0..5 {
            assert_eq!(asked.status("/echo").await, status, "{behaviour}");
        }
    }
    asked.waiting(0.0).await;
    asked.world.still_serves(HOST).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whom_a_plugin_may_ask_is_checked_with_its_place() {
    let asked = Asked::start().await;
    let at = |binding: &str| format!("/sites/1/plugins/0/{binding}");
    let (status, told) =
        asked.refused(|document| document["sites"][1]["plugins"][0]["callouts"] = json!(["auht"])).await;
    let fault = &told["errors"][0];
    assert_eq!(
        (status, &fault["at"], &fault["says"]),
        (422, &json!(at("callouts/0")), &json!("no upstream is named `auht`"))
    );
    assert!(fault["hint"].as_str().unwrap().contains("did you mean `auth`") && fault["line"].is_u64(), "{fault}");
    for (name, value, place, says) in [
        ("callout_timeout_ms", json!(5001), at("callout_timeout_ms"), "accepted are 1 to 5000"),
        ("callout_timeout_ms", json!(0), at("callout_timeout_ms"), "accepted are 1 to 5000"),
        ("callouts", json!(vec!["auth"; 17]), at("callouts"), "at most 16 are granted"),
        ("config", json!({"behaviour": "plan-ask"}), at("config"), "a callout is for `on-request`"),
        ("config", json!({"behaviour": "start-ask"}), at("config"), "a callout is for `on-request`"),
    ] {
        let (status, told) = asked.refused(|document| document["sites"][1]["plugins"][0][name] = value).await;
        assert_eq!((status, &told["errors"][0]["at"]), (422, &json!(place)), "{told:#}");
        assert!(told["errors"][0]["says"].as_str().unwrap().contains(says), "{told:#}");
    }
    let (status, told) =
        asked.refused(|document| document["sites"][0]["plugins"][0]["callouts"] = json!(["auth"])).await;
    assert_eq!((status, &told["errors"][0]["at"]), (422, &json!("/sites/0/plugins/0/callouts")));
    let shadow = json!({"plugin": "hostile-waiting", "config": {"behaviour": "ask"}});
    let (status, told) = asked.refused(|document| document["sites"][0]["plugins"][0]["shadow"] = shadow).await;
    assert_eq!((status, &told["errors"][0]["at"]), (422, &json!("/sites/0/plugins/0/shadow")), "{told:#}");
    let (status, told) = asked.refused(|document| document["sites"][2]["plugins"][0]["callouts"] = json!([])).await;
    assert_eq!((status, &told["errors"][0]["at"]), (422, &json!("/sites/2/plugins/0/config/upstream")), "{told:#}");
    let (status, told) = asked.refused(|document| document["sites"][1]["plugins"][0]["callouts"] = json!([])).await;
    assert_eq!(status, 200, "{told:#}");
    assert!(told["plan"]["warnings"][0]["says"].as_str().unwrap().contains("none is granted"), "{told:#}");
    assert_eq!(asked.status("/echo").await, 403, "and so nobody is asked");
}
