//! Sets of addresses, as sorted ranges.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use latchkey_sdk::config::{Value, brief};
use serde::{Deserialize, Serialize};

/// Most networks in one list.
const NETWORKS_MAX: usize = 10_000;

/// First and last address of each range, sorted by the last.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Networks {
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl Networks {
    /// Reads a list of CIDR blocks (RFC 4632, RFC 4291) and single addresses.
    pub(crate) fn read(list: &Value<'_>) -> Option<Self> {
        let items = list.list(NETWORKS_MAX)?;
        let networks: Vec<_> = items.iter().map(Network::read).collect();
        let mut set = Self::default();
        for network in networks {
            match network? {
                Network { address: IpAddr::V4(ip), length } => set.v4.push(v4_range(ip, length)),
                Network { address: IpAddr::V6(ip), length } => set.v6.push(v6_range(ip, length)),
            }
        }
        set.v4 = merged(set.v4);
        set.v6 = merged(set.v6);
        Some(set)
    }

    pub(crate) fn contains(&self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(ip) => within(&self.v4, ip.to_bits()),
            IpAddr::V6(ip) => within(&self.v6, ip.to_bits()),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// The whole of IPv4 or IPv6.
    pub(crate) fn holds_everybody(&self) -> bool {
        self.v4.contains(&(0, u32::MAX)) || self.v6.contains(&(0, u128::MAX))
    }
}

struct Network {
    address: IpAddr,
    length: u8,
}

impl Network {
    fn read(item: &Value<'_>) -> Option<Self> {
        let text = item.text()?;
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let Ok(address) = address.parse::<IpAddr>() else {
            let hint = "write a network such as 10.0.0.0/8 or 2001:db8::/32".to_owned();
            return item.refuse(format!("`{}` is not an IP network", brief(text)), hint);
        };
        let most = if address.is_ipv4() { 32 } else { 128 };
        let length = match length {
            None => most,
            Some(length) => match digits(length).filter(|length| *length <= most) {
                Some(length) => length,
                None => {
                    return item
                        .refuse(format!("`{}` is not a prefix length, 0 to {most} are accepted", brief(length)), None);
                }
            },
        };
        let first = match address {
            IpAddr::V4(ip) => Ipv4Addr::from_bits(v4_range(ip, length).0).into(),
            IpAddr::V6(ip) => IpAddr::from(Ipv6Addr::from_bits(v6_range(ip, length).0)),
        };
        if first != address {
            return item.refuse(
                format!("`{text}` has bits set after its prefix"),
                format!("did you mean `{first}/{length}`?"),
            );
        }
        if let IpAddr::V6(ip) = address
            && ip.to_ipv4_mapped().is_some()
        {
            let hint = "peers are seen by their IPv4 address; write the IPv4 network".to_owned();
            return item.refuse(format!("`{text}` is an IPv4-mapped address"), hint);
        }
        Some(Self { address, length })
    }
}

/// Digits only: no sign, no space.
fn digits(text: &str) -> Option<u8> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn v4_range(ip: Ipv4Addr, length: u8) -> (u32, u32) {
    let host_bits = u32::MAX.checked_shr(length.into()).unwrap_or(0);
    (ip.to_bits() & !host_bits, ip.to_bits() | host_bits)
}

fn v6_range(ip: Ipv6Addr, length: u8) -> (u128, u128) {
    let host_bits = u128::MAX.checked_shr(length.into()).unwrap_or(0);
    (ip.to_bits() & !host_bits, ip.to_bits() | host_bits)
}

/// Overlapping ranges become one. CIDR blocks overlap only by one holding the other.
fn merged<T: Ord + Copy>(mut ranges: Vec<(T, T)>) -> Vec<(T, T)> {
    ranges.sort_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
    ranges.dedup_by(|next, kept| next.1 <= kept.1);
    ranges
}

fn within<T: Ord>(ranges: &[(T, T)], point: T) -> bool {
    let index = ranges.partition_point(|(_, last)| *last < point);
    ranges.get(index).is_some_and(|(first, _)| *first <= point)
}
