//! The sealed private key: a JWE in general JSON serialization (RFC 7516 section 7.2.1), `RSA-OAEP-256` + `A256GCM`.
//!
//! One fresh 256-bit key per certificate encrypts the private key (PKCS #8); each edge key wraps it once. The domain and
//! the certificate it belongs to are the JWE's additional authenticated data, so a key moved to another domain or
//! another certificate does not open.
//!
//! CertService has [`seal`] (the `rsa` and `aes-gcm` crates, public keys only). The edge has [`open`] (OpenSSL: the
//! `rsa` crate's private-key operations leak time, RUSTSEC-2023-0071).

// Who has neither side, such as the operator's command, uses the types only.
#![cfg_attr(not(any(feature = "seal", feature = "open")), allow(dead_code, unused_imports))]

#[cfg(feature = "open")]
pub use self::opening::{EdgeKey, Expected, KeyError, OpenError, open};
#[cfg(feature = "seal")]
pub use self::sealing::{Recipient, RecipientError, SealError, seal};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::Hostname;

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
pub struct SealedRecipient {
    pub header: RecipientHeader,
    pub encrypted_key: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    domain: Hostname,
    #[serde(rename = "x5t#S256", default, skip_serializing_if = "Option::is_none")]
    certificate: Option<String>,
    #[serde(rename = "spki#S256", default, skip_serializing_if = "Option::is_none")]
    public_key: Option<String>,
}

impl Aad {
    #[cfg(any(feature = "seal", test))]
    fn new(domain: &Hostname, bound: Bound) -> Self {
        let (certificate, public_key) = match bound {
            Bound::Certificate(digest) => (Some(URL_SAFE_NO_PAD.encode(digest)), None),
            Bound::PublicKey(digest) => (None, Some(URL_SAFE_NO_PAD.encode(digest))),
        };
        Self { domain: domain.clone(), certificate, public_key }
    }
}

/// The JWK thumbprint (RFC 7638) of an RSA public key: the `kid` of an edge key.
#[cfg(any(feature = "seal", feature = "open"))]
fn rsa_thumbprint(modulus: &[u8], exponent: &[u8]) -> String {
    let (n, e) = (URL_SAFE_NO_PAD.encode(modulus), URL_SAFE_NO_PAD.encode(exponent));
    let jwk = format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#);
    URL_SAFE_NO_PAD.encode(crate::bundle::sha256(jwk.as_bytes()))
}

#[cfg(feature = "seal")]
mod sealing {
    use aes_gcm::aead::{AeadInPlace, KeyInit};
    use aes_gcm::{Aes256Gcm, Nonce};
    use rand_core::{OsRng, RngCore};
    use rsa::pkcs8::DecodePublicKey;
    use rsa::traits::PublicKeyParts;
    use rsa::{Oaep, RsaPublicKey};
    use zeroize::Zeroizing;

    use super::*;

    /// An edge's public key.
    #[derive(Clone)]
    pub struct Recipient {
        kid: String,
        key: RsaPublicKey,
    }

    #[derive(Debug, thiserror::Error)]
    pub enum RecipientError {
        #[error("this is a private key; CertService takes edge public keys only (`-----BEGIN PUBLIC KEY-----`)")]
        Private,
        #[error("not an RSA public key in PEM (`-----BEGIN PUBLIC KEY-----`)")]
        Malformed,
        #[error("the RSA key is {0} bits, {min} to {max} are accepted", min = EDGE_KEY_BITS.start(), max = EDGE_KEY_BITS.end())]
        Size(usize),
    }

    #[derive(Debug, thiserror::Error)]
    pub enum SealError {
        #[error("no edge key to seal to; configure at least one")]
        NoRecipient,
        #[error("{0} edge keys to seal to, at most {RECIPIENTS_MAX} are accepted")]
        TooManyRecipients(usize),
        #[error("the private key is {0} bytes, at most {PRIVATE_KEY_BYTES_MAX} are accepted")]
        TooLarge(usize),
        #[error("the system's random number generator failed")]
        Random,
        #[error("wrapping for edge key {0} failed")]
        Wrap(String),
        #[error("encryption failed")]
        Encrypt,
    }

