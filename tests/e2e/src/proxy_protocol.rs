//! Who may say who the client is.

mod fields;

use support::fleet::Plan;
use support::proxy_header;

use crate::world::{BALANCER, CLIENT_IP, World, client};

const REFUSALS: &str = "latchkey_connection_refusals_total";

#[tokio::test]
async fn both_versions_tell_the_upstream_who_the_client_is() {
    let world = World::start(Plan::default()).await;
    world.issue("shop.example").await;
    for header in [world.v1(), world.v2()] {
        let balancer = world.visitor().await.from(BALANCER).beginning_with(header);
        let answer = balancer.https("shop.example").await.unwrap().get("shop.example", "/").await.unwrap();
        assert_eq!(answer.seen("x-forwarded-for").as_deref(), Some(CLIENT_IP));
        assert_eq!(answer.seen("x-forwarded-proto").as_deref(), Some("https"));
        let forwarded = format!("for={CLIENT_IP};host=shop.example;proto=https");
        assert_eq!(answer.seen("forwarded"), Some(forwarded));
    }
    let header = proxy_header::v2("[2001:db8::7]:51000".parse().unwrap(), "[2001:db8::1]:443".parse().unwrap());
    let balancer = world.visitor().await.from(BALANCER).beginning_with(header);
    let answer = balancer.https("shop.example").await.unwrap().get("shop.example", "/").await.unwrap();
    assert_eq!(answer.seen("x-forwarded-for").as_deref(), Some("2001:db8::7"));
    assert_eq!(answer.seen("forwarded").as_deref(), Some("for=\"[2001:db8::7]\";host=shop.example;proto=https"));
}

#[tokio::test]
async fn the_plain_listener_takes_both_versions_too() {
    let world = World::start(Plan::default()).await;
    for header in [world.v1(), world.v2()] {
        let balancer = world.plain().from(BALANCER).beginning_with(header);
        let answer = balancer.http().await.unwrap().get("shop.example", "/").await.unwrap();
        assert_eq!(answer.status, 301);
    }
    // The policy judges the client that the header names, not the balancer: 198.51.100.0/24 is denied.
    let denied = "198.51.100.9:1000".parse().unwrap();
    for header in [proxy_header::v1(denied, client()), proxy_header::v2(denied, client())] {
        let before = world.metric(REFUSALS, "reason=\"policy\"").await;
        let balancer = world.plain().from(BALANCER).beginning_with(header);
        assert!(balancer.http().await.unwrap().get("shop.example", "/").await.is_err());
        world.grows(REFUSALS, "reason=\"policy\"", before, 1.0).await;
    }
}

#[tokio::test]
async fn an_untrusted_peer_that_sends_a_header_is_refused() {
    let world = World::start(Plan::default()).await;
    world.issue("shop.example").await;
    for header in [world.v1(), world.v2()] {
        let label = "reason=\"proxy_header_untrusted_peer\"";
        let before = world.metric(REFUSALS, label).await;
        let pretender = world.visitor().await.beginning_with(header.clone());
        assert!(pretender.https("shop.example").await.is_err());
        let plain = world.plain().beginning_with(header);
        assert!(plain.http().await.unwrap().get("shop.example", "/").await.is_err());
        world.grows(REFUSALS, label, before, 2.0).await;
    }
    world.still_serves("shop.example").await;
}

#[tokio::test]
async fn a_balancer_must_send_a_header() {
    let world = World::start(Plan::default()).await;
    world.issue("shop.example").await;
    let label = "reason=\"proxy_header_missing\"";
    let before = world.metric(REFUSALS, label).await;
    assert!(world.visitor().await.from(BALANCER).https("shop.example").await.is_err());
    world.grows(REFUSALS, label, before, 1.0).await;
}

#[tokio::test]
async fn a_listener_without_a_policy_trusts_nobody() {
    let world = World::start(Plan::default()).await;
    world.issue("shop.example").await;
    let mut config = world.config();
    config.as_object_mut().unwrap().remove("listeners");
    world.fleet.edge.apply(&config).await.unwrap();
    let balancer = world.visitor().await.from(BALANCER).beginning_with(world.v2());
    assert!(balancer.https("shop.example").await.is_err());
    world.still_serves("shop.example").await;
}

#[tokio::test]
async fn what_a_visitor_claims_about_itself_never_reaches_the_upstream() {
    let world = World::start(Plan::default()).await;
    world.issue("shop.example").await;
    let lie = "6.6.6.6";
    let claims = [
        ("X-Forwarded-For", lie),
        ("x-forwarded-for", lie),
        ("X-Forwarded-Host", "6.6.6.6.example"),
        ("X-Forwarded-Proto", "gopher-6.6.6.6"),
        ("Forwarded", "for=6.6.6.6;host=6.6.6.6.example"),
        ("X-Real-IP", lie),
        ("True-Client-IP", lie),
    ];
    let direct = world.visitor().await;
    let balanced = world.visitor().await.from(BALANCER).beginning_with(world.v2());
    for (visitor, address) in [(direct, "127.0.0.1"), (balanced, CLIENT_IP)] {
        let mut connection = visitor.https("shop.example").await.unwrap();
        let answer = connection.send("GET", "shop.example", "/", &claims, b"").await.unwrap();
        assert_eq!(answer.status, 200);
        assert!(!answer.text().contains(lie), "{}", answer.text());
        assert_eq!(answer.seen("x-forwarded-for").as_deref(), Some(address), "{}", answer.text());
        assert_eq!(answer.seen("x-forwarded-host").as_deref(), Some("shop.example"));
    }
    // Nor can a visitor have the proxy's own headers removed on the way, as hop-by-hop ones.
    for nominated in ["x-forwarded-for, forwarded", "X-Forwarded-For", "close, forwarded"] {
        let mut connection = world.https("shop.example").await;
        let answer = connection.send("GET", "shop.example", "/", &[("Connection", nominated)], b"").await.unwrap();
        let told = answer.seen("x-forwarded-for").is_some() && answer.seen("forwarded").is_some();
        assert!(told || answer.status == 400, "{nominated}: {}", answer.text());
    }
}
