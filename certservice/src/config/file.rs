//! What an operator writes: the boot file, as it stands in TOML. Nothing here is believed yet; see [`super::Config`].

use contract::document::Faults;
use deserr::Deserr;

use super::file_orders::{DomainsTable, IssuanceTable};

#[derive(Debug, Deserr)]
#[deserr(error = Faults, deny_unknown_fields)]
pub struct File {
    /// Folder of the signing key, ACME accounts, internal CAs and, by default, the database.
    pub data_dir: String,
    pub listen: ListenTable,
    #[deserr(default)]
    pub tokens: Vec<TokenTable>,
    /// Who may do what by a TLS client certificate.
    #[deserr(default)]
    pub certificates: Vec<CertificateTable>,
    #[deserr(default)]
    pub store: Option<StoreTable>,
    #[deserr(default)]
    pub redis: Option<RedisTable>,
    pub edges: EdgesTable,
    /// In order of preference; the first is the default.
    pub issuers: Vec<IssuerTable>,
    #[deserr(default)]
    pub domains: DomainsTable,
    #[deserr(default)]
    pub issuance: IssuanceTable,
    #[deserr(default)]
    pub precheck: PrecheckTable,
    #[deserr(default)]
    pub tickets: TicketsTable,
    #[deserr(default)]
    pub webhooks: Vec<WebhookTable>,
    /// Who puts answers to dns-01 challenges into DNS.
    #[deserr(default)]
    pub dns: Vec<DnsTable>,
}

#[derive(Debug, Deserr)]
#[deserr(error = Faults, deny_unknown_fields)]
pub struct ListenTable {
    /// `unix:/path` or `host:port`.
    pub address: String,
    #[deserr(default)]
    pub tls: Option<TlsTable>,
    /// Networks (`10.0.0.0/8`) or addresses from which connections are taken.
    #[deserr(default)]
    pub networks: Vec<String>,
}

#[derive(Debug, Deserr)]
#[deserr(error = Faults, deny_unknown_fields)]
pub struct TlsTable {
    pub certificate_file: String,
    pub key_file: String,
    /// The CAs whose client certificates are taken, PEM.
    #[deserr(default)]
    pub client_ca_file: Option<String>,
    /// Their revocation lists, PEM.
    #[deserr(default)]
    pub client_crl_file: Option<String>,
    /// Whether who has no certificate is turned away before a token is read.
    #[deserr(default)]
    pub client_required: bool,
}

#[derive(Debug, Deserr)]
#[deserr(error = Faults, deny_unknown_fields)]
pub struct TokenTable {
    pub role: RoleWord,
    #[deserr(default)]
    pub tenant: Option<String>,
    /// SHA-256 of the token, hexadecimal.
    pub sha256: String,
    /// From where it may be used.
    #[deserr(default)]
    pub networks: Vec<String>,
}

#[derive(Debug, Deserr)]
#[deserr(error = Faults, deny_unknown_fields)]
pub struct CertificateTable {
    pub role: RoleWord,
    #[deserr(default)]
    pub tenant: Option<String>,
    /// A URI among the certificate's names; one that ends in `*` is the beginning of it.
    #[deserr(default)]
    pub uri: Option<String>,
    /// Or its SHA-256 (of the DER), hexadecimal.
    #[deserr(default)]
    pub sha256: Option<String>,
    /// From where it may be used.
    #[deserr(default)]
    pub networks: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserr)]
#[deserr(error = Faults, rename_all = lowercase)]
pub enum RoleWord {
    Edge,
    App,
    Operator,
    Viewer,
}

/// A URL each, or the file that holds it where it carries a password.
#[derive(Debug, Deserr)]
#[deserr(error = Faults, deny_unknown_fields)]
pub struct StoreTable {
    #[deserr(default)]
    pub url: Option<String>,
    #[deserr(default)]
    pub url_file: Option<String>,
    /// Of a database that has the bundles, and nothing else.
    #[deserr(default)]
    pub bundles: Option<String>,
    #[deserr(default)]
    pub bundles_file: Option<String>,
}

#[derive(Debug, Deserr)]
#[deserr(error = Faults, deny_unknown_fields)]
pub struct RedisTable {
    #[deserr(default)]
    pub url: Option<String>,
    #[deserr(default)]
    pub url_file: Option<String>,
    /// Root of its TLS certificate, PEM. Default: the system's roots.
    #[deserr(default)]
    pub ca_file: Option<String>,
    /// Client certificate and its key, PEM, where it takes them.
    #[deserr(default)]
    pub certificate_file: Option<String>,
    #[deserr(default)]
    pub key_file: Option<String>,
}

#[derive(Debug, Deserr)]
#[deserr(error = Faults, deny_unknown_fields)]
pub struct EdgesTable {
    /// PEM files with one RSA public key each.
    pub public_keys: Vec<String>,
    /// Edge and CertService share this machine, as in a demo: a private edge key beside these files is no fault.
    #[deserr(default)]
    pub private_keys_in_reach: bool,
}

#[derive(Debug, Deserr)]
#[deserr(error = Faults, deny_unknown_fields)]
pub struct IssuerTable {
    pub name: String,
    pub kind: KindWord,
    #[deserr(default)]
    pub directory: Option<String>,
    #[deserr(default)]
    pub contact: Option<Vec<String>>,
    #[deserr(default)]
    pub root_file: Option<String>,
    #[deserr(default)]
    pub eab: Option<EabTable>,
    /// How control of domains is shown, in order of preference.
    #[deserr(default)]
    pub challenges: Option<Vec<ChallengeWord>>,
    #[deserr(default)]
    pub validity_days: Option<u32>,
    /// Whether a domain is looked at before an order leaves. Default: for `acme`.
    #[deserr(default)]
    pub precheck: Option<bool>,
    /// What the CA is called in CAA records.
    #[deserr(default)]
    pub caa_names: Option<Vec<String>>,
    /// What kind of certificate, where a domain does not say otherwise.
    #[deserr(default)]
    pub profile: Option<String>,
    /// What the CA allows. Default: as published, for Let's Encrypt.
    #[deserr(default)]
    pub limits: Option<LimitsTable>,
}

