//! Servers that drip, and servers that are asked for more than they should be.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::fail;
use support::fleet::Plan;
use support::visitor::Connection;
use support::wait::{PATIENCE, until};

use super::wild::{Act, Wild, send};
use crate::world::World;

const HOST: &str = "shop.example";
const ANSWERS: &str = "latchkey_http_local_answers_total";
/// Much shorter than any time-out between two reads.
const DRIP: Duration = Duration::from_millis(200);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

async fn world(scripts: HashMap<String, Vec<Act>>, settings: Value) -> (World, Wild) {
    let world = World::start(Plan::default()).await;
    world.issue(HOST).await;
    let wild = Wild::start(scripts).await;
    let mut config = world.config();
    config["upstreams"]["sample"] = settings;
    config["upstreams"]["sample"]["url"] = wild.url().into();
    world.fleet.edge.apply(&config).await.unwrap();
    (world, wild)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_comes_in_drops_ends_in_504_and_says_whose_fault_it_is() {
    let head = |first: &str, drop: &str| vec![send(first), Act::Repeat(drop.into(), DRIP)];
    let scripts = [
        (
            "/status-line",
            "HTTP/1.1 200 OK, but".bytes().flat_map(|byte| [Act::Send(vec![byte]), Act::Wait(DRIP)]).collect(),
        ),
        ("/field", head("HTTP/1.1 200 OK\r\nx: ", "y")),
        ("/fields", head("HTTP/1.1 200 OK\r\n", "x: y\r\n")),
        // Interim answers are no answer.
        ("/interim", vec![send("HTTP/1.1 103 Early Hints\r\n\r\n"), Act::Hang]),
    ];
    let scripts = scripts.into_iter().map(|(target, script)| (target.to_owned(), script)).collect();
    let settings = json!({"answer_timeout_ms": ANSWER_TIMEOUT.as_millis() as u64, "read_timeout_ms": 60_000});
    let (world, _wild) = world(scripts, settings).await;
    for target in ["/status-line", "/field", "/fields", "/interim"] {
        let (faults, began) = (world.metric(ANSWERS, "\"upstream_fault\"").await, Instant::now());
        let answer = world.https(HOST).await.get(HOST, target).await.unwrap();
        assert_eq!(answer.status, 504, "{target}: {}", answer.text());
        assert!(answer.text().contains("The site's server did not answer in time."), "{}", answer.text());
        let id = answer.text().split("Fault ").nth(1).unwrap().trim().to_owned();
        world.says(&[&id, "no whole head of an answer within 2000 ms", "upstream"]).await;
        assert!(began.elapsed() >= ANSWER_TIMEOUT, "{target}: after {:?}", began.elapsed());
        // Far less than the script's end and the time-out of a read.
        world.grows(ANSWERS, "\"upstream_fault\"", faults, 1.0).await;
        assert!(began.elapsed() < Duration::from_secs(30), "{target}: after {:?}", began.elapsed());
    }
    world.still_serves(HOST).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_is_slow_and_within_its_time_is_served_and_so_is_a_long_body() {
    let drops: Vec<_> = "HTTP/1.1 200 OK\r\ncontent-length: 30\r\n\r\n".bytes().map(|byte| vec![byte]).collect();
    let mut slow: Vec<_> =
        drops.into_iter().flat_map(|byte| [Act::Send(byte), Act::Wait(Duration::from_millis(20))]).collect();
    // Longer than the head may take: a body has its own deadline, between two reads.
    slow.extend((0..30).flat_map(|_| [send("b"), Act::Wait(Duration::from_millis(250))]));
    let settings = json!({"answer_timeout_ms": 6000, "read_timeout_ms": 60_000});
    let (world, _wild) = world([("/slow".to_owned(), slow)].into(), settings).await;
    let began = Instant::now();
    let answer = world.https(HOST).await.get(HOST, "/slow").await.unwrap();
    assert_eq!((answer.status, answer.text().len()), (200, 30));
    assert!(began.elapsed() > Duration::from_secs(6), "took {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_still_being_sent_is_not_late() {
    let (world, _wild) = world(HashMap::new(), json!({"answer_timeout_ms": 1500})).await;
    let began = Instant::now();
    let mut visitor = world.https(HOST).await;
    let answer = visitor.upload(HOST, "/", &[b"1", b"2", b"3", b"4", b"5", b"6"], Duration::from_millis(500)).await;
    assert_eq!(answer.unwrap().status, 200);
    assert!(began.elapsed() > Duration::from_millis(2400), "took {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_visitor_who_pauses_is_waited_for_and_then_told_without_blame_for_the_server() {
    // Far longer than an answer may take, and then longer than a read may.
    let settings = json!({"answer_timeout_ms": 200, "read_timeout_ms": 6000});
    let (world, _wild) = world(HashMap::new(), settings).await;
    let mut visitor = world.https(HOST).await;
    let answer = visitor.upload(HOST, "/", &[b"1", b"2"], Duration::from_millis(1500)).await;
    assert_eq!(answer.unwrap().status, 200);
    let begun = format!("POST / HTTP/1.1\r\nhost: {HOST}\r\ncontent-length: 2\r\n\r\n1");
    let answer = world.https(HOST).await.raw(begun.as_bytes(), 12).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&answer), "HTTP/1.1 408");
    world.grows(ANSWERS, "\"body_paused\"", 0.0, 1.0).await;
    assert_eq!(world.metric(ANSWERS, "\"upstream_fault\"").await, 0.0);
    world.still_serves(HOST).await;
}

/// Sends a request whose answer does not come, and keeps the connection.
async fn hangs(world: &World) -> Connection {
    let mut connection = world.https(HOST).await;
    let request = format!("GET /hang HTTP/1.1\r\nhost: {HOST}\r\n\r\n");
    connection.raw(request.as_bytes(), 0).await.unwrap();
    connection
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_gets_as_many_open_requests_as_it_may_have_and_no_more() {
    let scripts = [("/hang".to_owned(), vec![Act::Hang])].into();
    let (world, _wild) = world(scripts, json!({"requests_max": 3})).await;
    let mut open = vec![hangs(&world).await, hangs(&world).await];
    // The limit: a third one is served.
    assert_eq!(world.https(HOST).await.get(HOST, "/").await.unwrap().status, 200);
    open.push(hangs(&world).await);
    let refused = until("the limit to be reached", PATIENCE, async || {
        let answer = world.https(HOST).await.get(HOST, "/").await?;
        if answer.status == 503 { Ok(answer) } else { fail(format!("status {}", answer.status)) }
    });
    let page = refused.await.unwrap().text();
    assert!(page.contains("as many requests as it can take") && page.contains("Fault "), "{page}");
    let id = page.split("Fault ").nth(1).unwrap().trim().to_owned();
    world.says(&[&id, "3 requests are open, as many as requests_max of `sample` allows"]).await;
    assert!(world.metric(ANSWERS, "\"saturated\"").await >= 1.0);
    assert!(world.metric("latchkey_upstream_picks_total", "result=\"saturated\"").await >= 1.0);

    // A visitor who leaves gives its place back.
    open.pop();
    let served = until("a place to be given back", PATIENCE, async || {
        let status = world.https(HOST).await.get(HOST, "/").await?.status;
        if status == 200 { Ok(()) } else { fail(format!("status {status}")) }
    });
    served.await.unwrap();
}

#[tokio::test]
async fn settings_out_of_range_are_named() {
    let world = World::start(Plan::default()).await;
    for (settings, says) in [
        (json!({"answer_timeout_ms": 0}), "0 is out of range; accepted are 1 to 3600000"),
        (json!({"answer_timeout_ms": 3_600_001}), "3600001 is out of range"),
        (json!({"answer_timeout_ms": 5, "http": "2"}), "over HTTP/2 read_timeout_ms bounds the whole head"),
        (json!({"requests_max": 0}), "0 is out of range; accepted are 1 to 1000000"),
        (json!({"requests_max": 1_000_001}), "1000001 is out of range"),
    ] {
        let mut config = world.config();
        let url = config["upstreams"]["sample"]["url"].clone();
        config["upstreams"]["sample"] = settings;
        config["upstreams"]["sample"]["url"] = url;
        let refused = world.fleet.edge.admin.put("/v1/config", config.to_string()).await.unwrap();
        assert!(refused.status == 422 || refused.status == 400, "{}", refused.text());
        assert!(refused.text().contains(says), "{says}: {}", refused.text());
    }
}
