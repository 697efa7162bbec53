//! Configuration changes: all faults at once, never half applied, nothing dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use reqwest::Method;
use serde_json::json;
use support::edge::Edge;
use support::fleet::Plan;
use support::upstream::Upstream;
use support::wait::{PATIENCE, until};
use support::{fail, port};

use crate::world::World;

#[tokio::test]
async fn three_mistakes_are_three_errors_and_nothing_changes() {
    let world = World::start(Plan::default()).await;
    let admin = &world.fleet.edge.admin;
    let running = admin.get("/v1/config").await.unwrap();
    let mistaken = r#"{
  "upstreams": {"shop": {"url": "ftp://127.0.0.1"}},
  "sites": [
    {"hosts": ["shop.example"], "upstream": "shpo"},
    {"hosts": ["under_score.example"], "upstream": "shop"}
  ]
}"#;
    let reply = admin.put("/v1/config", mistaken).await.unwrap();
    assert_eq!((reply.status, reply.content_type.as_deref()), (422, Some("application/problem+json")));
    let problem = reply.json().unwrap();
    let errors = problem["errors"].as_array().unwrap();
    let places: Vec<_> = errors.iter().map(|error| (error["line"].as_u64(), error["at"].as_str().unwrap())).collect();
    assert_eq!(
        places,
        [(Some(2), "/upstreams/shop/url"), (Some(4), "/sites/0/upstream"), (Some(5), "/sites/1/hosts/0")],
        "{problem}"
    );
    assert!(errors.iter().all(|error| error["column"].as_u64() > Some(1)), "{problem}");
    assert!(errors[1].to_string().contains("`shop`"), "a hint: {}", errors[1]);
    let now = admin.get("/v1/config").await.unwrap();
    assert_eq!((now.etag, now.body), (running.etag, running.body));
}

#[tokio::test]
async fn unknown_settings_and_a_plugins_own_faults_are_errors() {
    let world = World::start(Plan::default()).await;
    let admin = &world.fleet.edge.admin;
    let mut config = world.config();
    config["sites"][0]["upstraem"] = "sample".into();
    let problem = admin.put("/v1/config", config.to_string()).await.unwrap().json().unwrap();
    assert!(problem["errors"][0].to_string().contains("upstraem"), "{problem}");

    let mut config = world.config();
    config["sites"][0]["plugins"][0]["config"] = json!({"max_age": "a day"});
    config["sites"][0]["plugins"][1]["config"] = json!({"rules": [{"from": "/old", "to": "/new", "status": 200}]});
    let reply = admin.put("/v1/config", config.to_string()).await.unwrap();
    assert_eq!(reply.status, 422);
    let places: Vec<_> =
        reply.json().unwrap()["errors"].as_array().unwrap().iter().map(|e| e["at"].to_string()).collect();
    assert_eq!(places.len(), 2, "{places:?}");
    assert!(places[0].contains("/sites/0/plugins/0/config/max_age"), "{places:?}");
    assert!(places[1].contains("/sites/0/plugins/1/config/rules/0/status"), "{places:?}");
}

#[tokio::test]
async fn the_applied_configuration_survives_a_restart() {
    let mut world = World::start(Plan::default()).await;
    world.issue("shop.example").await;
    let before = world.fleet.edge.admin.get("/v1/config").await.unwrap();
    for kill in [false, true] {
        if kill {
            world.fleet.edge.process.kill();
        } else {
            assert!(world.fleet.edge.process.stop().await.unwrap().success());
        }
        world.fleet.edge = Edge::start(&world.fleet.edge_setup).await.unwrap();
        let after = world.fleet.edge.admin.get("/v1/config").await.unwrap();
        assert_eq!((&after.etag, &after.body), (&before.etag, &before.body));
        let answer = world.https("shop.example").await.get("shop.example", "/").await.unwrap();
        assert!(answer.status == 200 && answer.header("strict-transport-security").is_some());
    }
}

#[tokio::test]
async fn a_checked_configuration_is_not_applied() {
    let world = World::start(Plan::default()).await;
    let admin = &world.fleet.edge.admin;
    let etag = admin.get("/v1/config").await.unwrap().etag;
    let mut config = world.config();
    config["sites"][0]["hosts"] = json!(["other.example"]);
    admin.put("/v1/config?dry_run=true", config.to_string()).await.unwrap().expect(200).unwrap();
    config["sites"][0]["upstream"] = "nowhere".into();
    admin.put("/v1/config?dry_run=true", config.to_string()).await.unwrap().expect(422).unwrap();
    assert_eq!(admin.get("/v1/config").await.unwrap().etag, etag);
}

#[tokio::test]
async fn an_off_boarded_domain_leaves_the_edge_and_can_come_back() {
    for redis in [false, true] {
        let world = World::start(Plan { redis, ..Plan::default() }).await;
        world.issue("shop.example").await;
        world.issue("blog.example").await;
        let visitor = world.visitor().await;
        world.still_serves("shop.example").await;
        let operator = world.fleet.certservice.as_operator();
        operator.send(Method::DELETE, "/v1/domains/shop.example", &[], "").await.unwrap().expect(204).unwrap();
        let gone = until("the edge to refuse it", PATIENCE, async || match visitor.https("shop.example").await {
            Ok(_) => fail("it is still served"),
            Err(error) => Ok(error.to_string()),
        });
        assert!(gone.await.unwrap().contains("unrecognized name"));
        world.still_serves("blog.example").await;
        world.issue("shop.example").await;
        let back =
            until("the edge to serve it again", PATIENCE, async || visitor.https("shop.example").await.map(drop));
        back.await.unwrap();
    }
}

#[derive(Default)]
struct Seen {
    old: AtomicUsize,
    new: AtomicUsize,
    stop: AtomicBool,
}

#[tokio::test]
async fn a_change_under_load_loses_no_request() {
    const ENOUGH: usize = 200;
    let world = World::start(Plan::default()).await;
    world.issue("shop.example").await;
    let other = Upstream::start("other", port::free().unwrap()).await.unwrap();
    let seen = Arc::new(Seen::default());
    let mut visits = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (visitor, seen) = (world.visitor().await, seen.clone());
        visits.spawn(async move {
            while !seen.stop.load(Ordering::Relaxed) {
                let mut connection = visitor.https("shop.example").await.unwrap();
                for _ in 0..10 {
                    let answer = connection.get("shop.example", "/").await.unwrap();
                    assert_eq!(answer.status, 200);
                    let side = if answer.seen("upstream").as_deref() == Some("other") { &seen.new } else { &seen.old };
                    side.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
    }
    answers(&seen.old, ENOUGH).await;
    let mut config = world.config();
    config["upstreams"]["sample"]["url"] = other.url().into();
    world.fleet.edge.apply(&config).await.unwrap();
    answers(&seen.new, ENOUGH).await;
    seen.stop.store(true, Ordering::Relaxed);
    while let Some(visit) = visits.join_next().await {
        visit.unwrap();
    }
}

async fn answers(counter: &AtomicUsize, enough: usize) {
    let enough = until("answers", PATIENCE, async || {
        let count = counter.load(Ordering::Relaxed);
        if count >= enough { Ok(()) } else { fail(format!("{count} so far")) }
    });
    enough.await.unwrap();
}
