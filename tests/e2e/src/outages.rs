//! What goes on when a part is gone.

mod descriptors;
mod disk;
mod long;
mod redis;

use support::certservice::CertService;
use support::edge::Edge;
use support::fleet::Plan;

use crate::world::World;

#[tokio::test]
async fn warm_names_are_served_without_certservice_and_redis() {
    let mut world = World::start(Plan { redis: true, ..Plan::default() }).await;
    world.issue("shop.example").await;
    world.issue("cold.example").await;
    let visitor = world.visitor().await;
    world.still_serves("shop.example").await;

    world.fleet.certservice.process.kill();
    world.fleet.redis.as_mut().unwrap().process.kill();
    for _ in 0..20 {
        let mut connection = visitor.https("shop.example").await.unwrap();
        assert_eq!(connection.get("shop.example", "/").await.unwrap().status, 200);
    }
    // A cold one can't be: it is refused within the deadline, and served once CertService is back.
    assert!(visitor.https("cold.example").await.is_err());
    world.fleet.certservice = CertService::start(&world.fleet.certservice_setup).await.unwrap();
    let served = support::wait::until("the cold name", support::wait::PATIENCE, async || {
        visitor.https("cold.example").await.map(|connection| connection.names())
    });
    assert_eq!(served.await.unwrap(), ["cold.example"]);
}

#[tokio::test]
async fn a_restarted_edge_serves_from_its_disk_when_all_else_is_down() {
    let mut world = World::start(Plan::default()).await;
    world.issue("shop.example").await;
    let visitor = world.visitor().await;
    world.still_serves("shop.example").await;
    let on_disk = world.fleet.edge_setup.data_folder().join("bundles");
    let kept = support::wait::until("the bundle on disk", support::wait::PATIENCE, async || match files_in(&on_disk) {
        0 => support::fail("none yet"),
        files => Ok(files),
    });
    assert_eq!(kept.await.unwrap(), 1);

    world.fleet.certservice.process.kill();
    world.fleet.edge.process.kill();
    world.fleet.edge = Edge::start(&world.fleet.edge_setup).await.unwrap();
    let mut connection = visitor.https("shop.example").await.unwrap();
    assert_eq!(connection.get("shop.example", "/").await.unwrap().status, 200);
}

fn files_in(folder: &std::path::Path) -> usize {
    let entries = std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { files_in(&path) } else { 1 }).sum()
}

#[tokio::test]
async fn redis_holds_a_warm_fleet_through_a_restart_of_the_proxy() {
    let mut world = World::start(Plan { redis: true, ..Plan::default() }).await;
    world.issue("shop.example").await;
    let visitor = world.visitor().await;
    let redis = world.fleet.redis.as_ref().unwrap();
    let key = contract::redis_keys::bundle(&crate::world::hostname("shop.example"));
    let cached = support::wait::until("the bundle in Redis", support::wait::PATIENCE, async || {
        redis.get(&key).await?.map_or_else(|| support::fail("none yet"), Ok)
    });
    cached.await.unwrap();
    world.fleet.certservice.process.kill();
    world.fleet.edge.process.stop().await.unwrap();
    world.fleet.edge = Edge::start(&world.fleet.edge_setup).await.unwrap();
    let mut connection = visitor.https("shop.example").await.unwrap();
    assert_eq!(connection.get("shop.example", "/").await.unwrap().status, 200);
}

#[tokio::test]
async fn a_killed_certservice_finishes_what_it_had_begun() {
    let mut world = World::start(Plan { pebble: true, ..Plan::default() }).await;
    let names = ["a.example", "b.example", "c.example", "d.example"];
    for name in names {
        let path = format!("/v1/domains/{name}");
        world.fleet.certservice.as_operator().put(&path, "{}").await.unwrap().expect(201).unwrap();
    }
    world.fleet.certservice.process.kill();
    world.fleet.certservice = CertService::start(&world.fleet.certservice_setup).await.unwrap();
    for name in names {
        let path = format!("/v1/domains/{name}");
        let live = support::wait::until(name, support::wait::PATIENCE, async || {
            let domain = world.fleet.certservice.as_operator().get(&path).await?.json()?;
            if domain["state"] == "live" { Ok(()) } else { support::fail(domain.to_string()) }
        });
        live.await.unwrap();
        assert_eq!(world.https(name).await.names(), [name]);
    }
}
