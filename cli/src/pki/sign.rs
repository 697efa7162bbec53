//! What the CA signs: itself, certificates, revocation lists.

use std::time::Duration;

use contract::bundle::sha256;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType, Error,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PublicKeyData, RevocationReason, RevokedCertParams, SanType, SerialNumber,
};
use zeroize::Zeroizing;

use super::{CRL_DAYS, DAY, Issued, Subject};

/// Clocks may be behind.
const BACKDATE_SECONDS: u64 = 3600;

pub(super) struct Made {
    pub(super) certificate: String,
    pub(super) key: Zeroizing<String>,
    pub(super) serial: String,
    pub(super) sha256: String,
    pub(super) not_after: u64,
}

/// The name has the generation: a revocation list is looked up by its issuer's name.
pub(super) fn ca(name: &str, generation: u32, days: u32, now: u64) -> Result<Made, Error> {
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let (mut params, serial, not_after) = params(&format!("{name} {generation}"), &pair, days, now);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&pair)?;
    Ok(made(&certificate, &pair, serial, not_after))
}

pub(super) fn certificate(
    issuer: &Issuer<'_, KeyPair>,
    name: &str,
    subject: &Subject,
    days: u32,
    now: u64,
) -> Result<Made, Error> {
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let (mut params, serial, not_after) = params(name, &pair, days, now);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    let san = |host: &String| match host.parse() {
        Ok(address) => Ok(SanType::IpAddress(address)),
        Err(_) => Ok(SanType::DnsName(Ia5String::try_from(host.as_str())?)),
    };
    (params.subject_alt_names, params.extended_key_usages) = match subject {
        Subject::Client { uri } => {
            (vec![SanType::URI(Ia5String::try_from(uri.as_str())?)], vec![ExtendedKeyUsagePurpose::ClientAuth])
        }
        Subject::Server { hosts } => {
            (hosts.iter().map(san).collect::<Result<_, Error>>()?, vec![ExtendedKeyUsagePurpose::ServerAuth])
        }
    };
    let certificate = params.signed_by(&pair, issuer)?;
    Ok(made(&certificate, &pair, serial, not_after))
}

/// Of those that `issuer` has signed.
pub(super) fn crl(issuer: &Issuer<'_, KeyPair>, revoked: &[&Issued], number: u64, now: u64) -> Result<String, Error> {
    let at = |seconds| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds);
    let entry = |issued: &&Issued| RevokedCertParams {
        serial_number: SerialNumber::from_slice(&unhex(&issued.serial)),
        revocation_time: at(issued.revoked_at.unwrap_or(now)),
        reason_code: Some(RevocationReason::Unspecified),
        invalidity_date: None,
    };
    let params = CertificateRevocationListParams {
        this_update: at(now.saturating_sub(BACKDATE_SECONDS)),
        next_update: at(now + CRL_DAYS * DAY),
        crl_number: SerialNumber::from(number),
        issuing_distribution_point: None,
        revoked_certs: revoked.iter().map(entry).collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(issuer)?.pem()
}

fn params(name: &str, pair: &KeyPair, days: u32, now: u64) -> (CertificateParams, Vec<u8>, u64) {
    let at = |seconds| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds);
    let not_after = now + u64::from(days) * DAY;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    (params.not_before, params.not_after) = (at(now.saturating_sub(BACKDATE_SECONDS)), at(not_after));
    // As unique as the key; positive, 16 bytes (RFC 5280 section 4.1.2.2).
    let mut serial = sha256(pair.der_bytes())[..16].to_vec();
    serial[0] = serial[0] & 0x3f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    (params, serial, not_after)
}

fn made(certificate: &rcgen::Certificate, pair: &KeyPair, serial: Vec<u8>, not_after: u64) -> Made {
    Made {
        certificate: certificate.pem(),
        key: Zeroizing::new(pair.serialize_pem()),
        serial: hex(&serial),
        sha256: hex(&sha256(certificate.der())),
        not_after,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2);
    digits.filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}
