//! Who puts answers to dns-01 challenges into DNS, checked.

use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use contract::Hostname;
use contract::document::pointer;

use super::check::{Check, is_tenant};
use super::file::{DnsTable, DnsWord, TsigWord};
use super::{DnsKind, DnsProvider, DnsWebhook, Rfc2136, Secret, TsigHash};

const PROVIDERS_MAX: usize = 16;
const ZONES_MAX: usize = 64;
const WAIT_SECONDS_MAX: u32 = 600;
/// RFC 8945 section 8 wants no less than the digest; this is what anybody still takes.
const TSIG_BYTES_MIN: usize = 16;

impl Check<'_> {
    pub(super) fn dns(&mut self, tables: &[DnsTable]) -> Vec<DnsProvider> {
        if tables.len() > PROVIDERS_MAX {
            self.fault("/dns", format!("{} of [[dns]], at most {PROVIDERS_MAX} are accepted", tables.len()));
        }
        let mut providers: Vec<DnsProvider> = Vec::new();
        for (index, table) in tables.iter().enumerate() {
            let at = pointer("/dns", index);
            if !is_tenant(&table.name) || providers.iter().any(|known| known.name == table.name) {
                let says = "a name is 1 to 64 characters of A-Z a-z 0-9 . _ -, unlike that of any other";
                self.fault(&pointer(&at, "name"), says);
            }
            if table.wait_seconds > WAIT_SECONDS_MAX {
                let says = format!("{} s, at most {WAIT_SECONDS_MAX} are accepted", table.wait_seconds);
                self.fault(&pointer(&at, "wait_seconds"), says);
            }
            let zones = self.zones(table, &at);
            self.nothing_else(table, &at);
            let kind = match table.kind {
                DnsWord::Rfc2136 => self.rfc2136(table, &at).map(DnsKind::Rfc2136),
                DnsWord::Webhook => self.dns_webhook(table, &at).map(DnsKind::Webhook),
            };
            let (name, wait_seconds) = (table.name.clone(), table.wait_seconds.into());
            providers.extend(kind.map(|kind| DnsProvider { name, zones, wait_seconds, kind }));
        }
        providers
    }

    fn zones(&mut self, table: &DnsTable, at: &str) -> Vec<String> {
        let at = pointer(at, "zones");
        if table.zones.is_empty() || table.zones.len() > ZONES_MAX {
            self.fault(&at, format!("{} zones, 1 to {ZONES_MAX} are accepted", table.zones.len()));
        }
        let mut zones = Vec::new();
        for (index, text) in table.zones.iter().enumerate() {
            match Hostname::parse(text) {
                Ok(zone) => zones.push(zone.to_string()),
                Err(error) => self.fault(&pointer(&at, index), error.to_string()),
            }
        }
        zones
    }

    /// Settings of the other kind.
    fn nothing_else(&mut self, table: &DnsTable, at: &str) {
        let of_rfc2136 = [
            ("server", table.server.is_some()),
            ("key_name", table.key_name.is_some()),
            ("key_file", table.key_file.is_some()),
            ("algorithm", table.algorithm.is_some()),
        ];
        let of_webhook = [
            ("url", table.url.is_some()),
            ("secret_file", table.secret_file.is_some()),
            ("root_file", table.root_file.is_some()),
        ];
        let (foreign, kind) = match table.kind {
            DnsWord::Rfc2136 => (&of_webhook[..], "webhook"),
            DnsWord::Webhook => (&of_rfc2136[..], "rfc2136"),
        };
        for (name, _) in foreign.iter().filter(|(_, set)| *set) {
            self.fault(&pointer(at, name), format!("only kind `{kind}` has this setting"));
        }
    }

    fn rfc2136(&mut self, table: &DnsTable, at: &str) -> Option<Rfc2136> {
        let (Some(server), Some(key_name), Some(key_file)) = (&table.server, &table.key_name, &table.key_file) else {
            self.fault(at, "kind `rfc2136` needs `server`, `key_name` and `key_file`");
            return None;
        };
        let address = server.parse::<SocketAddr>();
        if address.is_err() {
            let says = format!("`{server}` is no IP address with a port");
            self.hinted(&pointer(at, "server"), says, "such as 192.0.2.53:53");
        }
        let file_at = pointer(at, "key_file");
        let key = self.secret_file(key_file, &file_at).map(|text| Secret::new(text.trim()))?;
        let bytes = STANDARD.decode(key.reveal()).map_or(0, |bytes| zeroize::Zeroizing::new(bytes).len());
        if bytes < TSIG_BYTES_MIN {
            let says = format!("not a secret of {TSIG_BYTES_MIN} bytes or more in base64");
            self.hinted(&file_at, says, "tsig-keygen makes one; the file holds only the text of `secret`");
        }
        let algorithm = match table.algorithm {
            None | Some(TsigWord::Sha256) => TsigHash::Sha256,
            Some(TsigWord::Sha384) => TsigHash::Sha384,
            Some(TsigWord::Sha512) => TsigHash::Sha512,
        };
        Some(Rfc2136 { server: address.ok()?, key_name: key_name.clone(), key, algorithm })
    }

    fn dns_webhook(&mut self, table: &DnsTable, at: &str) -> Option<DnsWebhook> {
        let (Some(url), Some(secret_file)) = (&table.url, &table.secret_file) else {
            self.fault(at, "kind `webhook` needs `url` and `secret_file`");
            return None;
        };
        let plain = self.url_of_webhook(url, &pointer(at, "url"));
        let secret = self.secret_of_webhook(secret_file, &pointer(at, "secret_file"));
        let root = table.root_file.as_ref().and_then(|file| self.file(file, &pointer(at, "root_file")));
        let root = root.map(|pem| pem.as_bytes().to_vec());
        Some(DnsWebhook { url: url.clone(), secret: secret?, root, plain: plain? })
    }
}
