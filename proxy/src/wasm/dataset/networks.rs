//! The smallest network around an address: all networks are cut into ranges that do not overlap, and one look-up is one
//! binary search.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Refused;
use super::store::Store;

#[derive(Default)]
pub(super) struct Networks {
    added: Vec<Network>,
    v4: Vec<Range<u32>>,
    v6: Vec<Range<u128>>,
    /// How many of the added are in the ranges.
    ready: usize,
}

#[derive(Clone, Copy)]
struct Network {
    v6: bool,
    first: u128,
    last: u128,
    entry: u32,
}

/// From here to where the next range begins.
#[derive(Clone, Copy)]
struct Range<T> {
    first: T,
    entry: Option<u32>,
}

impl Networks {
    pub(super) fn bytes(&self) -> usize {
        self.added.capacity() * size_of::<Network>()
            + self.v4.capacity() * size_of::<Range<u32>>()
            + self.v6.capacity() * size_of::<Range<u128>>()
    }

    /// Repetitions are not looked for: the first one answers.
    pub(super) fn add(&mut self, store: &mut Store, key: &str, value: &[u8]) -> Result<(), Refused> {
        let network = parse(key).map_err(Refused::Illegal)?;
        let Some(entry) = store.push(key, value) else {
            return Err(Refused::Illegal("the dataset is full".to_owned()));
        };
        self.added.push(Network { entry, ..network });
        Ok(())
    }

    pub(super) fn ready(&mut self) {
        if self.ready == self.added.len() {
            return;
        }
        self.ready = self.added.len();
        // Larger ones first, so that a smaller one lies within what is open; of equals, the one that was added first is last.
        self.added.sort_unstable_by_key(|n| (n.v6, n.first, std::cmp::Reverse(n.last), std::cmp::Reverse(n.entry)));
        let middle = self.added.partition_point(|network| !network.v6);
        let (v4, v6) = self.added.split_at(middle);
        let narrow =
            |range: Range<u128>| Range { first: u32::try_from(range.first).unwrap_or(u32::MAX), entry: range.entry };
        self.v4 = ranges(v4, u128::from(u32::MAX)).into_iter().map(narrow).collect();
        self.v6 = ranges(v6, u128::MAX);
        self.v6.shrink_to_fit();
    }

    pub(super) fn shrink(&mut self) {
        self.added = Vec::new();
        self.ready = 0;
    }

    pub(super) fn find(&self, ip: IpAddr) -> Option<u32> {
        match ip.to_canonical() {
            IpAddr::V4(ip) => within(&self.v4, ip.to_bits()),
            IpAddr::V6(ip) => within(&self.v6, ip.to_bits()),
        }
    }
}

fn within<T: Ord + Copy>(ranges: &[Range<T>], ip: T) -> Option<u32> {
    let after = ranges.partition_point(|range| range.first <= ip);
    ranges.get(after.checked_sub(1)?)?.entry
}

/// Networks lie within each other or apart, never across.
fn ranges(networks: &[Network], end: u128) -> Vec<Range<u128>> {
    let mut ranges: Vec<Range<u128>> = Vec::new();
    let mut begin = |first, entry| match ranges.last_mut() {
        Some(last) if last.first == first => last.entry = entry,
        _ => ranges.push(Range { first, entry }),
    };
    let mut open: Vec<Network> = Vec::new();
    for network in networks {
        while let Some(done) = open.pop_if(|open| open.last < network.first) {
            begin(done.last + 1, open.last().map(|around| around.entry));
        }
        begin(network.first, Some(network.entry));
        open.push(*network);
    }
    while let Some(done) = open.pop() {
        if done.last < end {
            begin(done.last + 1, open.last().map(|around| around.entry));
        }
    }
    ranges.shrink_to_fit();
    ranges
}

fn parse(text: &str) -> Result<Network, String> {
    let not_one = || format!("`{}` is not a network such as 192.0.2.0/24", text.chars().take(80).collect::<String>());
    let (ip, length) = text.split_once('/').map_or((text, None), |(ip, length)| (ip, Some(length)));
    let ip: IpAddr = ip.parse().map_err(|_| not_one())?;
    if let IpAddr::V6(v6) = ip
        && let Some(v4) = v6.to_ipv4_mapped()
    {
        return Err(format!("`{text}` is an IPv4-mapped address, which nothing is compared with: write {v4} as IPv4"));
    }
    let (bits, width, v6) = match ip {
        IpAddr::V4(ip) => (u128::from(ip.to_bits()), 32, false),
        IpAddr::V6(ip) => (ip.to_bits(), 128, true),
    };
    let digits = |length: &str| length.bytes().all(|byte| byte.is_ascii_digit()).then(|| length.parse::<u32>().ok());
    let length = match length {
        None => width,
        Some(length) => digits(length).flatten().filter(|length| *length <= width).ok_or_else(not_one)?,
    };
    let rest = if width == length { 0 } else { u128::MAX >> (128 - (width - length)) };
    if bits & rest != 0 {
        let first = if v6 {
            Ipv6Addr::from_bits(bits & !rest).to_string()
        } else {
            Ipv4Addr::from_bits(u32::try_from(bits & !rest).unwrap_or_default()).to_string()
        };
        return Err(format!("`{text}` is within a network, not one: write {first}/{length}"));
    }
    Ok(Network { v6, first: bits, last: bits | rest, entry: 0 })
}
