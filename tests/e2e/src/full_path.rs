//! One request through every part.

use support::fleet::Plan;

use crate::world::{BALANCER, CLIENT_IP, World, hostname};

#[tokio::test]
async fn a_visitor_reaches_the_upstream_with_a_certificate_from_acme() {
    let world = World::start(Plan { pebble: true, redis: true, ..Plan::default() }).await;
    world.issue("shop.example").await;
    let balancer = world.visitor().await.from(BALANCER).beginning_with(world.v2());
    let mut connection = balancer.https("shop.example").await.unwrap();
    assert_eq!(connection.names(), ["shop.example"]);
    assert!(connection.issuer().starts_with("Pebble Intermediate CA"), "{}", connection.issuer());

    let answer = connection.get("shop.example", "/cart?item=1").await.unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.seen("path").as_deref(), Some("/cart?item=1"));
    assert_eq!(answer.seen("host").as_deref(), Some("shop.example"));
    assert_eq!(answer.seen("x-forwarded-for").as_deref(), Some(CLIENT_IP));
    assert!(answer.header("strict-transport-security").unwrap().contains("max-age=86400"));

    let redirect = connection.get("shop.example", "/old").await.unwrap();
    assert_eq!((redirect.status, redirect.seen("upstream")), (308, None));
    assert!(redirect.header("location").unwrap().ends_with("/new"), "{redirect:?}");

    // The CA's challenge and the certificate, all from Redis; only CertService's own look at the path is not in there.
    assert!(world.metric("latchkey_certificate_lookups_total", "{result=\"hit\",tier=\"redis\"}").await >= 2.0);
    assert_eq!(world.metric("latchkey_certificate_lookups_total", "tier=\"certservice\"").await, 1.0);
}

#[tokio::test]
async fn the_internal_ca_serves_without_redis() {
    let world = World::start(Plan::default()).await;
    for name in ["shop.example", "blog.example"] {
        world.issue(name).await;
        let mut connection = world.https(name).await;
        assert_eq!(connection.names(), [name]);
        assert_eq!(connection.get(name, "/").await.unwrap().seen("host").as_deref(), Some(name));
    }
    assert_eq!(world.metric("latchkey_certificate_lookups_total", "tier=\"certservice\"").await, 2.0);
}

#[tokio::test]
async fn names_beyond_the_parsed_ones_are_served_from_their_warm_form() {
    let mut world = World::start(Plan::default()).await;
    world.fleet.edge_setup.settings = "[tls]\nparsed_mib_max = 1\n".into();
    world.fleet.edge.process.stop().await.unwrap();
    world.fleet.edge = support::edge::Edge::start(&world.fleet.edge_setup).await.unwrap();
    // More than a mebibyte of parsed certificates.
    let names: Vec<String> = (0..240).map(|number| format!("shop-{number}.example")).collect();
    for some in names.chunks(20) {
        futures_util::future::join_all(some.iter().map(|name| world.issue(name))).await;
    }
    world.grows("latchkey_known_names", "", 0.0, 240.0).await;
    for _ in 0..2 {
        for name in &names {
            assert_eq!(world.https(name).await.names(), [name.as_str()]);
        }
    }
    assert!(world.metric("latchkey_certificate_lookups_total", "{result=\"hit\",tier=\"warm\"}").await >= 1.0);
    assert_eq!(world.metric("latchkey_certificate_lookups_total", "{result=\"miss\",tier=\"warm\"}").await, 240.0);
    assert_eq!(world.metric("latchkey_certificates_held", "tier=\"warm\"").await, 240.0);
    let parsed = world.metric("latchkey_certificates_held", "tier=\"parsed\"").await;
    assert!((1.0..240.0).contains(&parsed), "{parsed}");
}

#[tokio::test]
async fn mariadb_is_a_store_and_certservice_answers_challenges_without_redis() {
    let world = World::start(Plan { pebble: true, mariadb: true, ..Plan::default() }).await;
    world.issue("shop.example").await;
    assert_eq!(world.https("shop.example").await.names(), ["shop.example"]);
    let domains = world.fleet.certservice.as_operator().get("/v1/domains").await.unwrap().json().unwrap();
    assert_eq!(domains["domains"][0]["name"], "shop.example");
    assert_eq!(domains["domains"][0]["certificate"]["revision"], world.bundle("shop.example").await.revision);
}

#[tokio::test]
async fn the_plain_listener_redirects_and_answers_challenges() {
    let world = World::start(Plan { pebble: true, ..Plan::default() }).await;
    let mut connection = world.plain().http().await.unwrap();
    let answer = connection.get("shop.example", "/a?b=c").await.unwrap();
    let port = world.fleet.edge_setup.https.port();
    assert_eq!(answer.header("location"), Some(format!("https://shop.example:{port}/a?b=c").as_str()));
    assert_eq!(answer.status, 301);
    let unknown = connection.get("shop.example", "/.well-known/acme-challenge/no-such-token-0123456789").await.unwrap();
    assert_eq!(unknown.status, 404);

    let before = world.metric("latchkey_http_local_answers_total", "reason=\"challenge\"").await;
    world.issue("shop.example").await;
    assert!(world.metric("latchkey_http_local_answers_total", "reason=\"challenge\"").await > before);
}

#[tokio::test]
async fn names_that_people_type_are_served_as_browsers_ask_for_them() {
    let world = World::start(Plan::default()).await;
    world.issue("xn--bcher-kva.example").await;
    assert_eq!(hostname("Bücher.example").as_str(), "xn--bcher-kva.example");
    assert_eq!(world.https("xn--bcher-kva.example").await.names(), ["xn--bcher-kva.example"]);
}

#[tokio::test]
async fn one_load_serves_all_visitors_who_wait_for_the_same_name() {
    let world = World::start(Plan::default()).await;
    world.issue("shop.example").await;
    let visitor = world.visitor().await;
    let mut visits = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let visitor = visitor.clone();
        visits.spawn(async move { visitor.https("shop.example").await.unwrap().names() });
    }
    while let Some(names) = visits.join_next().await {
        assert_eq!(names.unwrap(), ["shop.example"]);
    }
    assert_eq!(world.metric("latchkey_certificate_lookups_total", "tier=\"certservice\"").await, 1.0);
}
