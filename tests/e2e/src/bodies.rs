//! Bodies that plugins see and change as they pass, over both protocols on both sides.

pub(crate) mod origins;

use std::time::Duration;

use serde_json::{Value, json};
use support::fail;
use support::fleet::Plan;
use support::wait::{PATIENCE, until};

use self::origins::Origin;
use crate::world::{World, guest, run, stderr, stdout};

pub(crate) const HOST: &str = "shop.example";
const BODIES: &str = "latchkey_plugin_bodies_total";
pub(crate) const REPLACE: &str =
    r#"{"replace": [{"find": "shop-7.saas.example", "with": "{host}"}], "refuse": ["attack"]}"#;
/// Bodies of one domain that may be under way on a thread.
const PLACES: usize = 64;

/// A fleet whose one site has that plugin.
pub(crate) async fn world(origin: &Origin, plugin: &str, config: &str, on_failure: &str) -> World {
    let world = World::start(Plan::default()).await;
    world.issue(HOST).await;
    let digest = world.fleet.edge.push(&guest(plugin)).await.unwrap();
    let config: Value = serde_json::from_str(config).unwrap();
    let binding = json!({"plugin": plugin, "config": config, "on_failure": on_failure});
    let document = json!({
        "plugins": {plugin: {"digest": digest}},
        "upstreams": {"one": origin.upstream()},
        "sites": [{"hosts": ["*"], "upstream": "one", "plugins": [binding]}],
    });
    world.fleet.edge.apply(&document).await.unwrap();
    world
}

