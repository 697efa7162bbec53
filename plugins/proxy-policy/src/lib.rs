//! Who may say by PROXY protocol on whose behalf it connects, and who is let in.

mod cidr;
mod table;

use latchkey_sdk::config::Value;
use latchkey_sdk::connection::{Client, Connection, ConnectionPolicy, Expectation, Header, Outcome, Plan, Seen};
use latchkey_sdk::datasets::Dataset;
use latchkey_sdk::{Manifest, export_connection};
use serde::{Deserialize, Serialize};

use cidr::Networks;

const KEYS: [&str; 7] = ["trusted", "header", "checksum", "local", "untrusted", "deny", "deny_table"];

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct ProxyPolicy {
    trusted: Networks,
    header_required: bool,
    checksum_required: bool,
    admit_local: bool,
    admit_untrusted: bool,
    deny: Networks,
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
        let plan = Plan::new(Self {
            trusted,
            header_required: header_required?,
            checksum_required: checksum?,
            admit_local: admit_local?,
            admit_untrusted: admit_untrusted?,
            deny,
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
        let (client, address) = match seen {
            Seen::Header(Header { local: true, .. }) if !self.admit_local => return Outcome::Reset,
            Seen::Header(Header { client: Some(address), .. }) if trusted => (Client::FromHeader, address),
            Seen::Header(Header { client: None, .. }) if trusted => (Client::Peer, peer),
            Seen::Nothing if trusted && !self.header_required => (Client::Peer, peer),
            Seen::Nothing if !trusted && self.admit_untrusted => (Client::Peer, peer),
            _ => return Outcome::Reset,
        };
        // The table is looked up by the address that the header names, or the peer's where there is none.
        let denied = self.deny.contains(address.ip()) || who.found.iter().any(Option::is_some);
        if denied { Outcome::Reset } else { Outcome::Admit(client) }
    }
}

#[cfg(test)]
mod tests;
