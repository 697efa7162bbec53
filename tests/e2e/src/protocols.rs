//! What must pass through unharmed: WebSocket, gRPC with its trailers, 100-continue, bodies of any length, answers
//! without one.

mod bodies;
mod grpc;
mod large;
mod turns;
mod websocket;

use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::time::Duration;

use openssl::ssl::{SslConnector, SslMethod, SslVerifyMode};
use serde_json::{Value, json};
use support::fleet::Plan;
use support::visitor::Visitor;
use tokio::net::TcpStream;
use tokio_openssl::SslStream;

use crate::world::World;

const HOST: &str = "shop.example";
/// What anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A fleet whose one site goes to that upstream.
async fn world(upstream: Value) -> World {
    let world = World::start(Plan::default()).await;
    world.issue(HOST).await;
    let config = json!({
        "plugins": {},
        "upstreams": {"one": upstream},
        "sites": [{"hosts": ["*"], "upstream": "one"}],
    });
    world.fleet.edge.apply(&config).await.unwrap();
    world
}

async fn tls(world: &World, protocol: &[u8]) -> SslStream<TcpStream> {
    tls_to(world, HOST, protocol).await
}

/// TLS to the proxy, with one protocol in ALPN.
pub(crate) async fn tls_to(world: &World, host: &str, protocol: &[u8]) -> SslStream<TcpStream> {
    tls_from(Ipv4Addr::LOCALHOST.into(), world, host, protocol).await
}

/// The same, from an address of the loopback network.
pub(crate) async fn tls_from(from: IpAddr, world: &World, host: &str, protocol: &[u8]) -> SslStream<TcpStream> {
    let mut connector = SslConnector::builder(SslMethod::tls_client()).unwrap();
    connector.set_verify(SslVerifyMode::NONE);
    connector.set_alpn_protos(protocol).unwrap();
    let ssl = connector.build().configure().unwrap().into_ssl(host).unwrap();
    let socket = Visitor::to(world.fleet.edge_setup.https).from(from).dial().await.unwrap();
    let mut stream = SslStream::new(ssl, socket).unwrap();
    Pin::new(&mut stream).connect().await.unwrap();
    assert_eq!(stream.ssl().selected_alpn_protocol(), Some(&protocol[1..]));
    stream
}

pub(crate) const HTTP1: &[u8] = b"\x08http/1.1";
pub(crate) const HTTP2: &[u8] = b"\x02h2";

/// Of the proxy, in MiB.
fn resident_mib(world: &World) -> u64 {
    let status = support::folder::read(format!("/proc/{}/status", world.fleet.edge.process.id()).as_ref()).unwrap();
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    kib.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}
