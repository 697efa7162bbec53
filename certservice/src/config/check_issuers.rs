//! The issuers and the pre-check of the boot file.

use std::net::{IpAddr, SocketAddr};

use contract::document::pointer;
use contract::{ChallengeKind, Hostname};

use super::check::{Check, is_tenant};
use super::file::{ChallengeWord, IssuerTable, KindWord, LimitTable, PrecheckTable};
use super::file_orders::DomainsTable;
use super::{Acme, Eab, Issuer, IssuerKind, Precheck, Secret};
use crate::budget::{Limit, Limits};
use crate::precheck::Targets;
use crate::store::OWN;

/// A second, of an address: what its `new-nonce` takes (letsencrypt.org/docs/rate-limits), the least of its endpoints.
const LETS_ENCRYPT_REQUESTS: u64 = 20;
/// Most addresses and names that domains may point at.
const TARGETS_MAX: usize = 64;
/// CAs whose name in CAA records is known by their directory.
const CAA_NAMES: [(&str, &str); 5] = [
    (".letsencrypt.org/", "letsencrypt.org"),
    (".pki.goog/", "pki.goog"),
    (".zerossl.com/", "sectigo.com"),
    (".sectigo.com/", "sectigo.com"),
    (".buypass.com/", "buypass.com"),
];

