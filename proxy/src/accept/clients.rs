//! How many connections each client has open.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::connection::ClientAddr;

/// Each has a lock of its own, held for one look-up.
const SHARDS: usize = 64;

pub struct Clients {
    /// 0 for no limit.
    max: u32,
    shards: Box<[Mutex<HashMap<IpAddr, u32>>]>,
    hasher: RandomState,
}

/// One open connection of a client.
pub struct Place {
    clients: Arc<Clients>,
    client: IpAddr,
}

impl Clients {
    pub fn new(max: u32) -> Self {
        Self { max, shards: (0..SHARDS).map(|_| Mutex::default()).collect(), hasher: RandomState::new() }
    }

    /// `None` if the client has as many as it may. Without a limit nothing is counted.
    pub fn enter(self: &Arc<Self>, client: ClientAddr) -> Result<Option<Place>, u32> {
        if self.max == 0 {
            return Ok(None);
        }
        let client = group(client.0.ip());
        let mut shard = self.shard(client).lock().unwrap_or_else(PoisonError::into_inner);
        let open = shard.entry(client).or_insert(0);
        if *open >= self.max {
            return Err(self.max);
        }
        *open += 1;
        Ok(Some(Place { clients: self.clone(), client }))
    }

    fn shard(&self, client: IpAddr) -> &Mutex<HashMap<IpAddr, u32>> {
        // A remainder of SHARDS is always a shard.
        &self.shards[self.hasher.hash_one(client) as usize % SHARDS]
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut shard = self.clients.shard(self.client).lock().unwrap_or_else(PoisonError::into_inner);
        match shard.get_mut(&self.client) {
            Some(open) if *open > 1 => *open -= 1,
            _ => drop(shard.remove(&self.client)),
        }
    }
}

/// A visitor has a whole /64 of IPv6.
fn group(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) >> 64 << 64).into()),
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(ip: &str) -> ClientAddr {
        ClientAddr((ip.parse::<IpAddr>().unwrap(), 1).into())
    }

    #[test]
    fn accepts_the_limit_and_refuses_one_more_per_client() {
        let clients = Arc::new(Clients::new(2));
        let one = clients.enter(client("192.0.2.1"));
        let _two = clients.enter(client("192.0.2.1"));
        assert_eq!(clients.enter(client("192.0.2.1")).err(), Some(2));
        assert!(clients.enter(client("192.0.2.2")).is_ok());
        drop(one);
        assert!(clients.enter(client("192.0.2.1")).is_ok());
    }

    #[test]
    fn nothing_is_left_of_clients_that_are_gone() {
        let clients = Arc::new(Clients::new(2));
        let places: Vec<_> = (0..200).map(|n| clients.enter(client(&format!("192.0.2.{n}")))).collect();
        drop(places);
        assert!(clients.shards.iter().all(|shard| shard.lock().unwrap().is_empty()));
    }

    #[test]
    fn an_ipv6_network_is_one_client_and_a_mapped_address_its_ipv4() {
        assert_eq!(group("2001:db8:1:2:3::4".parse().unwrap()), group("2001:db8:1:2:ffff::".parse().unwrap()));
        assert_ne!(group("2001:db8:1:2::".parse().unwrap()), group("2001:db8:1:3::".parse().unwrap()));
        assert_eq!(group("::ffff:192.0.2.1".parse().unwrap()), "192.0.2.1".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn without_a_limit_nothing_is_counted() {
        let clients = Arc::new(Clients::new(0));
        assert!((0..1000).all(|_| matches!(clients.enter(client("192.0.2.1")), Ok(None))));
    }
}
