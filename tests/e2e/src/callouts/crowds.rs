//! Requests that wait when the process is replaced, and very many of them at once from many clients.

use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use support::api::Api;
use support::folder::Folder;
use support::http1::{Kind, read};
use support::process::{Process, Signal};
use support::visitor::Visitor;
use support::{port, program};
use tokio::io::{AsyncWriteExt, BufStream};
use tokio::task::JoinSet;

use super::server::Server;
use super::{ASKING, Asked, HOST, P99_MAX, SLACK_KIB};
use crate::protocols::{HTTP1, HTTP2, tls_from, tls_to};
use crate::world::{guest, output, stderr};

const WAITING: usize = 20;
/// Each client has its own address, and as many requests under way as one connection may have.
const CLIENTS: u8 = 100;
const STREAMS: usize = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_while_requests_wait_fails_none_of_them() {
    let mut asked = Asked::start().await;
    asked.world.fleet.edge.apply(&asked.config("ask", 5000).await).await.unwrap();
    let visitor = asked.world.visitor().await;
    let ask = || {
        let visitor = visitor.clone();
        async move {
            let mut connection = visitor.https(ASKING).await.unwrap();
            let first = connection.get(ASKING, "/slow").await.unwrap();
            (first.status, first.text())
        }
    };
    let mut waiting = JoinSet::new();
    for _ in 0..WAITING {
        waiting.spawn(ask());
    }
    asked.waiting(WAITING as f64).await;
    let before = asked.world.fleet.edge.process.id();
    let mut upgrade = Command::new(program::own("latchkey-proxy").unwrap());
    upgrade.arg("upgrade").arg("--config").arg(asked.world.fleet.edge_setup.boot_file_path());
    let upgraded = output(upgrade).await;
    assert!(upgraded.status.success(), "{}", stderr(&upgraded));
    let answers = waiting.join_all().await;
    assert_eq!(answers, vec![(200, "first".to_owned()); WAITING]);
    // The new process asks as well.
    asked.world.fleet.edge.admin = Api::unix(&asked.world.fleet.edge_setup.admin_socket()).unwrap();
    let ready = asked.world.fleet.edge.admin.get("/readyz").await.unwrap().json().unwrap();
    assert_ne!(ready["pid"].as_u64(), Some(u64::from(before)));
    assert_eq!(ask().await, (200, "first".to_owned()));
    assert_eq!(asked.callouts("answered").await, 1.0, "by the new process");
}

/// What an author sees of a plugin that asks a server of theirs: `latchkey plugin run --callout`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_author_runs_a_plugin_that_asks_a_server() {
    let folder = Folder::new().unwrap();
    let server = Server::start("mine", port::free().unwrap()).await;
    let config = folder.write("config.json", r#"{"upstream": "auth", "path": "/verify", "copy": ["x-user"]}"#).unwrap();
    let mut runs = Process::start("run", &program::own("latchkey").unwrap(), folder.path(), |command| {
        command.args(["plugin", "run", "--plugin"]).arg(guest("forward-auth")).arg("--config").arg(&config);
        command.arg("--callout").arg(format!("auth={}", server.url()));
    })
    .unwrap();
    let told = runs.says(&["curl --cacert", "https://plugin.localhost:"]).await.unwrap();
    let url = told.trim_end_matches('/').rsplit_once(':').unwrap().1;
    let visitor = Visitor::to(([127, 0, 0, 1], url.parse().unwrap()).into());
    let mut connection = visitor.https("plugin.localhost").await.unwrap();
    let mut get = async |cookie| {
        let answer = connection.send("GET", "plugin.localhost", "/a", &[("cookie", cookie)], b"").await.unwrap();
        (answer.status, answer.seen("x-user"))
    };
    assert_eq!(get("s=good").await, (200, Some("7".to_owned())));
    runs.says(&["forward-auth request plugin.localhost/a", "auth", "answered"]).await.unwrap();
    assert_eq!(get("s=bad").await.0, 403);
    assert_eq!(server.asked(), 2);
    runs.signal(Signal::INT);
    assert!(runs.ended().await.unwrap().success(), "{}", runs.log());
}

