//! The customer's servers: where they are, which of them a request goes to, and whether it may try another.
//!
//! TLS is verified, always: chain and name. Connections are pooled by Pingora per address, name and upstream.
//! Must never lock where a request passes, or send again what may have been carried out.

mod answer;
mod attempt;
mod awaited;
mod callout;
mod choice;
mod health;
mod introduction;
mod peer;
mod room;
mod settings;

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use pingora::tls::x509::X509;
use pingora::upstreams::peer::{ALPN, HttpPeer};
use prometheus::IntCounter;
use tokio::task::AbortHandle;

pub use self::attempt::{Attempt, NO_HEALTHY_PEER, PAUSED, Repeat, SATURATED};
pub use self::callout::{LOOP_FIELD, LOOP_WORD};
use self::choice::{Peers, Pick};
use self::introduction::{Parties, introduce};
use self::peer::Peer;
use self::room::Room;
use self::settings::HttpVersion;
use self::settings::Origin;
use self::settings::SendProxy;
pub use self::settings::{UpstreamError, UpstreamSettings};
use crate::observe::METRICS;

/// An idle pooled connection is closed after it.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Requests at once on an HTTP/2 connection to a peer; more get another one.
const H2_STREAMS_MAX: usize = 100;
/// Addresses of all peers together; more are left out.
const ADDRESSES_MAX: usize = 1024;

pub struct Upstream {
    pub name: String,
    pub settings: UpstreamSettings,
    /// Of this value, in this process: what is kept from one configuration to the next keeps it.
    pub serial: u64,
    origins: Vec<Origin>,
    roots: Option<Roots>,
    /// Swapped by re-resolution; none until the first one succeeds.
    peers: ArcSwapOption<Peers>,
    /// Keeps pooled connections of different upstreams apart.
    group: u64,
    /// For open requests.
    room: Arc<Room>,
    counters: OnceLock<Counters>,
    checking: OnceLock<AbortHandle>,
}

struct Roots {
    pem: Vec<u8>,
    certificates: Arc<Box<[X509]>>,
}

/// Looked up once: a request only adds to them.
struct Counters {
    healthy: IntCounter,
    last_resort: IntCounter,
    none: IntCounter,
    saturated: IntCounter,
    retried_connect: IntCounter,
    retried_broken: IntCounter,
    retried_refused: IntCounter,
}

/// Why there is no peer to send a request to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NoPeer {
    Unresolved,
    NoneUp,
}

impl Upstream {
    pub fn new(name: &str, settings: UpstreamSettings) -> Result<Self, Vec<UpstreamError>> {
        static SERIAL: AtomicU64 = AtomicU64::new(0);
        let origins = settings.origins()?;
        let roots = settings.ca_file.as_deref().map(Roots::read).transpose().map_err(|error| vec![error])?;
        let pem = roots.as_ref().map(|roots| roots.pem.as_slice());
        let room = Arc::new(Room::new(settings.requests_max));
        let group = BuildHasherDefault::<DefaultHasher>::default().hash_one((name, pem));
        Ok(Self {
            name: name.to_owned(),
            settings,
            serial: SERIAL.fetch_add(1, Ordering::Relaxed),
            origins,
            roots,
            peers: ArcSwapOption::empty(),
            group,
            room,
            counters: OnceLock::new(),
            checking: OnceLock::new(),
        })
    }

    /// Whether the other may stand for this one, with what it knows of its peers. The root file may have changed.
    pub fn is_as(&self, other: &Self) -> bool {
        self.name == other.name && self.settings == other.settings && self.root_pem() == other.root_pem()
    }

    fn root_pem(&self) -> Option<&[u8]> {
        self.roots.as_ref().map(|roots| roots.pem.as_slice())
    }

