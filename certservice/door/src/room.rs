//! How many connections there are at once: of all, and of one address, so that no single one takes all places.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

const CONNECTIONS_MAX: usize = 1024;
/// Many edges may come from one address, each with a few.
const OF_ONE_ADDRESS_MAX: usize = 256;
/// Between two times that refused connections are told.
const TELL_EVERY: Duration = Duration::from_secs(60);

pub(crate) struct Room {
    places: Arc<Semaphore>,
    taken: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// Of one connection; free again when it is dropped.
pub(crate) struct Place {
    _of_all: OwnedSemaphorePermit,
    _of_address: Option<OfAddress>,
}

struct OfAddress {
    network: IpAddr,
    taken: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Room {
    pub(crate) fn new() -> Self {
        Self { places: Arc::new(Semaphore::new(CONNECTIONS_MAX)), taken: Arc::default() }
    }

    /// Waits for a place for whoever comes next.
    pub(crate) async fn next(&self) -> Option<OwnedSemaphorePermit> {
        self.places.clone().acquire_owned().await.ok()
    }

    /// None where that address has its share already; None as address is the Unix socket.
    pub(crate) fn take(
        &self,
        of_all: OwnedSemaphorePermit,
        from: Option<IpAddr>,
    ) -> Result<Place, OwnedSemaphorePermit> {
        let Some(from) = from else { return Ok(Place { _of_all: of_all, _of_address: None }) };
        let network = whose(from);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(network).or_default();
        if *count >= OF_ONE_ADDRESS_MAX {
            return Err(of_all);
        }
        *count += 1;
        let of_address = OfAddress { network, taken: self.taken.clone() };
        Ok(Place { _of_all: of_all, _of_address: Some(of_address) })
    }
}

impl Drop for OfAddress {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.network);
            }
        }
    }
}

/// One customer has a /64 of IPv6 for himself, at the least.
fn whose(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

/// Refused connections, told once in a while: whoever knocks again and again does not fill the log.
#[derive(Default)]
pub(crate) struct Refused {
    told: Option<Instant>,
    untold: u64,
}

impl Refused {
    /// How many to tell of now, with this one.
    pub(crate) fn one(&mut self, now: Instant) -> Option<u64> {
        self.untold += 1;
        if self.told.is_some_and(|told| now < told + TELL_EVERY) {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_address_takes_its_share_and_leaves_the_rest_to_others() {
        let room = Room::new();
        let take = async |from: &str| room.take(room.next().await.unwrap(), Some(from.parse().unwrap())).ok();
        for (ours, same, other) in
            [("192.0.2.7", "192.0.2.7", "192.0.2.8"), ("2001:db8::1", "2001:db8::2:1", "2001:db8:0:1::1")]
        {
            let mut places = Vec::new();
            for _ in 0..OF_ONE_ADDRESS_MAX {
                places.push(take(ours).await.expect("within its share"));
            }
            assert!(take(same).await.is_none(), "{same}");
            assert!(take(other).await.is_some(), "{other}");
            places.pop();
            assert!(take(same).await.is_some(), "a place that is free again");
        }
        assert!(room.taken.lock().unwrap().is_empty(), "nobody is remembered who has gone");
        assert_eq!(room.places.available_permits(), CONNECTIONS_MAX);
    }

    #[test]
    fn refused_connections_are_told_once_in_a_while_and_all_counted() {
        let (mut refused, now) = (Refused::default(), Instant::now());
        assert_eq!((refused.one(now), refused.one(now), refused.one(now + TELL_EVERY / 2)), (Some(1), None, None));
        assert_eq!(refused.one(now + TELL_EVERY), Some(3));
    }
}