/// To see whether the visitor leaves, a byte is read of whatever comes: the next request, where that does not wait for its turn.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_comes_while_one_waits_is_answered_after_it() {
    let asked = Asked::start().await;
    asked.world.fleet.edge.apply(&asked.config("ask", 5000).await).await.unwrap();
    let mut before = 0;
    for second in ["GET /echo", "GET /slow", "POST /echo"] {
        let mut stream = BufStream::new(tls_to(&asked.world, ASKING, HTTP1).await);
        let mut send = async |line: &str| {
            stream.write_all(format!("{line} HTTP/1.1\r\nhost: {ASKING}\r\n\r\n").as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
        };
        send("GET /slow").await;
        asked.waiting(1.0).await;
        send(second).await;
        for line in ["GET /slow", second] {
            let answer = read(&mut stream, Kind::Response).await.unwrap().unwrap();
            let told = answer.text();
            assert!(answer.start_line.starts_with("HTTP/1.1 200") && told.starts_with("first"), "{line}: {answer:?}");
            assert_eq!(told == "first", line.ends_with("/slow"), "{line}: {told}");
        }
        before += 2;
        assert_eq!(asked.server.asked(), before, "{second}");
    }
}

/// How many were answered 504, since they waited for too long, and 503, since there was no room, or 429, since their time was
/// over before they came to ask, on a busy machine.
async fn strike(asked: &Asked) -> [usize; 2] {
    let mut clients = JoinSet::new();
    for client in 1..=CLIENTS {
        let tls = tls_from(Ipv4Addr::new(127, 9, client, 1).into(), &asked.world, ASKING, HTTP2).await;
        clients.spawn(async move {
            let (client, connection) = h2::client::handshake(tls).await.unwrap();
            let driver = tokio::spawn(connection);
            let mut streams = JoinSet::new();
            for _ in 0..STREAMS {
                let mut client: h2::client::SendRequest<Bytes> = client.clone().ready().await.unwrap();
                let request = Request::get(format!("https://{ASKING}/hang")).body(()).unwrap();
                let (answer, _) = client.send_request(request, true).unwrap();
                streams.spawn(async move { answer.await.unwrap().status().as_u16() });
            }
            let statuses = streams.join_all().await;
            driver.abort();
            let count = |of: &[u16]| statuses.iter().filter(|answered| of.contains(answered)).count();
            [count(&[504]), count(&[503, 429])]
        });
    }
    let all = clients.join_all().await;
    all.into_iter().fold([0, 0], |[a, b], [c, d]| [a + c, b + d])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_requests_that_wait_at_once_take_bounded_memory_and_hold_up_nobody() {
    let asked = Asked::start().await;
    asked.world.fleet.edge.apply(&asked.config("ask", 2000).await).await.unwrap();
    strike(&asked).await;
    asked.waiting(0.0).await;
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
    let [waited, refused] = strike(&asked).await;
    let took = began.elapsed();
    over.store(true, Ordering::Relaxed);
    let healthy = healthy.await.unwrap();
    let p99 = healthy[healthy.len() * 99 / 100];
    asked.waiting(0.0).await;
    asked.nobody_hangs().await;
    let after = asked.world.resident_kib();
    println!(
        "{} requests of {CLIENTS} clients in {took:?}: {waited} waited, {refused} were refused; p99 of the healthy site {p99:?}; {before} KiB before, {after} KiB after",
        waited + refused
    );
    assert_eq!(waited + refused, usize::from(CLIENTS) * STREAMS, "each one is answered");
    assert!(waited > 0 && refused > 0 && p99 < P99_MAX, "{waited} waited, {refused} were refused, {p99:?}");
    assert!(after < before + SLACK_KIB, "{before} KiB, then {after} KiB");
}