/// Each replaces the published one.
#[derive(Debug, Deserr)]
#[deserr(error = Faults, deny_unknown_fields)]
pub struct LimitsTable {
    /// Of any kind, from each instance.
    #[deserr(default)]
    pub requests: Option<LimitTable>,
    #[deserr(default)]
    pub orders: Option<LimitTable>,
    #[deserr(default)]
    pub certificates_per_domain: Option<LimitTable>,
    #[deserr(default)]
    pub certificates_per_set: Option<LimitTable>,
    #[deserr(default)]
    pub failures_per_name: Option<LimitTable>,
    #[deserr(default)]
    pub consecutive_failures: Option<LimitTable>,
}

#[derive(Debug, Clone, Copy, Deserr)]
#[deserr(error = Faults, deny_unknown_fields)]
pub struct LimitTable {
    /// So many; 0 is no limit.
    pub count: u32,
    /// In so many seconds, refilled evenly.
    pub seconds: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserr)]
#[deserr(error = Faults, rename_all = lowercase)]
pub enum KindWord {
    Acme,
    Internal,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserr)]
#[deserr(error = Faults)]
pub enum ChallengeWord {
    #[deserr(rename = "http-01")]
    Http01,
    #[deserr(rename = "tls-alpn-01")]
    TlsAlpn01,
    #[deserr(rename = "dns-01")]
    Dns01,
}

#[derive(Debug, Deserr)]
#[deserr(error = Faults, deny_unknown_fields)]
pub struct EabTable {
    pub kid: String,
    pub hmac_key_file: String,
}

#[derive(Debug, Deserr)]
#[deserr(error = Faults, deny_unknown_fields)]
pub struct PrecheckTable {
    /// IP addresses of the edges (or of the balancer before them), as customers' A and AAAA records have them.
    #[deserr(default)]
    pub addresses: Vec<String>,
    /// Names that customers' CNAME records may lead to; the first is the one that is suggested.
    #[deserr(default)]
    pub cnames: Vec<String>,
    /// `ip:port` of the DNS server that is asked.
    #[deserr(default)]
    pub resolver: Option<String>,
    /// Where the challenge path is asked for; CAs use 80.
    #[deserr(default = 80)]
    pub http_port: u32,
    /// Where tls-alpn-01 is looked for; CAs use 443.
    #[deserr(default = 443)]
    pub https_port: u32,
}

impl Default for PrecheckTable {
    fn default() -> Self {
        Self { addresses: Vec::new(), cnames: Vec::new(), resolver: None, http_port: 80, https_port: 443 }
    }
}

/// Who is told of changes.
#[derive(Debug, Deserr)]
#[deserr(error = Faults, deny_unknown_fields)]
pub struct WebhookTable {
    /// By it is remembered how far it has come.
    pub name: String,
    pub url: String,
    /// At least 16 bytes; what is sent is signed with it.
    pub secret_file: String,
    /// Only what is this tenant's.
    #[deserr(default)]
    pub tenant: Option<String>,
    /// Extra roots for `url`.
    #[deserr(default)]
    pub root_file: Option<String>,
}

/// Who puts answers to dns-01 challenges into DNS.
#[derive(Debug, Deserr)]
#[deserr(error = Faults, deny_unknown_fields)]
pub struct DnsTable {
    pub name: String,
    pub kind: DnsWord,
    /// Zones that it can change, such as `acme.saas.example`.
    pub zones: Vec<String>,
    /// After a change, before the CA looks.
    #[deserr(default = 10)]
    pub wait_seconds: u32,
    /// `rfc2136`: `ip:port` of the zone's primary.
    #[deserr(default)]
    pub server: Option<String>,
    #[deserr(default)]
    pub key_name: Option<String>,
    /// `rfc2136`: the TSIG secret, base64.
    #[deserr(default)]
    pub key_file: Option<String>,
    #[deserr(default)]
    pub algorithm: Option<TsigWord>,
    /// `webhook`: `/present` and `/cleanup` are appended.
    #[deserr(default)]
    pub url: Option<String>,
    #[deserr(default)]
    pub secret_file: Option<String>,
    #[deserr(default)]
    pub root_file: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserr)]
#[deserr(error = Faults, rename_all = lowercase)]
pub enum DnsWord {
    Rfc2136,
    Webhook,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserr)]
#[deserr(error = Faults)]
pub enum TsigWord {
    #[deserr(rename = "hmac-sha256")]
    Sha256,
    #[deserr(rename = "hmac-sha384")]
    Sha384,
    #[deserr(rename = "hmac-sha512")]
    Sha512,
}

/// The keys of session tickets.
#[derive(Debug, Deserr)]
#[deserr(error = Faults, deny_unknown_fields)]
pub struct TicketsTable {
    /// From one key to the next.
    #[deserr(default = 43_200)]
    pub rotation_seconds: u32,
    /// How long a session may be resumed.
    #[deserr(default = 86_400)]
    pub lifetime_seconds: u32,
}

impl Default for TicketsTable {
    fn default() -> Self {
        Self { rotation_seconds: 43_200, lifetime_seconds: 86_400 }
    }
}
