//! The boot file, checked: what the rest of CertService reads.

mod check;
mod check_access;
mod check_dns;
mod check_edges;
mod check_issuers;
mod check_webhooks;
pub mod file;
pub mod file_orders;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use contract::ChallengeKind;
use contract::api::{Fault, OrderWhen};
use contract::document::Document;
use contract::sealed::Recipient;
use zeroize::Zeroizing;

pub(crate) use self::check::is_tenant;
use crate::budget::{Limit, Limits};
use crate::precheck::{Needs, Targets};

/// Largest file that the configuration reads, the boot file included.
pub const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Longest time from one session ticket key to the next, in seconds; the shortest is for tests.
pub const TICKET_ROTATION_SECONDS: std::ops::RangeInclusive<u32> = 2..=7 * 24 * 3600;
/// A session may be resumed for this many rotations: so many keys fit into a document.
pub const TICKET_LIFETIME_ROTATIONS_MAX: u32 = 6;
/// Most orders worked on at once.
pub const CONCURRENCY_MAX: u32 = 256;

/// What an order of one name takes of a CA: nonce, order, authorization, challenge, looks, finalization, certificate.
const REQUESTS_PER_ORDER: u64 = 10;
/// What an order usually takes, from its leaving to the certificate.
const ORDER_MS: u64 = 5000;

#[derive(Debug)]
pub struct Config {
    pub data_dir: PathBuf,
    pub listen: Listen,
    pub tokens: Vec<Token>,
    pub certificates: Vec<ClientCertificate>,
    pub store: Places,
    pub redis: Option<Redis>,
    pub edges: Vec<Recipient>,
    /// Never empty; the first is the default.
    pub issuers: Vec<Issuer>,
    pub domains: Domains,
    pub issuance: Issuance,
    pub precheck: Precheck,
    /// Of session ticket keys.
    pub tickets: crate::tickets::Pace,
    pub webhooks: Vec<Webhook>,
    pub dns: Vec<DnsProvider>,
}

pub use door::{ClientFiles, KnownBy, Listen, Networks, TlsFiles};

pub type Token = door::Token<Grant>;
pub type ClientCertificate = door::ClientCertificate<Grant>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grant {
    /// Bundles and challenges.
    Edge,
    /// Domains of one tenant.
    App { tenant: String },
    /// All domains.
    Operator,
    /// Sees what an operator sees, and changes nothing.
    Viewer,
}

#[derive(Debug, Clone)]
pub enum StoreUrl {
    Sqlite(PathBuf),
    /// With a password in it.
    Mysql(Secret),
}

/// Where all is kept.
#[derive(Debug, Clone)]
pub struct Places {
    pub store: StoreUrl,
    /// Of bundles, where they are apart from the rest.
    pub bundles: Option<StoreUrl>,
}

impl From<StoreUrl> for Places {
    fn from(store: StoreUrl) -> Self {
        Self { store, bundles: None }
    }
}

impl StoreUrl {
    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Sqlite(one), Self::Sqlite(other)) => one == other,
            (Self::Mysql(one), Self::Mysql(other)) => one.reveal() == other.reveal(),
            _ => false,
        }
    }
}

/// With what Redis is spoken to.
#[derive(Debug)]
pub struct Redis {
    /// With a password in it.
    pub url: Secret,
    /// PEM; believed instead of the system's roots.
    pub root: Option<Vec<u8>>,
    /// Client certificate and its key, PEM.
    pub identity: Option<(Vec<u8>, Secret)>,
}

#[derive(Debug)]
pub struct Issuer {
    pub name: String,
    pub kind: IssuerKind,
    /// A domain is looked at before an order leaves.
    pub precheck: bool,
    /// What the CA is called in CAA records; empty where that is not known.
    pub caa_names: Vec<String>,
    pub limits: Limits,
}

impl Issuer {
    /// What a look at a domain has to find for it.
    pub fn needs(&self) -> Needs {
        let challenges = match &self.kind {
            IssuerKind::Acme(acme) => acme.challenges.clone(),
            IssuerKind::Internal { .. } => Vec::new(),
        };
        Needs { look_first: self.precheck, ca_names: self.caa_names.clone(), challenges }
    }