impl Check<'_> {
    /// `dns`: somebody can put answers into DNS.
    pub(super) fn issuers(&mut self, tables: &[IssuerTable], dns: bool) -> Vec<Issuer> {
        if tables.is_empty() {
            self.fault("/issuers", "at least one issuer is needed");
        }
        let mut issuers: Vec<Issuer> = Vec::new();
        for (index, table) in tables.iter().enumerate() {
            let at = pointer("/issuers", index);
            if !is_tenant(&table.name) || table.name.starts_with('.') {
                self.fault(
                    &pointer(&at, "name"),
                    "a name is 1 to 64 characters of A-Z a-z 0-9 . _ - and starts with no dot",
                );
            }
            if table.name == OWN {
                self.fault(&pointer(&at, "name"), format!("`{OWN}` stands for certificates that were uploaded"));
            }
            if issuers.iter().any(|known| known.name == table.name) {
                self.fault(&pointer(&at, "name"), format!("issuer `{}` stands twice", table.name));
            }
            let kind = match table.kind {
                KindWord::Acme => self.acme(table, &at, dns),
                KindWord::Internal => self.internal(table, &at),
            };
            let precheck = table.precheck.unwrap_or(table.kind == KindWord::Acme);
            let caa_names = self.caa_names(table, &at);
            let limits = self.limits(table, &at);
            issuers.extend(kind.map(|kind| Issuer { name: table.name.clone(), kind, precheck, caa_names, limits }));
        }
        issuers
    }

    /// Whom domains are ordered from that don't say otherwise.
    pub(super) fn preferred(&mut self, table: &DomainsTable, issuers: &[IssuerTable]) -> Vec<String> {
        let names = || issuers.iter().map(|issuer| &issuer.name);
        let Some(preferred) = &table.issuers else { return names().take(1).cloned().collect() };
        let at = "/domains/issuers";
        if preferred.is_empty() {
            self.fault(at, "at least one issuer is needed; without the setting it is the first of [[issuers]]");
        }
        for (index, name) in preferred.iter().enumerate() {
            if !names().any(|known| known == name) {
                let known = names().map(String::as_str).collect::<Vec<_>>().join(", ");
                self.fault(&pointer(at, index), format!("there is no issuer `{name}`; there are: {known}"));
            }
            if preferred[..index].contains(name) {
                self.fault(&pointer(at, index), format!("issuer `{name}` stands twice"));
            }
        }
        preferred.clone()
    }

    fn acme(&mut self, table: &IssuerTable, at: &str, dns: bool) -> Option<IssuerKind> {
        if table.validity_days.is_some() {
            self.fault(&pointer(at, "validity_days"), "only kind `internal` has this setting: the CA decides");
        }
        let root = table.root_file.as_ref().and_then(|file| self.file(file, &pointer(at, "root_file")));
        let eab = table.eab.as_ref().and_then(|eab| {
            let key = self.secret_file(&eab.hmac_key_file, &pointer(&pointer(at, "eab"), "hmac_key_file"))?;
            Some(Eab { kid: eab.kid.clone(), hmac_key: Secret::new(key.trim()) })
        });
        let profile = table.profile.clone();
        if profile.as_ref().is_some_and(|profile| !is_tenant(profile)) {
            self.fault(&pointer(at, "profile"), "a profile is 1 to 64 characters of A-Z a-z 0-9 . _ -");
        }
        let contact = table.contact.clone().unwrap_or_default();
        for (index, _) in contact.iter().enumerate().filter(|(_, contact)| !contact.starts_with("mailto:")) {
            self.fault(&pointer(&pointer(at, "contact"), index), "a contact starts with mailto:");
        }
        let Some(directory) = table.directory.clone() else {
            self.fault(at, "kind `acme` needs `directory`, the CA's ACME directory URL");
            return None;
        };
        if !directory.starts_with("https://") {
            self.fault(&pointer(at, "directory"), "the directory URL must start with https://");
        }
        let requests = self.requests(table, at);
        let challenges = self.challenges(table, at, dns);
        let root = root.map(|pem| pem.as_bytes().to_vec());
        Some(IssuerKind::Acme(Acme { directory, contact, root, eab, profile, requests, challenges }))
    }

    fn challenges(&mut self, table: &IssuerTable, at: &str, dns: bool) -> Vec<ChallengeKind> {
        let words = table.challenges.as_deref().unwrap_or(&[ChallengeWord::Http01]);
        let twice = words.iter().enumerate().any(|(index, word)| words[..index].contains(word));
        if words.is_empty() || twice {
            let says = "1 to 3 kinds of challenge, each once: `http-01`, `tls-alpn-01`, `dns-01`";
            self.fault(&pointer(at, "challenges"), says);
        }
        if words.contains(&ChallengeWord::Dns01) && !dns {
            let says = "dns-01 needs [[dns]]: who puts the answers into DNS";
            self.fault(&pointer(at, "challenges"), says);
        }
        let kind = |word: &ChallengeWord| match word {
            ChallengeWord::Http01 => ChallengeKind::Http01,
            ChallengeWord::TlsAlpn01 => ChallengeKind::TlsAlpn01,
            ChallengeWord::Dns01 => ChallengeKind::Dns01,
        };
        words.iter().map(kind).collect()
    }

    fn internal(&mut self, table: &IssuerTable, at: &str) -> Option<IssuerKind> {
        let foreign = [
            ("directory", table.directory.is_some()),
            ("contact", table.contact.is_some()),
            ("root_file", table.root_file.is_some()),
            ("eab", table.eab.is_some()),
            ("challenges", table.challenges.is_some()),
            ("profile", table.profile.is_some()),
        ];
        for (setting, _) in foreign.iter().filter(|(_, given)| *given) {
            self.fault(&pointer(at, setting), "only kind `acme` has this setting");
        }
        let validity_days = table.validity_days.unwrap_or(30);
        if !(1..=398).contains(&validity_days) {
            let says = format!("{validity_days} days, 1 to 398 are accepted");
            self.fault(&pointer(at, "validity_days"), says);
        }
        Some(IssuerKind::Internal { validity_days })
    }

    fn caa_names(&mut self, table: &IssuerTable, at: &str) -> Vec<String> {
        let at = pointer(at, "caa_names");
        let directory = table.directory.as_deref().unwrap_or_default();
        let known = CAA_NAMES.iter().filter(|(part, _)| directory.contains(part)).map(|(_, name)| (*name).to_owned());
        let Some(names) = &table.caa_names else { return known.collect() };
        for (index, name) in names.iter().enumerate().filter(|(_, name)| Hostname::parse(name).is_err()) {
            let says = format!("`{name}` is no domain; CAs name themselves by one, such as letsencrypt.org");
            self.fault(&pointer(&at, index), says);
        }
        names.clone()
    }

    fn requests(&mut self, table: &IssuerTable, at: &str) -> Option<Limit> {
        let directory = table.directory.as_deref().unwrap_or_default();
        let Some(LimitTable { count, seconds }) = table.limits.as_ref().and_then(|limits| limits.requests) else {
            return directory.contains(".letsencrypt.org/").then(|| Limit::new(LETS_ENCRYPT_REQUESTS, 1));
        };
        if seconds == 0 {
            let at = pointer(&pointer(&pointer(at, "limits"), "requests"), "seconds");
            self.fault(&at, "a limit holds for at least 1 second");
        }
        (count > 0).then(|| Limit::new(count.into(), seconds.into()))
    }

    fn limits(&mut self, table: &IssuerTable, at: &str) -> Limits {
        let directory = table.directory.as_deref().unwrap_or_default();
        let mut limits = match directory {
            _ if directory.contains("-staging") && directory.contains(".letsencrypt.org/") => {
                Limits::lets_encrypt_staging()
            }
            _ if directory.contains(".letsencrypt.org/") => Limits::lets_encrypt(),
            _ => Limits::none(),
        };
        let Some(written) = &table.limits else { return limits };
        let at = pointer(at, "limits");
        for (name, written, limit) in [
            ("orders", written.orders, &mut limits.orders),
            ("certificates_per_domain", written.certificates_per_domain, &mut limits.certificates_per_domain),
            ("certificates_per_set", written.certificates_per_set, &mut limits.certificates_per_set),
            ("failures_per_name", written.failures_per_name, &mut limits.failures_per_name),
            ("consecutive_failures", written.consecutive_failures, &mut limits.consecutive_failures),
        ] {
            let Some(LimitTable { count, seconds }) = written else { continue };
            if seconds == 0 {
                self.fault(&pointer(&pointer(&at, name), "seconds"), "a limit holds for at least 1 second");
            }
            *limit = (count > 0).then(|| Limit::new(count.into(), seconds.into()));
        }
        limits
    }

    pub(super) fn precheck(&mut self, table: &PrecheckTable) -> Precheck {
        let mut targets = Targets::default();
        for (index, text) in table.addresses.iter().enumerate() {
            match text.parse::<IpAddr>() {
                Ok(address) => targets.addresses.push(address),
                Err(_) => self.fault(&pointer("/precheck/addresses", index), format!("`{text}` is no IP address")),
            }
        }
        for (index, text) in table.cnames.iter().enumerate() {
            match Hostname::parse(text) {
                Ok(name) => targets.cnames.push(name),
                Err(error) => self.fault(&pointer("/precheck/cnames", index), error.to_string()),
            }
        }
        for (setting, count) in [("addresses", table.addresses.len()), ("cnames", table.cnames.len())] {
            if count > TARGETS_MAX {
                self.fault(
                    &pointer("/precheck", setting),
                    format!("{count} entries, at most {TARGETS_MAX} are accepted"),
                );
            }
        }
        let resolver = table.resolver.as_ref().and_then(|text| {
            let address = text.parse::<SocketAddr>();
            if address.is_err() {
                let says = format!("`{text}` is no IP address with a port");
                self.hinted("/precheck/resolver", says, "such as 127.0.0.1:53");
            }
            address.ok()
        });
        let mut port = |name: &str, port: u32| {
            let valid = u16::try_from(port).ok().filter(|port| *port > 0);
            if valid.is_none() {
                self.fault(&pointer("/precheck", name), format!("{port} is no port, 1 to 65535 are accepted"));
            }
            valid.unwrap_or(1)
        };
        let ports = (port("http_port", table.http_port), port("https_port", table.https_port));
        Precheck { targets, resolver, ports }
    }
}
