//! A certificate in memory, in two forms. `Warm` is what a million names can afford: the leaf in DER and its raw key, in
//! one piece. `Certificate` is what OpenSSL works with, some five times as large. One is made of the other within a
//! handshake, in tens of microseconds.

use std::mem::size_of;
use std::ops::Deref;
use std::sync::{Arc, LazyLock};

use contract::Validity;
use openssl::bn::{BigNum, BigNumContext};
use openssl::ec::{EcGroup, EcKey, EcPoint, PointConversionForm};
use openssl::error::ErrorStack;
use openssl::nid::Nid;
use openssl::pkey::{Id, PKey, Private};
use openssl::ssl::SslRef;
use openssl::x509::X509;
use pingora::tls::ext;
use zeroize::{Zeroize, Zeroizing};

use super::chains::{Chain, Shared};

const P256_SCALAR_BYTES: usize = 32;
const P256_POINT_BYTES: usize = 65;
/// What an allocation takes beyond its size: a header and rounding.
const ALLOCATION_BYTES: usize = 16;
/// What OpenSSL holds for a parsed leaf with its key, beyond four times the leaf's DER.
const PARSED_BYTES: usize = 4096;

static P256: LazyLock<Result<EcGroup, ErrorStack>> = LazyLock::new(|| EcGroup::from_curve_name(Nid::X9_62_PRIME256V1));

/// One certificate of a name and its key, as they are kept.
pub(super) struct Pair {
    /// Key, then leaf: one allocation instead of two.
    bytes: Box<[u8]>,
    key: KeyForm,
    chain: Arc<Chain>,
    charged_bytes: u32,
}

/// How the key stands in `Pair::bytes`.
#[derive(Clone, Copy)]
enum KeyForm {
    /// The scalar; the public point is found at this offset of `bytes`, within the leaf.
    P256 { point_at: u16 },
    /// PKCS #8, so many bytes.
    Pkcs8 { bytes: u16 },
}

impl KeyForm {
    fn bytes(self) -> usize {
        match self {
            Self::P256 { .. } => P256_SCALAR_BYTES,
            Self::Pkcs8 { bytes } => usize::from(bytes),
        }
    }
}

/// All that is kept of a name. Its keys are wiped when it is dropped.
pub struct Warm {
    pairs: Box<[Pair]>,
    /// Of the one of its certificates that ends first.
    pub validity: Validity,
    pub revision: u64,
    /// Unix seconds; when it was last known to be the current one.
    pub checked_at: u64,
}

/// Ready to be used in a handshake.
pub struct Certificate {
    ready: Vec<(X509, PKey<Private>)>,
    warm: Arc<Warm>,
}

impl Drop for Pair {
    fn drop(&mut self) {
        let key_bytes = self.key.bytes();
        self.bytes[..key_bytes].zeroize();
    }
}

impl Pair {
    /// `pkcs8` and `key` are the same key, and the leaf's.
    pub(super) fn new(leaf: &[u8], key: &PKey<Private>, pkcs8: &[u8], shared: Shared) -> Result<Self, ErrorStack> {
        let scalar = p256_scalar(leaf, key)?;
        let (raw, form) = match &scalar {
            Some(found) => (found.scalar.as_slice(), KeyForm::P256 { point_at: found.point_at }),
            // Sealed keys are limited to far less than what this holds.
            None => (pkcs8, KeyForm::Pkcs8 { bytes: u16::try_from(pkcs8.len()).unwrap_or(u16::MAX) }),
        };
        let raw = &raw[..form.bytes()];
        // Of exactly this size from the start: growing would leave copies of the key behind.
        let mut bytes = Vec::with_capacity(raw.len() + leaf.len());
        bytes.extend_from_slice(raw);
        bytes.extend_from_slice(leaf);
        let charged_bytes = u32::try_from(shared.charged_bytes).unwrap_or(u32::MAX);
        Ok(Self { bytes: bytes.into_boxed_slice(), key: form, chain: shared.chain, charged_bytes })
    }

    fn leaf(&self) -> &[u8] {
        &self.bytes[self.key.bytes()..]
    }

    fn parse(&self) -> Result<(X509, PKey<Private>), ErrorStack> {
        let raw = &self.bytes[..self.key.bytes()];
        let key = match self.key {
            KeyForm::Pkcs8 { .. } => PKey::private_key_from_pkcs8(raw)?,
            KeyForm::P256 { point_at } => {
                let at = usize::from(point_at);
                p256_key(raw, &self.bytes[at..at + P256_POINT_BYTES])?
            }
        };
        Ok((X509::from_der(self.leaf())?, key))
    }
}

