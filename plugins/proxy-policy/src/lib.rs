//! Who may say by PROXY protocol on whose behalf it connects, and who is let in.

mod cidr;
mod endpoints;
mod table;

use std::net::IpAddr;

use latchkey_sdk::config::Value;
use latchkey_sdk::connection::{
    Client, Connection, ConnectionPolicy, Expectation, Header, HeaderVersion, Outcome, Plan, Seen,
};
use latchkey_sdk::datasets::Dataset;
use latchkey_sdk::rates::{self, Rate};
use latchkey_sdk::{Manifest, export_connection};
use serde::{Deserialize, Serialize};

use cidr::Networks;
use endpoints::Endpoints;

const KEYS: [&str; 10] =
    ["trusted", "header", "version", "checksum", "local", "untrusted", "deny", "deny_table", "endpoints", "rate"];
const RATE_KEYS: [&str; 2] = ["per_minute", "burst"];

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct ProxyPolicy {
    trusted: Networks,
    header_required: bool,
    checksum_required: bool,
    admit_local: bool,
    admit_untrusted: bool,
    /// The only one that is taken.
    version: Option<Version>,
    deny: Networks,
    endpoints: Endpoints,
    rate: Option<Limit>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
enum Version {
    V1,
    V2,
}

/// Connections of one client.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Limit {
    per_minute: u32,
    burst: u32,
}

export_connection!(ProxyPolicy);

impl ConnectionPolicy for ProxyPolicy {
    const MANIFEST: Manifest = Manifest {
        name: "proxy-policy",
        version: env!("CARGO_PKG_VERSION"),
        config_schema: include_str!("../config.schema.json"),
        fail_open_safe: false,
    };

    fn plan(config: &Value<'_>) -> Option<Plan<Self>> {
        let config = config.object(&KEYS)?;
        let trusted = config.required("trusted", Networks::read);
        let header_required = config.optional("header", true, |v| v.one_of(&[("require", true), ("allow", false)]));
        let checksum = config.optional("checksum", false, |v| v.one_of(&[("require", true), ("verify", false)]));
        let admit_local = config.optional("local", true, |v| v.one_of(&[("admit", true), ("reset", false)]));
        let admit_untrusted = config.optional("untrusted", true, |v| v.one_of(&[("admit", true), ("reset", false)]));
        let versions = [("any", None), ("v1", Some(Version::V1)), ("v2", Some(Version::V2))];
        let version = config.optional("version", None, |v| v.one_of(&versions));
        let endpoints = config.optional("endpoints", Endpoints::default(), Endpoints::read);
        let rate = config.optional("rate", None, |v| limit(v).map(Some));
        let deny = config.optional("deny", Networks::default(), Networks::read);
        let table: Option<Option<Dataset>> = config.optional("deny_table", None, |v| table::read(v).map(Some));
        let (trusted, deny) = (trusted?, deny?);
        if trusted.holds_everybody() {
            let message = "everybody is trusted, so anybody can claim any address";
            config.warn_at("trusted", message, "list the load balancers' networks only");
        }
        if trusted.is_empty() && admit_untrusted == Some(false) {
            config.error_at("untrusted", "nobody is trusted and everybody else is reset", "list networks in `trusted`");
        }
        if header_required == Some(false) && checksum == Some(true) {
            let message = "a checksum can't be required of a header that is not";
            config.error_at("checksum", message, "write `\"header\": \"require\"`");
        }
        if version == Some(Some(Version::V1)) && checksum == Some(true) {
            config.error_at("version", "v1 has no checksum", "write `\"version\": \"v2\"`");
        }
        let plan = Plan::new(Self {
            trusted,
            header_required: header_required?,
            checksum_required: checksum?,
            admit_local: admit_local?,
            admit_untrusted: admit_untrusted?,
            version: version?,
            deny,
            endpoints: endpoints?,
            rate: rate?,
        });
        Some(match table? {
            Some(table) => plan.wants(&[&table]),
            None => plan,
        })
    }

    fn expect(&self, who: &Connection<'_>) -> Expectation {
        match (self.trusted.contains(who.peer.ip()), self.header_required) {
            (false, _) => Expectation::Forbid,
            (true, false) => Expectation::Allow,
            (true, true) if self.checksum_required => Expectation::RequireChecksum,
            (true, true) => Expectation::Require,
        }
    }

    fn judge(&self, who: &Connection<'_>, seen: Seen) -> Outcome {
        let peer = who.peer;
        let trusted = self.trusted.contains(peer.ip());
        let fields = match &seen {
            Seen::Header(header) if self.version.is_some_and(|only| !only.is(header.version)) => return Outcome::Reset,
            Seen::Header(header) => Some(&header.fields),
            Seen::Nothing => None,
        };
        let own_behalf = matches!(&seen, Seen::Header(Header { client: None, .. }));
        // A balancer's own health checks come through no endpoint.
        let through_one = self.endpoints.admit(fields) || (trusted && own_behalf);
        if !through_one {
            return Outcome::Reset;
        }
        let (client, address) = match &seen {
            Seen::Header(Header { local: true, .. }) if !self.admit_local => return Outcome::Reset,
            Seen::Header(Header { client: Some(address), .. }) if trusted => (Client::FromHeader, *address),
            Seen::Header(Header { client: None, .. }) if trusted => (Client::Peer, peer),
            Seen::Nothing if trusted && !self.header_required => (Client::Peer, peer),
            Seen::Nothing if !trusted && self.admit_untrusted => (Client::Peer, peer),
            _ => return Outcome::Reset,
        };
        // The table is looked up by the address that the header names, or the peer's where there is none.
        let denied = self.deny.contains(address.ip()) || who.found.iter().any(Option::is_some);
        // A balancer is many clients: only those that it names are counted.
        let counted = !(trusted && client == Client::Peer);
        if denied || (counted && self.rate.is_some_and(|limit| !limit.leaves_one_to(address.ip()))) {
            return Outcome::Reset;
        }
        Outcome::Admit(client)
    }
}

impl Version {
    fn is(self, version: HeaderVersion) -> bool {
        matches!((self, version), (Self::V1, HeaderVersion::V1) | (Self::V2, HeaderVersion::V2))
    }
}

impl Limit {
    /// A client of IPv6 has a whole /64.
    fn leaves_one_to(self, client: IpAddr) -> bool {
        let rate = Rate { per_minute: self.per_minute, burst: self.burst };
        match client {
            IpAddr::V4(ip) => rates::take(&ip.octets(), rate),
            IpAddr::V6(ip) => rates::take(&ip.octets()[..8], rate),
        }
    }
}

fn limit(value: &Value<'_>) -> Option<Limit> {
    let config = value.object(&RATE_KEYS)?;
    let per_minute = config.required("per_minute", |v| v.integer(1..=6_000_000));
    let burst = config.required("burst", |v| v.integer(1..=1_000_000));
    Some(Limit { per_minute: u32::try_from(per_minute?).ok()?, burst: u32::try_from(burst?).ok()? })
}

#[cfg(test)]
mod tests;
