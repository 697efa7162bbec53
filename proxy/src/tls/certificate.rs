//! From a signed bundle to a certificate that can be served: every claim is checked against the certificate itself.

use std::sync::Arc;

use contract::bundle::{ChainError, sha256};
use contract::sealed::{EdgeKey, Expected, OpenError, Sealed, open};
use contract::{Bundle, Hostname, Validity};
use openssl::asn1::{Asn1Time, Asn1TimeRef};
use openssl::pkey::{PKey, Private};
use openssl::x509::{X509, X509Ref};
use zeroize::Zeroizing;

use super::chains::Chains;
use super::warm::{Certificate, Pair, Warm};

/// Opens bundles with this edge's key.
pub struct Opener {
    edge: Arc<EdgeKey>,
    chains: Chains,
}

#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("the bundle is for {0}, not for {1}")]
    OtherDomain(Hostname, Hostname),
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error("the certificate does not parse")]
    Malformed,
    #[error("the certificate is for {0}, which does not cover {1}")]
    WrongName(String, Hostname),
    #[error("the certificate ended at {0}")]
    Expired(String),
    #[error("the certificate starts at {0} only; is a clock wrong?")]
    NotYetValid(String),
    #[error(transparent)]
    Key(#[from] OpenError),
    #[error("the opened key does not parse")]
    KeyMalformed,
    #[error("the opened key is not the certificate's")]
    KeyMismatch,
}

impl CertificateError {
    /// Label of the counter.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::OtherDomain(..) => "other_domain",
            Self::Chain(_) | Self::Malformed => "malformed",
            Self::WrongName(..) => "wrong_name",
            Self::Expired(_) => "expired",
            Self::NotYetValid(_) => "not_yet_valid",
            Self::Key(OpenError::Unavailable(_)) => "key_unavailable",
            Self::Key(_) => "key_does_not_open",
            Self::KeyMalformed | Self::KeyMismatch => "key_mismatch",
        }
    }

    /// Whether the same bundle may be good another time: once a clock is set, or the edge has its key back.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Expired(_) | Self::NotYetValid(_) | Self::Key(_))
    }
}

impl Opener {
    pub fn new(edge: impl Into<Arc<EdgeKey>>) -> Self {
        Self { edge: edge.into(), chains: Chains::default() }
    }

    /// `checked_at`: when the bundle was last known to be the current one (Unix seconds). Takes about 1 ms of CPU
    /// for each certificate, most of it RSA: belongs on a blocking thread.
    pub fn open(
        &self,
        bundle: &Bundle,
        domain: &Hostname,
        checked_at: u64,
        now: u64,
    ) -> Result<Certificate, CertificateError> {
        if bundle.domain != *domain {
            return Err(CertificateError::OtherDomain(bundle.domain.clone(), domain.clone()));
        }
        let (mut pairs, mut ready) = (Vec::new(), Vec::new());
        let mut validity = Validity { not_before: 0, not_after: u64::MAX };
        for (chain, sealed) in bundle.certificates() {
            let opened = self.open_one(&chain?, sealed, domain, now)?;
            pairs.push(opened.pair);
            ready.push((opened.leaf, opened.key));
            if opened.validity.not_after < validity.not_after {
                validity = opened.validity;
            }
        }
        Ok(Certificate::new(ready, Warm::new(pairs, validity, bundle.revision, checked_at)))
    }

    fn open_one(
        &self,
        chain: &[Vec<u8>],
        sealed: &Sealed,
        domain: &Hostname,
        now: u64,
    ) -> Result<Opened, CertificateError> {
        let (der, intermediates) = chain.split_first().ok_or(ChainError::Empty)?;
        let leaf = X509::from_der(der).map_err(|_| CertificateError::Malformed)?;
        check_names(&leaf, domain)?;
        check_validity(&leaf, now)?;
        let shared = self.chains.share(intermediates).map_err(|_| CertificateError::Malformed)?;

        let public = leaf.public_key().map_err(|_| CertificateError::Malformed)?;
        let public_key = || public.public_key_to_der().ok().map(|spki| sha256(&spki));
        let expected = Expected { domain, certificate: sha256(der), public_key: &public_key };
        let pkcs8 = open(sealed, &self.edge, &expected)?;
        let key = PKey::private_key_from_pkcs8(&pkcs8).map_err(|_| CertificateError::KeyMalformed)?;
        if !key.public_eq(&public) {
            return Err(CertificateError::KeyMismatch);
        }
        let validity = validity(&leaf)?;
        let pair = Pair::new(der, &key, &pkcs8, shared).map_err(|_| CertificateError::KeyMalformed)?;
        Ok(Opened { pair, leaf, key, validity })
    }
}

