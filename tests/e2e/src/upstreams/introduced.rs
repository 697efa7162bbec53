//! Customers' servers that are told by a PROXY header whose connection it is.

use std::sync::Arc;

use serde_json::json;
use support::authority::Authority;
use support::fleet::Plan;
use support::haproxy::HaProxy;
use support::process::Signal;
use support::visitor::Connection;
use support::wait::{PATIENCE, until};
use support::{fail, proxy_header};

use crate::world::{BALANCER, World};

const HOST: &str = "shop.example";

/// A visitor behind the balancer, with that address.
async fn visitor(world: &World, address: &str) -> Connection {
    let header = proxy_header::v2(address.parse().unwrap(), world.fleet.edge_setup.https);
    world.visitor().await.from(BALANCER).beginning_with(header).https(HOST).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_visitor_is_taken_for_another() {
    let world = World::start(Plan::default()).await;
    world.issue(HOST).await;
    let folder = &world.fleet.edge_setup.folder;
    let authority = Authority::new("the customer's CA").unwrap();
    let issued = authority.issue("api.internal").unwrap();
    let root = world.fleet.folder.write("customer.pem", authority.root_pem().unwrap()).unwrap();
    let pem = [issued.certificate.to_pem().unwrap(), issued.key.private_key_to_pem_pkcs8().unwrap()].concat();
    let pem = world.fleet.folder.write("server.pem", pem).unwrap();
    let plain = HaProxy::demanding(folder, world.upstream.address, "").await.unwrap();
    let bind = format!("ssl crt {} alpn h2,http/1.1", pem.display());
    let secure = HaProxy::demanding(folder, world.upstream.address, &bind).await.unwrap();
    let world = Arc::new(world);
    for settings in [
        json!({"url": format!("http://{}", plain.address), "send_proxy": "v2"}),
        json!({"url": format!("https://{}", secure.address), "send_proxy": "v2", "ca_file": root, "server_name": "api.internal"}),
        json!({"url": format!("https://{}", secure.address), "send_proxy": "v2", "ca_file": root, "server_name": "api.internal", "http": "2"}),
    ] {
        let mut config = world.config();
        config["upstreams"]["sample"] = settings;
        world.fleet.edge.apply(&config).await.unwrap();
        let visits = (1..=6).map(|n| {
            let world = world.clone();
            tokio::spawn(async move {
                let address =
                    if n % 2 == 0 { format!("203.0.113.{n}:{n}000") } else { format!("[2001:db8::{n}]:{n}000") };
                let mut connection = visitor(&world, &address).await;
                for _ in 0..5 {
                    let answer = connection.get(HOST, "/").await.unwrap();
                    assert_eq!(answer.status, 200, "{}", answer.text());
                    let seen = answer.seen("x-proxied-for").unwrap();
                    assert_eq!(seen, address.replace(['[', ']'], ""), "{}", answer.text());
                }
            })
        });
        for visit in visits.collect::<Vec<_>>() {
            visit.await.unwrap();
        }
    }
    // Without the header that server answers nobody.
    let mut config = world.config();
    config["upstreams"]["sample"] = json!({"url": format!("http://{}", plain.address)});
    world.fleet.edge.apply(&config).await.unwrap();
    let answer = world.https(HOST).await.get(HOST, "/").await.unwrap();
    assert_eq!(answer.status, 502);
}

#[tokio::test]
async fn health_checks_are_made_on_no_ones_behalf() {
    let world = World::start(Plan::default()).await;
    world.issue(HOST).await;
    let server = HaProxy::demanding(&world.fleet.edge_setup.folder, world.upstream.address, "").await.unwrap();
    let mut config = world.config();
    config["upstreams"]["sample"] = json!({
        "url": format!("http://{}", server.address),
        "send_proxy": "v2",
        "health": {"path": "/healthz", "interval_seconds": 1, "timeout_seconds": 2, "fails": 1},
    });
    world.fleet.edge.apply(&config).await.unwrap();
    let healthy = async |expected: f64| {
        let changed = until(format!("{expected} healthy peers"), PATIENCE, async || {
            let healthy = world.metric("latchkey_upstream_healthy_peers", "").await;
            if healthy == expected { Ok(()) } else { fail(format!("{healthy} are healthy")) }
        });
        changed.await.unwrap();
    };
    // It takes connections and reads nothing, then passes checks again: their header was taken.
    server.process.signal(Signal::STOP);
    healthy(0.0).await;
    server.process.signal(Signal::CONT);
    healthy(1.0).await;
    assert_eq!(visitor(&world, "203.0.113.9:9").await.get(HOST, "/").await.unwrap().status, 200);
}
