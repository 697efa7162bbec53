//! Domains whose certificate is ordered when the first visitor comes: that one waits for it, and gets it.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use support::edge::Edge;
use support::fail;
use support::fleet::Plan;
use support::process::Signal;
use support::wait::{PATIENCE, until};

use crate::s_client::{Version, Visit};
use crate::world::World;

const UNRECOGNIZED_NAME: Option<u8> = Some(112);
const LOOKUPS: &str = "latchkey_certificate_lookups_total";

async fn domain(world: &World, name: &str) -> Value {
    world.fleet.certservice.as_operator().get(&format!("/v1/domains/{name}")).await.unwrap().json().unwrap()
}

/// Registers a domain that waits for its visitor, and lets it be looked at.
async fn park(world: &World, name: &str) {
    let operator = world.fleet.certservice.as_operator();
    let body = json!({"order": "first_visit"}).to_string();
    operator.put(&format!("/v1/domains/{name}"), body.as_str()).await.unwrap().expect(201).unwrap();
    until(format!("{name} to be looked at"), PATIENCE, async || {
        let domain = domain(world, name).await;
        if domain["next_check_at"].is_null() { Ok(()) } else { fail(domain.to_string()) }
    })
    .await
    .unwrap();
    assert_eq!(domain(world, name).await["state"], "working");
}

/// What CertService counts of first visits.
async fn visits(world: &World, result: &str) -> f64 {
    let metrics = world.fleet.certservice.as_operator().get("/metrics").await.unwrap().text();
    let line = format!("latchkey_certservice_first_visits_total{{result=\"{result}\"}} ");
    metrics.lines().find_map(|found| found.strip_prefix(&line)?.parse().ok()).unwrap_or(0.0)
}

/// Number of the newest entry of the journal: everything that was changed has one.
async fn journal(world: &World) -> u64 {
    let events = world.fleet.certservice.as_operator().get("/v1/audit?limit=1000").await.unwrap().json().unwrap();
    events["entries"].as_array().unwrap().last().map_or(0, |entry| entry["seq"].as_u64().unwrap())
}

async fn refused(world: &World, name: &str) {
    let seen = Visit::to(world.fleet.edge_setup.https, Version::Tls13, name).go().await;
    assert_eq!(seen.alert(), UNRECOGNIZED_NAME, "{name}: {}", seen.text);
}

#[tokio::test]
async fn the_first_visitor_gets_the_certificate_in_the_handshake_that_asks_for_it() {
    for (redis, mariadb) in [(false, false), (true, true)] {
        let world = World::start(Plan { pebble: true, redis, mariadb, ..Plan::default() }).await;
        park(&world, "first.example").await;
        park(&world, "crowd.example").await;
        assert_eq!(domain(&world, "first.example").await["code"], "awaits_visit");
        let begun = Instant::now();
        let mut connection = world.https("first.example").await;
        assert_eq!(connection.names(), ["first.example"]);
        assert_eq!(connection.get("first.example", "/").await.unwrap().status, 200);
        println!("{{\"first_visit_ms\":{},\"redis\":{redis},\"mariadb\":{mariadb}}}", begun.elapsed().as_millis());
        assert_eq!((visits(&world, "ordered").await, visits(&world, "issued").await), (1.0, 1.0));
        // A crowd before one name is one order, and all of it is served.
        let visitor = world.visitor().await;
        let crowd = (0..40).map(|_| visitor.https("crowd.example"));
        for connection in futures_util::future::join_all(crowd).await {
            assert_eq!(connection.unwrap().names(), ["crowd.example"]);
        }
        assert_eq!((visits(&world, "ordered").await, visits(&world, "issued").await), (2.0, 2.0));
        assert!(world.metric(LOOKUPS, "result=\"hit\",tier=\"order\"").await >= 2.0);
    }
}