    /// How long an order takes at best where many are under way.
    pub fn ms_per_order(&self, concurrency: u32) -> u64 {
        let requests = match &self.kind {
            IssuerKind::Acme(acme) => acme.requests.map_or(0, |limit| limit.interval_ms() * REQUESTS_PER_ORDER),
            IssuerKind::Internal { .. } => return 1,
        };
        requests.max(ORDER_MS / u64::from(concurrency.max(1))).max(1)
    }

    /// CAs want dns-01 for a wildcard.
    pub fn can_wildcards(&self) -> bool {
        let needs = self.needs();
        needs.challenges.is_empty() || needs.challenges.contains(&ChallengeKind::Dns01)
    }
}

#[derive(Debug)]
pub struct Precheck {
    pub targets: Targets,
    /// Default: the system's.
    pub resolver: Option<SocketAddr>,
    /// Where http-01 and tls-alpn-01 are looked for.
    pub ports: (u16, u16),
}

#[derive(Debug)]
pub enum IssuerKind {
    Acme(Acme),
    Internal { validity_days: u32 },
}

#[derive(Debug)]
pub struct Acme {
    pub directory: String,
    pub contact: Vec<String>,
    /// PEM; believed instead of the system's roots.
    pub root: Option<Vec<u8>>,
    pub eab: Option<Eab>,
    pub profile: Option<String>,
    /// Of any kind, from this instance; `None` is no limit.
    pub requests: Option<Limit>,
    /// In order of preference; never empty.
    pub challenges: Vec<ChallengeKind>,
}

#[derive(Debug)]
pub struct Eab {
    pub kid: String,
    pub hmac_key: Secret,
}

#[derive(Debug, Clone)]
pub struct Webhook {
    pub name: String,
    pub url: String,
    pub secret: Secret,
    pub tenant: Option<String>,
    /// PEM; believed instead of the system's roots.
    pub root: Option<Vec<u8>>,
    /// `http`, to this machine.
    pub plain: bool,
}

/// Who puts answers to dns-01 challenges into DNS.
#[derive(Debug)]
pub struct DnsProvider {
    pub name: String,
    /// Lower case, without the last dot.
    pub zones: Vec<String>,
    pub wait_seconds: u64,
    pub kind: DnsKind,
}

#[derive(Debug)]
pub enum DnsKind {
    Rfc2136(Rfc2136),
    Webhook(DnsWebhook),
}

#[derive(Debug)]
pub struct Rfc2136 {
    pub server: SocketAddr,
    pub key_name: String,
    /// Base64.
    pub key: Secret,
    pub algorithm: TsigHash,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TsigHash {
    Sha256,
    Sha384,
    Sha512,
}

#[derive(Debug)]
pub struct DnsWebhook {
    pub url: String,
    pub secret: Secret,
    /// PEM; believed instead of the system's roots.
    pub root: Option<Vec<u8>>,
    /// `http`, to this machine.
    pub plain: bool,
}

#[derive(Debug, Clone)]
pub struct Domains {
    /// 0 is no limit.
    pub names_per_registered_domain_max: u64,
    pub www: bool,
    /// In order of preference; never empty.
    pub issuers: Vec<String>,
    pub order: OrderWhen,
    /// Of one tenant; `None` is no limit.
    pub first_visits: Option<Limit>,
    /// The same of orders that a tenant asks for.
    pub renews: Option<Limit>,
}

#[derive(Debug, Clone, Copy)]
pub struct Issuance {
    pub concurrency: u32,
    pub retry_seconds_min: u64,
    pub retry_seconds_max: u64,
    /// An RSA certificate beside the ECDSA one.
    pub rsa: bool,
    pub renewals_wait_seconds: u64,
}

/// Shows nothing, and is wiped when dropped.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl Config {
    /// Reads and checks the boot file and the files that it names. Relative paths start at the boot file's folder.
    pub fn load(path: &Path) -> Result<Self, Vec<Fault>> {
        let text = check::read_file(path).map_err(|says| {
            vec![Fault {
                at: String::new(),
                line: None,
                column: None,
                says: format!("the boot file {says}"),
                hint: None,
            }]
        })?;
        Self::parse(&text, path.parent().unwrap_or(Path::new("")))
    }

    pub fn parse(text: &str, folder: &Path) -> Result<Self, Vec<Fault>> {
        let document = Document::toml(text)?;
        let file: file::File = document.read()?;
        check::check(file, &document, folder)
    }
}
