//! Several peers: shares, health, and which requests are tried again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};
use support::authority::Authority;
use support::edge::Edge;
use support::fleet::Plan;
use support::upstream::Upstream;
use support::wait::{PATIENCE, until};
use support::{fail, port};

use super::scripted::{BREAK, BREAK_AFTER_INTERIM, BREAK_WITHIN_HEAD, HANG, HEALTH, Scripted};
use crate::world::World;

const HOST: &str = "shop.example";
const PICKS: &str = "latchkey_upstream_picks_total";
const RETRIES: &str = "latchkey_upstream_retries_total";
const HEALTHY: &str = "latchkey_upstream_healthy_peers";

/// A world whose only upstream has these settings.
async fn world(settings: Value) -> World {
    let world = World::start(Plan::default()).await;
    world.issue(HOST).await;
    set(&world, settings).await;
    world
}

async fn set(world: &World, settings: Value) {
    let mut config = world.config();
    config["upstreams"]["sample"] = settings;
    world.fleet.edge.apply(&config).await.unwrap();
}

/// Which upstreams answered so many GETs, on one connection.
async fn answered_by(world: &World, requests: usize) -> BTreeMap<String, usize> {
    let (mut connection, mut counts) = (world.https(HOST).await, BTreeMap::new());
    for _ in 0..requests {
        let answer = connection.get(HOST, "/").await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        *counts.entry(answer.seen("upstream").unwrap()).or_insert(0) += 1;
    }
    counts
}

