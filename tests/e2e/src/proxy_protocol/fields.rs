//! What a header says besides addresses, how large it may be, and health checks.

use serde_json::json;
use support::authority::Authority;
use support::edge::Edge;
use support::fleet::Plan;
use support::haproxy::HaProxy;
use support::process::Process;
use support::proxy_header;
use support::visitor::Visitor;
use support::{program, wait};

use super::REFUSALS;
use crate::world::{BALANCER, World, client};

const HOST: &str = "shop.example";

/// A world whose listeners have this policy.
async fn world(policy: serde_json::Value) -> World {
    let world = World::start(Plan::default()).await;
    world.issue(HOST).await;
    set(&world, policy).await;
    world
}

async fn set(world: &World, policy: serde_json::Value) {
    let mut config = world.config();
    let binding = json!({"plugins": [{"plugin": "proxy-policy", "config": policy, "on_failure": "closed"}]});
    config["listeners"] = json!({"https": binding, "http": binding});
    world.fleet.edge.apply(&config).await.unwrap();
}

async fn is_served(world: &World, header: Vec<u8>, as_client: &str) {
    let balancer = world.visitor().await.from(BALANCER).beginning_with(header.clone());
    let answer = balancer.https(HOST).await.unwrap().get(HOST, "/").await.unwrap();
    assert_eq!(answer.seen("x-forwarded-for").as_deref(), Some(as_client));
    let balancer = world.plain().from(BALANCER).beginning_with(header);
    assert_eq!(balancer.http().await.unwrap().get(HOST, "/").await.unwrap().status, 301);
}

/// On both listeners.
async fn is_refused(world: &World, header: Vec<u8>, reason: &str) {
    let label = format!("reason=\"{reason}\"");
    let before = world.metric(REFUSALS, &label).await;
    for listener in [world.fleet.edge_setup.https, world.fleet.edge_setup.http] {
        let balancer = Visitor::to(listener).from(BALANCER).beginning_with(header.clone());
        assert_eq!(balancer.raw_answer().await.unwrap(), b"");
    }
    world.grows(REFUSALS, &label, before, 2.0).await;
}

#[tokio::test]
async fn a_checksum_is_verified_and_can_be_required() {
    let world = world(json!({"trusted": ["127.0.0.2/32"]})).await;
    let https = world.fleet.edge_setup.https;
    let fields = proxy_header::tlv(0x05, b"a unique ID");
    let right = proxy_header::v2_with_checksum(client(), https, &fields);
    let mut wrong = right.clone();
    wrong[16] ^= 1;
    is_served(&world, right.clone(), crate::world::CLIENT_IP).await;
    is_refused(&world, wrong.clone(), "proxy_header_wrong_checksum").await;
    is_served(&world, world.v2(), crate::world::CLIENT_IP).await;

    set(&world, json!({"trusted": ["127.0.0.2/32"], "checksum": "require"})).await;
    is_served(&world, right, crate::world::CLIENT_IP).await;
    is_refused(&world, wrong, "proxy_header_wrong_checksum").await;
    is_refused(&world, world.v2(), "proxy_header_unchecked").await;
    is_refused(&world, world.v1(), "proxy_header_unchecked").await;
}

#[tokio::test]
async fn a_health_check_comes_from_the_balancer_itself_or_not_at_all() {
    let world = world(json!({"trusted": ["127.0.0.2/32"]})).await;
    is_served(&world, proxy_header::v2_local(), "127.0.0.2").await;
    set(&world, json!({"trusted": ["127.0.0.2/32"], "local": "reset"})).await;
    is_served(&world, world.v2(), crate::world::CLIENT_IP).await;
    is_refused(&world, proxy_header::v2_local(), "policy").await;
}

#[tokio::test]
async fn a_listener_takes_headers_up_to_its_own_limit() {
    let mut world = World::start(Plan::default()).await;
    world.issue(HOST).await;
    world.fleet.edge.process.stop().await.unwrap();
    world.fleet.edge_setup.listener_settings = "proxy_header_bytes_max = 3000".into();
    world.fleet.edge = Edge::start(&world.fleet.edge_setup).await.unwrap();
    let https = world.fleet.edge_setup.https;
    let of = |total: usize| {
        let filler = proxy_header::tlv(0x04, &vec![0; total - 16 - 12 - 3]);
        proxy_header::v2_with(client(), https, &filler)
    };
    is_served(&world, of(3000), crate::world::CLIENT_IP).await;
    is_refused(&world, of(3001), "proxy_header_too_long").await;
}