    impl Recipient {
        pub fn from_pem(pem: &str) -> Result<Self, RecipientError> {
            if pem.contains("PRIVATE KEY-----") {
                return Err(RecipientError::Private);
            }
            let key = RsaPublicKey::from_public_key_pem(pem.trim()).map_err(|_| RecipientError::Malformed)?;
            let bits = key.n().bits();
            if !u32::try_from(bits).is_ok_and(|bits| EDGE_KEY_BITS.contains(&bits)) {
                return Err(RecipientError::Size(bits));
            }
            let kid = rsa_thumbprint(&key.n().to_bytes_be(), &key.e().to_bytes_be());
            Ok(Self { kid, key })
        }

        pub fn kid(&self) -> &str {
            &self.kid
        }
    }

    impl std::fmt::Debug for Recipient {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_struct("Recipient").field("kid", &self.kid).finish_non_exhaustive()
        }
    }

    /// Seals `private_key` (PKCS #8 DER) so that each of `recipients`, and nobody else, can open it for `domain` and
    /// what it is `bound` to. The caller wipes its own copy.
    pub fn seal(
        private_key: &[u8],
        domain: &Hostname,
        bound: Bound,
        recipients: &[Recipient],
    ) -> Result<Sealed, SealError> {
        if recipients.is_empty() {
            return Err(SealError::NoRecipient);
        }
        if recipients.len() > RECIPIENTS_MAX {
            return Err(SealError::TooManyRecipients(recipients.len()));
        }
        if private_key.len() > PRIVATE_KEY_BYTES_MAX {
            return Err(SealError::TooLarge(private_key.len()));
        }
        let mut content_key = Zeroizing::new([0u8; 32]);
        let mut iv = [0u8; 12];
        OsRng.try_fill_bytes(content_key.as_mut()).map_err(|_| SealError::Random)?;
        OsRng.try_fill_bytes(&mut iv).map_err(|_| SealError::Random)?;

        let wrap = |to: &Recipient| {
            let wrapped = to.key.encrypt(&mut OsRng, Oaep::new::<sha2::Sha256>(), content_key.as_ref());
            let wrapped = wrapped.map_err(|_| SealError::Wrap(to.kid.clone()))?;
            Ok(SealedRecipient {
                header: RecipientHeader { kid: to.kid.clone() },
                encrypted_key: URL_SAFE_NO_PAD.encode(wrapped),
            })
        };
        let recipients = recipients.iter().map(wrap).collect::<Result<Vec<_>, SealError>>()?;

        let header = Protected { alg: ALG.into(), enc: ENC.into(), typ: None, cty: Some("application/pkcs8".into()) };
        let encode = |value: Vec<u8>| URL_SAFE_NO_PAD.encode(value);
        let protected = serde_json::to_vec(&header).map(encode).map_err(|_| SealError::Encrypt)?;
        let aad = serde_json::to_vec(&Aad::new(domain, bound)).map(encode).map_err(|_| SealError::Encrypt)?;

        let cipher = Aes256Gcm::new(content_key.as_ref().into());
        let mut content = Zeroizing::new(private_key.to_vec());
        let tag = cipher
            .encrypt_in_place_detached(Nonce::from_slice(&iv), format!("{protected}.{aad}").as_bytes(), &mut content)
            .map_err(|_| SealError::Encrypt)?;
        Ok(Sealed {
            protected,
            recipients,
            aad,
            iv: URL_SAFE_NO_PAD.encode(iv),
            ciphertext: URL_SAFE_NO_PAD.encode(content.as_slice()),
            tag: URL_SAFE_NO_PAD.encode(tag),
        })
    }
}