fn counts(expected: &[(&str, usize)]) -> BTreeMap<String, usize> {
    expected.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

async fn pair() -> (Upstream, Upstream) {
    let start = async |name| Upstream::start(name, port::free().unwrap()).await.unwrap();
    (start("one").await, start("two").await)
}

#[tokio::test]
async fn peers_get_shares_by_weight_and_a_gone_upstream_leaves_no_label() {
    let (one, two) = pair().await;
    let world = world(json!({"peers": [{"url": one.url(), "weight": 3}, {"url": two.url()}]})).await;
    assert_eq!(answered_by(&world, 40).await, counts(&[("one", 30), ("two", 10)]));
    assert_eq!(world.metric(PICKS, r#"result="healthy",upstream="sample""#).await, 40.0);
    assert_eq!(world.metric(HEALTHY, r#"upstream="sample""#).await, 2.0);
    set(&world, json!({"peers": [{"url": one.url()}, {"url": two.url()}], "balance": "least_connections"})).await;
    assert_eq!(answered_by(&world, 40).await, counts(&[("one", 20), ("two", 20)]));

    world.fleet.edge.apply(&json!({"upstreams": {"other": {"url": one.url()}}})).await.unwrap();
    let metrics = world.fleet.edge.admin.get("/metrics").await.unwrap().text();
    assert!(metrics.contains(r#"upstream="other""#) && !metrics.contains(r#"upstream="sample""#), "{metrics}");
}

#[tokio::test]
async fn a_client_stays_with_its_peer() {
    let (one, two) = pair().await;
    let world = world(json!({"peers": [{"url": one.url()}, {"url": two.url()}], "balance": "hash_client"})).await;
    let mut peers = BTreeSet::new();
    for client in 1..=24 {
        let mut of_client = BTreeSet::new();
        for _ in 0..4 {
            let visitor = world.visitor().await.from([127, 0, 1, client]);
            let answer = visitor.https(HOST).await.unwrap().get(HOST, "/").await.unwrap();
            of_client.insert(answer.seen("upstream").unwrap());
        }
        assert_eq!(of_client.len(), 1, "client {client}: {of_client:?}");
        peers.extend(of_client);
    }
    assert_eq!(peers.len(), 2, "24 clients on {peers:?} only");
}

#[derive(Default)]
struct Load {
    one: AtomicUsize,
    two: AtomicUsize,
    stop: AtomicBool,
}

#[tokio::test]
async fn a_peer_killed_under_load_costs_no_get_and_comes_back() {
    const ENOUGH: usize = 100;
    let (one, two) = pair().await;
    let world = world(json!({"peers": [{"url": one.url()}, {"url": two.url()}]})).await;
    let load = Arc::new(Load::default());
    let mut visits = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (visitor, load) = (world.visitor().await, load.clone());
        visits.spawn(async move {
            let mut connection = visitor.https(HOST).await.unwrap();
            while !load.stop.load(Ordering::Relaxed) {
                let answer = connection.get(HOST, "/").await.unwrap();
                assert_eq!(answer.status, 200, "{}", answer.text());
                let side = if answer.seen("upstream").as_deref() == Some("one") { &load.one } else { &load.two };
                side.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    more(&load.one, ENOUGH).await;
    more(&load.two, ENOUGH).await;
    let address = one.address;
    drop(one);
    more(&load.two, ENOUGH).await;
    assert!(world.metric(RETRIES, r#"upstream="sample""#).await > 0.0);
    let rests = until("the dead peer to rest", PATIENCE, async || match world.metric(HEALTHY, "sample").await {
        1.0 => Ok(()),
        count => fail(format!("{count} are healthy")),
    });
    rests.await.unwrap();
    let _one = Upstream::start("one", address).await.unwrap();
    more(&load.one, ENOUGH).await;
    load.stop.store(true, Ordering::Relaxed);
    while let Some(visit) = visits.join_next().await {
        visit.unwrap();
    }
}

async fn more(counter: &AtomicUsize, enough: usize) {
    let before = counter.load(Ordering::Relaxed);
    let more = until("more answers", PATIENCE, async || match counter.load(Ordering::Relaxed) - before {
        count if count >= enough => Ok(()),
        count => fail(format!("{count} so far")),
    });
    more.await.unwrap();
}

#[tokio::test]
async fn health_checks_take_peers_out_and_back() {
    let (one, two) = (Scripted::start("one").await, Scripted::start("two").await);
    let health = json!({"path": HEALTH, "interval_seconds": 1, "timeout_seconds": 1, "fails": 1});
    let world = world(json!({"peers": [{"url": one.url()}, {"url": two.url()}], "health": health})).await;
    let healthy = async |expected: f64| {
        let reached = until(format!("{expected} healthy peers"), PATIENCE, async || {
            let now = world.metric(HEALTHY, r#"upstream="sample""#).await;
            if now == expected { Ok(()) } else { fail(format!("{now} are")) }
        });
        reached.await.unwrap();
    };
    assert_eq!(answered_by(&world, 10).await, counts(&[("one", 5), ("two", 5)]));
    one.be_well(false);
    healthy(1.0).await;
    assert_eq!(answered_by(&world, 10).await, counts(&[("two", 10)]));

    two.be_well(false);
    healthy(0.0).await;
    let answer = world.https(HOST).await.get(HOST, "/").await.unwrap();
    assert_eq!(answer.status, 503);
    assert!(answer.text().starts_with("None of the site's servers is well right now.\nFault "), "{}", answer.text());

    one.be_well(true);
    two.be_well(true);
    healthy(2.0).await;
    assert_eq!(answered_by(&world, 10).await, counts(&[("one", 5), ("two", 5)]));
    assert!(one.count("GET", HEALTH) > 0);

    set(&world, json!({"url": one.url()})).await;
    set(&world, json!({"url": two.url()})).await;
    let checks = one.count("GET", HEALTH) + two.count("GET", HEALTH);
    answered_by(&world, 200).await;
    // A check may have been under way when the configuration changed, and no further one follows.
    let now = one.count("GET", HEALTH) + two.count("GET", HEALTH);
    assert!(now <= checks + 2, "{checks} checks, then {now}");
}

#[tokio::test]
async fn health_checks_go_on_after_a_restart() {
    let (one, two) = (Scripted::start("one").await, Scripted::start("two").await);
    let health = json!({"path": HEALTH, "interval_seconds": 1, "fails": 1});
    let mut world = world(json!({"peers": [{"url": one.url()}, {"url": two.url()}], "health": health})).await;
    world.fleet.edge.process.kill();
    world.fleet.edge = Edge::start(&world.fleet.edge_setup).await.unwrap();
    one.be_well(false);
    let out = until("the peer to be taken out", PATIENCE, async || match world.metric(HEALTHY, "sample").await {
        1.0 => Ok(()),
        count => fail(format!("{count} are healthy")),
    });
    out.await.unwrap();
    assert_eq!(answered_by(&world, 4).await, counts(&[("two", 4)]));
}

#[tokio::test]
async fn a_request_is_sent_again_only_where_that_is_safe() {
    let (one, two) = (Scripted::start("one").await, Scripted::start("two").await);
    let world = world(json!({"peers": [{"url": one.url()}, {"url": two.url()}], "retries": 5})).await;
    for (method, target, expected) in [
        ("GET", BREAK, 2),
        ("PUT", BREAK, 2),
        ("POST", BREAK, 1),
        ("PATCH", BREAK, 1),
        ("GET", BREAK_WITHIN_HEAD, 1),
        ("GET", BREAK_AFTER_INTERIM, 1),
    ] {
        // Both peers have a pooled connection, and the request goes over one of them.
        assert_eq!(answered_by(&world, 4).await.len(), 2);
        let (mut connection, body) = (world.https(HOST).await, if method == "GET" { "" } else { "an order" });
        let answer = connection.send(method, HOST, target, &[], body.as_bytes()).await;
        let seen = one.count(method, target) + two.count(method, target);
        assert_eq!(seen, expected, "{method} {target}: {answer:?}");
        if target != BREAK_AFTER_INTERIM {
            assert_eq!(answer.unwrap().status, 502, "{method} {target}");
        }
    }
    let broken = world.metric(RETRIES, r#"reason="broken""#).await;
    assert_eq!(broken, 2.0, "GET and PUT, once each");
}

#[tokio::test]
async fn a_post_goes_on_where_no_connection_came_about() {
    let living = Scripted::start("one").await;
    let dead = format!("http://{}", port::free().unwrap());
    let world = world(json!({"peers": [{"url": dead}, {"url": living.url()}]})).await;
    let mut connection = world.https(HOST).await;
    for _ in 0..6 {
        let answer = connection.send("POST", HOST, "/order", &[], b"an order").await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    assert_eq!(living.count("POST", "/order"), 6);
    assert!(world.metric(RETRIES, r#"reason="connect""#).await >= 1.0);
    set(&world, json!({"peers": [{"url": dead}, {"url": living.url()}], "retries": 0})).await;
    let statuses =
        [connection.get(HOST, "/").await.unwrap().status, world.https(HOST).await.get(HOST, "/").await.unwrap().status];
    assert!(statuses.contains(&502) && statuses.contains(&200), "without retries each peer is met: {statuses:?}");
}

#[tokio::test]
async fn a_peer_that_never_answers_is_told_as_such_and_is_asked_once() {
    let (one, two) = (Scripted::start("one").await, Scripted::start("two").await);
    let world = world(json!({"peers": [{"url": one.url()}, {"url": two.url()}], "read_timeout_ms": 300})).await;
    let answer = world.https(HOST).await.get(HOST, HANG).await.unwrap();
    assert_eq!(answer.status, 504);
    assert!(answer.text().contains("did not answer in time"), "{}", answer.text());
    assert_eq!(one.count("GET", HANG) + two.count("GET", HANG), 1);
}

#[tokio::test]
async fn a_peer_without_its_certificate_never_gets_a_request() {
    let (authority, stranger) = (Authority::new("the customer's CA").unwrap(), Authority::new("another CA").unwrap());
    let start = async |name, authority: &Authority| {
        let issued = authority.issue("api.internal").unwrap();
        Upstream::start_tls(name, port::free().unwrap(), &issued).await.unwrap()
    };
    let (genuine, impostor) = (start("genuine", &authority).await, start("impostor", &stranger).await);
    let world = World::start(Plan::default()).await;
    world.issue(HOST).await;
    let root = world.fleet.folder.write("customer.pem", authority.root_pem().unwrap()).unwrap();
    let settings = |peers: &[&Upstream], name: &str| {
        let peers: Vec<_> = peers.iter().map(|peer| json!({"url": peer.url()})).collect();
        json!({"peers": peers, "ca_file": root, "server_name": name})
    };
    set(&world, settings(&[&genuine, &impostor], "api.internal")).await;
    assert_eq!(answered_by(&world, 10).await, counts(&[("genuine", 10)]));
    for (peer, name) in [(&impostor, "api.internal"), (&genuine, "other.internal")] {
        set(&world, settings(&[peer], name)).await;
        let answer = world.https(HOST).await.get(HOST, "/").await.unwrap();
        assert_eq!(answer.status, 502);
        assert!(answer.text().contains("has no valid certificate"), "{name}: {}", answer.text());
    }
}
