use std::sync::LazyLock;

use contract::sealed::{Bound, Recipient, seal};
use openssl::asn1::Asn1Integer;
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::Private;
use openssl::x509::extension::SubjectAlternativeName;
use openssl::x509::{X509Builder, X509NameBuilder};

use super::*;

pub(crate) static EDGE: LazyLock<EdgeKey> = LazyLock::new(|| EdgeKey::generate(2048).unwrap());
static OPENER: LazyLock<Opener> = LazyLock::new(opener);
const NOW: u64 = 1_700_000_000;

fn name(text: &str) -> Hostname {
    Hostname::parse(text).unwrap()
}

fn new_key() -> PKey<Private> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
}

pub(crate) fn certificate(key: &PKey<Private>, names: &[&str], from: i64, to: i64) -> X509 {
    let mut builder = X509Builder::new().unwrap();
    builder.set_version(2).unwrap();
    builder.set_serial_number(&Asn1Integer::from_bn(&BigNum::from_u32(7).unwrap()).unwrap()).unwrap();
    builder.set_not_before(&Asn1Time::from_unix(NOW as i64 + from).unwrap()).unwrap();
    builder.set_not_after(&Asn1Time::from_unix(NOW as i64 + to).unwrap()).unwrap();
    builder.set_pubkey(key).unwrap();
    if !names.is_empty() {
        let mut san = SubjectAlternativeName::new();
        names.iter().for_each(|n| {
            san.dns(n);
        });
        let san = san.build(&builder.x509v3_context(None, None)).unwrap();
        builder.append_extension(san).unwrap();
    }
    builder.sign(key, MessageDigest::sha256()).unwrap();
    builder.build()
}

/// A bundle as CertService makes it, for `domain`, with a certificate for `names`.
fn bundle(domain: &str, names: &[&str], from: i64, to: i64) -> Bundle {
    let key = new_key();
    bundle_of(domain, &certificate(&key, names, from, to), &key)
}

fn bundle_of(domain: &str, leaf: &X509, key: &PKey<Private>) -> Bundle {
    let der = leaf.to_der().unwrap();
    let to = Recipient::from_pem(&EDGE.public_pem().unwrap()).unwrap();
    let pkcs8 = key.private_key_to_pkcs8().unwrap();
    Bundle {
        domain: name(domain),
        revision: 1,
        issuer: "test".into(),
        not_before: 0,
        not_after: 0,
        x5c: Bundle::encode_chain([&*der]),
        key: seal(&pkcs8, &name(domain), Bound::Certificate(sha256(&der)), &[to]).unwrap(),
        rsa: None,
    }
}

/// The same, valid from an hour ago until some seconds from now on.
pub(crate) fn bundle_until(domain: &str, seconds: i64) -> Bundle {
    let elapsed = i64::try_from(crate::tls::now() - NOW).unwrap();
    bundle(domain, &[domain], elapsed - 3600, elapsed + seconds)
}

/// Another one of the same edge.
pub(crate) fn opener() -> Opener {
    Opener::new(EdgeKey::from_pem(EDGE.private_pem().unwrap().as_bytes()).unwrap())
}

fn load(bundle: &Bundle, domain: &str) -> Result<Certificate, CertificateError> {
    OPENER.open(bundle, &name(domain), NOW, NOW)
}

/// A certificate for an hour as it is after opening, without the price of sealing it first.
pub(crate) fn opened(domain: &str, revision: u64) -> Certificate {
    let (key, now) = (new_key(), crate::tls::now());
    let elapsed = i64::try_from(now - NOW).unwrap();
    let leaf = certificate(&key, &[domain], elapsed - 3600, elapsed + 3600);
    let pkcs8 = key.private_key_to_pkcs8().unwrap();
    let pair = Pair::new(&leaf.to_der().unwrap(), &key, &pkcs8, Chains::default().share(&[]).unwrap()).unwrap();
    Certificate::new(
        vec![(leaf, key)],
        Warm::new(vec![pair], Validity { not_before: now, not_after: now + 3600 }, revision, now),
    )
}