    /// Asks the system's resolver. A name that fails keeps the addresses known so far; an address that stays keeps
    /// what is known of its health.
    pub async fn resolve(&self) -> Result<(), Vec<UpstreamError>> {
        let (mut list, mut errors) = (Vec::<Arc<Peer>>::new(), Vec::new());
        let known = self.peers.load_full();
        let known = known.as_deref().map_or(&[][..], |peers| &peers.list);
        for (index, origin) in self.origins.iter().enumerate() {
            let found: Vec<_> = match lookup(origin).await {
                Ok(addresses) => {
                    addresses.into_iter().map(|address| self.peer(address, index, origin, known)).collect()
                }
                Err(error) => {
                    errors.push(error);
                    known.iter().filter(|peer| peer.origin == index).cloned().collect()
                }
            };
            for peer in found {
                // Two names may lead to one address; it is one peer, of the first name.
                if list.iter().all(|listed| listed.address != peer.address) {
                    list.push(peer);
                }
            }
        }
        list.truncate(ADDRESSES_MAX);
        let changed = known.len() != list.len() || known.iter().zip(&list).any(|(a, b)| !Arc::ptr_eq(a, b));
        if changed && !list.is_empty() {
            self.peers.store(Some(Arc::new(Peers::new(list, self.settings.balance))));
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// Whether requests to it keep what only HTTP/2 carries: trailers, both ways.
    pub fn takes_trailers(&self) -> bool {
        self.speaks_h2()
    }

    fn speaks_h2(&self) -> bool {
        self.settings.http == HttpVersion::Two
    }

    /// Whether asking again could find anything else.
    pub fn has_names(&self) -> bool {
        self.origins.iter().any(|origin| origin.host.parse::<IpAddr>().is_err())
    }

    /// Tells the peer on whose behalf the connection is made, where the configuration says so. True if it was told: then the
    /// connection is for this request alone.
    pub fn introduce(&self, peer: &mut HttpPeer, client: SocketAddr, server: SocketAddr) -> pingora::Result<bool> {
        self.introduce_as(peer, Some(Parties { client, server }))
    }

    fn introduce_as(&self, peer: &mut HttpPeer, parties: Option<Parties>) -> pingora::Result<bool> {
        if self.settings.send_proxy == SendProxy::None {
            return Ok(false);
        }
        introduce(peer, parties, Duration::from_millis(self.settings.connect_timeout_ms))?;
        Ok(true)
    }

    /// Peers that are up and do not rest.
    pub fn healthy(&self) -> usize {
        let peers = self.peers.load();
        peers.as_ref().map_or(0, |peers| peers.list.iter().filter(|peer| peer.is_up() && !peer.rests()).count())
    }

    fn pick(&self, client: IpAddr, tried: &[SocketAddr]) -> Result<Arc<Peer>, NoPeer> {
        let peers = self.peers.load();
        let picked =
            peers.as_ref().ok_or(NoPeer::Unresolved).and_then(|peers| peers.pick(client, tried).ok_or(NoPeer::NoneUp));
        let counters = self.counters();
        match &picked {
            Ok((_, Pick::Healthy)) => counters.healthy.inc(),
            Ok((_, Pick::LastResort)) => counters.last_resort.inc(),
            Err(_) => counters.none.inc(),
        }
        picked.map(|(peer, _)| peer)
    }

    fn another(&self, tried: &[SocketAddr]) -> bool {
        self.peers.load().as_ref().is_some_and(|peers| peers.another(tried))
    }

    fn counters(&self) -> &Counters {
        self.counters.get_or_init(|| {
            let picks = |result| METRICS.upstream_picks.with_label_values(&[self.name.as_str(), result]);
            let retries = |reason| METRICS.upstream_retries.with_label_values(&[self.name.as_str(), reason]);
            Counters {
                healthy: picks("healthy"),
                last_resort: picks("last_resort"),
                none: picks("none"),
                saturated: picks("saturated"),
                retried_connect: retries("connect"),
                retried_broken: retries("broken"),
                retried_refused: retries("refused"),
            }
        })
    }

    /// The known peer at that address, or a new one.
    fn peer(&self, address: SocketAddr, index: usize, origin: &Origin, known: &[Arc<Peer>]) -> Arc<Peer> {
        let same = |peer: &&Arc<Peer>| peer.address == address && peer.origin == index;
        if let Some(peer) = known.iter().find(same) {
            return peer.clone();
        }
        let name = self.settings.server_name.as_ref().unwrap_or(&origin.host);
        let server_name = if origin.secure { name.clone() } else { String::new() };
        let mut template = HttpPeer::new(address, origin.secure, server_name);
        template.group_key = self.group;
        let connect = Duration::from_millis(self.settings.connect_timeout_ms);
        let io = Duration::from_millis(self.settings.read_timeout_ms);
        let options = &mut template.options;
        options.connection_timeout = Some(connect);
        options.total_connection_timeout = Some(connect * 2);
        options.read_timeout = Some(io);
        options.write_timeout = Some(io);
        options.idle_timeout = Some(IDLE_TIMEOUT);
        if self.settings.http == HttpVersion::Two {
            options.alpn = ALPN::H2;
            options.max_h2_streams = H2_STREAMS_MAX;
        }
        options.verify_cert = true;
        options.verify_hostname = true;
        options.ca = self.roots.as_ref().map(|roots| roots.certificates.clone());
        Arc::new(Peer::new(address, index, origin.weight, template))
    }
}

impl Roots {
    fn read(path: &str) -> Result<Self, UpstreamError> {
        let failed = |why: &str| UpstreamError::new("/ca_file", format!("ca_file `{path}`: {why}"));
        let pem = std::fs::read(path).map_err(|error| failed(&error.to_string()))?;
        let found = X509::stack_from_pem(&pem).ok().filter(|roots| !roots.is_empty());
        let certificates = found.ok_or_else(|| failed("no certificate in PEM"))?;
        Ok(Self { pem, certificates: Arc::new(certificates.into_boxed_slice()) })
    }
}

async fn lookup(origin: &Origin) -> Result<Vec<SocketAddr>, UpstreamError> {
    let failed = |why: &str| UpstreamError::new(&origin.at, format!("`{}` does not resolve: {why}", origin.host));
    let (host, port) = (origin.host.clone(), origin.port);
    // A task of its own: this may run on a thread that gives way to all others, and the threads that wait for name servers, which
    // are kept for other work, would be of its kind.
    let found = tokio::spawn(async move {
        Ok::<Vec<_>, std::io::Error>(tokio::net::lookup_host((host.as_str(), port)).await?.collect())
    });
    let found = found.await.map_err(|error| failed(&error.to_string()))?;
    let mut found = found.map_err(|error| failed(&error.to_string()))?;
    if found.is_empty() {
        return Err(failed("no address"));
    }
    found.sort();
    found.dedup();
    Ok(found)
}

#[cfg(test)]
mod tests;
