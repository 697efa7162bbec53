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
use std::time::{Duration, Instant};

use support::process::Process;
use support::wait::until;
use support::{Context, Result, program};
use tokio::net::TcpStream;

pub use self::caddy::{caddy_on_demand, caddy_stores};
pub use self::latchkey::{Latchkey, LatchkeySetup, push};
use crate::cpu::Meter;

pub const LATCHKEY: &str = "latchkey";
pub const BARE: &str = "bare pingora";
pub const NGINX_FILES: &str = "nginx files";
pub const NGINX_LUA: &str = "nginx lua";
pub const HAPROXY: &str = "haproxy";
pub const CADDY: &str = "caddy";

/// HAProxy parses every certificate before it listens.
const START_PATIENCE: Duration = Duration::from_secs(300);

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
    sorted([
        (BARE, bare::start_bare(site).await),
        ("nginx", nginx::proxy(site).await),
        (HAPROXY, haproxy::proxy(site).await),
        (CADDY, caddy::proxy(site).await),
        ("pingap", pingap::proxy(site).await),
    ])
}

/// Servers that choose a certificate by name, with `names` of them in `pems`; bare Pingora has one for all.
pub async fn terminators(site: &Site<'_>, pems: &Path, names: usize) -> (Vec<Server>, Vec<Missing>, Vec<String>) {
    let start = Instant::now();
    let loaded = haproxy::names(site, pems, names).await;
    let notes = vec![format!("HAProxy took {:.1} s to load {names} certificates.", start.elapsed().as_secs_f64())];
    let started = [
        (BARE, bare::start_bare(site).await),
        (NGINX_FILES, nginx::files(site, pems).await),
        (NGINX_LUA, nginx::lua(site, pems).await),
        (HAPROXY, loaded),
    ];
    let (servers, missing) = sorted(started);
    (servers, missing, notes)
}

/// Servers that know these redirects, as nginx's `map` has them.
pub async fn redirectors(site: &Site<'_>, map: &str) -> (Vec<Server>, Vec<Missing>) {
    sorted([
        ("nginx map", nginx::redirects_by_map(site, map).await),
        (NGINX_LUA, nginx::redirects_by_lua(site, map).await),
    ])
}

fn sorted<const N: usize>(started: [(&str, Result<Server>); N]) -> (Vec<Server>, Vec<Missing>) {
    let (mut servers, mut missing) = (Vec::new(), Vec::new());
    for (peer, started) in started {
        match started {
            Ok(server) => servers.push(server),
            Err(error) => missing.push(Missing { peer: peer.into(), why: error.to_string() }),
        }
    }
    (servers, missing)
}

/// What one signature costs, of which each full handshake needs one: no server can be cheaper than that.
pub fn openssl_speed() -> Option<String> {
    let openssl = program::find("openssl")?;
    let output = Command::new(&openssl).args(["speed", "-seconds", "2", "ecdsap256"]).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find(|line| line.contains("ecdsa (nistp256)"))?;
    let a_second: f64 = line.split_whitespace().rev().nth(1)?.parse().ok()?;
    Some(format!(
        "The limit: `openssl speed ecdsap256` makes {a_second:.0} signatures a second, {:.1} µs each ({}).",
        1e6 / a_second,
        version(&openssl, "version")
    ))
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
        let connected = until(format!("{name} to listen"), START_PATIENCE, async || {
            if process.check_running().is_err() {
                return Ok(());
            }
            TcpStream::connect(address).await.map(drop).context("connect")
        });
        connected.await?;
        process.check_running()?;
    }
    Ok(Server { name, process, addresses, version: String::new() })
}

/// First line that a program prints about its version.
fn version(program: &Path, argument: &str) -> String {
    let output = Command::new(program).arg(argument).output();
    let text = output.map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
    String::from_utf8_lossy(&text).lines().next().unwrap_or_default().trim().to_owned()
}
