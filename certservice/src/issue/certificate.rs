//! Checks what a CA sent before anybody relies on it.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use contract::api::{CertificateInfo, State, Who};
use contract::{Bundle, Hostname};
use serde::{Deserialize, Serialize};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::time::ASN1Time;

use super::{Chain, Csr, Failure, Then};

/// How far a CA's clock may be ahead of ours.
pub(super) const SKEW_SECONDS: u64 = 300;

/// What is shown of a certificate, and planned with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    pub issued_by: String,
    pub serial: String,
    pub sha256: [u8; 32],
    pub not_before: u64,
    pub not_after: u64,
    /// Authority key identifier and serial (RFC 9773 section 4.1); `None` where the certificate has no such identifier.
    pub ari_id: Option<String>,
}

impl Facts {
    /// As the API has them, with what the bundle says of both of its certificates.
    pub fn shown(&self, bundle: &Bundle) -> CertificateInfo {
        CertificateInfo {
            issued_by: self.issued_by.clone(),
            serial: self.serial.clone(),
            sha256: self.sha256.iter().map(|byte| format!("{byte:02x}")).collect(),
            not_before: bundle.not_before,
            not_after: bundle.not_after,
            revision: bundle.revision,
        }
    }
}

/// The leaf must be for `domain`, carry the key of `csr`, and be valid now; the chain must fit into a bundle.
pub fn check(chain: &Chain, domain: &Hostname, csr: &Csr, now: u64) -> Result<Facts, Failure> {
    let bundle_limits = |says: contract::bundle::ChainError| refused(says.to_string());
    Bundle::check_chain(chain).map_err(bundle_limits)?;
    let leaf = chain.first().ok_or_else(|| refused("the chain is empty"))?;
    let (rest, certificate) = X509Certificate::from_der(leaf).map_err(|_| refused("it is not a certificate"))?;
    if !rest.is_empty() {
        return Err(refused("bytes follow the certificate"));
    }
    if !covers(&certificate, domain) {
        return Err(refused(format!("it is not for {domain}")));
    }
    if contract::bundle::sha256(certificate.public_key().raw) != csr.public_key_sha256() {
        return Err(refused("it is for another key than the one asked for"));
    }
    let not_before = seconds(certificate.validity().not_before);
    let not_after = seconds(certificate.validity().not_after);
    if not_before > now + SKEW_SECONDS || not_after <= now || not_after <= not_before {
        return Err(refused(format!("it is valid from {not_before} to {not_after}, and now is {now} (Unix seconds)")));
    }
    Ok(facts(&certificate, leaf))
}

pub(super) fn facts(certificate: &X509Certificate<'_>, der: &[u8]) -> Facts {
    Facts {
        issued_by: certificate.issuer().to_string(),
        serial: certificate.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect(),
        sha256: contract::bundle::sha256(der),
        not_before: seconds(certificate.validity().not_before),
        not_after: seconds(certificate.validity().not_after),
        ari_id: ari_id(certificate),
    }
}

pub(super) fn seconds(time: ASN1Time) -> u64 {
    u64::try_from(time.timestamp()).unwrap_or(0)
}

fn ari_id(certificate: &X509Certificate<'_>) -> Option<String> {
    let key = certificate.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(authority) => authority.key_identifier.as_ref(),
        _ => None,
    })?;
    Some(format!("{}.{}", URL_SAFE_NO_PAD.encode(key.0), URL_SAFE_NO_PAD.encode(certificate.raw_serial())))
}

pub(super) fn covers(certificate: &X509Certificate<'_>, domain: &Hostname) -> bool {
    let Ok(Some(names)) = certificate.subject_alternative_name() else {
        return false;
    };
    let parent = domain.as_str().split_once('.').map(|(_, parent)| parent);
    names.value.general_names.iter().any(|name| match name {
        GeneralName::DNSName(name) => match name.strip_prefix("*.") {
            Some(base) => parent.is_some_and(|parent| parent.eq_ignore_ascii_case(base)),
            None => domain.as_str().eq_ignore_ascii_case(name),
        },
        _ => false,
    })
}

fn refused(says: impl Into<String>) -> Failure {
    let says = format!("the certificate from the CA is not used: {}", says.into());
    Failure::new("certificate_refused", says, State::Working, Who::CertificateAuthority, Then::NewOrder)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, CertificateSigningRequestParams, KeyPair};

    use super::*;
    use crate::issue::{KeyKind, new_key};

    const NOW: u64 = 1_800_000_000;

    fn name(text: &str) -> Hostname {
        Hostname::parse(text).unwrap()
    }

    fn signed(csr: &Csr, names: &[&str], from: u64, to: u64) -> Chain {
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        let request = CertificateSigningRequestParams::from_der(&csr.der().into()).unwrap();
        let mut params = CertificateParams::new(names.iter().map(|n| n.to_string()).collect::<Vec<_>>()).unwrap();
        params.not_before = epoch + std::time::Duration::from_secs(from);
        params.not_after = epoch + std::time::Duration::from_secs(to);
        let ca = rcgen::Issuer::new(CertificateParams::default(), KeyPair::generate().unwrap());
        vec![params.signed_by(&request.public_key, &ca).unwrap().der().to_vec()]
    }

    #[test]
    fn accepts_what_was_asked_for() {
        let domain = name("a.shop.example");
        let (_, csr) = new_key(&domain, KeyKind::EcdsaP256).unwrap();
        for names in [&["a.shop.example"][..], &["other.example", "*.shop.example"]] {
            let facts = check(&signed(&csr, names, NOW - 60, NOW + 86400), &domain, &csr, NOW).unwrap();
            assert_eq!((facts.not_before, facts.not_after), (NOW - 60, NOW + 86400));
            assert!(facts.issued_by.contains("CN="), "{facts:?}");
        }
    }

    #[test]
    fn refuses_other_names_keys_and_times() {
        let domain = name("a.shop.example");
        let (_, csr) = new_key(&domain, KeyKind::EcdsaP256).unwrap();
        let (_, other) = new_key(&domain, KeyKind::EcdsaP256).unwrap();
        let good = signed(&csr, &["a.shop.example"], NOW - 60, NOW + 60);
        assert!(check(&good, &domain, &csr, NOW).is_ok());
        assert!(check(&good, &domain, &csr, NOW + 60).is_err());
        assert!(check(&good, &domain, &csr, NOW - 60 - SKEW_SECONDS).is_ok());
        assert!(check(&good, &domain, &csr, NOW - 61 - SKEW_SECONDS).is_err());
        assert!(check(&good, &domain, &other, NOW).is_err());
        assert!(check(&good, &name("b.shop.example"), &csr, NOW).is_err());
        for names in [&["shop.example"][..], &["*.a.shop.example"], &["*.example"], &[]] {
            assert!(check(&signed(&csr, names, NOW - 60, NOW + 60), &domain, &csr, NOW).is_err(), "{names:?}");
        }
        assert!(check(&vec![], &domain, &csr, NOW).is_err());
        assert!(check(&vec![b"not a certificate".to_vec()], &domain, &csr, NOW).is_err());
        let long = [good.clone(), vec![good[0].clone(); contract::bundle::CHAIN_CERTIFICATES_MAX]].concat();
        assert!(check(&long[..long.len() - 1].to_vec(), &domain, &csr, NOW).is_ok());
        assert!(check(&long, &domain, &csr, NOW).is_err());
    }
}
