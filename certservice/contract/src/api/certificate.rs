//! Certificates: what is shown of them, and those that are brought along.

use serde::{Deserialize, Serialize};

use crate::Hostname;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CertificateInfo {
    /// Who signed it: the issuer's distinguished name, as the certificate has it.
    pub issued_by: String,
    /// Hexadecimal.
    pub serial: String,
    /// SHA-256 of the DER, hexadecimal.
    pub sha256: String,
    /// Unix seconds.
    pub not_before: u64,
    /// Unix seconds.
    pub not_after: u64,
    pub revision: u64,
}

/// Body of `PUT /v1/domains/{name}/certificate`. Shows nothing: it holds a private key.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct BringCertificate {
    /// PEM, leaf first.
    pub chain: String,
    /// PEM, PKCS #8.
    pub key: String,
    /// A second certificate for the same name, with an RSA key, for clients without ECDSA; the first has an ECDSA key then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rsa: Option<BringSecond>,
    /// Of a name that is new. Default: the tenant of the caller's token, else `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
}

/// Shows nothing: it holds a private key.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct BringSecond {
    /// PEM, leaf first.
    pub chain: String,
    /// PEM, PKCS #8.
    pub key: String,
}

impl std::fmt::Debug for BringSecond {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BringSecond")
    }
}

impl std::fmt::Debug for BringCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BringCertificate")
    }
}

/// Unix seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RenewalWindow {
    pub start: u64,
    pub end: u64,
}

/// Answer of `GET /v1/domains/{name}/certificate`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CertificatePage {
    pub name: Hostname,
    /// Who made it; `own` for one that was uploaded.
    pub issuer: String,
    pub certificate: CertificateInfo,
    /// A second one, with an RSA key, is served beside it.
    pub rsa: bool,
    /// Unix seconds; the instant chosen for its renewal, within what the CA suggests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renew_at: Option<u64>,
    /// When the CA would like it to be renewed, as it said last (RFC 9773).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<RenewalWindow>,
    /// What the CA knows it by (RFC 9773).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ari_id: Option<String>,
    /// Unix seconds; when the CA is asked again when to renew it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ask_at: Option<u64>,
    /// Unix seconds; when the owner of an uploaded one is warned next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warn_at: Option<u64>,
    /// PEM, leaf first.
    pub chain: Vec<String>,
}
