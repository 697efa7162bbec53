//! Which peer a request goes to. Nothing here locks: a request reads one immutable list and a few counters.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use pingora::lb::selection::{BackendIter, BackendSelection, Consistent, RoundRobin};
use pingora::lb::{Backend, Extensions};

use super::peer::Peer;
use super::settings::Balance;

/// The peers of an upstream, as its names resolve now.
pub(super) struct Peers {
    pub list: Vec<Arc<Peer>>,
    order: Order,
}

enum Order {
    InTurn(Arc<RoundRobin>),
    ByClient(Arc<Consistent>),
    /// Where to begin, so that ties are spread.
    LeastOpen(AtomicUsize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pick {
    Healthy,
    /// Only peers that should rest, or that failed this request already, are left.
    LastResort,
}

impl Peers {
    pub(super) fn new(list: Vec<Arc<Peer>>, balance: Balance) -> Self {
        let order = match balance {
            Balance::RoundRobin => Order::InTurn(Arc::new(RoundRobin::build(&backends(&list)))),
            Balance::HashClient => Order::ByClient(Arc::new(Consistent::build(&backends(&list)))),
            Balance::LeastConnections => Order::LeastOpen(AtomicUsize::new(0)),
        };
        Self { list, order }
    }

    /// A peer that is up, if there is one: of those, one that does not rest; never one that failed this request while
    /// another is left.
    pub(super) fn pick(&self, client: IpAddr, tried: &[SocketAddr]) -> Option<(Arc<Peer>, Pick)> {
        let fresh = |peer: &Peer| peer.is_up() && !tried.contains(&peer.address);
        let healthy = |peer: &Peer| fresh(peer) && !peer.rests();
        if let Some(peer) = self.find(client, healthy) {
            return Some((peer, Pick::Healthy));
        }
        let last = self.find(client, fresh).or_else(|| self.find(client, Peer::is_up));
        last.map(|peer| (peer, Pick::LastResort))
    }

    /// Whether a further try would go to another peer.
    pub(super) fn another(&self, tried: &[SocketAddr]) -> bool {
        self.list.iter().any(|peer| peer.is_up() && !tried.contains(&peer.address))
    }

    fn find(&self, client: IpAddr, usable: impl Fn(&Peer) -> bool) -> Option<Arc<Peer>> {
        if let [only] = self.list.as_slice() {
            return usable(only).then(|| only.clone());
        }
        match &self.order {
            Order::InTurn(turns) => self.walk(turns.iter(&[]), usable),
            Order::ByClient(ring) => self.walk(ring.iter(&key(client)), usable),
            Order::LeastOpen(turn) => self.least_open(turn.fetch_add(1, Relaxed), usable),
        }
    }

    /// An iterator may name a peer many times before another: it is not followed for ever, and the list has the rest.
    fn walk(&self, mut order: impl BackendIter, usable: impl Fn(&Peer) -> bool) -> Option<Arc<Peer>> {
        for _ in 0..self.list.len().saturating_mul(8) {
            let Some(peer) = order.next().and_then(|backend| backend.ext.get::<Arc<Peer>>()) else { break };
            if usable(peer) {
                return Some(peer.clone());
            }
        }
        self.list.iter().find(|peer| usable(peer)).cloned()
    }

    /// By open requests for each unit of weight.
    fn least_open(&self, begin: usize, usable: impl Fn(&Peer) -> bool) -> Option<Arc<Peer>> {
        let (before, from) = self.list.split_at(begin.checked_rem(self.list.len())?);
        let peers = from.iter().chain(before).filter(|peer| usable(peer));
        let load = |peer: &Peer| (peer.open() as u64 + 1, u64::from(peer.weight));
        let least = peers
            .map(|peer| (load(peer), peer))
            .min_by(|((a, a_weight), _), ((b, b_weight), _)| (a * b_weight).cmp(&(b * a_weight)));
        least.map(|(_, peer)| peer.clone())
    }
}

fn backends(list: &[Arc<Peer>]) -> BTreeSet<Backend> {
    let backend = |peer: &Arc<Peer>| {
        let mut ext = Extensions::new();
        ext.insert(peer.clone());
        let weight = usize::try_from(peer.weight).unwrap_or(usize::MAX);
        Backend { addr: peer.address.into(), weight, ext }
    };
    list.iter().map(backend).collect()
}

/// A visitor's network of IPv6 addresses is one client: privacy addresses change by the hour.
fn key(client: IpAddr) -> [u8; 8] {
    let mut key = [0; 8];
    match client.to_canonical() {
        IpAddr::V4(address) => key[..4].copy_from_slice(&address.octets()),
        IpAddr::V6(address) => key.copy_from_slice(&address.octets()[..8]),
    }
    key
}

#[cfg(test)]
#[path = "choice_tests.rs"]
mod tests;
