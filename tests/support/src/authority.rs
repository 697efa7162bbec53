//! A certificate authority of a test's own, for servers that are not the fleet's and for certificates that the fleet must
//! refuse.

use openssl::asn1::{Asn1Time, Asn1TimeRef};
use openssl::bn::{BigNum, MsbOption};
use openssl::hash::MessageDigest;
use openssl::pkey::{HasPublic, PKey, PKeyRef, Private};
use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
use openssl::x509::{X509, X509Builder, X509NameBuilder};

use crate::Result;

pub struct Authority {
    pub certificate: X509,
    key: PKey<Private>,
}

pub struct Issued {
    pub certificate: X509,
    pub key: PKey<Private>,
}

impl Authority {
    pub fn new(name: &str) -> Result<Self> {
        let key = PKey::ec_gen("prime256v1")?;
        let mut certificate = unsigned(name, &key)?;
        certificate.set_issuer_name(common_name(name)?.as_ref())?;
        certificate.append_extension(BasicConstraints::new().critical().ca().build()?)?;
        certificate.sign(&key, MessageDigest::sha256())?;
        Ok(Self { certificate: certificate.build(), key })
    }

    /// A certificate for a host name or an IP address, valid for a day.
    pub fn issue(&self, name: &str) -> Result<Issued> {
        self.issue_between(name, Asn1Time::days_from_now(0)?.as_ref(), Asn1Time::days_from_now(1)?.as_ref())
    }

    pub fn issue_between(&self, name: &str, not_before: &Asn1TimeRef, not_after: &Asn1TimeRef) -> Result<Issued> {
        let key = PKey::ec_gen("prime256v1")?;
        Ok(Issued { certificate: self.certify_between(name, &key, not_before, not_after)?, key })
    }

    /// The same, valid for a day, for a key that somebody else has.
    pub fn certify<T: HasPublic>(&self, name: &str, key: &PKeyRef<T>) -> Result<X509> {
        let (today, tomorrow) = (Asn1Time::days_from_now(0)?, Asn1Time::days_from_now(1)?);
        self.certify_between(name, key, &today, &tomorrow)
    }

    fn certify_between<T: HasPublic>(
        &self,
        name: &str,
        key: &PKeyRef<T>,
        not_before: &Asn1TimeRef,
        not_after: &Asn1TimeRef,
    ) -> Result<X509> {
        let mut certificate = unsigned(name, key)?;
        certificate.set_not_before(not_before)?;
        certificate.set_not_after(not_after)?;
        certificate.set_issuer_name(self.certificate.subject_name())?;
        let mut names = SubjectAlternativeName::new();
        let is_address = name.parse::<std::net::IpAddr>().is_ok();
        let names = if is_address { names.ip(name) } else { names.dns(name) };
        let names = names.build(&certificate.x509v3_context(Some(&self.certificate), None))?;
        certificate.append_extension(names)?;
        certificate.append_extension(BasicConstraints::new().critical().build()?)?;
        certificate.sign(&self.key, MessageDigest::sha256())?;
        Ok(certificate.build())
    }

    pub fn root_pem(&self) -> Result<Vec<u8>> {
        Ok(self.certificate.to_pem()?)
    }
}

fn unsigned<T: HasPublic>(name: &str, key: &PKeyRef<T>) -> Result<X509Builder> {
    let mut serial = BigNum::new()?;
    serial.rand(127, MsbOption::ONE, false)?;
    let mut certificate = X509::builder()?;
    certificate.set_version(2)?;
    certificate.set_serial_number(serial.to_asn1_integer()?.as_ref())?;
    certificate.set_subject_name(common_name(name)?.as_ref())?;
    certificate.set_pubkey(key)?;
    certificate.set_not_before(Asn1Time::days_from_now(0)?.as_ref())?;
    certificate.set_not_after(Asn1Time::days_from_now(1)?.as_ref())?;
    Ok(certificate)
}

fn common_name(name: &str) -> Result<openssl::x509::X509Name> {
    let mut builder = X509NameBuilder::new()?;
    builder.append_entry_by_text("CN", name)?;
    Ok(builder.build())
}
