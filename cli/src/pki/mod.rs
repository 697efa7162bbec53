//! A small private CA in a folder: who may speak to CertService's API by a client certificate, and its own server
//! certificate. `ca.pem` and `crl.pem` are what others read; keys never leave the folder but by the operator's hand.

mod folder;
mod sign;

pub use folder::{Folder, PkiError};
use serde::{Deserialize, Serialize};

pub const CA_DAYS: u32 = 3650;
pub const DAYS: u32 = 365;
/// A revocation list is signed anew by each command; readers that look at its age have this long.
const CRL_DAYS: u64 = 365;
const DAY: u64 = 86_400;

/// What the folder knows of what it has issued.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Index {
    /// Of the CA.
    pub name: String,
    /// The CA's keys, counted from 1; the last one signs.
    pub generation: u32,
    pub crl_number: u64,
    pub certificates: Vec<Issued>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Issued {
    pub name: String,
    pub subject: Subject,
    /// Hexadecimal.
    pub serial: String,
    /// SHA-256 of the DER, hexadecimal.
    pub sha256: String,
    /// Which of the CA's keys signed it.
    pub generation: u32,
    /// Unix seconds.
    pub not_after: u64,
    /// Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<u64>,
}

/// What a certificate is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// Of a client: the URI by which [[certificates]] of CertService's boot file know it.
    Client { uri: String },
    /// Of CertService's own listener: host names and IP addresses.
    Server { hosts: Vec<String> },
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Client { uri } => f.write_str(uri),
            Self::Server { hosts } => write!(f, "server {}", hosts.join(" ")),
        }
    }
}
