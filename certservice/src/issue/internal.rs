//! The internal CA: for demos and intranets. Its root is made on first start and must be trusted by who visits.

use std::path::Path;
use std::time::Duration;

use contract::Hostname;
use contract::api::{State, Who};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SerialNumber,
};
use ring::rand::{SecureRandom, SystemRandom};
use x509_parser::pem::Pem;
use zeroize::{Zeroize, Zeroizing};

use super::{Chain, Csr, Failure, Then};
use crate::secret_file;

const DAY: u64 = 86_400;
const CA_DAYS: u64 = 3650;
/// A certificate is valid a little before it is made, for visitors whose clock is behind.
const BACKDATE_SECONDS: u64 = 3600;

pub struct Internal {
    ca: Issuer<'static, KeyPair>,
    ca_der: Vec<u8>,
    validity_seconds: u64,
}

impl Internal {
    pub(super) fn open(name: &str, validity_days: u32, data_dir: &Path) -> Result<Self, String> {
        let folder = data_dir.join("internal-ca").join(name);
        let (certificate, key) = (folder.join("ca.pem"), folder.join("ca.key"));
        secret_file::make_folder(&folder)?;
        if !certificate.exists() {
            let (certificate_pem, key_pem) =
                new_ca(name, crate::clock::now()).map_err(|error| format!("making the internal CA failed: {error}"))?;
            // The certificate comes last: without it a half-made CA is made again.
            secret_file::write(&key, &key_pem)?;
            secret_file::write_public(&certificate, &certificate_pem)?;
        }
        let damaged = |error: &dyn std::fmt::Display| format!("{} is damaged: {error}", folder.display());
        let key = KeyPair::from_pem(&secret_file::read(&key)?).map_err(|error| damaged(&error))?;
        let pem = secret_file::read(&certificate)?;
        let ca_der = Pem::iter_from_buffer(pem.as_bytes()).next().and_then(Result::ok);
        let ca_der = ca_der.ok_or_else(|| damaged(&"ca.pem holds no certificate"))?.contents;
        let ca = Issuer::from_ca_cert_der(&ca_der.as_slice().into(), key).map_err(|error| damaged(&error))?;
        Ok(Self { ca, ca_der, validity_seconds: u64::from(validity_days) * DAY })
    }

    /// Of the request only the key is used (its signature is verified); what the certificate says is decided here.
    pub(super) fn sign(&self, csr: &Csr, domain: &Hostname, now: u64) -> Result<Chain, Failure> {
        let failed = |error: rcgen::Error| {
            let says = format!("the internal CA could not sign: {error}");
            Failure::new("ca_unavailable", says, State::Working, Who::Operator, Then::Retry { after: 0 })
        };
        let request = CertificateSigningRequestParams::from_der(&csr.der().into()).map_err(failed)?;
        let mut params = CertificateParams::new(vec![domain.to_string()]).map_err(failed)?;
        params.distinguished_name = DistinguishedName::new();
        params.serial_number = Some(serial().map_err(failed)?);
        valid(&mut params, now, self.validity_seconds);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let leaf = params.signed_by(&request.public_key, &self.ca).map_err(failed)?;
        Ok(vec![leaf.der().to_vec(), self.ca_der.clone()])
    }
}

fn new_ca(name: &str, now: u64) -> Result<(String, Zeroizing<String>), rcgen::Error> {
    let mut pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("Latchkey internal CA ({name})"));
    params.serial_number = Some(serial()?);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid(&mut params, now, CA_DAYS * DAY);
    let certificate = params.self_signed(&pair);
    let key = Zeroizing::new(pair.serialize_pem());
    pair.zeroize();
    Ok((certificate?.pem(), key))
}

/// Positive, at most 16 bytes (RFC 5280 section 4.1.2.2).
fn serial() -> Result<SerialNumber, rcgen::Error> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|_| rcgen::Error::RingUnspecified)?;
    bytes[0] = bytes[0] & 0x3f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn valid(params: &mut CertificateParams, now: u64, seconds: u64) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(now.saturating_sub(BACKDATE_SECONDS));
    params.not_after = epoch + Duration::from_secs(now + seconds);
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::issue::{KeyKind, check, new_key};

    const NOW: u64 = 1_800_000_000;

    #[test]
    fn the_ca_survives_a_restart_and_signs_what_passes_the_check() {
        let folder = tempfile::tempdir().unwrap();
        let domain = Hostname::parse("shop.localhost").unwrap();
        let (_, csr) = new_key(&domain, KeyKind::EcdsaP256).unwrap();
        let issuers: Vec<_> = (0..2).map(|_| Internal::open("ca", 30, folder.path()).unwrap()).collect();
        assert_eq!(issuers[0].ca_der, issuers[1].ca_der);
        let chain = issuers[1].sign(&csr, &domain, NOW).unwrap();
        let facts = check(&chain, &domain, &csr, NOW).unwrap();
        assert_eq!(facts.not_after, NOW + 30 * DAY);
        assert_eq!(facts.issued_by, "CN=Latchkey internal CA (ca)");
        let again = check(&issuers[0].sign(&csr, &domain, NOW).unwrap(), &domain, &csr, NOW).unwrap();
        assert_ne!(facts.serial, again.serial);
        let mode = folder.path().join("internal-ca/ca/ca.key").metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn rsa_keys_are_signed_too() {
        let folder = tempfile::tempdir().unwrap();
        let domain = Hostname::parse("shop.localhost").unwrap();
        let (_, csr) = new_key(&domain, KeyKind::Rsa2048).unwrap();
        let chain = Internal::open("ca", 30, folder.path()).unwrap().sign(&csr, &domain, NOW).unwrap();
        assert!(check(&chain, &domain, &csr, NOW).is_ok());
    }

    #[test]
    fn a_damaged_ca_is_an_error_with_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        Internal::open("ca", 30, folder.path()).unwrap();
        std::fs::write(folder.path().join("internal-ca/ca/ca.key"), "nonsense").unwrap();
        let error = Internal::open("ca", 30, folder.path()).err().unwrap();
        assert!(error.contains("internal-ca/ca") && !error.contains("nonsense"), "{error}");
    }
}
