//! What CertService hands to the edge: the certificate chain with its sealed key, and answers to challenges.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::Hostname;
use crate::sealed::Sealed;
use crate::signed::Payload;

/// Longest chain that is accepted, leaf included.
pub const CHAIN_CERTIFICATES_MAX: usize = 8;
/// Largest certificate that is accepted, in DER.
pub const CERTIFICATE_BYTES_MAX: usize = 16 * 1024;

/// A certificate chain and the private key of its leaf, sealed to the edge keys.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bundle {
    /// The name it was issued for.
    pub domain: Hostname,
    /// Grows with each certificate of this domain; the edge never goes back to a lower one.
    pub revision: u64,
    /// The issuer's name in CertService's configuration.
    pub issuer: String,
    /// Unix seconds, from the leaf; for planning only: the edge reads the certificate itself.
    pub not_before: u64,
    /// Unix seconds, from the leaf.
    pub not_after: u64,
    /// Chain, leaf first: base64 of DER, as in RFC 7517 section 4.7.
    pub x5c: Vec<String>,
    /// The leaf's private key (PKCS #8).
    pub key: Sealed,
    /// A second certificate of the same domain, with an RSA key, for clients without ECDSA. Absent from bundles of
    /// CertServices that don't issue one; an edge that doesn't know it serves the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rsa: Option<Second>,
}

/// What a second certificate adds to a bundle: it shares all that the bundle says besides.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Second {
    /// As `Bundle::x5c`.
    pub x5c: Vec<String>,
    pub key: Sealed,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    #[error("the bundle has no certificate")]
    Empty,
    #[error("the bundle has {0} certificates, at most {CHAIN_CERTIFICATES_MAX} are accepted")]
    TooMany(usize),
    #[error("certificate {0} of the bundle is {1} bytes, at most {CERTIFICATE_BYTES_MAX} are accepted")]
    TooLarge(usize, usize),
    #[error("certificate {0} of the bundle is not base64")]
    NotBase64(usize),
}

impl Bundle {
    pub fn encode_chain<'a>(chain: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
        chain.into_iter().map(|der| STANDARD.encode(der)).collect()
    }

    /// The first certificate's chain in DER, leaf first, never empty.
    pub fn chain(&self) -> Result<Vec<Vec<u8>>, ChainError> {
        decode_chain(&self.x5c)
    }

    /// Each certificate's chain, as above, and its sealed key.
    pub fn certificates(&self) -> impl Iterator<Item = (Result<Vec<Vec<u8>>, ChainError>, &Sealed)> {
        let first = (&self.x5c, &self.key);
        let all = std::iter::once(first).chain(self.rsa.iter().map(|second| (&second.x5c, &second.key)));
        all.map(|(x5c, key)| (decode_chain(x5c), key))
    }

    /// Whether a chain in DER fits into a bundle.
    pub fn check_chain(chain: &[Vec<u8>]) -> Result<(), ChainError> {
        check_chain(chain.len(), chain)
    }
}

fn decode_chain(x5c: &[String]) -> Result<Vec<Vec<u8>>, ChainError> {
    let decode = |(at, text): (usize, &String)| STANDARD.decode(text).map_err(|_| ChainError::NotBase64(at));
    let first = x5c.iter().take(CHAIN_CERTIFICATES_MAX).enumerate();
    let chain = first.map(decode).collect::<Result<Vec<_>, _>>()?;
    check_chain(x5c.len(), &chain)?;
    Ok(chain)
}

fn check_chain(certificates: usize, chain: &[Vec<u8>]) -> Result<(), ChainError> {
    if certificates == 0 {
        return Err(ChainError::Empty);
    }
    if certificates > CHAIN_CERTIFICATES_MAX {
        return Err(ChainError::TooMany(certificates));
    }
    match chain.iter().position(|der| der.len() > CERTIFICATE_BYTES_MAX) {
        Some(at) => Err(ChainError::TooLarge(at, chain[at].len())),
        None => Ok(()),
    }
}

impl Payload for Bundle {
    const TYPE: &'static str = "latchkey-bundle+jws";
}

/// Where a CA looks for the answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChallengeKind {
    /// RFC 8555 section 8.3, on port 80.
    #[default]
    #[serde(rename = "http-01")]
    Http01,
    /// RFC 8737, on port 443.
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn01,
    /// RFC 8555 section 8.4, in DNS. No edge is asked for it.
    #[serde(rename = "dns-01")]
    Dns01,
}

impl ChallengeKind {
    /// As CAs call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http01 => "http-01",
            Self::TlsAlpn01 => "tls-alpn-01",
            Self::Dns01 => "dns-01",
        }
    }
}

/// The answer to one challenge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Challenge {
    pub domain: Hostname,
    pub token: String,
    #[serde(default)]
    pub kind: ChallengeKind,
    /// Token and account key thumbprint (RFC 8555 section 8.1); what the edge answers with, or with its digest.
    pub key_authorization: String,
    /// Unix seconds.
    pub expires_at: u64,
}

impl Payload for Challenge {
    const TYPE: &'static str = "latchkey-challenge+jws";
}

/// SHA-256 of a certificate or of a public key, in DER.
pub fn sha256(der: &[u8]) -> [u8; 32] {
    Sha256::digest(der).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_is_accepted_at_the_limit_and_refused_beyond() {
        let (small, large) = (vec![0; 10], vec![0; CERTIFICATE_BYTES_MAX]);
        assert_eq!(Bundle::check_chain(&[]), Err(ChainError::Empty));
        assert_eq!(Bundle::check_chain(&vec![large.clone(); CHAIN_CERTIFICATES_MAX]), Ok(()));
        let long = vec![small.clone(); CHAIN_CERTIFICATES_MAX + 1];
        assert_eq!(Bundle::check_chain(&long), Err(ChainError::TooMany(CHAIN_CERTIFICATES_MAX + 1)));
        let larger = [large, vec![0]].concat();
        assert_eq!(Bundle::check_chain(&[small, larger]), Err(ChainError::TooLarge(1, CERTIFICATE_BYTES_MAX + 1)));
    }

    /// As CertService wrote them before there were second certificates.
    const OLD: &str = r#"{"domain":"shop.example","revision":3,"issuer":"ca","not_before":1,"not_after":2,"x5c":["AAAA"],
        "key":{"protected":"p","recipients":[],"aad":"a","iv":"i","ciphertext":"c","tag":"t"}}"#;

    #[test]
    fn bundles_with_one_certificate_stay_as_they_were() {
        let old: Bundle = serde_json::from_str(OLD).unwrap();
        assert_eq!((old.certificates().count(), &old.rsa), (1, &None));
        assert!(!serde_json::to_string(&old).unwrap().contains("rsa"));
    }

    #[test]
    fn a_second_certificate_comes_with_its_own_chain_and_key() {
        let mut bundle: Bundle = serde_json::from_str(OLD).unwrap();
        let key = Sealed { tag: "other".into(), ..bundle.key.clone() };
        bundle.rsa = Some(Second { x5c: vec!["AAAB".into(), "AAAC".into()], key });
        let again: Bundle = serde_json::from_str(&serde_json::to_string(&bundle).unwrap()).unwrap();
        assert_eq!(again, bundle);
        let seen: Vec<_> = again.certificates().map(|(chain, key)| (chain.unwrap().len(), key.tag.as_str())).collect();
        assert_eq!(seen, [(1, "t"), (2, "other")]);
        bundle.rsa.as_mut().unwrap().x5c.clear();
        assert_eq!(bundle.certificates().nth(1).unwrap().0, Err(ChainError::Empty));
    }
}
