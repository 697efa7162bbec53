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

    /// The chain in DER, leaf first, never empty.
    pub fn chain(&self) -> Result<Vec<Vec<u8>>, ChainError> {
        let decode = |(at, text): (usize, &String)| STANDARD.decode(text).map_err(|_| ChainError::NotBase64(at));
        let first = self.x5c.iter().take(CHAIN_CERTIFICATES_MAX).enumerate();
        let chain = first.map(decode).collect::<Result<Vec<_>, _>>()?;
        check_chain(self.x5c.len(), &chain)?;
        Ok(chain)
    }

    /// Whether a chain in DER fits into a bundle.
    pub fn check_chain(chain: &[Vec<u8>]) -> Result<(), ChainError> {
        check_chain(chain.len(), chain)
    }
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

/// The answer to one http-01 challenge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Challenge {
    pub domain: Hostname,
    pub token: String,
    /// Token and account key thumbprint (RFC 8555 section 8.1); what the edge answers with.
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
}