#[cfg(feature = "open")]
mod opening {
    use openssl::encrypt::Decrypter;
    use openssl::hash::MessageDigest;
    use openssl::pkey::{Id, PKey, Private};
    use openssl::rsa::Padding;
    use openssl::symm::{Cipher, decrypt_aead};
    use zeroize::Zeroizing;

    use super::*;

    /// An edge's private key. Shows only its `kid`.
    pub struct EdgeKey {
        kid: String,
        key: PKey<Private>,
    }

    #[derive(Debug, thiserror::Error)]
    pub enum KeyError {
        #[error("not an RSA private key in PEM (`-----BEGIN PRIVATE KEY-----`)")]
        Malformed,
        #[error("the RSA key is {0} bits, {min} to {max} are accepted", min = EDGE_KEY_BITS.start(), max = EDGE_KEY_BITS.end())]
        Size(u32),
    }

    /// What the edge itself knows of the key that it is about to open; never taken from the sealed data.
    #[derive(Debug, Clone, Copy)]
    pub struct Expected<'a> {
        pub domain: &'a Hostname,
        /// SHA-256 of the certificate in DER.
        pub certificate: [u8; 32],
        /// SHA-256 of its SubjectPublicKeyInfo.
        pub public_key: [u8; 32],
    }

    #[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
    pub enum OpenError {
        #[error("the sealed key is malformed: {0}")]
        Malformed(&'static str),
        #[error("the sealed key uses `{0}`, only {ALG} with {ENC} is accepted")]
        Algorithm(String),
        #[error("the key is sealed for {0}, not for {1}")]
        OtherDomain(Hostname, Hostname),
        #[error("the key is sealed for another certificate of {0}")]
        OtherCertificate(Hostname),
        #[error("the key is not sealed to this edge's key {0}")]
        NotForUs(String),
        #[error("the sealed key does not open: it was altered, or sealed to another key under this one's kid")]
        Broken,
    }

    impl EdgeKey {
        pub fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
            let key = PKey::private_key_from_pem(pem).map_err(|_| KeyError::Malformed)?;
            Self::new(key)
        }

        pub fn generate(bits: u32) -> Result<Self, KeyError> {
            let rsa = openssl::rsa::Rsa::generate(bits).map_err(|_| KeyError::Size(bits))?;
            Self::new(PKey::from_rsa(rsa).map_err(|_| KeyError::Malformed)?)
        }

        fn new(key: PKey<Private>) -> Result<Self, KeyError> {
            if key.id() != Id::RSA {
                return Err(KeyError::Malformed);
            }
            if !EDGE_KEY_BITS.contains(&key.bits()) {
                return Err(KeyError::Size(key.bits()));
            }
            let rsa = key.rsa().map_err(|_| KeyError::Malformed)?;
            let kid = rsa_thumbprint(&rsa.n().to_vec(), &rsa.e().to_vec());
            Ok(Self { kid, key })
        }

        pub fn kid(&self) -> &str {
            &self.kid
        }

        /// What CertService is given (`-----BEGIN PUBLIC KEY-----`).
        pub fn public_pem(&self) -> Result<String, KeyError> {
            let pem = self.key.public_key_to_pem().map_err(|_| KeyError::Malformed)?;
            String::from_utf8(pem).map_err(|_| KeyError::Malformed)
        }

        /// PKCS #8 in PEM, to be written where only the edge reads it.
        pub fn private_pem(&self) -> Result<Zeroizing<String>, KeyError> {
            let pem = Zeroizing::new(self.key.private_key_to_pem_pkcs8().map_err(|_| KeyError::Malformed)?);
            let text = std::str::from_utf8(&pem).map_err(|_| KeyError::Malformed)?;
            Ok(Zeroizing::new(text.to_owned()))
        }

        /// RFC 7518 section 4.3. About 1 ms of CPU for 3072 bits: belongs on a blocking pool.
        fn unwrap(&self, encrypted_key: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
            let mut decrypter = Decrypter::new(&self.key).ok()?;
            decrypter.set_rsa_padding(Padding::PKCS1_OAEP).ok()?;
            decrypter.set_rsa_oaep_md(MessageDigest::sha256()).ok()?;
            decrypter.set_rsa_mgf1_md(MessageDigest::sha256()).ok()?;
            let mut out = Zeroizing::new(vec![0; decrypter.decrypt_len(encrypted_key).ok()?]);
            let len = decrypter.decrypt(encrypted_key, &mut out).ok()?;
            out.truncate(len);
            Some(out)
        }
    }

    impl std::fmt::Debug for EdgeKey {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_struct("EdgeKey").field("kid", &self.kid).finish_non_exhaustive()
        }
    }

    /// Opens a sealed key: PKCS #8 in DER. Checks the algorithms, the domain and the certificate before it spends the
    /// RSA operation.
    pub fn open(sealed: &Sealed, key: &EdgeKey, expected: &Expected<'_>) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let header: Protected = decode_json(&sealed.protected, "protected header")?;
        if header.alg != ALG || header.enc != ENC {
            return Err(OpenError::Algorithm(format!("{}/{}", header.alg, header.enc).chars().take(64).collect()));
        }
        check_binding(&decode_json(&sealed.aad, "aad")?, expected)?;
        if sealed.recipients.len() > RECIPIENTS_MAX {
            return Err(OpenError::Malformed("too many recipients"));
        }
        if sealed.ciphertext.len() > PRIVATE_KEY_BYTES_MAX * 2 {
            return Err(OpenError::Malformed("ciphertext too long"));
        }
        let ours = sealed.recipients.iter().find(|r| r.header.kid == key.kid);
        let ours = ours.ok_or_else(|| OpenError::NotForUs(key.kid.clone()))?;
        let iv = decode(&sealed.iv, "iv")?;
        let tag = decode(&sealed.tag, "tag")?;
        if iv.len() != 12 || tag.len() != 16 {
            return Err(OpenError::Malformed("iv or tag has the wrong length"));
        }
        let ciphertext = decode(&sealed.ciphertext, "ciphertext")?;
        let encrypted_key = decode(&ours.encrypted_key, "encrypted_key")?;

        // One error for all that follows (RFC 7516 section 11.5).
        let content_key = key.unwrap(&encrypted_key).filter(|k| k.len() == 32).ok_or(OpenError::Broken)?;
        let aad = format!("{}.{}", sealed.protected, sealed.aad);
        let content = decrypt_aead(Cipher::aes_256_gcm(), &content_key, Some(&iv), aad.as_bytes(), &ciphertext, &tag);
        content.map(Zeroizing::new).map_err(|_| OpenError::Broken)
    }

    fn check_binding(aad: &Aad, expected: &Expected<'_>) -> Result<(), OpenError> {
        if aad.domain != *expected.domain {
            return Err(OpenError::OtherDomain(aad.domain.clone(), expected.domain.clone()));
        }
        let is = |claimed: &str, digest: [u8; 32]| claimed == URL_SAFE_NO_PAD.encode(digest);
        let bound = match (&aad.certificate, &aad.public_key) {
            (Some(certificate), None) => is(certificate, expected.certificate),
            (None, Some(public_key)) => is(public_key, expected.public_key),
            _ => return Err(OpenError::Malformed("aad must name a certificate or a public key")),
        };
        bound.then_some(()).ok_or_else(|| OpenError::OtherCertificate(expected.domain.clone()))
    }

    fn decode(text: &str, what: &'static str) -> Result<Vec<u8>, OpenError> {
        URL_SAFE_NO_PAD.decode(text).map_err(|_| OpenError::Malformed(what))
    }

    fn decode_json<T: serde::de::DeserializeOwned>(text: &str, what: &'static str) -> Result<T, OpenError> {
        serde_json::from_slice(&decode(text, what)?).map_err(|_| OpenError::Malformed(what))
    }
}

#[cfg(test)]
#[cfg(all(feature = "seal", feature = "open"))]
#[path = "sealed/tests.rs"]
mod tests;
