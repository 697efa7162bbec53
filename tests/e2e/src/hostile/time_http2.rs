//! Visitors who take their time on HTTP/2.

use std::time::{Duration, Instant};

use super::h2::{
    DATA, END_HEADERS, END_STREAM, Ended, H2, HEADERS, INITIAL_WINDOW_SIZE, PING, PREFACE, WINDOW_UPDATE, frame, get,
    post, request, settings,
};
use super::recorder::LARGE;
use super::wire::{HTTP2, Wire};
use super::{GUARD, HEADER_TIMEOUT, HOST, IDLE_TIMEOUT, STALL_TIMEOUT, Siege, ended_at};

const ME: [u8; 4] = [127, 0, 0, 4];
/// Over HTTP/2 the visitor may be waiting for window itself.
const H2_STALL: Duration = STALL_TIMEOUT.saturating_mul(3);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_http2_visitor_who_takes_its_time_is_let_go() {
    let siege = Siege::start("").await;
    let expected = [
        (GUARD, "header_timeout", 4),
        (GUARD, "idle", 5),
        (GUARD, "body_stalled", 2),
        (GUARD, "body_too_slow", 1),
        (GUARD, "not_reading", 3),
    ];
    let attacks = async {
        tokio::join!(
            sends_nothing(&siege),
            sends_the_preface_only(&siege),
            sends_the_preface_in_pieces(&siege),
            leaves_a_header_open(&siege),
            drips_a_header(&siege),
            pings_for_ever(&siege),
            stalls_a_body(&siege),
            drips_a_body(&siege),
            stalls_a_hundred_streams(&siege),
            gives_no_window(&siege),
            gives_a_byte_of_window_and_no_more(&siege),
            gives_window_in_drops(&siege),
        )
    };
    siege.withstands(&expected, Box::pin(attacks)).await;
    siege.recorder.seen();
}

async fn sends_nothing(siege: &Siege) {
    let mut wire = Wire::tls(siege, ME, HTTP2).await;
    wire.read_to_end().await;
    ended_at("silence", wire.opened, HEADER_TIMEOUT);
}

async fn sends_the_preface_only(siege: &Siege) {
    let mut wire = Wire::tls(siege, ME, HTTP2).await;
    assert!(wire.send(PREFACE).await);
    wire.read_to_end().await;
    ended_at("only a preface", wire.opened, IDLE_TIMEOUT);
}

async fn sends_the_preface_in_pieces(siege: &Siege) {
    let mut wire = Wire::tls(siege, ME, HTTP2).await;
    let mut pieces = PREFACE.iter();
    wire.drip(Duration::from_millis(300), || pieces.next().map_or_else(Vec::new, |byte| vec![*byte])).await;
    ended_at("a preface in pieces", wire.opened, HEADER_TIMEOUT);
}

async fn leaves_a_header_open(siege: &Siege) {
    let mut h2 = H2::open(siege, ME, &[]).await;
    let since = Instant::now();
    assert!(h2.send(&frame(HEADERS, END_STREAM, 1, &request("GET", HOST, "/open"))).await);
    h2.closed().await;
    ended_at("a header without its end", since, HEADER_TIMEOUT);
}

/// One HEADERS frame whose payload comes byte by byte.
async fn drips_a_header(siege: &Siege) {
    let mut h2 = H2::open(siege, ME, &[]).await;
    let since = Instant::now();
    let header = [get(1, "/dripping"), vec![0; 1000]].concat();
    assert!(h2.send(&header[..5]).await);
    let mut left = header[5..].iter();
    // The announced length is larger than what ever comes.
    let _ = h2.wire.drip(Duration::from_millis(150), || left.next().map_or_else(Vec::new, |byte| vec![*byte])).await;
    ended_at("a header in drops", since, HEADER_TIMEOUT);
}

async fn pings_for_ever(siege: &Siege) {
    let mut h2 = H2::open(siege, ME, &[]).await;
    let since = Instant::now();
    assert!(h2.send(&get(1, "/then-pings")).await);
    assert_eq!(h2.ended(1).await, Ended::Answered(200));
    h2.wire.drip(Duration::from_millis(200), || frame(PING, 0, 0, &[7; 8])).await;
    ended_at("a connection with pings only", since, IDLE_TIMEOUT);
}

async fn stalls_a_body(siege: &Siege) {
    let mut h2 = H2::open(siege, ME, &[]).await;
    let since = Instant::now();
    assert!(h2.send(&[post(1, "/stalled"), frame(DATA, 0, 1, b"ten bytes.")].concat()).await);
    h2.closed().await;
    ended_at("a stalled body", since, H2_STALL);
}

async fn drips_a_body(siege: &Siege) {
    let mut h2 = H2::open(siege, ME, &[]).await;
    let since = Instant::now();
    assert!(h2.send(&post(1, "/dripping")).await);
    h2.wire.drip(Duration::from_millis(200), || frame(DATA, 0, 1, b"x")).await;
    ended_at("a body in drops", since, H2_STALL);
}

async fn stalls_a_hundred_streams(siege: &Siege) {
    let mut h2 = H2::open(siege, ME, &[]).await;
    let since = Instant::now();
    let streams = (0..100).flat_map(|n| post(2 * n + 1, "/stalled"));
    assert!(h2.send(&streams.collect::<Vec<_>>()).await);
    h2.closed().await;
    ended_at("a hundred stalled bodies", since, H2_STALL);
}

async fn gives_no_window(siege: &Siege) {
    let mut h2 = H2::open(siege, ME, &[(INITIAL_WINDOW_SIZE, 0)]).await;
    let since = Instant::now();
    assert!(h2.send(&get(1, LARGE)).await);
    assert!(matches!(h2.ended(1).await, Ended::Reset(_)));
    ended_at("a response without window", since, STALL_TIMEOUT);
    h2.closed().await;
    ended_at("the connection after it", since, STALL_TIMEOUT + IDLE_TIMEOUT);
}

async fn gives_a_byte_of_window_and_no_more(siege: &Siege) {
    let mut h2 = H2::open(siege, ME, &[(INITIAL_WINDOW_SIZE, 0)]).await;
    let since = Instant::now();
    assert!(h2.send(&[get(1, LARGE), frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])].concat()).await);
    assert!(matches!(h2.ended(1).await, Ended::Reset(_)));
    ended_at("a response with a byte of window", since, STALL_TIMEOUT);
    h2.send(&settings(&[(INITIAL_WINDOW_SIZE, 65_535)])).await;
    assert!(h2.send(&frame(HEADERS, END_HEADERS | END_STREAM, 3, &request("GET", HOST, "/after"))).await);
    assert_eq!(h2.ended(3).await, Ended::Answered(200), "only the stream has ended");
    h2.closed().await;
}

/// Each drop is progress, and all of them together less than a response must make.
async fn gives_window_in_drops(siege: &Siege) {
    let mut h2 = H2::open(siege, ME, &[(INITIAL_WINDOW_SIZE, 0)]).await;
    let since = Instant::now();
    assert!(h2.send(&get(1, LARGE)).await);
    let drop = frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]);
    let end = loop {
        h2.send(&drop).await;
        if let Ok(ended) = tokio::time::timeout(Duration::from_millis(200), h2.ended(1)).await {
            break ended;
        }
    };
    assert!(matches!(end, Ended::Reset(_)), "{end:?}");
    ended_at("a response in drops", since, STALL_TIMEOUT);
    h2.closed().await;
}