#[tokio::test]
async fn a_flood_of_names_that_nobody_registered_brings_nothing_about() {
    let world =
        World::start(Plan { certservice_settings: "[domains]\norder = \"first_visit\"\n", ..Plan::default() }).await;
    for name in ["shop.example", "gone.example"] {
        park(&world, name).await;
    }
    let operator = world.fleet.certservice.as_operator();
    operator.send(Method::DELETE, "/v1/domains/gone.example", &[], "").await.unwrap().expect(204).unwrap();
    let (before, visitor) = (journal(&world).await, world.visitor().await);
    let names = (0..300).flat_map(|n| [format!("n{n}.shop.example"), format!("n{n}.flood.example")]);
    let names: Vec<_> = names.chain((0..20).map(|_| "gone.example".to_owned())).collect();
    for some in names.chunks(50) {
        let visits = some.iter().map(|name| visitor.https(name));
        assert!(futures_util::future::join_all(visits).await.iter().all(Result::is_err));
    }
    assert_eq!(journal(&world).await, before);
    assert_eq!(operator.get("/v1/domains").await.unwrap().json().unwrap()["domains"].as_array().unwrap().len(), 1);
    assert_eq!(visits(&world, "ordered").await, 0.0);
    // Who is registered is served all the same.
    assert_eq!(world.https("shop.example").await.names(), ["shop.example"]);
}

#[tokio::test]
async fn names_that_a_wildcard_covers_are_served_by_it_and_not_ordered() {
    let world = World::start(Plan::default()).await;
    world.issue("*.shop.example").await;
    park(&world, "a.shop.example").await;
    assert_eq!(domain(&world, "a.shop.example").await["code"], "covered_by_wildcard");
    for _ in 0..3 {
        assert_eq!(world.https("a.shop.example").await.names(), ["*.shop.example"]);
    }
    assert_eq!((visits(&world, "ordered").await, visits(&world, "issued").await), (0.0, 0.0));
    assert!(domain(&world, "a.shop.example").await["certificate"].is_null());
    // A wildcard may wait for its first visitor as well.
    park(&world, "*.other.example").await;
    assert_eq!(world.https("a.other.example").await.names(), ["*.other.example"]);
}

#[tokio::test]
async fn beyond_the_limit_a_visitor_is_refused_at_once_and_the_domain_says_why() {
    let settings = "[domains]\nfirst_visits_per_hour_max = 1\n";
    let world = World::start(Plan { certservice_settings: settings, ..Plan::default() }).await;
    for name in ["a.example", "b.example"] {
        park(&world, name).await;
    }
    assert_eq!(world.https("a.example").await.names(), ["a.example"]);
    let waited = world.metric(LOOKUPS, "tier=\"order\"").await;
    refused(&world, "b.example").await;
    assert_eq!(world.metric(LOOKUPS, "tier=\"order\"").await, waited);
    let shown = domain(&world, "b.example").await;
    assert_eq!((&shown["code"], &shown["state"]), (&json!("first_visits_used_up"), &json!("working")));
    assert_eq!(visits(&world, "limit_reached").await, 1.0);
}

#[tokio::test]
async fn a_visitor_whose_certificate_does_not_come_in_time_is_refused_and_a_later_one_gets_it() {
    let mut world = World::start(Plan { pebble: true, ..Plan::default() }).await;
    park(&world, "late.example").await;
    world.fleet.edge.process.stop().await.unwrap();
    // The boot file of these tests ends in another section.
    world.fleet.edge_setup.settings = "\n[tls]\norder_timeout_ms = 600\n".to_owned();
    world.fleet.edge = Edge::start(&world.fleet.edge_setup).await.unwrap();
    let pebble = world.fleet.pebble.as_ref().unwrap();
    pebble.process.signal(Signal::STOP);
    let begun = Instant::now();
    refused(&world, "late.example").await;
    assert!(begun.elapsed() >= Duration::from_millis(600));
    assert_eq!(world.metric(LOOKUPS, "result=\"timed_out\",tier=\"order\"").await, 1.0);
    assert_eq!(world.metric("latchkey_tls_handshakes_total", "not_issued_in_time").await, 1.0);
    pebble.process.signal(Signal::CONT);
    let visitor = world.visitor().await;
    until("a later visitor to be served", PATIENCE, async || visitor.https("late.example").await.map(drop))
        .await
        .unwrap();
    assert_eq!(visits(&world, "ordered").await, 1.0);
}
