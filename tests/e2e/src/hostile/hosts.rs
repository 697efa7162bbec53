//! Requests whose host two readers may read differently: tenants are chosen by host, so each is refused before anything is.

use support::Context;
use support::wait::{PATIENCE, until};

use super::h2::{END_HEADERS, END_STREAM, Ended, H2, HEADERS, field, frame, request};
use super::wire::{HTTP1, Wire};
use super::{HOST, LOCAL, OTHER_HOST, Siege};

const ME: [u8; 4] = [127, 0, 0, 8];

/// What becomes of a request. Only what reaches our code is counted as `bad_host`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Served,
    BadHost,
    Misdirected,
    /// By the HTTP library, before any of our code.
    NotHttp,
}

/// `{}` stands for the target.
const HTTP1_CASES: [(&str, Fate); 27] = [
    ("GET {} HTTP/1.1\r\nhost: shop.example\r\n", Fate::Served),
    ("GET {} HTTP/1.1\r\nhost: SHOP.Example\r\n", Fate::Served),
    ("GET {} HTTP/1.1\r\nhost: shop.example.\r\n", Fate::Served),
    ("GET {} HTTP/1.1\r\nhost: shop.example:443\r\n", Fate::Served),
    ("GET {} HTTP/1.1\r\nHost:\tshop.example \t\r\n", Fate::Served),
    ("GET {} HTTP/1.0\r\nhost: shop.example\r\n", Fate::Served),
    ("GET {} HTTP/1.1\r\n", Fate::BadHost),
    ("GET {} HTTP/1.0\r\n", Fate::BadHost),
    ("GET {} HTTP/1.1\r\nhost:\r\n", Fate::BadHost),
    ("GET {} HTTP/1.1\r\nhost: shop.example, evil.example\r\n", Fate::BadHost),
    ("GET {} HTTP/1.1\r\nhost: shop.example/evil\r\n", Fate::BadHost),
    ("GET {} HTTP/1.1\r\nhost: shop.example:80:evil\r\n", Fate::BadHost),
    ("GET {} HTTP/1.1\r\nhost: shop.example:evil\r\n", Fate::BadHost),
    ("GET {} HTTP/1.1\r\nhost: shop.example:\r\n", Fate::BadHost),
    ("GET {} HTTP/1.1\r\nhost: evil@shop.example\r\n", Fate::NotHttp),
    ("GET {} HTTP/1.1\r\nhost: shop.example#\r\n", Fate::BadHost),
    ("GET {} HTTP/1.1\r\nhost: shop.example\\\r\n", Fate::BadHost),
    ("GET {} HTTP/1.1\r\nhost: http://shop.example\r\n", Fate::BadHost),
    ("GET {} HTTP/1.1\r\nhost: shop.example evil.example\r\n", Fate::BadHost),
    ("GET {} HTTP/1.1\r\nhost: shop.example%00\r\n", Fate::BadHost),
    ("GET {} HTTP/1.1\r\nhost: 127.0.0.1\r\n", Fate::BadHost),
    ("GET https://evil.example{} HTTP/1.1\r\nhost: shop.example\r\n", Fate::NotHttp),
    ("GET https://evil@shop.example{} HTTP/1.1\r\nhost: shop.example\r\n", Fate::NotHttp),
    ("GET {} HTTP/1.1\r\nhost: blog.example\r\n", Fate::Misdirected),
    ("GET {} HTTP/1.1\r\nhost: shop.example\r\nhost: shop.example\r\n", Fate::BadHost),
    ("GET {} HTTP/1.1\r\nhost: shop.example\r\nx: y\r\nHOST:evil.example\r\n", Fate::BadHost),
    ("GET {} HTTP/1.1\r\nhost : shop.example\r\n", Fate::NotHttp),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ambiguous_hosts_never_reach_an_upstream_over_http1() {
    let siege = Siege::start("").await;
    for (number, (head, fate)) in HTTP1_CASES.iter().enumerate() {
        let target = format!("/host-{number}");
        let before = (siege.count(LOCAL, "bad_host").await, siege.count(LOCAL, "misdirected").await);
        let request = format!("{}connection: close\r\n\r\n", head.replace("{}", &target));
        let answer = Wire::tls(&siege, ME, HTTP1).await.exchange(request.as_bytes()).await;
        let status = answer.get(9..12).unwrap_or_default();
        check(&siege, head, &target, *fate, status, before).await;
    }
    // What the HTTP library refuses by itself is counted too.
    let refused = HTTP1_CASES.iter().filter(|(_, fate)| *fate == Fate::NotHttp).count();
    siege.world.grows(LOCAL, "\"bad_request\"", 0.0, refused as f64).await;
    siege.back_to_rest().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_http_library_refuses_gets_a_page_that_says_why_and_is_in_the_access_log() {
    let folder = support::folder::Folder::new().unwrap();
    let log = folder.path().join("access.json");
    let siege = Siege::start(&format!("[access_log]\nto = {log:?}\nsample_one_in = 1000000")).await;
    for (request, status, says, answer) in [
        ("GET / HTTP/1.1\r\nhost: shop.example\r\nhost: evil.example\r\n", "400", "names 2 hosts", "bad_host"),
        ("GET / HTTP/1.1\r\nhost : shop.example\r\n", "400", "not valid HTTP", "bad_request"),
        ("CONNECT shop.example:443 HTTP/1.1\r\nhost: shop.example:443\r\n", "405", "no forward proxy", "bad_request"),
    ] {
        let text = Wire::tls(&siege, ME, HTTP1).await.exchange(format!("{request}\r\n").as_bytes()).await;
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")) && text.contains(says), "{request}: {text}");
        assert!(!text.to_ascii_lowercase().contains("pingora"), "{text}");
        let id = text.split("Fault ").nth(1).unwrap_or_else(|| panic!("{text}")).trim().to_owned();
        let line = until("the line", PATIENCE, async || {
            let lines = std::fs::read_to_string(&log).unwrap_or_default();
            let line = lines.lines().find(|line| line.contains(&id)).map(str::to_owned);
            line.context(lines)
        });
        let line: serde_json::Value = serde_json::from_str(&line.await.unwrap()).unwrap();
        assert_eq!(
            (&line["answer"], &line["culprit"], &line["sni"]),
            (&answer.into(), &"visitor".into(), &HOST.into())
        );
        assert_eq!(line["status"].to_string(), status, "{line:#}");
        assert!(line.get("path").is_none() && line["error"].as_str().unwrap().contains(says), "{line:#}");
    }
    siege.back_to_rest().await;
}

/// `:authority`, more fields, and what becomes of the request.
type Http2Case = (Option<&'static str>, Vec<(&'static str, &'static str)>, Fate);

fn http2_cases() -> Vec<Http2Case> {
    vec![
        (Some("shop.example"), vec![], Fate::Served),
        (Some("SHOP.example.:443"), vec![], Fate::Served),
        (Some("shop.example"), vec![("host", "shop.example")], Fate::Served),
        (None, vec![("host", "shop.example")], Fate::Served),
        (None, vec![], Fate::NotHttp),
        (Some("shop.example"), vec![("host", "evil.example")], Fate::NotHttp),
        (Some("evil.example"), vec![("host", "shop.example")], Fate::NotHttp),
        (Some("shop.example"), vec![("host", "")], Fate::NotHttp),
        (Some("shop.example"), vec![("host", "shop.example"), ("host", "shop.example")], Fate::NotHttp),
        (Some("shop.example:80:evil"), vec![], Fate::NotHttp),
        (Some("shop.example:evil"), vec![], Fate::BadHost),
        (Some("evil@shop.example"), vec![], Fate::NotHttp),
        (Some("shop.example,evil.example"), vec![], Fate::BadHost),
        (Some("127.0.0.1"), vec![], Fate::BadHost),
        (Some(OTHER_HOST), vec![], Fate::Misdirected),
        (Some("shop.example, evil.example"), vec![], Fate::NotHttp),
        (Some("shop.example/evil"), vec![], Fate::NotHttp),
        (Some("shop.example#"), vec![], Fate::NotHttp),
        (Some(""), vec![], Fate::NotHttp),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ambiguous_hosts_never_reach_an_upstream_over_http2() {
    let siege = Siege::start("").await;
    for (number, (authority, more, fate)) in http2_cases().into_iter().enumerate() {
        let target = format!("/authority-{number}");
        let before = (siege.count(LOCAL, "bad_host").await, siege.count(LOCAL, "misdirected").await);
        let pseudo = [(":method", "GET"), (":scheme", "https"), (":path", target.as_str())];
        let authority_field = authority.map(|authority| (":authority", authority));
        let block: Vec<u8> =
            pseudo.into_iter().chain(authority_field).chain(more.clone()).flat_map(|(n, v)| field(n, v)).collect();
        let mut h2 = H2::open(&siege, ME, &[]).await;
        assert!(h2.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)).await);
        let status = match h2.ended(1).await {
            Ended::Answered(status) => status.to_string(),
            Ended::Reset(_) | Ended::Closed(_) => String::new(),
        };
        check(&siege, &format!("{authority:?} {more:?}"), &target, fate, &status, before).await;
        // Whatever came of it, others' streams go on.
        assert!(h2.send(&frame(HEADERS, END_HEADERS | END_STREAM, 3, &request("GET", HOST, "/next"))).await);
        assert_eq!(h2.ended(3).await, Ended::Answered(200), "after {authority:?}");
    }
    siege.back_to_rest().await;
}

async fn check(siege: &Siege, what: &str, target: &str, fate: Fate, status: &str, before: (f64, f64)) {
    let expected: &[&str] = match fate {
        Fate::Served => &["200"],
        Fate::BadHost => &["400"],
        Fate::Misdirected => &["421"],
        Fate::NotHttp => &["400", ""],
    };
    assert!(expected.contains(&status), "{what}: {status:?}, not {expected:?}");
    let due = (f64::from(u8::from(fate == Fate::BadHost)), f64::from(u8::from(fate == Fate::Misdirected)));
    // It is counted when the answer is out.
    let counted = until(format!("{what} to be counted as {due:?}"), PATIENCE, async || {
        let now = (siege.count(LOCAL, "bad_host").await, siege.count(LOCAL, "misdirected").await);
        let counted = (now.0 - before.0, now.1 - before.1);
        if counted == due { Ok(()) } else { support::fail(format!("{counted:?}")) }
    });
    counted.await.unwrap();
    let seen = siege.recorder.seen_at(target);
    assert_eq!(seen.len(), usize::from(fate == Fate::Served), "{what}");
    for seen in seen {
        assert_eq!(seen.values("x-forwarded-host"), [HOST], "{what}");
    }
}
