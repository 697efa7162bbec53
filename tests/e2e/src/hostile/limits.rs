//! Each limit on a request: at the limit it is served, one more is refused, told and counted.

use super::h2::{DATA, END_HEADERS, END_STREAM, Ended, H2, HEADERS, field, frame, get, post, request};
use super::wire::{HTTP1, Wire};
use super::{HOST, LOCAL, REFUSALS, Siege};

const HEADER_BYTES_MAX: usize = 4096;
const HEADERS_MAX: usize = 20;
const URI_BYTES_MAX: usize = 300;
const BODY_BYTES_MAX: usize = 5000;
const STREAMS_MAX: u32 = 7;
const CONNECTIONS_MAX: u8 = 9;
const ME: [u8; 4] = [127, 0, 0, 6];

async fn siege() -> Siege {
    Siege::start(&format!(
        "header_bytes_max = {HEADER_BYTES_MAX}\nheaders_max = {HEADERS_MAX}\nuri_bytes_max = {URI_BYTES_MAX}\n\
         body_bytes_max = {BODY_BYTES_MAX}\nh2_streams_max = {STREAMS_MAX}\nconnections_per_client_max = {CONNECTIONS_MAX}",
    ))
    .await
}

/// A request with so many header fields, `host` among them, that come to so many bytes as RFC 9113 counts them.
fn fields(count: usize, bytes: usize) -> Vec<(String, String)> {
    let mut fields = vec![("host".to_owned(), HOST.to_owned()), ("connection".to_owned(), "close".to_owned())];
    fields.extend((2..count).map(|n| (format!("x-{n:02}"), String::new())));
    let so_far: usize = fields.iter().map(|(name, value)| name.len() + value.len() + 32).sum();
    fields.last_mut().unwrap().1.push_str(&"v".repeat(bytes.saturating_sub(so_far)));
    fields
}

fn http1(method: &str, target: &str, fields: &[(String, String)], body: &[u8]) -> Vec<u8> {
    let lines: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    [format!("{method} {target} HTTP/1.1\r\n{lines}\r\n").as_bytes(), body].concat()
}

fn with(name: &str, value: impl ToString) -> Vec<(String, String)> {
    [fields(2, 0), vec![(name.to_owned(), value.to_string())]].concat()
}

fn chunked(size: usize) -> Vec<u8> {
    [format!("{size:x}\r\n").as_bytes(), &vec![b'b'; size], b"\r\n0\r\n\r\n"].concat()
}

/// A limit, requests at it and beyond it, status and counter of the second.
type Http1Case = (&'static str, [Vec<u8>; 2], u16, &'static str);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_more_than_a_limit_is_refused_over_http1() {
    let siege = siege().await;
    let target = |bytes: usize| format!("/{}", "u".repeat(bytes - 1));
    let body = |bytes: usize| vec![b'b'; bytes];
    let cases: [Http1Case; 5] = [
        ("uri", [0, 1].map(|n| http1("GET", &target(URI_BYTES_MAX + n), &fields(2, 0), b"")), 414, "uri_too_long"),
        ("count", [0, 1].map(|n| http1("GET", "/count", &fields(HEADERS_MAX + n, 0), b"")), 431, "too_many_headers"),
        (
            "bytes",
            [0, 1].map(|n| http1("GET", "/bytes", &fields(9, HEADER_BYTES_MAX + n), b"")),
            431,
            "headers_too_large",
        ),
        (
            "content-length",
            [0, 1].map(|n| {
                let bytes = BODY_BYTES_MAX + n;
                http1("POST", "/content-length", &with("content-length", bytes), &body(bytes))
            }),
            413,
            "body_too_large",
        ),
        // Known only when it has come.
        (
            "chunked",
            [0, 1].map(|n| {
                http1("POST", "/chunked", &with("transfer-encoding", "chunked"), &chunked(BODY_BYTES_MAX + n))
            }),
            413,
            "body_too_large",
        ),
    ];
    for (what, [at_limit, one_more], status, reason) in cases {
        let answer = Wire::tls(&siege, ME, HTTP1).await.exchange(&at_limit).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{what}: {answer}");
        let before = siege.count(LOCAL, reason).await;
        let answer = Wire::tls(&siege, ME, HTTP1).await.exchange(&one_more).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{what}: {answer}");
        assert_eq!(siege.count(LOCAL, reason).await, before + 1.0, "{what}");
    }
    let bodies = |target| siege.recorder.seen_at(target).into_iter().map(|seen| seen.body.len()).collect::<Vec<_>>();
    assert_eq!((bodies("/content-length"), bodies("/chunked")), (vec![BODY_BYTES_MAX], vec![BODY_BYTES_MAX]));
    siege.back_to_rest().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_more_than_a_limit_is_refused_over_http2() {
    let siege = siege().await;
    let get = |target: &str, fields: &[u8]| [request("GET", HOST, target), fields.to_vec()].concat();
    let blocks = |n: usize| {
        let many: Vec<u8> = (0..HEADERS_MAX + n).flat_map(|i| field(&format!("x-{i:02}"), "")).collect();
        [get(&format!("/{}", "u".repeat(URI_BYTES_MAX + n - 1)), b""), get("/count", &many)]
    };
    let refusals = [(414, "uri_too_long"), (431, "too_many_headers")];
    for ((at_limit, one_more), (status, reason)) in blocks(0).into_iter().zip(blocks(1)).zip(refusals) {
        let before = siege.count(LOCAL, reason).await;
        let mut h2 = H2::open(&siege, ME, &[]).await;
        assert!(h2.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &at_limit)).await);
        assert_eq!(h2.ended(1).await, Ended::Answered(200), "{reason}");
        assert!(h2.send(&frame(HEADERS, END_HEADERS | END_STREAM, 3, &one_more)).await);
        assert_eq!(h2.ended(3).await, Ended::Answered(status), "{reason}");
        siege.world.grows(LOCAL, &format!("\"{reason}\""), before, 1.0).await;
    }
    body_over_http2(&siege).await;
    header_bytes_over_http2(&siege).await;
    siege.back_to_rest().await;
}

