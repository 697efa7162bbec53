//! Customers' servers: over TLS only where their certificate verifies; gone ones are told from slow edges.

mod hostile;
mod http2;
mod introduced;
mod peers;
mod scripted;
mod slow;
mod wild;

use serde_json::json;
use support::authority::Authority;
use support::fleet::Plan;
use support::port;
use support::upstream::Upstream;

use crate::world::World;

#[tokio::test]
async fn an_upstream_over_tls_must_prove_its_name() {
    let world = World::start(Plan::default()).await;
    world.issue("shop.example").await;
    let authority = Authority::new("the customer's CA").unwrap();
    let stranger = Authority::new("somebody else's CA").unwrap();
    let root = world.fleet.folder.write("customer.pem", authority.root_pem().unwrap()).unwrap();
    let issued = authority.issue("api.internal").unwrap();
    let genuine = Upstream::start_tls("genuine", port::free().unwrap(), &issued).await.unwrap();
    let issued = stranger.issue("api.internal").unwrap();
    let impostor = Upstream::start_tls("impostor", port::free().unwrap(), &issued).await.unwrap();

    for (upstream, server_name, status) in
        [(&genuine, "api.internal", 200), (&genuine, "other.internal", 502), (&impostor, "api.internal", 502)]
    {
        let mut config = world.config();
        config["upstreams"]["sample"] = json!({"url": upstream.url(), "ca_file": root, "server_name": server_name});
        world.fleet.edge.apply(&config).await.unwrap();
        let answer = world.https("shop.example").await.get("shop.example", "/").await.unwrap();
        assert_eq!(answer.status, status, "{server_name}: {}", answer.text());
        if status == 200 {
            assert_eq!(answer.seen("upstream").as_deref(), Some("genuine"));
            assert_eq!(answer.seen("host").as_deref(), Some("shop.example"));
        }
    }
}

#[tokio::test]
async fn an_upstream_that_is_gone_is_told_as_such() {
    let world = World::start(Plan::default()).await;
    world.issue("shop.example").await;
    let mut config = world.config();
    config["upstreams"]["sample"]["url"] = format!("http://{}", port::free().unwrap()).into();
    world.fleet.edge.apply(&config).await.unwrap();
    let answer = world.https("shop.example").await.get("shop.example", "/").await.unwrap();
    assert_eq!(answer.status, 502);
    assert!(answer.text().contains("server does not accept connections"), "{}", answer.text());
    world.fleet.edge.apply(&world.config()).await.unwrap();
    world.still_serves("shop.example").await;
}

#[tokio::test]
async fn hosts_go_to_their_own_upstream_most_exact_first() {
    let world = World::start(Plan::default()).await;
    let other = Upstream::start("other", port::free().unwrap()).await.unwrap();
    for name in ["shop.example", "a.shops.example", "b.shops.example"] {
        world.issue(name).await;
    }
    let mut config = world.config();
    config["upstreams"]["other"] = json!({"url": other.url()});
    config["sites"] = json!([
        {"hosts": ["*"], "upstream": "sample"},
        {"hosts": ["*.shops.example"], "upstream": "other"},
        {"hosts": ["b.shops.example"], "upstream": "sample"},
    ]);
    world.fleet.edge.apply(&config).await.unwrap();
    for (name, upstream) in [("shop.example", "sample"), ("a.shops.example", "other"), ("b.shops.example", "sample")] {
        let answer = world.https(name).await.get(name, "/").await.unwrap();
        assert_eq!(answer.seen("upstream").as_deref(), Some(upstream), "{name}");
        assert_eq!(answer.header("strict-transport-security"), None, "{name}: no plugin is bound");
    }
}

#[tokio::test]
async fn a_customers_own_hsts_header_is_replaced_or_kept_as_configured() {
    let world = World::start(Plan::default()).await;
    world.issue("shop.example").await;
    let target = "/?respond-with=strict-transport-security:max-age=1";
    for (upstream_header, expected) in [("replace", "max-age=86400"), ("keep", "max-age=1")] {
        let mut config = world.config();
        config["sites"][0]["plugins"][0]["config"] = json!({"max_age": 86400, "upstream_header": upstream_header});
        world.fleet.edge.apply(&config).await.unwrap();
        let answer = world.https("shop.example").await.get("shop.example", target).await.unwrap();
        assert_eq!(answer.header("strict-transport-security"), Some(expected), "{upstream_header}");
    }
}
