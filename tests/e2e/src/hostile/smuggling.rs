//! Requests whose end two readers may read differently. Whatever the proxy makes of one, the upstream sees only whole,
//! well-formed requests that the proxy itself has seen: each carries the visitor's address, which no smuggled one does.

use super::wire::{HTTP1, Wire};
use super::{HOST, Siege};

const ME: [u8; 4] = [127, 0, 0, 9];

/// What comes of a request.
enum Fate {
    /// Served, and the upstream sees this body.
    Body(&'static str),
    /// The same, and the connection ends, as RFC 9112 section 6.1 asks.
    LastBody(&'static str),
    /// 400, and the connection ends.
    Refused,
}

/// Follows each request.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nhost: shop.example\r\nx-forwarded-for: 6.6.6.6\r\n\r\n";

/// Header fields and body.
const CASES: [(&str, &str, Fate); 31] = [
    ("content-length: 5\r\n", "hello", Fate::Body("hello")),
    ("transfer-encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n", Fate::Body("hello")),
    ("transfer-encoding: chunked\r\n", "5;a=b\r\nhello\r\n0\r\n\r\n", Fate::Body("hello")),
    ("content-length: 5\r\ncontent-length: 5\r\n", "hello", Fate::Refused),
    ("content-length: 0\r\ncontent-length: 5\r\n", "hello", Fate::Refused),
    ("content-length: 5, 5\r\n", "hello", Fate::Refused),
    ("content-length: 0, 5\r\n", "hello", Fate::Refused),
    ("content-length: +5\r\n", "hello", Fate::Refused),
    ("content-length: -5\r\n", "hello", Fate::Refused),
    ("content-length: 0x5\r\n", "hello", Fate::Refused),
    ("content-length: 5 5\r\n", "hello", Fate::Refused),
    ("content-length:\r\n", "hello", Fate::Refused),
    ("content-length: 99999999999999999999\r\n", "hello", Fate::Refused),
    ("content_length: 5\r\n", "", Fate::Refused),
    ("content-length : 5\r\n", "hello", Fate::Refused),
    ("content-length: 5\r\ntransfer-encoding: chunked\r\n", "0\r\n\r\n", Fate::LastBody("")),
    ("transfer-encoding: chunked\r\ncontent-length: 5\r\n", "5\r\nhello\r\n0\r\n\r\n", Fate::LastBody("hello")),
    ("content-length: 5\r\ntransfer-encoding: xchunked\r\n", "hello", Fate::Refused),
    ("transfer-encoding: xchunked\r\n", "0\r\n\r\n", Fate::Refused),
    ("transfer-encoding : chunked\r\n", "0\r\n\r\n", Fate::Refused),
    (" transfer-encoding: chunked\r\n", "0\r\n\r\n", Fate::Refused),
    ("x: y\r\n transfer-encoding: chunked\r\n", "0\r\n\r\n", Fate::Refused),
    ("transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n", "0\r\n\r\n", Fate::Refused),
    ("transfer-encoding: identity, chunked\r\n", "0\r\n\r\n", Fate::Refused),
    ("transfer-encoding: chunked, identity\r\n", "0\r\n\r\n", Fate::Refused),
    ("transfer-encoding:\x0bchunked\r\n", "0\r\n\r\n", Fate::Refused),
    ("x: y\x00\r\ncontent-length: 5\r\n", "hello", Fate::Refused),
    ("transfer-encoding: chunked\r\n", "+5\r\nhello\r\n0\r\n\r\n", Fate::Refused),
    ("transfer-encoding: chunked\r\n", "0x5\r\nhello\r\n0\r\n\r\n", Fate::Refused),
    ("transfer-encoding: chunked\r\n", "5\nhello\r\n0\r\n\r\n", Fate::Refused),
    ("transfer-encoding: chunked\r\n", "ffffffffffffffff0\r\nhello\r\n0\r\n\r\n", Fate::Refused),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_shape_of_a_body_desynchronises_the_upstream() {
    let siege = Siege::start("").await;
    for (number, (fields, body, fate)) in CASES.iter().enumerate() {
        let what = format!("{fields:?} {body:?}");
        let target = format!("/framed-{number}");
        let request = format!("POST {target} HTTP/1.1\r\nhost: {HOST}\r\n{fields}\r\n{body}{SMUGGLED}");
        let answer = Wire::tls(&siege, ME, HTTP1).await.exchange(request.as_bytes()).await;
        let seen = siege.recorder.seen_at(&target);
        let (status, served) = match fate {
            Fate::Body(body) | Fate::LastBody(body) => ("200", vec![body.as_bytes()]),
            Fate::Refused => ("400", vec![]),
        };
        assert_eq!(answer.get(9..12), Some(status), "{what}: {answer}");
        assert_eq!(seen.iter().map(|seen| &seen.body[..]).collect::<Vec<_>>(), served, "{what}");
        if !matches!(fate, Fate::Body(_)) {
            assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{what}: {answer}");
        }
        // A visitor after it, perhaps on the same upstream connection, gets the answer to its own request.
        siege.world.still_serves(HOST).await;
    }
    for seen in siege.recorder.seen() {
        let client = seen.values("x-forwarded-for");
        assert!(client == ["127.0.0.9"] || client == ["127.0.0.1"], "{seen:?}");
    }
    siege.back_to_rest().await;
}
