//! What is asked of CertService.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use contract::Hostname;
use contract::api::{OrderWhen, RevokeReason, State};

use crate::client::Target;

const CERTSERVICE: &str = "unix:/run/latchkey/certservice.sock";

#[derive(Debug, clap::Args)]
pub struct CertServiceArgs {
    /// CertService's API: unix:/path, https://host:port, or http://host:port on loopback [default: unix:/run/latchkey/certservice.sock]
    #[arg(long, global = true, env = "LATCHKEY_CERTSERVICE", value_name = "WHERE")]
    pub certservice: Option<Target>,
    /// Bearer token, where CertService asks for one. Prefer --token-file: other users can read command lines.
    #[arg(long, global = true, env = "LATCHKEY_TOKEN", hide_env_values = true, hide = true, value_name = "TOKEN")]
    pub token: Option<String>,
    /// File with the bearer token, where CertService asks for one. Without it: the variable LATCHKEY_TOKEN.
    #[arg(long, global = true, env = "LATCHKEY_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Root certificate (PEM) of CertService's https address, where it is not a public one.
    #[arg(long, global = true, env = "LATCHKEY_CA_FILE", value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Client certificate (PEM), where CertService takes them; with --key-file.
    #[arg(long, global = true, env = "LATCHKEY_CERT_FILE", value_name = "FILE", requires = "key_file")]
    pub cert_file: Option<PathBuf>,
    /// Its private key (PEM).
    #[arg(long, global = true, env = "LATCHKEY_KEY_FILE", value_name = "FILE", requires = "cert_file")]
    pub key_file: Option<PathBuf>,
}

impl CertServiceArgs {
    pub fn target(&self) -> Target {
        self.certservice.clone().unwrap_or_else(|| Target::Unix(CERTSERVICE.trim_start_matches("unix:").into()))
    }
}

#[derive(Debug, Subcommand)]
pub enum DomainAction {
    /// Register a domain, such as shop.example or '*.shop.example': a certificate is ordered for it.
    Add {
        name: Hostname,
        /// Who it belongs to. Default: the token's tenant.
        #[arg(long)]
        tenant: Option<String>,
        /// Which configured issuer to order from; several times: in order of preference. Default: those of the boot file.
        #[arg(long = "issuer", value_name = "ISSUER")]
        issuers: Vec<String>,
        /// What kind of certificate, as the CA calls it, such as shortlived; empty: the issuer's own.
        #[arg(long)]
        profile: Option<String>,
        /// When its first certificate is ordered: now, or first-visit: when a visitor comes. Default: as it is; of a new domain
        /// as the boot file says.
        #[arg(long, value_name = "WHEN", value_parser = order)]
        order: Option<OrderWhen>,
        /// After all others: one of a large import.
        #[arg(long)]
        bulk: bool,
        /// With `www.` of a registered domain, or with the registered domain of a `www.`.
        #[arg(long)]
        www: bool,
    },
    /// One domain: where it stands and who must act.
    Show { name: Hostname },
    /// Look at a domain's DNS, CAA records and challenge path now, without asking any CA. Exit code 1: something is wrong.
    Check { name: Hostname },
    /// Ask for a new certificate now. The CA's limits hold.
    Renew { name: Hostname },
    /// Have the CA take the certificate back; another one is ordered at once.
    Revoke {
        name: Hostname,
        /// What the CA is told: unspecified, key-compromise, superseded, cessation-of-operation.
        #[arg(long, default_value = "unspecified", value_parser = reason)]
        reason: RevokeReason,
    },
    /// All domains.
    Ls {
        /// Only those in this state: working, action-needed, live, blocked.
        #[arg(long, value_parser = state)]
        state: Option<State>,
        /// Only those of this tenant.
        #[arg(long)]
        tenant: Option<String>,
        /// Only those whose certificate ends within so many days, soonest first.
        #[arg(long, value_name = "DAYS")]
        expires_within: Option<u32>,
    },
    /// Off-board a domain: no more certificates, and the edges stop serving it.
    Rm { name: Hostname },
    /// Follow a domain until its certificate is there (exit code 0) or somebody must act (1).
    Watch {
        name: Hostname,
        /// Give up after this many seconds.
        #[arg(long, default_value_t = 300, value_name = "SECONDS")]
        timeout: u64,
    },
}

