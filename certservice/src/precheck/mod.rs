//! Looks at a domain as the CA will, before an order leaves: its DNS, its CAA records, and whether the challenge path
//! leads to our edge. Must never contact a CA or write to the store.

mod caa;
mod delegation;
mod dns;
mod fetch;
mod verdict;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use contract::api::DomainStep;
use contract::{ChallengeKind, Hostname};

use self::caa::Asks;
pub use self::caa::CaaRecord;
use self::delegation::Delegation;
pub use self::delegation::lies_in;
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

/// What an issuer's orders need.
#[derive(Debug, Clone, Default)]
pub struct Needs {
    /// An order waits for the look.
    pub look_first: bool,
    /// What the CA is called in CAA records; empty where that is not known.
    pub ca_names: Vec<String>,
    /// In order of preference; empty for one that asks for none.
    pub challenges: Vec<ChallengeKind>,
}

impl Needs {
    /// How control of a domain is shown: of a wildcard in DNS only (RFC 8555 section 7.1.3).
    fn challenge(&self, domain: &Hostname) -> Option<ChallengeKind> {
        let fits = |kind: &&ChallengeKind| !domain.is_wildcard() || **kind == ChallengeKind::Dns01;
        self.challenges.iter().find(fits).copied()
    }
}

/// Looks, as each issuer needs them.
#[derive(Clone)]
pub struct Checks {
    precheck: Arc<Precheck>,
    issuers: Arc<HashMap<String, Needs>>,
}

impl Checks {
    pub fn new(precheck: Precheck, issuers: HashMap<String, Needs>) -> Self {
        Self { precheck: Arc::new(precheck), issuers: Arc::new(issuers) }
    }

    /// Where the name of a domain's dns-01 challenge leads by CNAME records.
    pub async fn challenge_leads_to(&self, domain: &Hostname) -> Result<String, String> {
        self.precheck.dns.leads_to(&challenge_name(domain)).await.map_err(|error| error.0)
    }

    /// What an order of this issuer waits for: nothing, where the issuer wants no look.
    pub async fn look(&self, issuer: &str, domain: &Hostname) -> Report {
        match self.issuers.get(issuer) {
            Some(needs) if needs.look_first => self.precheck.look(domain, needs).await,
            _ => Report::none(),
        }
    }

    /// How many addresses a name has, by the resolver that looks ask.
    pub async fn addresses_of(&self, name: &Hostname) -> Result<usize, String> {
        let records = self.precheck.dns.records(name).await.map_err(|error| error.0)?;
        Ok(records.v4.len() + records.v6.len())
    }

    /// A look whether or not an order waits for it.
    pub async fn look_anyway(&self, issuer: &str, domain: &Hostname) -> Report {
        self.precheck.look(domain, self.issuers.get(issuer).unwrap_or(&Needs::default())).await
    }
}

pub struct Precheck {
    dns: Dns,
    targets: Targets,
    /// Where http-01 and tls-alpn-01 are looked for.
    ports: (u16, u16),
    /// Where answers to dns-01 can be put.
    zones: Vec<String>,
    /// Our edges answer with it: the key ID that CertService signs with.
    kid: String,
}

impl Precheck {
    /// `resolver`: default the system's.
    pub fn open(
        resolver: Option<SocketAddr>,
        targets: Targets,
        ports: (u16, u16),
        zones: Vec<String>,
        kid: impl Into<String>,
    ) -> Result<Self, String> {
        Ok(Self { dns: Dns::open(resolver)?, targets, ports, zones, kid: kid.into() })
    }

    pub async fn look(&self, domain: &Hostname, needs: &Needs) -> Report {
        let limit = Duration::from_secs(LOOK_SECONDS_MAX);
        let (ca_names, methods) = (&needs.ca_names[..], &needs.challenges[..]);
        let asks = Asks { ca_names, methods, wildcard: domain.is_wildcard() };
        let look = async {
            match needs.challenge(domain) {
                Some(ChallengeKind::Dns01) => self.in_dns(domain, asks).await,
                // Nobody looks at it.
                None if domain.is_wildcard() => verdict::of_wildcard(domain, needs.challenges.is_empty()),
                how => self.findings(domain, asks, how).await.report(domain, &self.targets),
            }
        };
        let Report { steps, doubtful } =
            tokio::time::timeout(limit, look).await.unwrap_or_else(|_| verdict::too_slow(LOOK_SECONDS_MAX));
        Report { steps: steps.into_iter().map(verdict::bounded).collect(), doubtful }
    }

    /// Nobody comes to the domain: its records have to let us issue, and its challenge's name has to lead to us.
    async fn in_dns(&self, domain: &Hostname, asks: Asks<'_>) -> Report {
        let name = challenge_name(domain);
        let (caa, leads_to) = tokio::join!(caa::climb(&self.dns, domain, asks), self.dns.leads_to(&name));
        let unanswered = matches!(caa, caa::Caa::NoAnswer { .. }) || leads_to.is_err();
        let doubtful = unanswered && !matches!(caa, caa::Caa::Forbids { .. });
        let steps = vec![verdict::of_caa(&caa, domain), Delegation { name, leads_to }.step(&self.zones)];
        Report { steps, doubtful }
    }

    async fn findings(&self, domain: &Hostname, asks: Asks<'_>, how: Option<ChallengeKind>) -> Findings {
        let tls = how == Some(ChallengeKind::TlsAlpn01);
        let (records, caa) = tokio::join!(self.dns.records(domain), caa::climb(&self.dns, domain, asks));
        let fetches = match &records {
            Ok(records) => self.fetches(domain, records, tls).await,
            Err(_) => Vec::new(),
        };
        Findings { records, caa, fetches, tls }
    }

    /// The challenge path at each address, as the CA would ask for it; with `tls` the port that it would come to.
    async fn fetches(&self, domain: &Hostname, records: &Records, tls: bool) -> Vec<(IpAddr, Fetched)> {
        let families = records.v4.iter().take(ADDRESSES_MAX).chain(records.v6.iter().take(ADDRESSES_MAX));
        let answer = challenge::self_check(domain, &self.kid, clock::now());
        let mut fetches = Vec::new();
        for address in families {
            // Names that lead into our own network must not make us knock there.
            let fetched = if dns::is_public(*address) || self.targets.addresses.contains(address) {
                match tls {
                    true => fetch::knock(SocketAddr::new(*address, self.ports.1)).await,
                    false => fetch::ask(SocketAddr::new(*address, self.ports.0), &answer).await,
                }
            } else {
                Fetched::NotPublic
            };
            fetches.push((*address, fetched));
        }
        fetches
    }
}

/// RFC 8555 section 8.4; no trailing dot.
pub fn challenge_name(domain: &Hostname) -> String {
    format!("_acme-challenge.{}", domain.base())
}
