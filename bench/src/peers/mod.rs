//! The servers under test. Each runs on one thread, with the same certificates, upstream and duties, and writes no log of
//! requests. One that is not installed, or does not start, is named as missing.

mod bare;
mod caddy;
mod haproxy;
mod latchkey;
mod nginx;
mod pingap;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::process::Process;
use support::{Context, Result};
use tokio::net::TcpStream;

pub use self::latchkey::LatchkeySetup;
use crate::cpu::Meter;

pub const LATCHKEY: &str = "latchkey";

/// One that runs; ends with the value.
pub struct Server {
    pub name: &'static str,
    pub process: Process,
    pub addresses: Addresses,
    pub version: String,
}

#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    /// TLS, straight from visitors, and nothing done to requests.
    pub plain: SocketAddr,
    /// TLS behind a balancer that sends PROXY headers, with redirects and HSTS.
    pub policies: Option<SocketAddr>,
}

impl Server {
    pub fn meter(&self) -> Meter {
        Meter::of(self.process.id())
    }
}

/// Not there, and why.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Missing {
    pub peer: String,
    pub why: String,
}

/// What a proxy for one site needs.
pub struct Site<'a> {
    pub folder: &'a Path,
    pub host: &'a str,
    pub upstream: SocketAddr,
    /// PEM: chain, key, and both in one file.
    pub chain: PathBuf,
    pub key: PathBuf,
    pub both: PathBuf,
    pub redirects: &'a [(String, String)],
}

/// Seconds that visitors' browsers remember to use HTTPS.
pub const HSTS_SECONDS: u32 = 86_400;

/// Everyone that can be found, in the order in which they are measured; the edge is not among them.
pub async fn proxies(site: &Site<'_>) -> (Vec<Server>, Vec<Missing>) {
    let started = [
        ("bare pingora", bare::start_bare(site).await),
        ("nginx", nginx::proxy(site).await),
        ("haproxy", haproxy::proxy(site).await),
        ("caddy", caddy::proxy(site).await),
        ("pingap", pingap::proxy(site).await),
    ];
    let (mut servers, mut missing) = (Vec::new(), Vec::new());
    for (peer, started) in started {
        match started {
            Ok(server) => servers.push(server),
            Err(error) => missing.push(Missing { peer: peer.into(), why: error.to_string() }),
        }
    }
    (servers, missing)
}

/// Starts a program whose log goes to `<folder>/<name>.log`, and waits until it listens.
async fn start(
    name: &'static str,
    program: &Path,
    folder: &Path,
    addresses: Addresses,
    arguments: impl FnOnce(&mut Command),
) -> Result<Server> {
    let mut process = Process::start(name, program, folder, arguments)?;
    let all = std::iter::once(addresses.plain).chain(addresses.policies);
    for address in all {
        process.until_ready(async || TcpStream::connect(address).await.map(drop).context("connect")).await?;
    }
    Ok(Server { name, process, addresses, version: String::new() })
}

/// First line that a program prints about its version.
fn version(program: &Path, argument: &str) -> String {
    let output = Command::new(program).arg(argument).output();
    let text = output.map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
    String::from_utf8_lossy(&text).lines().next().unwrap_or_default().trim().to_owned()
}
