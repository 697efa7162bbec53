//! Servers that answer nonsense, too much, too late or too little: each costs a bounded time and memory, is told as the
//! upstream's fault, and spoils nobody else's answer.

use std::time::{Duration, Instant};

use serde_json::json;
use support::fleet::Plan;
use support::visitor::Visitor;
use support::{Result, folder};

use super::wild::{Act, Wild, send};
use crate::world::World;

const HOST: &str = "shop.example";
const READ_TIMEOUT: Duration = Duration::from_millis(1500);
/// When bytes come that belong to no answer.
const LATER: Duration = Duration::from_millis(50);
/// What a busy machine may add.
const SLACK: Duration = Duration::from_secs(20);
/// The largest answer that is read before it is refused is 1 MiB; the rest is the allocator's.
const GROWTH_MIB_MAX: u64 = 40;

/// What a visitor gets.
enum Gets {
    /// A page of ours with this status, which names the fault and its ID.
    Fault(u16),
    /// The answer, whole, with this body.
    Body(&'static str),
    /// The answer's head, and then an end that is no end of a message.
    Broken,
}
use Gets::{Body, Broken, Fault};

struct Case {
    name: &'static str,
    script: Vec<Act>,
    gets: Gets,
    /// Whether the connection may serve another request after this one.
    kept: bool,
}

fn case(name: &'static str, script: impl Into<Vec<Act>>, gets: Gets) -> Case {
    Case { name, script: script.into(), gets, kept: false }
}

fn kept(case: Case) -> Case {
    Case { kept: true, ..case }
}

fn says(name: &'static str, bytes: &str, gets: Gets) -> Case {
    case(name, [send(bytes)], gets)
}

fn framing() -> Vec<Case> {
    vec![
        kept(says("fine", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", Body("ok"))),
        says("lengths-differ", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 5\r\n\r\nokxxx", Fault(502)),
        says("length-list", "HTTP/1.1 200 OK\r\ncontent-length: 2, 5\r\n\r\nokxxx", Fault(502)),
        says("length-negative", "HTTP/1.1 200 OK\r\ncontent-length: -2\r\n\r\nok", Fault(502)),
        says("length-signed", "HTTP/1.1 200 OK\r\ncontent-length: +2\r\n\r\nok", Fault(502)),
        says("length-huge", "HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\nok", Fault(502)),
        says("coding-listed", "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", Fault(502)),
        says(
            "coding-twice",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            Fault(502),
        ),
        says("coding-unknown", "HTTP/1.1 200 OK\r\ntransfer-encoding: xchunked\r\n\r\nok", Fault(502)),
        says("chunk-size-huge", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\nok", Broken),
        says("chunk-size-signed", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n-2\r\nok\r\n0\r\n\r\n", Broken),
        says("chunk-without-end", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nokxx0\r\n\r\n", Broken),
        case("body-cut", [send("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf"), Act::Close], Broken),
        case(
            "chunked-cut",
            [send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n"), Act::Close],
            Broken,
        ),
        case(
            "last-chunk-cut",
            [send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n"), Act::Close],
            Broken,
        ),
        case(
            "body-reset",
            [
                send("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf"),
                Act::Wait(Duration::from_millis(100)),
                Act::Reset,
            ],
            Broken,
        ),
    ]
}

fn heads() -> Vec<Case> {
    let long = format!("HTTP/1.1 200 OK\r\nx: {}\r\ncontent-length: 2\r\n\r\nok", "x".repeat(70_000));
    let many = format!("HTTP/1.1 200 OK\r\n{}content-length: 2\r\n\r\nok", "x: y\r\n".repeat(300));
    let pause = Duration::ZERO;
    vec![
        says("status-of-letters", "HTTP/1.1 abc OK\r\ncontent-length: 2\r\n\r\nok", Fault(502)),
        says("status-99", "HTTP/1.1 99 OK\r\ncontent-length: 2\r\n\r\nok", Fault(502)),
        says("status-1000", "HTTP/1.1 1000 OK\r\ncontent-length: 2\r\n\r\nok", Fault(502)),
        says("version-unknown", "HTTX/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", Fault(502)),
        says("version-2", "HTTP/2 200\r\ncontent-length: 2\r\n\r\nok", Fault(502)),
        says("bytes-before-it", "garbage HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", Fault(502)),
        says("nul-in-a-field", "HTTP/1.1 200 OK\r\nx: a\0b\r\ncontent-length: 2\r\n\r\nok", Fault(502)),
        says("return-in-a-field", "HTTP/1.1 200 OK\r\nx: a\rb\r\ncontent-length: 2\r\n\r\nok", Fault(502)),
        // What a proxy mends (RFC 9112 sections 5.1 and 5.2).
        kept(says("space-before-colon", "HTTP/1.1 200 OK\r\nx : a\r\ncontent-length: 2\r\n\r\nok", Body("ok"))),
        kept(says("folded-field", "HTTP/1.1 200 OK\r\nx: a\r\n b\r\ncontent-length: 2\r\n\r\nok", Body("ok"))),
        kept(says("line-feeds-only", "HTTP/1.1 200 OK\ncontent-length: 2\n\nok", Body("ok"))),
        case("long-field", [send(long)], Fault(502)),
        case("many-fields", [send(many)], Fault(502)),
        case(
            "endless-fields",
            [send("HTTP/1.1 200 OK\r\n"), Act::Repeat("x: y\r\n".repeat(1000).into(), pause)],
            Fault(502),
        ),
        case("endless-field", [send("HTTP/1.1 200 OK\r\nx: "), Act::Repeat(vec![b'x'; 9000], pause)], Fault(502)),
        case(
            "endless-interims",
            [Act::Repeat("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n".repeat(100).into(), pause)],
            Fault(502),
        ),
        says(
            "switch-unasked",
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nhello",
            Fault(502),
        ),
        case("reset-before-it", [Act::Reset], Fault(502)),
        case("head-cut", [send("HTTP/1.1 200 OK\r\ncontent-le"), Act::Close], Fault(502)),
        case("never", [Act::Hang], Fault(504)),
        case("head-stalls", [send("HTTP/1.1 200 OK\r\n"), Act::Hang], Fault(504)),
        case("body-stalls", [send("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf"), Act::Hang], Broken),
    ]
}

/// After each of these the connection holds bytes that nobody asked for.
fn leftovers() -> Vec<Case> {
    let second = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nstale";
    vec![
        case("a-second-answer", [send(format!("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok{second}"))], Body("ok")),
        case(
            "a-later-answer",
            [send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"), Act::Wait(LATER), send(second)],
            Body("ok"),
        ),
        case("body-of-204", [send(format!("HTTP/1.1 204 No Content\r\n\r\n{second}"))], Body("")),
        case(
            "body-of-304",
            [send(format!("HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n{second}"))],
            Body(""),
        ),
        case(
            "after-the-last-chunk",
            [send(format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n{second}"))],
            Body("ok"),
        ),
        // The chunks count, and the length is not passed on: one reading for all.
        kept(case(
            "length-and-chunks",
            [send("HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")],
            Body("ok"),
        )),
        case("until-the-end", [send("HTTP/1.1 200 OK\r\n\r\nok"), Act::Close], Body("ok")),
        case("http-1.0", [send("HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok"), Act::Hang], Body("ok")),
    ]
}

async fn world(cases: &[Case]) -> (World, Wild) {
    let world = World::start(Plan::default()).await;
    world.issue(HOST).await;
    let wild = Wild::start(cases.iter().map(|case| (format!("/{}", case.name), case.script.clone())).collect()).await;
    let mut config = world.config();
    config["upstreams"]["sample"] =
        json!({"url": wild.url(), "read_timeout_ms": READ_TIMEOUT.as_millis() as u64, "retries": 0});
    // Its peer would rest after five failed requests.
    config["sites"][0]["plugins"] = json!([]);
    world.fleet.edge.apply(&config).await.unwrap();
    (world, wild)
}

fn resident_mib(world: &World) -> u64 {
    let status = folder::read(format!("/proc/{}/status", world.fleet.edge.process.id()).as_ref()).unwrap();
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    kib.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

/// Status and body, or why there is no whole answer.
async fn ask(visitor: &Visitor, target: &str) -> Result<(u16, String)> {
    let answer = visitor.https(HOST).await.unwrap().get(HOST, target).await?;
    Ok((answer.status, answer.text()))
}

async fn each_is_contained(cases: Vec<Case>) {
    let (world, _wild) = world(&cases).await;
    let visitor = world.visitor().await;
    ask(&visitor, "/warm").await.unwrap();
    let before = resident_mib(&world);
    let mut wrong = Vec::new();
    for Case { name, gets, kept, .. } in &cases {
        // Which connection the hostile answer comes over: the pool gives the one that was used last.
        let (_, first) = ask(&visitor, "/which").await.unwrap();
        let faults = world.metric("latchkey_http_local_answers_total", "\"upstream_fault\"").await;
        let began = Instant::now();
        let got = ask(&visitor, &format!("/{name}")).await;
        let right = match (gets, &got) {
            (Fault(status), Ok((got, page))) => {
                got == status && page.contains("The site's server") && page.contains("Fault ")
            }
            (Body(body), Ok((200 | 204 | 304, got))) => got == body,
            (Broken, Err(_)) => true,
            _ => false,
        };
        if !right {
            wrong.push(format!("{name}: {got:?}"));
        }
        if began.elapsed() > READ_TIMEOUT + SLACK {
            wrong.push(format!("{name}: took {:?}", began.elapsed()));
        }
        let counted = world.metric("latchkey_http_local_answers_total", "\"upstream_fault\"").await - faults;
        if (counted == 1.0) != matches!(gets, Fault(_)) {
            wrong.push(format!("{name}: counted {counted} times"));
        }
        // What is still to come has come.
        tokio::time::sleep(LATER * 4).await;
        let next = ask(&visitor, "/which").await;
        match next {
            // Where it may be kept, another thread of the proxy may still have one of its own.
            Ok((200, body)) if body.starts_with("connection ") && (*kept || body != first) => {}
            other => wrong.push(format!("{name}: over `{first}`; the request after it got {other:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let growth = resident_mib(&world).saturating_sub(before);
    assert!(growth < GROWTH_MIB_MAX, "memory grew by {growth} MiB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_whose_end_is_not_certain_are_not_passed_on_as_whole() {
    each_is_contained(framing()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_that_are_nonsense_endless_or_late_end_as_the_upstreams_fault() {
    each_is_contained(heads()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_beyond_an_answer_is_nobodys_answer() {
    each_is_contained(leftovers()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_body_of_an_answer_to_head_is_nobodys_answer() {
    let name = "head-with-body";
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 43\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nstale";
    let (world, _wild) = world(&[says(name, answer, Body(""))]).await;
    let visitor = world.visitor().await;
    let (_, first) = ask(&visitor, "/which").await.unwrap();
    let mut connection = visitor.https(HOST).await.unwrap();
    let answer = connection.send("HEAD", HOST, &format!("/{name}"), &[], b"").await.unwrap();
    assert_eq!((answer.status, answer.header("content-length"), answer.text().as_str()), (200, Some("43"), ""));
    let next = connection.get(HOST, "/which").await.unwrap().text();
    assert!(next.starts_with("connection ") && next != first, "{next}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_can_not_have_our_fields_removed() {
    let answer = "HTTP/1.1 200 OK\r\nconnection: keep-alive, strict-transport-security, x-hop\r\nx-hop: 1\r\nkeep-alive: timeout=9\r\n\
                  proxy-authenticate: Basic\r\nupgrade: h2c\r\ncontent-length: 2\r\n\r\nok";
    let (world, wild) = world(&[says("named", answer, Body("ok"))]).await;
    let mut config = world.config();
    config["upstreams"]["sample"] = json!({"url": wild.url()});
    world.fleet.edge.apply(&config).await.unwrap();
    let answer = world.https(HOST).await.get(HOST, "/named").await.unwrap();
    assert_eq!(answer.header("strict-transport-security"), Some("max-age=86400"));
    let connection = answer.header("connection").unwrap_or_default().to_ascii_lowercase();
    assert!(!connection.contains("strict-transport-security"), "{connection}");
    for hop in ["x-hop", "proxy-authenticate", "upgrade"] {
        assert_eq!(answer.header(hop), None, "{hop}");
    }
}