#[tokio::test]
async fn what_a_real_balancer_says_is_read_and_verified() {
    let mut world = world(json!({"trusted": ["127.0.0.2/32"], "checksum": "require"})).await;
    let setup = world.fleet.edge_setup.clone();
    world.fleet.edge.process.stop().await.unwrap();
    let program = program::own("latchkey-proxy").unwrap();
    let start = Process::start("proxy", &program, &setup.folder, |command| {
        command.arg("--config").arg(setup.boot_file_path()).env("RUST_LOG", "info,proxy::accept=debug");
    });
    world.fleet.edge.process = start.unwrap();
    let up = wait::until("the proxy", wait::PATIENCE, async || world.plain().dial().await.map(drop));
    up.await.unwrap();

    let options = "proxy-v2-options ssl,cert-cn,ssl-cipher,unique-id,crc32c,authority";
    let through = HaProxy::sending(&setup.folder, setup.https, "127.0.0.2", "", options).await.unwrap();
    let visitor = Visitor::to(through.address).trusting(&world.fleet.root().await.unwrap()).unwrap();
    let answer = visitor.https(HOST).await.unwrap().get(HOST, "/").await.unwrap();
    assert_eq!(answer.seen("x-forwarded-for").as_deref(), Some("127.0.0.1"));

    // One that ends TLS itself knows more.
    let issued = Authority::new("the balancer's CA").unwrap().issue(HOST).unwrap();
    let pem = [issued.certificate.to_pem().unwrap(), issued.key.private_key_to_pem_pkcs8().unwrap()].concat();
    let pem = world.fleet.folder.write("balancer.pem", pem).unwrap();
    let bind = format!("ssl crt {} alpn http/1.1", pem.display());
    let ending = HaProxy::sending(&setup.folder, setup.http, "127.0.0.2", &bind, options).await.unwrap();
    let answer = Visitor::to(ending.address).https(HOST).await.unwrap().get(HOST, "/").await.unwrap();
    assert_eq!(answer.status, 301);
    let said = world.says(&["checked: true", "authority:"]).await;
    for part in [
        "authority: Some(\"shop.example\")",
        "version: Some(\"TLSv1.3\")",
        "cipher: Some(\"TLS_",
        "unique_id: Some(",
        "client_verified: false",
    ] {
        assert!(said.contains(part), "{part}\n{said}");
    }
}

#[tokio::test]
async fn connections_are_counted_by_the_client_that_the_header_names() {
    let world = world(json!({"trusted": ["127.0.0.2/32"], "rate": {"per_minute": 1, "burst": 4}})).await;
    let https = world.fleet.edge_setup.https;
    let header = |client: &str| proxy_header::v2(client.parse().unwrap(), https);
    // One on each listener.
    is_served(&world, header("203.0.113.7:1000"), "203.0.113.7").await;
    is_served(&world, header("203.0.113.7:1001"), "203.0.113.7").await;
    is_refused(&world, header("203.0.113.7:1002"), "policy").await;
    is_served(&world, header("203.0.113.8:1000"), "203.0.113.8").await;
    // An IPv6 network is one client.
    is_served(&world, header("[2001:db8::1]:1000"), "2001:db8::1").await;
    is_served(&world, header("[2001:db8::2]:1000"), "2001:db8::2").await;
    is_refused(&world, header("[2001:db8::3]:1000"), "policy").await;
    // A balancer that checks our health is not counted.
    for _ in 0..6 {
        is_served(&world, proxy_header::v2_local(), "127.0.0.2").await;
    }
    assert_eq!(world.metric("latchkey_plugin_faults_total", "").await, 0.0);
}

#[tokio::test]
async fn only_listed_private_endpoints_and_versions_are_let_in() {
    let endpoints = ["aws:vpce-08d2bf15fac5001c9", "azure:33555234", "gcp:13426798"];
    let world = world(json!({"trusted": ["127.0.0.2/32"], "endpoints": endpoints, "version": "v2"})).await;
    let https = world.fleet.edge_setup.https;
    let header = |kind: u8, value: &[u8]| proxy_header::v2_with(client(), https, &proxy_header::tlv(kind, value));
    is_served(&world, header(0xea, b"\x01vpce-08d2bf15fac5001c9"), crate::world::CLIENT_IP).await;
    is_served(&world, header(0xee, b"\x01\x22\x03\x00\x02"), crate::world::CLIENT_IP).await;
    is_served(&world, header(0xe0, &13_426_798_u64.to_be_bytes()), crate::world::CLIENT_IP).await;
    is_refused(&world, header(0xea, b"\x01vpce-0000"), "policy").await;
    is_refused(&world, world.v2(), "policy").await;
    is_refused(&world, world.v1(), "policy").await;
    is_served(&world, proxy_header::v2_local(), "127.0.0.2").await;
}