/// One certificate of a bundle, in both forms.
struct Opened {
    pair: Pair,
    leaf: X509,
    key: PKey<Private>,
    validity: Validity,
}

/// A certificate that an operator keeps in files, such as the default one: its chain, leaf first, and its key.
pub fn from_pem(chain: &str, key: &str, now: u64) -> Result<Certificate, CertificateError> {
    let malformed = |_| CertificateError::Malformed;
    let chain = X509::stack_from_pem(chain.as_bytes()).map_err(malformed)?;
    let (leaf, intermediates) = chain.split_first().ok_or(ChainError::Empty)?;
    check_validity(leaf, now)?;
    let der = leaf.to_der().map_err(malformed)?;
    let intermediates =
        intermediates.iter().map(|one| one.to_der()).collect::<Result<Vec<_>, _>>().map_err(malformed)?;
    let shared = Chains::default().share(&intermediates).map_err(malformed)?;
    let key = PKey::private_key_from_pem(key.as_bytes()).map_err(|_| CertificateError::KeyMalformed)?;
    let public = leaf.public_key().map_err(malformed)?;
    if !key.public_eq(&public) {
        return Err(CertificateError::KeyMismatch);
    }
    let pkcs8 = Zeroizing::new(key.private_key_to_pkcs8().map_err(|_| CertificateError::KeyMalformed)?);
    let pair = Pair::new(&der, &key, &pkcs8, shared).map_err(|_| CertificateError::KeyMalformed)?;
    let validity = validity(leaf)?;
    Ok(Certificate::new(vec![(leaf.clone(), key)], Warm::new(vec![pair], validity, 0, now)))
}

fn check_names(leaf: &X509Ref, domain: &Hostname) -> Result<(), CertificateError> {
    let names: Vec<String> = leaf
        .subject_alt_names()
        .into_iter()
        .flatten()
        .filter_map(|name| name.dnsname().map(str::to_ascii_lowercase))
        .collect();
    if names.iter().any(|name| covers(name, domain.as_str())) {
        return Ok(());
    }
    let shown = if names.is_empty() { "no DNS name".to_owned() } else { names.join(", ").chars().take(200).collect() };
    Err(CertificateError::WrongName(shown, domain.clone()))
}

/// RFC 6125 section 6.4.3: a wildcard stands for exactly one label, the leftmost.
fn covers(name: &str, domain: &str) -> bool {
    match name.strip_prefix("*.") {
        Some(parent) => domain.split_once('.').is_some_and(|(_, rest)| rest == parent),
        None => name == domain,
    }
}

fn check_validity(leaf: &X509Ref, now: u64) -> Result<(), CertificateError> {
    let now = i64::try_from(now).ok().and_then(|now| Asn1Time::from_unix(now).ok());
    let now = now.ok_or(CertificateError::Malformed)?;
    if leaf.not_after() < now {
        return Err(CertificateError::Expired(leaf.not_after().to_string()));
    }
    if leaf.not_before() > now {
        return Err(CertificateError::NotYetValid(leaf.not_before().to_string()));
    }
    Ok(())
}

fn validity(leaf: &X509Ref) -> Result<Validity, CertificateError> {
    let [not_before, not_after] =
        [leaf.not_before(), leaf.not_after()].map(|time| unix_seconds(time).ok_or(CertificateError::Malformed));
    Ok(Validity { not_before: not_before?, not_after: not_after? })
}

fn unix_seconds(time: &Asn1TimeRef) -> Option<u64> {
    let since = Asn1Time::from_unix(0).ok()?.diff(time).ok()?;
    u64::try_from(i64::from(since.days) * 86_400 + i64::from(since.secs)).ok()
}

#[cfg(test)]
#[path = "certificate_tests.rs"]
pub(crate) mod tests;