#[derive(Debug, Subcommand)]
pub enum CertAction {
    /// All certificates, soonest end first.
    Ls {
        /// Only those that end within so many days.
        #[arg(long, value_name = "DAYS")]
        expiring: Option<u32>,
        /// Only those of this issuer; `own` for uploaded ones.
        #[arg(long)]
        issuer: Option<String>,
        /// Only those of this tenant.
        #[arg(long)]
        tenant: Option<String>,
    },
    /// One certificate: who made it, until when it is valid, when it is renewed.
    Show {
        name: Hostname,
        /// Print its chain in PEM, and nothing else.
        #[arg(long)]
        chain: bool,
    },
    /// Serve a certificate of one's own: it is checked, sealed at once, and never renewed.
    Upload {
        name: Hostname,
        /// PEM, the server's certificate first.
        #[arg(long, value_name = "FILE")]
        chain: PathBuf,
        /// PEM (PKCS #8).
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// A second one with an RSA key, for clients without ECDSA: its chain (PEM). The first has an ECDSA key then.
        #[arg(long, value_name = "FILE", requires = "rsa_key")]
        rsa_chain: Option<PathBuf>,
        /// Its key (PEM, PKCS #8).
        #[arg(long, value_name = "FILE", requires = "rsa_chain")]
        rsa_key: Option<PathBuf>,
        /// Of a name that is new. Default: the token's, else `default`.
        #[arg(long)]
        tenant: Option<String>,
    },
    /// Back to the issuers: an uploaded certificate is served until they have made another.
    Rm { name: Hostname },
    /// Ask for a new certificate now. The CA's limits hold.
    Renew { name: Hostname },
    /// Have the CA take the certificate back; another one is ordered at once.
    Revoke {
        name: Hostname,
        /// What the CA is told: unspecified, key-compromise, superseded, cessation-of-operation.
        #[arg(long, default_value = "unspecified", value_parser = reason)]
        reason: RevokeReason,
    },
}

/// A word of the API, with hyphens as command lines have them.
fn word<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_value(text.replace('-', "_").into())
        .map_err(|_| "not one of the words that --help names".to_owned())
}

/// `90m`, `12h`, `3d`
pub(super) fn seconds(text: &str) -> Result<u64, String> {
    let (count, unit) = text.split_at_checked(text.len().saturating_sub(1)).unwrap_or_default();
    let unit = match unit {
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err("a number and m, h or d, as in 3d".to_owned()),
    };
    let count: u64 = count.parse().map_err(|_| "a number and m, h or d, as in 3d".to_owned())?;
    count.checked_mul(unit).ok_or_else(|| "too long".to_owned())
}

fn state(text: &str) -> Result<State, String> {
    word(text)
}

fn order(text: &str) -> Result<OrderWhen, String> {
    word(text)
}

fn reason(text: &str) -> Result<RevokeReason, String> {
    word(text)
}

#[derive(Debug, Parser)]
pub struct IssueArgs {
    /// CSV (`name[,tenant[,issuer[,order]]]`), or NDJSON where its name ends in .ndjson, .jsonl or .json.
    #[arg(long, value_name = "FILE")]
    pub from: PathBuf,
    /// Of lines that name none. Default: the token's, else `default`.
    #[arg(long)]
    pub tenant: Option<String>,
    /// Of lines that name none. Default: the first one.
    #[arg(long)]
    pub issuer: Option<String>,
    /// `www.` comes with each registered domain, and the registered domain with its `www.`.
    #[arg(long)]
    pub www: bool,
    /// Of lines that don't say when they are ordered: now, or first-visit. Default: as the boot file says.
    #[arg(long, value_name = "WHEN", value_parser = order)]
    pub order: Option<OrderWhen>,
    /// Send the list and leave.
    #[arg(long)]
    pub detach: bool,
}

#[derive(Debug, Subcommand)]
pub enum ImportAction {
    /// How far a list is, and what was wrong with which line.
    Show { id: String },
}

#[derive(Debug, Subcommand)]
pub enum AuditAction {
    /// Entries, oldest first.
    Ls {
        /// Only those of this domain (or list).
        #[arg(long)]
        name: Option<String>,
        /// Only those after this number.
        #[arg(long, default_value_t = 0)]
        after: u64,
    },
    /// Check the whole journal. Exit code 1: an entry was changed or is missing.
    Verify {
        /// What an earlier check ended with: it must still be there.
        #[arg(long, value_name = "SEQ:HASH")]
        head: Option<String>,
        /// Archives, oldest first, that hold the entries before those that are left: they are checked as one chain.
        #[arg(long, value_name = "FILE")]
        archive: Vec<PathBuf>,
    },
    /// Write entries to a file, one JSON object a line, check them, and then remove them from CertService.
    Archive {
        /// Those that are older than this: 12h, 90d.
        #[arg(long, value_name = "SPAN", value_parser = seconds)]
        before: u64,
        /// The file, which must not be there yet.
        #[arg(long)]
        out: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub enum BudgetAction {
    /// Each issuer: whether it takes orders, how many wait, and what is left of its limits.
    Ls {
        /// With what is counted by this domain.
        #[arg(long, value_name = "NAME")]
        domain: Option<Hostname>,
    },
}

#[derive(Debug, Subcommand)]
pub enum EdgeAction {
    /// How far each edge has followed the changes of certificates.
    Ls,
}
