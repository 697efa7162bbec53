//! Visitors who take their time, before HTTP and on HTTP/1.

use std::time::{Duration, Instant};

use super::recorder::{LARGE, LARGE_BYTES};
use super::wire::{HTTP1, Wire};
use super::{
    GUARD, HANDSHAKE_TIMEOUT, HANDSHAKES, HEADER_TIMEOUT, HOST, IDLE_TIMEOUT, REFUSALS, SLACK, STALL_TIMEOUT, Siege,
    ended_at,
};

const DRIP: Duration = Duration::from_millis(100);
const PROXY_HEADER_TIMEOUT: Duration = Duration::from_secs(5);
const ME: [u8; 4] = [127, 0, 0, 3];

fn request(method: &str, target: &str, more: &str) -> Vec<u8> {
    format!("{method} {target} HTTP/1.1\r\nhost: {HOST}\r\n{more}\r\n").into_bytes()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_visitor_who_takes_its_time_is_let_go() {
    let siege = Siege::start("").await;
    let expected = [
        (GUARD, "header_timeout", 4),
        (GUARD, "idle", 1),
        (GUARD, "body_stalled", 2),
        (GUARD, "body_too_slow", 1),
        (REFUSALS, "timed_out", 2),
        (HANDSHAKES, "timed_out", 2),
    ];
    let attacks = async {
        tokio::join!(
            silent_after_tcp(&siege),
            silent_within_tls(&siege),
            drips_within_tls(&siege),
            silent_after_tls(&siege),
            drips_a_header(&siege),
            drips_a_header_without_tls(&siege),
            drips_a_second_header(&siege),
            keeps_a_connection_idle(&siege),
            stalls_a_body(&siege),
            stalls_a_chunk(&siege),
            drips_a_body(&siege),
            does_not_read(&siege),
        )
    };
    siege.withstands(&expected, Box::pin(attacks)).await;
    siege.recorder.seen();
}

async fn silent_after_tcp(siege: &Siege) {
    for to in [siege.world.fleet.edge_setup.https, siege.world.fleet.edge_setup.http] {
        let mut wire = Wire::plain(to, ME).await;
        assert_eq!(wire.exchange(b"").await, "");
        ended_at("silence after TCP", wire.opened, PROXY_HEADER_TIMEOUT);
    }
}

/// The beginning of a TLS record that announces a ClientHello of 512 bytes.
const HALF_A_HELLO: &[u8] = &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];

async fn silent_within_tls(siege: &Siege) {
    let mut wire = Wire::plain(siege.world.fleet.edge_setup.https, ME).await;
    wire.exchange(HALF_A_HELLO).await;
    ended_at("silence within TLS", wire.opened, HANDSHAKE_TIMEOUT);
}

async fn drips_within_tls(siege: &Siege) {
    let mut wire = Wire::plain(siege.world.fleet.edge_setup.https, ME).await;
    wire.send(HALF_A_HELLO).await;
    wire.drip(DRIP, || vec![0]).await;
    ended_at("a ClientHello in drops", wire.opened, HANDSHAKE_TIMEOUT);
}

async fn silent_after_tls(siege: &Siege) {
    let mut wire = Wire::tls(siege, ME, HTTP1).await;
    let answer = wire.exchange(b"").await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    ended_at("silence after TLS", wire.opened, HEADER_TIMEOUT);
}

async fn drips_a_header(siege: &Siege) {
    let mut wire = Wire::tls(siege, ME, HTTP1).await;
    drip_header(&mut wire, "a header in drops").await;
}

async fn drips_a_header_without_tls(siege: &Siege) {
    let mut wire = Wire::plain(siege.world.fleet.edge_setup.http, ME).await;
    drip_header(&mut wire, "a header in drops on the plain listener").await;
}

async fn drip_header(wire: &mut Wire, what: &str) {
    let begun = Instant::now();
    assert!(wire.send(b"GET / HTTP/1.1\r\nhost: shop.example\r\nx-slow: ").await);
    let answer = String::from_utf8(wire.drip(DRIP, || b"x".to_vec()).await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    ended_at(what, begun, HEADER_TIMEOUT);
}

/// A good first request buys no more time for the second.
async fn drips_a_second_header(siege: &Siege) {
    let mut wire = Wire::tls(siege, ME, HTTP1).await;
    assert!(wire.send(&request("GET", "/first", "")).await);
    assert!(wire.read().await.starts_with(b"HTTP/1.1 200 "));
    drip_header(&mut wire, "a second header in drops").await;
}

async fn keeps_a_connection_idle(siege: &Siege) {
    let mut wire = Wire::tls(siege, ME, HTTP1).await;
    let since = Instant::now();
    assert!(wire.send(&request("GET", "/idle", "")).await);
    assert!(wire.read().await.starts_with(b"HTTP/1.1 200 "));
    assert_eq!(wire.exchange(b"").await, "", "nothing is said to who asked nothing");
    ended_at("an idle connection", since, IDLE_TIMEOUT);
}

async fn stalls_a_body(siege: &Siege) {
    let mut wire = Wire::tls(siege, ME, HTTP1).await;
    let since = Instant::now();
    let start = [request("POST", "/stalled", "content-length: 100\r\n"), b"ten bytes.".to_vec()].concat();
    let answer = wire.exchange(&start).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    ended_at("a stalled body", since, STALL_TIMEOUT);
}

async fn stalls_a_chunk(siege: &Siege) {
    let mut wire = Wire::tls(siege, ME, HTTP1).await;
    let since = Instant::now();
    let start = [request("POST", "/stalled", "transfer-encoding: chunked\r\n"), b"ff\r\nten bytes.".to_vec()].concat();
    let answer = wire.exchange(&start).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    ended_at("a stalled chunk", since, STALL_TIMEOUT);
}

async fn drips_a_body(siege: &Siege) {
    let mut wire = Wire::tls(siege, ME, HTTP1).await;
    let since = Instant::now();
    assert!(wire.send(&request("POST", "/dripping", "content-length: 10000\r\n")).await);
    let answer = String::from_utf8(wire.drip(DRIP, || b"x".to_vec()).await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    ended_at("a body in drops", since, STALL_TIMEOUT);
}

async fn does_not_read(siege: &Siege) {
    let mut wire = Wire::tls(siege, ME, HTTP1).await;
    assert!(wire.send(&request("GET", LARGE, "")).await);
    // The attack itself: nothing is read for so long.
    tokio::time::sleep(STALL_TIMEOUT + SLACK).await;
    let read = wire.read_to_end().await.len();
    assert!(read < LARGE_BYTES, "what was not taken in time is not sent: {read} bytes");
}
