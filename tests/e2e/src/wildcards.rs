//! One certificate for all names one label below a domain.

use reqwest::Method;
use support::edge::Edge;
use support::fleet::Plan;
use support::wait::{PATIENCE, until};
use support::{Result, fail};

use crate::s_client::{VERSIONS, Version, Visit};
use crate::world::World;

const UNRECOGNIZED_NAME: u8 = 112;

async fn names(world: &World, host: &str) -> Vec<String> {
    let seen = Visit::to(world.fleet.edge_setup.https, Version::Tls13, host).go().await;
    if seen.finished() { seen.names() } else { Vec::new() }
}

/// Until a host is answered with a certificate for these names; none is a refusal.
async fn answered(world: &World, host: &str, wanted: &[&str]) -> Result<()> {
    let what = format!("{host} to be answered with {wanted:?}");
    until(what, PATIENCE, async || {
        let names = names(world, host).await;
        if names == wanted { Ok(()) } else { fail(format!("{names:?}")) }
    })
    .await
}

#[tokio::test]
async fn a_wildcard_serves_the_names_one_label_below_and_no_others() {
    let world = World::start(Plan::default()).await;
    world.issue("*.shop.example").await;
    for version in VERSIONS {
        let to = |name: &str| Visit::to(world.fleet.edge_setup.https, version, name);
        for host in ["a.shop.example", "xn--bcher-kva.shop.example"] {
            let seen = to(host).go().await;
            assert_eq!((seen.names(), seen.status()), (vec!["*.shop.example".to_owned()], Some(200)), "{}", seen.text);
        }
        for host in ["shop.example", "b.a.shop.example", "a.workshop.example", "*.shop.example"] {
            assert_eq!(to(host).go().await.alert(), Some(UNRECOGNIZED_NAME), "{host}");
        }
    }
}

#[tokio::test]
async fn the_exact_name_goes_before_the_wildcard_and_each_can_go_by_itself() {
    let world = World::start(Plan::default()).await;
    world.issue("*.shop.example").await;
    answered(&world, "a.shop.example", &["*.shop.example"]).await.unwrap();
    world.issue("a.shop.example").await;
    answered(&world, "a.shop.example", &["a.shop.example"]).await.unwrap();
    assert_eq!(names(&world, "b.shop.example").await, ["*.shop.example"]);
    let operator = world.fleet.certservice.as_operator();
    operator.send(Method::DELETE, "/v1/domains/a.shop.example", &[], "").await.unwrap().expect(204).unwrap();
    answered(&world, "a.shop.example", &["*.shop.example"]).await.unwrap();
    world.issue("a.shop.example").await;
    operator.send(Method::DELETE, "/v1/domains/*.shop.example", &[], "").await.unwrap().expect(204).unwrap();
    answered(&world, "b.shop.example", &[]).await.unwrap();
    answered(&world, "a.shop.example", &["a.shop.example"]).await.unwrap();
}

#[tokio::test]
async fn after_a_restart_a_wildcard_is_served_from_disk_while_certservice_is_down() {
    let mut world = World::start(Plan::default()).await;
    world.issue("*.shop.example").await;
    answered(&world, "a.shop.example", &["*.shop.example"]).await.unwrap();
    world.fleet.certservice.process.stop().await.unwrap();
    world.fleet.edge.process.stop().await.unwrap();
    world.fleet.edge = Edge::start(&world.fleet.edge_setup).await.unwrap();
    for host in ["a.shop.example", "never-seen.shop.example"] {
        assert_eq!(names(&world, host).await, ["*.shop.example"], "{host}");
    }
}