impl World {
    /// What curl prints of answers: heads, bodies, and after each how many connections it took. `Err`: it was not content.
    pub(crate) async fn curls(&self, arguments: &[&str], targets: &[&str]) -> Result<String, String> {
        let address = self.fleet.edge_setup.https;
        let resolve = format!("{HOST}:{}:{}", address.port(), address.ip());
        let output = run("curl", |command| {
            command.args(["-sSik", "--max-time", "60", "--resolve", &resolve, "-w", "<%{num_connects}>\n"]);
            command.args(arguments);
            command.args(targets.iter().map(|target| format!("https://{HOST}:{}{target}", address.port())));
        });
        let output = output.await;
        let shown = stdout(&output).to_lowercase();
        if output.status.success() { Ok(shown) } else { Err(format!("{shown}{}", stderr(&output))) }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn texts_are_replaced_over_both_protocols_on_both_sides() {
    for origin in [Origin::http1().await, Origin::http2().await] {
        let world = world(&origin, "rewrite", REPLACE, "closed").await;
        for protocol in ["--http1.1", "--http2"] {
            // Ended by the last piece, by an empty one, by trailers.
            let shown =
                world.curls(&[protocol], &["/html/last", "/html/empty", "/html/trailers", "/html/last"]).await.unwrap();
            let said = format!("{protocol} of {}: {shown}", origin.name);
            assert_eq!(
                shown.matches("<a href='https://shop.example/'>https://shop-7.saas.exampl</a>\n").count(),
                4,
                "{said}"
            );
            assert_eq!(shown.matches("etag: w/\"1\"").count(), 4, "{said}");
            for gone in ["content-length", "accept-ranges", "repr-digest"] {
                assert!(!shown.contains(gone), "{gone} {said}");
            }
            assert_eq!((shown.matches("<1>").count(), shown.matches("<0>").count()), (1, 3), "one connection {said}");
        }
        assert_eq!(origin.seen("GET", "/html/last").iter().filter(|head| head.contains("accept-encoding")).count(), 0);
        assert_eq!(world.metric(BODIES, r#"message="response-body""#).await, 8.0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_not_change_passes_as_it_is() {
    let origin = Origin::http1().await;
    let world = world(&origin, "rewrite", REPLACE, "closed").await;
    for protocol in ["--http1.1", "--http2"] {
        for target in ["/no-transform", "/partial", "/image"] {
            let shown = world.curls(&[protocol], &[target]).await.unwrap();
            assert!(
                shown.contains("shop-7.saas.example") && shown.contains("content-length: 70"),
                "{protocol}: {shown}"
            );
            assert!(shown.contains("etag: \"1\""), "{protocol}: {shown}");
        }
        let shown = world.curls(&[protocol], &["/nothing", "/304", "/nothing"]).await.unwrap();
        assert_eq!(shown.matches("content-length: 0").count(), 2, "{protocol}: {shown}");
        assert_eq!(shown.matches("etag: w/\"1\"").count(), 1, "304, as 200 would say {protocol}: {shown}");
        let head = world.curls(&[protocol, "--head"], &["/html/last", "/html/last"]).await.unwrap();
        assert_eq!(head.matches("etag: w/\"1\"").count(), 2, "as GET would say {protocol}: {head}");
        assert!(!head.contains("content-length"), "{protocol}: {head}");
        assert_eq!((head.matches("<1>").count(), head.matches("<0>").count()), (1, 1), "{protocol}: {head}");
    }
    let passed = world.metric(BODIES, r#"result="passed""#).await;
    assert_eq!(passed, 6.0, "what has a body");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_is_watched_and_refused_where_a_piece_is_bad() {
    for origin in [Origin::http1().await, Origin::http2().await] {
        let world = world(&origin, "rewrite", REPLACE, "closed").await;
        for protocol in ["--http1.1", "--http2"] {
            let said = |shown: &str| format!("{protocol} to {}: {shown}", origin.name);
            let good = world.curls(&[protocol, "--data-binary", "all is well, atta"], &["/up"]).await.unwrap();
            assert!(good.contains(" 200") && good.contains("17 bytes: all is well, atta"), "{}", said(&good));
            let bad = [protocol, "--data-binary", "this is an attack", "-H", "expect:"];
            let bad = world.curls(&bad, &["/up"]).await.unwrap();
            assert!(bad.contains(" 403") && bad.contains("not allowed here"), "{}", said(&bad));
        }
        // In two pieces, the second long after the first, with the text across both.
        let pieces: [&[u8]; 3] = [b"an att", b"ack", b" and more"];
        let answer = world.https(HOST).await.upload(HOST, "/up", &pieces, Duration::from_millis(50)).await.unwrap();
        assert_eq!(answer.status, 403, "{answer:?}");
        let seen = origin.seen("POST", "/up");
        assert!(seen.len() >= 2 && seen.iter().all(|head| head.contains("content-length")), "{seen:?}");
        assert_eq!(world.metric(BODIES, r#"result="refused""#).await, 3.0);
        world.still_serves(HOST).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_is_changed_on_its_way() {
    for origin in [Origin::http1().await, Origin::http2().await] {
        let world = world(&origin, "hostile", r#"{"behaviour": "bodies-up"}"#, "closed").await;
        for protocol in ["--http1.1", "--http2"] {
            for (target, wanted) in
                [("/change/shout", "5 bytes: hello"), ("/change/sizes", "2 bytes: 5,"), ("/up", "5 bytes: hello")]
            {
                let shown = world.curls(&[protocol, "--data-binary", "hello"], &[target]).await.unwrap();
                assert!(shown.contains(wanted), "{protocol} to {} {target}: {shown}", origin.name);
            }
        }
        let framed = origin.seen("POST", "/change/shout");
        assert!(framed.iter().all(|head| !head.contains("content-length")), "{framed:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_that_fails_half_way_leaves_no_body_that_looks_whole() {
    for origin in [Origin::http1().await, Origin::http2().await] {
        for protocol in ["--http1.1", "--http2"] {
            // Anew, so that the plugin is not left alone for what it did to the other.
            let world = world(&origin, "hostile", r#"{"behaviour": "bodies"}"#, "closed").await;
            for target in
                ["/watch/late", "/change/late", "/change/hold-trap", "/change/spin", "/change/huge", "/watch/refuse"]
            {
                // Broken off, or not begun where the head had not gone out yet.
                let status = if target == "/watch/refuse" { " 418" } else { " 503" };
                match world.curls(&[protocol], &[target]).await {
                    Err(broken) => {
                        assert!(broken.contains("curl: ("), "{protocol} of {} {target}: {broken}", origin.name)
                    }
                    Ok(shown) => assert!(shown.contains(status), "{protocol} of {} {target}: {shown}", origin.name),
                }
            }
            let failed = world.curls(&[protocol], &["/watch/begin"]).await.unwrap();
            assert!(failed.contains(" 503"), "{protocol}: {failed}");
            for target in ["/watch/trap", "/change/late"] {
                let refused = world.curls(&[protocol, "--data-binary", "hello"], &[target]).await.unwrap();
                assert!(refused.contains(" 503"), "{protocol} to {} {target}: {refused}", origin.name);
            }
            let whole = world.curls(&[protocol], &["/change/hold"]).await.unwrap();
            assert!(whole.contains("<a href='https://shop-7.saas.example/'>"), "{protocol}: {whole}");
            let faults = world.metric("latchkey_plugin_faults_total", r#"hook="response-body""#).await;
            assert_eq!(faults, 6.0, "five bodies and a beginning");
            assert_eq!(world.metric(BODIES, r#"result="refused""#).await, 1.0);
            let crashes = world.fleet.edge.admin.get("/v1/plugins/hostile/crashes").await.unwrap().json().unwrap();
            assert!(
                crashes["crashes"].as_array().unwrap().iter().any(|crash| crash["hook"] == "response-body"),
                "{crashes:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn visitors_who_leave_half_way_give_their_places_back() {
    let origin = Origin::http1().await;
    let world = world(&origin, "rewrite", REPLACE, "open").await;
    let head = format!("POST /up HTTP/1.1\r\nhost: {HOST}\r\ncontent-length: 100\r\n\r\nan att");
    let under_way = |count: usize| {
        let (world, head) = (&world, head.clone());
        async move {
            let mut visitors = Vec::new();
            for _ in 0..count {
                let mut visitor = world.https(HOST).await;
                visitor.raw(head.as_bytes(), 0).await.unwrap();
                visitors.push(visitor);
            }
            visitors
        }
    };
    // More than have places, on two threads: the others pass without the plugin, which may fail open.
    let most = 2 * PLACES;
    let visitors = under_way(most + 40).await;
    let (all, faults) = (visitors.len() as f64, "latchkey_plugin_faults_total");
    until("all to be under way", PATIENCE, async || {
        let watched = world.metric(BODIES, r#"result="watched""#).await;
        let failed = world.metric(faults, r#"hook="request-body",plugin="rewrite",reason="unavailable""#).await;
        if watched + failed >= all { Ok(()) } else { fail(format!("{watched} and {failed}")) }
    })
    .await
    .unwrap();
    assert!(world.metric(BODIES, r#"result="watched""#).await <= most as f64);
    drop(visitors);
    until("places to be given back", PATIENCE, async || {
        let refused = world.curls(&["--data-binary", "an attack"], &["/up"]).await;
        if refused.as_ref().is_ok_and(|shown| shown.contains(" 403")) { Ok(()) } else { fail(format!("{refused:?}")) }
    })
    .await
    .unwrap();
    // Who is served while others have all places is served whole.
    let mut visitors = under_way(most + 40).await;
    let passed = world.curls(&["--data-binary", "an attack"], &["/up"]).await.unwrap();
    assert!(passed.contains(" 200") || passed.contains(" 403"), "{passed}");
    for visitor in &mut visitors {
        assert_eq!(visitor.raw(&[b'x'; 94], 12).await.unwrap(), b"HTTP/1.1 200");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_of_any_length_pass_in_flat_memory() {
    const MIB: usize = 64;
    let origin = Origin::http1().await;
    let world = world(&origin, "hostile", r#"{"behaviour": "bodies"}"#, "closed").await;
    let resident_mib = || {
        let status = support::folder::read(format!("/proc/{}/status", world.fleet.edge.process.id()).as_ref()).unwrap();
        let kib = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .unwrap()
            .trim()
            .trim_end_matches(" kB")
            .to_owned();
        kib.parse::<u64>().unwrap() / 1024
    };
    let before = resident_mib();
    for target in ["/watch/long", "/change/shout"] {
        let address = world.fleet.edge_setup.https;
        let resolve = format!("{HOST}:{}:{}", address.port(), address.ip());
        let url = format!("https://{HOST}:{}{target}?mib={MIB}", address.port());
        let output = run("curl", |command| {
            command.args(["-sSk", "-o", "/dev/null", "-w", "%{size_download}", "--resolve", &resolve, &url]);
        });
        let output = output.await;
        assert_eq!(stdout(&output), (MIB << 20).to_string(), "{target}: {}", stderr(&output));
        let after = resident_mib();
        assert!(after < before + 24, "{target}: {before} MiB, then {after}");
    }
}
