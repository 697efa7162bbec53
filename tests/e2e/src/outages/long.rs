//! Outages that last longer than every refresh: names that were served once stay served, also by an edge that is started
//! in the middle.

use std::time::{Duration, Instant};

use support::edge::Edge;
use support::fleet::Plan;
use support::wait::{PATIENCE, until};
use support::{fail, folder};

use crate::world::World;

const NAMES: [&str; 3] = ["a.example", "b.example", "c.example"];
/// Longer than a refresh (1 s below) and than a poll of the changes (5 s).
const OUTAGE: Duration = Duration::from_secs(8);
/// Nobody is waited for on the way, so this is what a busy machine takes for one.
const HANDSHAKE_MAX: Duration = Duration::from_secs(15);

/// Every name was served once, and each of them is on the edge's disk.
async fn warm_world(plan: Plan) -> World {
    let mut world = World::start(plan).await;
    world.fleet.edge.process.stop().await.unwrap();
    world.fleet.edge_setup.settings = "[tls]\nrefresh_seconds = 1\n".into();
    world.fleet.edge = Edge::start(&world.fleet.edge_setup).await.unwrap();
    for name in NAMES {
        world.issue(name).await;
        world.still_serves(name).await;
    }
    let bundles = world.fleet.edge_setup.data_folder().join("bundles");
    let kept = until("the bundles on disk", PATIENCE, async || {
        let files = super::files_in(&bundles);
        if files >= NAMES.len() { Ok(()) } else { fail(format!("{files} files")) }
    });
    kept.await.unwrap();
    world
}

/// Asks for every name again and again; each answer comes, and soon.
async fn holds(world: &World, outage: &str) {
    let (visitor, began) = (world.visitor().await, Instant::now());
    let mut rounds = 0;
    while began.elapsed() < OUTAGE || rounds < 3 {
        for name in NAMES {
            let asked = Instant::now();
            let mut connection = visitor.https(name).await.unwrap_or_else(|error| panic!("{outage}: {name}: {error}"));
            assert_eq!(connection.names(), [name], "{outage}");
            assert_eq!(connection.get(name, "/").await.unwrap().status, 200, "{outage}: {name}");
            assert!(asked.elapsed() < HANDSHAKE_MAX, "{outage}: {name} took {:?}", asked.elapsed());
        }
        rounds += 1;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn restarted(world: &mut World) {
    world.fleet.edge.process.kill();
    world.fleet.edge = Edge::start(&world.fleet.edge_setup).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn known_names_outlive_sql_then_redis_then_certservice() {
    let mut world = warm_world(Plan { redis: true, mariadb: true, ..Plan::default() }).await;
    world.fleet.mariadb.as_mut().unwrap().process.kill();
    holds(&world, "without SQL").await;
    world.fleet.redis.as_mut().unwrap().process.kill();
    holds(&world, "without SQL and Redis").await;
    world.fleet.certservice.process.kill();
    holds(&world, "without SQL, Redis and CertService").await;
    restarted(&mut world).await;
    holds(&world, "after a restart of the edge, without all three").await;
    let visitor = world.visitor().await;
    let asked = Instant::now();
    assert!(visitor.https("unknown.example").await.is_err());
    assert!(asked.elapsed() < HANDSHAKE_MAX + Duration::from_secs(5), "an unknown name took {:?}", asked.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn known_names_outlive_redis_and_a_restart_then_certservice_and_another() {
    let mut world = warm_world(Plan { redis: true, ..Plan::default() }).await;
    world.fleet.redis.as_mut().unwrap().process.kill();
    restarted(&mut world).await;
    holds(&world, "without Redis").await;
    world.fleet.certservice.process.kill();
    restarted(&mut world).await;
    holds(&world, "without Redis and CertService").await;
    // What comes back is used: a name that is new since.
    world.fleet.certservice = support::certservice::CertService::start(&world.fleet.certservice_setup).await.unwrap();
    world.issue("d.example").await;
    world.still_serves("d.example").await;
    let log = folder::read(world.fleet.edge.process.log_file()).unwrap();
    assert!(!log.contains("panicked"), "{log}");
}