async fn body_over_http2(siege: &Siege) {
    let mut h2 = H2::open(siege, ME, &[]).await;
    let before = siege.count(LOCAL, "body_too_large").await;
    for (stream, bytes, status) in [(1, BODY_BYTES_MAX, 200), (3, BODY_BYTES_MAX + 1, 413)] {
        h2.send(&[post(stream, "/body"), frame(DATA, END_STREAM, stream, &vec![b'b'; bytes])].concat()).await;
        assert_eq!(h2.ended(stream).await, Ended::Answered(status));
    }
    siege.world.grows(LOCAL, "\"body_too_large\"", before, 1.0).await;
}

async fn header_bytes_over_http2(siege: &Siege) {
    let block = |bytes: usize| {
        let filler = "v".repeat(bytes - 32 - "x-filler".len());
        [request("GET", HOST, "/bytes-2"), field("x-filler", &filler)].concat()
    };
    let before = siege.count(LOCAL, "headers_too_large").await;
    let mut h2 = H2::open(siege, ME, &[]).await;
    assert!(h2.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(HEADER_BYTES_MAX))).await);
    assert_eq!(h2.ended(1).await, Ended::Answered(200));
    assert!(h2.send(&frame(HEADERS, END_HEADERS | END_STREAM, 3, &block(HEADER_BYTES_MAX + 1))).await);
    assert_eq!(h2.ended(3).await, Ended::Answered(431));
    assert!(h2.send(&get(5, "/after")).await);
    assert_eq!(h2.ended(5).await, Ended::Answered(200));
    siege.world.grows(LOCAL, "\"headers_too_large\"", before, 1.0).await;
    // Far beyond it, the HTTP library or the guard refuses; both end it.
    let mut h2 = H2::open(siege, ME, &[]).await;
    h2.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(HEADER_BYTES_MAX * 2))).await;
    assert_ne!(h2.ended(1).await, Ended::Answered(200));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_stream_or_connection_too_many_is_refused() {
    const REFUSED_STREAM: u32 = 7;
    let siege = siege().await;
    let mut h2 = H2::open(&siege, ME, &[]).await;
    // In one write: all are open before any can be answered.
    let streams = (0..=STREAMS_MAX).flat_map(|n| post(2 * n + 1, "/streams")).collect::<Vec<_>>();
    assert!(h2.send(&streams).await);
    assert_eq!(h2.ended(2 * STREAMS_MAX + 1).await, Ended::Reset(REFUSED_STREAM));
    for stream in (0..STREAMS_MAX).map(|n| 2 * n + 1) {
        assert!(h2.send(&frame(DATA, END_STREAM, stream, b"x")).await);
        assert_eq!(h2.ended(stream).await, Ended::Answered(200));
    }
    assert_eq!(siege.recorder.seen_at("/streams").len(), STREAMS_MAX as usize);
    drop(h2);
    siege.back_to_rest().await;

    let before = siege.count(REFUSALS, "too_many_connections").await;
    let mut open = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        let mut wire = Wire::tls(&siege, ME, HTTP1).await;
        // A body under way keeps the connection.
        wire.send(&http1("POST", "/open", &with("content-length", 2), b"x")).await;
        open.push(wire);
    }
    assert!(Wire::try_tls(&siege, ME, HTTP1).await.is_err());
    assert_eq!(siege.count(REFUSALS, "too_many_connections").await, before + 1.0);
    assert!(Wire::try_tls(&siege, [127, 0, 0, 7], HTTP1).await.is_ok(), "others are not concerned");
    for mut wire in open {
        assert!(wire.exchange(b"y").await.starts_with("HTTP/1.1 200 "));
    }
    siege.back_to_rest().await;
    drop(Wire::tls(&siege, ME, HTTP1).await);
}
