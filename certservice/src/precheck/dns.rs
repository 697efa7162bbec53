//! Asks DNS. The only file that names the resolver.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use contract::Hostname;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{RData, Record, RecordType};

use super::CaaRecord;

const QUERY_SECONDS_MAX: u64 = 5;
const ATTEMPTS: usize = 2;
/// In a row; what resolvers follow.
const CNAMES_MAX: usize = 8;

pub(super) struct Dns(TokioResolver);

/// Where a name leads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Records {
    pub v4: Vec<IpAddr>,
    pub v6: Vec<IpAddr>,
    /// The names in between, in order.
    pub cnames: Vec<String>,
}

/// The name servers did not answer, or with an error: not the same as having no record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NoAnswer(pub String);

impl Dns {
    pub(super) fn open(resolver: Option<SocketAddr>) -> Result<Self, String> {
        let failed = |error: NetError| format!("the DNS resolver can't be set up: {error}");
        let mut builder = match resolver {
            None => TokioResolver::builder_tokio().map_err(failed)?,
            Some(address) => {
                let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
                    connection.port = address.port();
                    connection
                });
                let server = NameServerConfig::new(address.ip(), true, connections.to_vec());
                let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
                TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
            }
        };
        let options = builder.options_mut();
        options.timeout = Duration::from_secs(QUERY_SECONDS_MAX);
        options.attempts = ATTEMPTS;
        // A customer who has just mended a record must not be told of the old one by us.
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        options.preserve_intermediates = true;
        builder.build().map(Self).map_err(failed)
    }

    pub(super) async fn records(&self, domain: &Hostname) -> Result<Records, NoAnswer> {
        let name = format!("{domain}.");
        let (v4, v6) = tokio::join!(self.lookup(&name, RecordType::A), self.lookup(&name, RecordType::AAAA));
        let (v4, v6) = (v4?, v6?);
        let addresses = |records: &[Record]| records.iter().filter_map(|record| record.data.ip_addr()).collect();
        let mut records = Records { v4: addresses(&v4), v6: addresses(&v6), cnames: Vec::new() };
        let mut cnames: Vec<_> = v4.iter().chain(&v6).filter_map(target).collect();
        if records.v4.is_empty() && records.v6.is_empty() {
            // A CNAME that leads nowhere explains more than "no record".
            cnames.extend(self.lookup(&name, RecordType::CNAME).await?.iter().filter_map(target));
        }
        for cname in cnames {
            if !records.cnames.contains(&cname) {
                records.cnames.push(cname);
            }
        }
        Ok(records)
    }

    pub(super) async fn caa(&self, name: &str) -> Result<Vec<CaaRecord>, NoAnswer> {
        let records = self.lookup(&format!("{name}."), RecordType::CAA).await?;
        let caa = |record: &Record| match &record.data {
            RData::CAA(caa) => Some(CaaRecord {
                critical: caa.issuer_critical,
                tag: caa.tag.to_ascii_lowercase(),
                value: String::from_utf8_lossy(&caa.value).into_owned(),
            }),
            _ => None,
        };
        Ok(records.iter().filter_map(caa).collect())
    }

    /// Where a name leads by CNAME records; itself where it has none.
    pub(super) async fn leads_to(&self, name: &str) -> Result<String, NoAnswer> {
        let mut name = name.to_owned();
        for _ in 0..CNAMES_MAX {
            let found = self.lookup(&format!("{name}."), RecordType::CNAME).await?;
            match found.iter().filter_map(target).next() {
                Some(next) if next != name => name = next,
                _ => return Ok(name),
            }
        }
        Err(NoAnswer(format!("more than {CNAMES_MAX} CNAME records in a row")))
    }

    /// Empty where the name or the type does not exist.
    async fn lookup(&self, name: &str, kind: RecordType) -> Result<Vec<Record>, NoAnswer> {
        match self.0.lookup(name, kind).await {
            Ok(found) => Ok(found.answers().to_vec()),
            Err(NetError::Dns(DnsError::NoRecordsFound(none)))
                if matches!(none.response_code, ResponseCode::NoError | ResponseCode::NXDomain) =>
            {
                Ok(Vec::new())
            }
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) => {
                Err(NoAnswer(format!("{kind}: {}", none.response_code)))
            }
            Err(error) => Err(NoAnswer(format!("{kind}: {error}"))),
        }
    }
}

fn target(record: &Record) -> Option<String> {
    match &record.data {
        RData::CNAME(cname) => Some(cname.0.to_ascii().trim_end_matches('.').to_ascii_lowercase()),
        _ => None,
    }
}

/// Whether a CA on the Internet could reach it (RFC 6890).
pub(super) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or_else(|| is_public_v6(v6), is_public_v4),
    }
}

fn is_public_v4(v4: Ipv4Addr) -> bool {
    let [a, b, c, _] = v4.octets();
    let shared = a == 100 && (64..128).contains(&b);
    let protocol = a == 192 && b == 0 && c == 0;
    let benchmark = a == 198 && (18..20).contains(&b);
    !(a == 0 || a >= 224 || shared || protocol || benchmark)
        && !(v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.is_documentation())
}

fn is_public_v6(v6: Ipv6Addr) -> bool {
    let first = v6.segments()[0];
    let documentation = first == 0x2001 && v6.segments()[1] == 0xdb8;
    // Global unicast is 2000::/3; all else is local, multicast or reserved.
    first & 0xe000 == 0x2000 && !documentation
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_no_ca_can_reach_are_not_public() {
        for address in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.31.0.1",
            "192.0.2.1",
            "192.168.1.1",
            "198.19.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "fd00::1",
            "ff02::1",
            "2001:db8::1",
            "::ffff:10.0.0.1",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
        for address in ["8.8.8.8", "100.128.0.1", "172.32.0.1", "2606:4700::1", "2a00:1450::1", "::ffff:8.8.8.8"] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }
}