/// A certificate authority of this name, in DER.
pub(crate) fn authority(common_name: &str) -> Vec<u8> {
    let key = new_key();
    let mut subject = X509NameBuilder::new().unwrap();
    subject.append_entry_by_text("CN", common_name).unwrap();
    let subject = subject.build();
    let mut builder = X509Builder::new().unwrap();
    builder.set_version(2).unwrap();
    builder.set_subject_name(&subject).unwrap();
    builder.set_issuer_name(&subject).unwrap();
    builder.set_not_before(&Asn1Time::from_unix(0).unwrap()).unwrap();
    builder.set_not_after(&Asn1Time::from_unix(NOW as i64 * 2).unwrap()).unwrap();
    builder.set_pubkey(&key).unwrap();
    builder.sign(&key, MessageDigest::sha256()).unwrap();
    builder.build().to_der().unwrap()
}

#[test]
fn loads_what_covers_the_name() {
    let loaded = load(&bundle("a.example", &["b.example", "a.example"], -10, 86_400), "a.example").unwrap();
    assert_eq!(loaded.validity.not_after, NOW + 86_400);
    assert!(load(&bundle("a.b.example", &["*.b.example"], -10, 10), "a.b.example").is_ok());
}

#[test]
fn never_serves_a_certificate_for_another_name() {
    for names in [&["b.example"][..], &[], &["*.a.example"], &["example"], &["xa.example"], &["*.example.a.example"]] {
        assert!(
            matches!(load(&bundle("a.example", names, -10, 10), "a.example"), Err(CertificateError::WrongName(..))),
            "{names:?}"
        );
    }
    let deep = bundle("x.y.b.example", &["*.b.example"], -10, 10);
    assert!(matches!(load(&deep, "x.y.b.example"), Err(CertificateError::WrongName(..))));
}

#[test]
fn refuses_a_bundle_of_another_domain() {
    let both = bundle("a.example", &["a.example", "b.example"], -10, 10);
    assert!(matches!(load(&both, "b.example"), Err(CertificateError::OtherDomain(..))));
    // Even if the bundle says so: the key knows which domain it was sealed for.
    let renamed = Bundle { domain: name("b.example"), ..both };
    assert!(matches!(load(&renamed, "b.example"), Err(CertificateError::Key(OpenError::OtherDomain(..)))));
}

#[test]
fn refuses_expired_and_future_certificates() {
    assert!(matches!(
        load(&bundle("a.example", &["a.example"], -20, -1), "a.example"),
        Err(CertificateError::Expired(_))
    ));
    assert!(matches!(
        load(&bundle("a.example", &["a.example"], 10, 20), "a.example"),
        Err(CertificateError::NotYetValid(_))
    ));
}

#[test]
fn refuses_a_key_that_is_not_the_certificates() {
    let leaf = certificate(&new_key(), &["a.example"], -10, 10);
    assert!(matches!(
        load(&bundle_of("a.example", &leaf, &new_key()), "a.example"),
        Err(CertificateError::KeyMismatch)
    ));
}

#[test]
fn refuses_an_exchanged_certificate() {
    let key = new_key();
    let mut swapped = bundle_of("a.example", &certificate(&key, &["a.example"], -10, 10), &key);
    let other = certificate(&key, &["a.example"], -10, 20).to_der().unwrap();
    swapped.x5c = Bundle::encode_chain([&*other]);
    assert!(matches!(load(&swapped, "a.example"), Err(CertificateError::Key(OpenError::OtherCertificate(_)))));
}

#[test]
fn refuses_malformed_chains() {
    let good = bundle("a.example", &["a.example"], -10, 10);
    let with = |x5c: Vec<String>| load(&Bundle { x5c, ..good.clone() }, "a.example");
    assert!(matches!(with(vec![]), Err(CertificateError::Chain(ChainError::Empty))));
    assert!(matches!(with(vec!["!".into()]), Err(CertificateError::Chain(ChainError::NotBase64(0)))));
    assert!(matches!(with(vec!["AAAA".into()]), Err(CertificateError::Malformed)));
    assert!(matches!(with(vec!["AAAA".into(); 9]), Err(CertificateError::Chain(ChainError::TooMany(9)))));
}
