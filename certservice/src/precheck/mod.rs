//! Looks at a domain as the CA will, before an order leaves: its DNS, its CAA records, and whether the challenge path
//! leads to our edge. Must never contact a CA or write to the store.

mod caa;
mod dns;
mod fetch;
mod verdict;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use contract::Hostname;
use contract::api::DomainStep;

pub use self::caa::CaaRecord;
use self::dns::{Dns, Records};
use self::fetch::Fetched;
use self::verdict::Findings;
use crate::{challenge, clock};

/// Addresses of one family that are asked for the challenge path.
const ADDRESSES_MAX: usize = 2;
/// Longest time that one look may take.
const LOOK_SECONDS_MAX: u64 = 60;

/// What domains are expected to point at. Empty: whatever answers as our edge does is right.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Targets {
    pub addresses: Vec<IpAddr>,
    pub cnames: Vec<Hostname>,
}

impl Targets {
    fn are_known(&self) -> bool {
        !self.addresses.is_empty() || !self.cnames.is_empty()
    }
}

/// What was seen, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub steps: Vec<DomainStep>,
    /// Our view may differ from the CA's: worth an order now and then all the same.
    pub doubtful: bool,
}

impl Report {
    /// Of an issuer that needs no look.
    pub fn none() -> Self {
        Self { steps: Vec::new(), doubtful: false }
    }

    /// The first thing that is wrong.
    pub fn fault(&self) -> Option<&DomainStep> {
        self.steps.iter().find(|step| step.ok == Some(false))
    }
}

/// Which issuers want a look first, and what their CA is called in CAA records.
#[derive(Clone)]
pub struct Checks {
    precheck: Arc<Precheck>,
    issuers: Arc<HashMap<String, Vec<String>>>,
}

impl Checks {
    pub fn new(precheck: Precheck, issuers: HashMap<String, Vec<String>>) -> Self {
        Self { precheck: Arc::new(precheck), issuers: Arc::new(issuers) }
    }

    /// What an order of this issuer waits for: nothing, where the issuer wants no look.
    pub async fn look(&self, issuer: &str, domain: &Hostname) -> Report {
        match self.issuers.get(issuer) {
            Some(ca_names) => self.precheck.look(domain, ca_names).await,
            None => Report::none(),
        }
    }

    /// How many addresses a name has, by the resolver that looks ask.
    pub async fn addresses_of(&self, name: &Hostname) -> Result<usize, String> {
        let records = self.precheck.dns.records(name).await.map_err(|error| error.0)?;
        Ok(records.v4.len() + records.v6.len())
    }

    /// A look whether or not an order waits for it.
    pub async fn look_anyway(&self, issuer: &str, domain: &Hostname) -> Report {
        self.precheck.look(domain, self.issuers.get(issuer).map_or(&[], Vec::as_slice)).await
    }
}

pub struct Precheck {
    dns: Dns,
    targets: Targets,
    http_port: u16,
    /// Our edges answer with it: the key ID that CertService signs with.
    kid: String,
}

impl Precheck {
    /// `resolver`: default the system's.
    pub fn open(
        resolver: Option<SocketAddr>,
        targets: Targets,
        http_port: u16,
        kid: impl Into<String>,
    ) -> Result<Self, String> {
        Ok(Self { dns: Dns::open(resolver)?, targets, http_port, kid: kid.into() })
    }

    /// `ca_names`: what the CA calls itself in CAA records; empty where that is not known.
    pub async fn look(&self, domain: &Hostname, ca_names: &[String]) -> Report {
        let limit = Duration::from_secs(LOOK_SECONDS_MAX);
        match tokio::time::timeout(limit, self.findings(domain, ca_names)).await {
            Ok(findings) => findings.report(domain, &self.targets),
            Err(_) => verdict::too_slow(LOOK_SECONDS_MAX),
        }
    }

    async fn findings(&self, domain: &Hostname, ca_names: &[String]) -> Findings {
        let (records, caa) = tokio::join!(self.dns.records(domain), caa::climb(&self.dns, domain, ca_names));
        let fetches = match &records {
            Ok(records) => self.fetches(domain, records).await,
            Err(_) => Vec::new(),
        };
        Findings { records, caa, fetches }
    }

    /// The challenge path at each address, as the CA would ask for it.
    async fn fetches(&self, domain: &Hostname, records: &Records) -> Vec<(IpAddr, Fetched)> {
        let families = records.v4.iter().take(ADDRESSES_MAX).chain(records.v6.iter().take(ADDRESSES_MAX));
        let answer = challenge::self_check(domain, &self.kid, clock::now());
        let mut fetches = Vec::new();
        for address in families {
            // Names that lead into our own network must not make us knock there.
            let fetched = if dns::is_public(*address) || self.targets.addresses.contains(address) {
                fetch::ask(SocketAddr::new(*address, self.http_port), &answer).await
            } else {
                Fetched::NotPublic
            };
            fetches.push((*address, fetched));
        }
        fetches
    }
}
