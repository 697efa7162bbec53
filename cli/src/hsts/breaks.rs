//! What `includeSubDomains` would cut off: names below a host that can't be reached over HTTPS.

use std::collections::{BTreeMap, HashSet};

use contract::Hostname;
use serde::Serialize;

const EXAMPLES: usize = 5;

/// A host, and names below it that have no certificate.
#[derive(Debug, Serialize, PartialEq)]
pub(crate) struct Break {
    pub host: Hostname,
    pub count: usize,
    pub names: Vec<Hostname>,
}

/// `lacking`: names that are registered and have no certificate.
pub(crate) fn breaks(binding: &[&Hostname], lacking: &[Hostname]) -> Vec<Break> {
    let hosts: HashSet<&str> = binding.iter().map(|host| host.as_str()).collect();
    let mut below: BTreeMap<&str, Vec<&Hostname>> = BTreeMap::new();
    for name in lacking {
        for host in above(name.as_str()).filter_map(|above| hosts.get(above)) {
            below.entry(host).or_default().push(name);
        }
    }
    let host = |host: &str| binding.iter().find(|known| known.as_str() == host).map(|host| (*host).clone());
    let broken = below.into_iter().filter_map(|(name, names)| {
        let examples = names.iter().take(EXAMPLES).map(|name| (*name).clone()).collect();
        Some(Break { host: host(name)?, count: names.len(), names: examples })
    });
    broken.collect()
}

/// `b.c.example`, `c.example`, `example` of `a.b.c.example`.
fn above(name: &str) -> impl Iterator<Item = &str> {
    name.match_indices('.').map(|(at, _)| &name[at + 1..])
}