/// A P-256 key, and where in `scalar ‖ leaf` its public point lies.
struct P256Key {
    scalar: Zeroizing<Vec<u8>>,
    point_at: u16,
}

/// Nothing for other keys.
fn p256_scalar(leaf: &[u8], key: &PKey<Private>) -> Result<Option<P256Key>, ErrorStack> {
    if key.id() != Id::EC {
        return Ok(None);
    }
    let key = key.ec_key()?;
    if key.group().curve_name() != Some(Nid::X9_62_PRIME256V1) {
        return Ok(None);
    }
    let mut context = BigNumContext::new()?;
    let point = key.public_key().to_bytes(key.group(), PointConversionForm::UNCOMPRESSED, &mut context)?;
    let at = leaf.windows(P256_POINT_BYTES).position(|window| window == point);
    let at = at.and_then(|at| u16::try_from(P256_SCALAR_BYTES + at).ok());
    let scalar = Zeroizing::new(key.private_key().to_vec_padded(P256_SCALAR_BYTES as i32)?);
    Ok(at.map(|point_at| P256Key { scalar, point_at }))
}

/// A tenth of the time that PKCS #8 takes to parse.
fn p256_key(scalar: &[u8], point: &[u8]) -> Result<PKey<Private>, ErrorStack> {
    let group = P256.as_ref().map_err(Clone::clone)?;
    let mut context = BigNumContext::new()?;
    let point = EcPoint::from_bytes(group, point, &mut context)?;
    let mut number = BigNum::new_secure()?;
    number.copy_from_slice(scalar)?;
    PKey::from_ec_key(EcKey::from_private_components(group, &number, &point)?)
}

impl Warm {
    pub(super) fn new(pairs: Vec<Pair>, validity: Validity, revision: u64, checked_at: u64) -> Self {
        Self { pairs: pairs.into_boxed_slice(), validity, revision, checked_at }
    }

    /// What it holds in memory, in bytes.
    pub(super) fn weight(&self) -> usize {
        let of_pair =
            |pair: &Pair| size_of::<Pair>() + pair.bytes.len() + ALLOCATION_BYTES + pair.charged_bytes as usize;
        let own = size_of::<Self>() + 2 * size_of::<usize>() + 2 * ALLOCATION_BYTES;
        own + self.pairs.iter().map(of_pair).sum::<usize>()
    }

    /// Its parsed form.
    pub(super) fn parse(self: &Arc<Self>) -> Result<Certificate, ErrorStack> {
        let ready = self.pairs.iter().map(Pair::parse).collect::<Result<_, _>>()?;
        Ok(Certificate { ready, warm: self.clone() })
    }
}

impl Certificate {
    /// `ready`: the parsed form of `warm`, pair by pair.
    pub(super) fn new(ready: Vec<(X509, PKey<Private>)>, warm: Warm) -> Self {
        Self { ready, warm: Arc::new(warm) }
    }

    pub(super) fn warm(&self) -> &Arc<Warm> {
        &self.warm
    }

    /// What it holds in memory beside its warm form, in bytes.
    pub(super) fn weight(&self) -> usize {
        self.warm.pairs.iter().map(|pair| PARSED_BYTES + 4 * pair.bytes.len()).sum()
    }

    /// Gives the handshake all that this name has; which one suits the client is OpenSSL's choice.
    pub(super) fn apply(&self, ssl: &mut SslRef) -> Result<(), ErrorStack> {
        for ((leaf, key), pair) in self.ready.iter().zip(&self.warm.pairs) {
            ext::ssl_use_certificate(ssl, leaf)?;
            ext::ssl_use_private_key(ssl, key)?;
            pair.chain.intermediates.iter().try_for_each(|certificate| ext::ssl_add_chain_cert(ssl, certificate))?;
        }
        Ok(())
    }
}

impl Deref for Certificate {
    type Target = Warm;

    fn deref(&self) -> &Warm {
        &self.warm
    }
}

impl std::fmt::Debug for Warm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Warm")
            .field("revision", &self.revision)
            .field("not_after", &self.validity.not_after)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Certificate").field(&self.warm).finish()
    }
}

#[cfg(test)]
#[path = "warm_tests.rs"]
mod tests;
