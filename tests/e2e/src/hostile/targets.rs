//! Request targets that a plugin, a redirect and an upstream might read differently.

use super::wire::{HTTP1, Wire};
use super::{HOST, LOCAL, Siege};

const ME: [u8; 4] = [127, 0, 0, 11];

/// What comes of a request.
enum Fate {
    /// The upstream is asked for this.
    Asked(&'static str),
    /// 400, by our own code or by the HTTP library before it.
    Refused,
    Misdirected,
}

const CASES: [(&str, Fate); 17] = [
    ("GET /plain?x=1", Fate::Asked("/plain?x=1")),
    ("GET //two", Fate::Asked("//two")),
    ("GET https://shop.example/absolute?x=1", Fate::Asked("/absolute?x=1")),
    ("GET HTTP://shop.example/other-scheme", Fate::Asked("/other-scheme")),
    ("GET https://shop.example?query-only", Fate::Asked("/?query-only")),
    ("OPTIONS *", Fate::Asked("*")),
    ("OPTIONS https://shop.example", Fate::Asked("*")),
    ("GET admin/x", Fate::Refused),
    ("GET ?x", Fate::Refused),
    ("GET *", Fate::Refused),
    ("GET shop.example", Fate::Refused),
    ("GET shop.example:443", Fate::Refused),
    ("GET https:/admin", Fate::Refused),
    ("GET https:///admin", Fate::Refused),
    ("GET ftp://shop.example/admin", Fate::Refused),
    ("GET wss://shop.example/admin", Fate::Refused),
    ("GET https://blog.example/admin", Fate::Misdirected),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_upstream_is_asked_for_what_everybody_else_has_seen() {
    let siege = Siege::start("uri_bytes_max = 100").await;
    for (line, fate) in CASES {
        let (seen, refused) = (siege.recorder.seen().len(), siege.refusals().await);
        let host = if matches!(fate, Fate::Misdirected) { "blog.example" } else { HOST };
        let request = format!("{line} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        let answer = Wire::tls(&siege, ME, HTTP1).await.exchange(request.as_bytes()).await;
        let asked: Vec<_> = siege.recorder.seen().split_off(seen).into_iter().map(|seen| seen.target).collect();
        let (status, expected) = match fate {
            Fate::Asked(target) => ("200", vec![target]),
            Fate::Refused => ("400", vec![]),
            Fate::Misdirected => ("421", vec![]),
        };
        assert_eq!(answer.get(9..12), Some(status), "{line}: {answer}");
        assert_eq!(asked, expected, "{line}");
        let counted = siege.refusals().await - refused;
        assert_eq!(counted, f64::from(u8::from(status == "400")), "{line}");
    }
    assert!(siege.count(LOCAL, "bad_target").await >= 5.0);
    // The length of a target is that of all of it.
    for target in [format!("https://{HOST}/{}", "u".repeat(100)), "u".repeat(101)] {
        let request = format!("GET {target} HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\n\r\n");
        let answer = Wire::tls(&siege, ME, HTTP1).await.exchange(request.as_bytes()).await;
        assert_eq!(answer.get(9..12), Some("414"), "{target}: {answer}");
    }
    siege.back_to_rest().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_but_a_path_leads_from_http_to_https() {
    let siege = Siege::start("").await;
    for (line, location) in [
        ("GET /x?y", Some("/x?y")),
        ("GET http://shop.example/x", Some("/x")),
        ("OPTIONS *", Some("")),
        ("GET admin/x", None),
        ("GET @evil.example/", None),
    ] {
        let request = format!("{line} HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\n\r\n");
        let http = siege.world.fleet.edge_setup.http;
        let answer = Wire::plain(http, ME).await.exchange(request.as_bytes()).await;
        let found =
            answer.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("location: ").map(str::to_owned));
        let https = format!("https://{HOST}:{}", siege.world.fleet.edge_setup.https.port());
        let led = found.map(|found| found.replace(&https, &format!("https://{HOST}")));
        assert_eq!(led, location.map(|path| format!("https://{HOST}{path}")), "{line}: {answer}");
    }
    siege.back_to_rest().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_reaches_the_upstream_in_no_spelling() {
    let siege = Siege::start("").await;
    let names =
        ["X-Forwarded-For", "X-Real-IP", "X-Forwarded-Scheme", "X-Original-URL", "CF-Connecting-IP", "Client-Cert"];
    let spelt = names.iter().flat_map(|name| [(*name).to_owned(), name.replace('-', "_"), name.replace('-', ".")]);
    let fields: String = spelt.map(|name| format!("{name}: 6.6.6.6\r\n")).collect();
    let request = format!("GET /claims HTTP/1.1\r\nhost: {HOST}\r\n{fields}x-kept: 1\r\nconnection: close\r\n\r\n");
    let answer = Wire::tls(&siege, ME, HTTP1).await.exchange(request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let seen = siege.recorder.seen_at("/claims");
    assert_eq!(seen.len(), 1);
    assert!(seen[0].headers.iter().all(|(_, value)| value != "6.6.6.6"), "{seen:?}");
    assert_eq!((seen[0].values("x-forwarded-for"), seen[0].values("x-kept")), (vec!["127.0.0.11"], vec!["1"]));
    siege.back_to_rest().await;
}
