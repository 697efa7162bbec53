//! The sealed private key: a JWE in general JSON serialization (RFC 7516 section 7.2.1), `RSA-OAEP-256` + `A256GCM`.
//!
//! One fresh 256-bit key per certificate encrypts the private key (PKCS #8); each edge key wraps it once. The domain and
//! the certificate it belongs to are the JWE's additional authenticated data, so a key moved to another domain or
//! another certificate does not open. The keys of session tickets are sealed in the same way, each bound to its name.
//!
//! An edge that opens one can wrap its content key for further edge keys ([`rewrap`]): nothing else of it changes.
//!
//! CertService has [`seal`] (the `rsa` and `aes-gcm` crates, public keys only). The edge has [`open`] (OpenSSL: the
//! `rsa` crate's private-key operations leak time, RUSTSEC-2023-0071).

// Who has neither side, such as the operator's command, uses the types only.
#![cfg_attr(not(any(feature = "seal", feature = "open")), allow(dead_code, unused_imports))]

#[cfg(feature = "open")]
mod opening;
#[cfg(feature = "open")]
mod rewrapping;
#[cfg(feature = "seal")]
mod sealing;

#[cfg(feature = "open")]
pub use self::opening::{EdgeKey, Expected, KeyError, OpenError, Unwrap, open, open_ticket_key};
#[cfg(feature = "open")]
pub use self::rewrapping::{WrapKey, prove, rewrap};
#[cfg(feature = "seal")]
pub use self::sealing::{Recipient, RecipientError, SealError, seal, seal_ticket_key};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::Hostname;
use crate::tickets::KeyName;

/// Most edge keys that one private key is sealed to.
pub const RECIPIENTS_MAX: usize = 16;
/// Largest private key that is sealed or opened, in PKCS #8.
pub const PRIVATE_KEY_BYTES_MAX: usize = 8 * 1024;
/// Sizes of edge keys, in bits.
pub const EDGE_KEY_BITS: std::ops::RangeInclusive<u32> = 2048..=4096;

const ALG: &str = "RSA-OAEP-256";
const ENC: &str = "A256GCM";

/// A JWE, as it stands in the database, in Redis and on an edge's disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    pub protected: String,
    pub recipients: Vec<SealedRecipient>,
    pub aad: String,
    pub iv: String,
    pub ciphertext: String,
    pub tag: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SealedRecipient {
    pub header: RecipientHeader,
    pub encrypted_key: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RecipientHeader {
    pub kid: String,
}

/// The JWE's protected header: all that is accepted, and `alg` only here, where it is authenticated.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Protected {
    alg: String,
    enc: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    typ: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cty: Option<String>,
}

/// What a sealed key is bound to besides its domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// SHA-256 of the certificate in DER (`x5t#S256`, RFC 7517 section 4.9): the usual case.
    Certificate([u8; 32]),
    /// SHA-256 of the SubjectPublicKeyInfo. A key is sealed like this before it is sent to a CA, so that a crash between
    /// order and certificate loses nothing; it stands only where that happened.
    PublicKey([u8; 32]),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Aad {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    domain: Option<Hostname>,
    #[serde(rename = "x5t#S256", default, skip_serializing_if = "Option::is_none")]
    certificate: Option<String>,
    #[serde(rename = "spki#S256", default, skip_serializing_if = "Option::is_none")]
    public_key: Option<String>,
    /// The name of a session ticket key, which stands alone.
    #[serde(rename = "ticket_key", default, skip_serializing_if = "Option::is_none")]
    ticket_key: Option<String>,
}

impl Aad {
    #[cfg(any(feature = "seal", test))]
    fn of_ticket_key(name: &KeyName) -> Self {
        let ticket_key = Some(URL_SAFE_NO_PAD.encode(name.0));
        Self { domain: None, certificate: None, public_key: None, ticket_key }
    }

    #[cfg(any(feature = "seal", test))]
    fn new(domain: &Hostname, bound: Bound) -> Self {
        let (certificate, public_key) = match bound {
            Bound::Certificate(digest) => (Some(URL_SAFE_NO_PAD.encode(digest)), None),
            Bound::PublicKey(digest) => (None, Some(URL_SAFE_NO_PAD.encode(digest))),
        };
        Self { domain: Some(domain.clone()), certificate, public_key, ticket_key: None }
    }
}

/// The JWK thumbprint (RFC 7638) of an RSA public key: the `kid` of an edge key.
#[cfg(any(feature = "seal", feature = "open"))]
pub(crate) fn rsa_thumbprint(modulus: &[u8], exponent: &[u8]) -> String {
    let (n, e) = (URL_SAFE_NO_PAD.encode(modulus), URL_SAFE_NO_PAD.encode(exponent));
    let jwk = format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#);
    URL_SAFE_NO_PAD.encode(crate::bundle::sha256(jwk.as_bytes()))
}

#[cfg(test)]
#[cfg(all(feature = "seal", feature = "open"))]
#[path = "sealed/tests.rs"]
mod tests;
