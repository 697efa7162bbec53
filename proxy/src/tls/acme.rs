//! TLS-ALPN-01 (RFC 8737): a CA that checks a domain asks for `acme-tls/1`, and is shown a certificate that holds the
//! digest of what only the account's owner can know. Nothing else is said on such a connection.

use std::time::Duration;

use contract::Challenge;
use contract::bundle::sha256;
use openssl::asn1::{Asn1Object, Asn1OctetString, Asn1Time};
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::ssl::SslRef;
use openssl::x509::extension::SubjectAlternativeName;
use openssl::x509::{X509, X509Builder, X509Extension, X509NameBuilder};
use pingora::tls::ext;
use tokio::sync::Semaphore;

/// `id-pe-acmeIdentifier` (RFC 8737 section 6.1).
const ACME_IDENTIFIER: &str = "1.3.6.1.5.5.7.1.31";
/// DER of an OCTET STRING of 32 bytes, up to the bytes.
const DIGEST_PREFIX: [u8; 2] = [0x04, 0x20];

/// Look-ups at once: a CA asks seldom, a scanner may ask often.
const LOOKUPS_MAX: usize = 64;
/// How long a CA waits for its answer.
pub(super) const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) static LOOKUPS: Semaphore = Semaphore::const_new(LOOKUPS_MAX);

/// The certificate that answers a challenge, and its key, which is used once.
pub(super) struct Proof {
    certificate: X509,
    key: PKey<Private>,
}

impl Proof {
    pub(super) fn of(challenge: &Challenge) -> Result<Self, ErrorStack> {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
        let key = PKey::from_ec_key(EcKey::generate(&group)?)?;
        let mut subject = X509NameBuilder::new()?;
        subject.append_entry_by_nid(Nid::COMMONNAME, "TLS-ALPN-01")?;
        let subject = subject.build();
        let mut serial = BigNum::new()?;
        serial.rand(127, MsbOption::MAYBE_ZERO, false)?;

        let mut builder = X509Builder::new()?;
        builder.set_version(2)?;
        builder.set_serial_number(&*serial.to_asn1_integer()?)?;
        builder.set_subject_name(&subject)?;
        builder.set_issuer_name(&subject)?;
        builder.set_pubkey(&key)?;
        builder.set_not_before(&*Asn1Time::days_from_now(0)?)?;
        builder.set_not_after(&*Asn1Time::days_from_now(1)?)?;
        let name =
            SubjectAlternativeName::new().dns(challenge.domain.as_str()).build(&builder.x509v3_context(None, None))?;
        builder.append_extension(name)?;
        let digest = [&DIGEST_PREFIX[..], &sha256(challenge.key_authorization.as_bytes())].concat();
        let digest = Asn1OctetString::new_from_bytes(&digest)?;
        builder.append_extension(X509Extension::new_from_der(
            &*Asn1Object::from_str(ACME_IDENTIFIER)?,
            true,
            &digest,
        )?)?;
        builder.sign(&key, MessageDigest::sha256())?;
        Ok(Self { certificate: builder.build(), key })
    }

    pub(super) fn apply(&self, ssl: &mut SslRef) -> Result<(), ErrorStack> {
        ext::ssl_use_certificate(ssl, &self.certificate)?;
        ext::ssl_use_private_key(ssl, &self.key)
    }
}

#[cfg(test)]
mod tests {
    use contract::{ChallengeKind, Hostname};

    use super::*;

    #[test]
    fn the_certificate_holds_the_name_and_the_digest() {
        let challenge = Challenge {
            domain: Hostname::parse("shop.example").unwrap(),
            token: "t".into(),
            kind: ChallengeKind::TlsAlpn01,
            key_authorization: "t.k".into(),
            expires_at: 1,
        };
        let proof = Proof::of(&challenge).unwrap();
        let names = proof.certificate.subject_alt_names().unwrap();
        assert_eq!((names.len(), names[0].dnsname()), (1, Some("shop.example")));
        assert!(proof.certificate.verify(&proof.key).unwrap());
        let der = proof.certificate.to_der().unwrap();
        // OID, critical, and the digest within two OCTET STRINGs.
        let extension = [
            &[0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x01, 0x1f, 0x01, 0x01, 0xff, 0x04, 0x22, 0x04, 0x20][..],
            &sha256(b"t.k"),
        ]
        .concat();
        assert!(der.windows(extension.len()).any(|window| window == extension));
        let other = Proof::of(&challenge).unwrap();
        assert!(!other.key.public_eq(&proof.key));
    }
}
