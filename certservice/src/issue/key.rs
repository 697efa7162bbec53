//! The subject's key pair and its signing request.

use std::fmt;

use contract::Hostname;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, PublicKeyData};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;
use zeroize::{Zeroize, Zeroizing};

use super::{Failure, Then};
use crate::traces::wiped_away;

/// PKCS #8 in DER. Wiped when dropped; shows nothing.
pub struct PrivateKey {
    pkcs8: Zeroizing<Vec<u8>>,
    public_key_sha256: [u8; 32],
}

impl PrivateKey {
    pub fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// SHA-256 of the SubjectPublicKeyInfo, as in the CSR that it signed.
    pub fn public_key_sha256(&self) -> [u8; 32] {
        self.public_key_sha256
    }
}

impl PrivateKey {
    /// PKCS #8 in PEM, of a kind that edges serve with. The error says what to do, and nothing of the key.
    pub(super) fn from_pem(text: &str) -> Result<Self, String> {
        let hint = "`pkcs8 -topk8 -nodes -in key.pem` of the usual TLS tool makes PKCS #8 (`-----BEGIN PRIVATE KEY-----`) of others";
        if ["BEGIN ENCRYPTED", "BEGIN EC ", "BEGIN RSA "].iter().any(|label| text.contains(label)) {
            return Err(format!("encrypted keys, and those of other forms than PKCS #8, are not taken; {hint}"));
        }
        if text.matches("-----BEGIN PRIVATE KEY-----").count() != 1 || text.matches("-----BEGIN").count() != 1 {
            return Err(
                "one private key in PEM is wanted (`-----BEGIN PRIVATE KEY-----`), and nothing beside it".to_owned()
            );
        }
        // Which of its numbers don't fit together is nobody's business.
        let refused = |_| format!("not a private key that can be used: RSA of 2048 to 4096 bits, P-256, P-384; {hint}");
        wiped_away(|| {
            let mut pair = KeyPair::from_pem(text).map_err(refused)?;
            let pkcs8 = Zeroizing::new(pair.serialized_der().to_vec());
            let public_key_sha256 = contract::bundle::sha256(&pair.subject_public_key_info());
            pair.zeroize();
            Ok(Self { pkcs8, public_key_sha256 })
        })
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey")
    }
}

/// A certificate signing request in DER, with the digest of the key that it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Csr {
    der: Vec<u8>,
    public_key_sha256: [u8; 32],
}

impl Csr {
    pub fn from_der(der: Vec<u8>) -> Result<Self, Failure> {
        let (_, request) = X509CertificationRequest::from_der(&der)
            .map_err(|_| Failure::ours("the stored signing request is damaged", Then::NewOrder))?;
        let public_key_sha256 = contract::bundle::sha256(request.certification_request_info.subject_pki.raw);
        Ok(Self { der, public_key_sha256 })
    }

    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// SHA-256 of the SubjectPublicKeyInfo.
    pub fn public_key_sha256(&self) -> [u8; 32] {
        self.public_key_sha256
    }
}

/// What a certificate's key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    EcdsaP256,
    /// For clients without ECDSA.
    Rsa2048,
}

/// A fresh key and its CSR for one name. The subject stays empty: names stand in the SAN only. RSA takes tens of
/// milliseconds.
pub fn new_key(domain: &Hostname, kind: KeyKind) -> Result<(PrivateKey, Csr), Failure> {
    wiped_away(|| make_key(domain, kind))
}

fn make_key(domain: &Hostname, kind: KeyKind) -> Result<(PrivateKey, Csr), Failure> {
    let mut pair = match kind {
        KeyKind::EcdsaP256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?,
        KeyKind::Rsa2048 => {
            let pkcs8 = contract::rsa_key::new_rsa_key().map_err(failed)?;
            KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8.as_slice().into(), &PKCS_RSA_SHA256).map_err(failed)?
        }
    };
    let pkcs8 = Zeroizing::new(pair.serialized_der().to_vec());
    let mut params = CertificateParams::new(vec![domain.to_string()]).map_err(failed)?;
    params.distinguished_name = DistinguishedName::new();
    let csr = params.serialize_request(&pair);
    pair.zeroize();
    let csr = Csr::from_der(csr.map_err(failed)?.der().to_vec())?;
    let key = PrivateKey { pkcs8, public_key_sha256: csr.public_key_sha256() };
    Ok((key, csr))
}

fn failed(error: impl fmt::Display) -> Failure {
    Failure::ours(format!("making a key failed: {error}"), Then::Retry { after: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traces::tests::left_on_the_stack;

    #[test]
    fn each_key_is_new_and_shows_nothing() {
        let domain = Hostname::parse("shop.example").unwrap();
        for kind in [KeyKind::EcdsaP256, KeyKind::Rsa2048] {
            let ((one, first), (two, second)) = (new_key(&domain, kind).unwrap(), new_key(&domain, kind).unwrap());
            assert_ne!(one.pkcs8(), two.pkcs8());
            assert_ne!(first.public_key_sha256(), second.public_key_sha256());
            assert_eq!(format!("{one:?}"), "PrivateKey");
        }
    }

    /// The digits of a P-256 key, in its PKCS #8 (RFC 5915, section 3).
    fn digits(key: &PrivateKey) -> Vec<u8> {
        let at = key.pkcs8().windows(2).position(|two| two == [0x04, 32]).unwrap() + 2;
        key.pkcs8()[at..at + 32].to_vec()
    }

    #[test]
    fn making_and_reading_a_key_leaves_nothing_on_the_stack() {
        let domain = Hostname::parse("shop.example").unwrap();
        assert!(!left_on_the_stack(move || digits(&new_key(&domain, KeyKind::EcdsaP256).unwrap().0)));
        let pem = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap().serialize_pem();
        assert!(!left_on_the_stack(move || digits(&PrivateKey::from_pem(&pem).unwrap())));
    }

    #[test]
    fn a_damaged_request_is_refused() {
        let domain = Hostname::parse("shop.example").unwrap();
        let (_, csr) = new_key(&domain, KeyKind::EcdsaP256).unwrap();
        assert_eq!(Csr::from_der(csr.der().to_vec()).unwrap(), csr);
        assert!(Csr::from_der(csr.der()[..100].to_vec()).is_err());
    }
}
