//! The edge's side.

use openssl::bn::BigNum;
use openssl::encrypt::{Decrypter, Encrypter};
use openssl::hash::MessageDigest;
use openssl::pkey::{Id, PKey, Private, Public};
use openssl::rsa::{Padding, Rsa};
use openssl::symm::{Cipher, decrypt_aead};
use zeroize::Zeroizing;

use super::*;
use crate::tickets::TICKET_SECRET_BYTES;

/// An edge's private key. Shows only its `kid`.
pub struct EdgeKey {
    kid: String,
    public: PKey<Public>,
    private: Place,
}

/// Where the private half is.
enum Place {
    Memory(PKey<Private>),
    Elsewhere(Box<dyn Unwrap>),
}

/// Who holds a private key that never comes into this process, such as a token.
pub trait Unwrap: Send + Sync {
    /// RFC 7518 section 4.3, with SHA-256; `None` where it does not open. Who holds the key may be away: why.
    fn unwrap(&self, encrypted_key: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, String>;
}

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("not an RSA private key in PEM (`-----BEGIN PRIVATE KEY-----`)")]
    Malformed,
    #[error("the private key is not here to be written")]
    Elsewhere,
    #[error("not an RSA public key in PEM (`-----BEGIN PUBLIC KEY-----`)")]
    MalformedPublic,
    #[error("the RSA key is {0} bits, {min} to {max} are accepted", min = EDGE_KEY_BITS.start(), max = EDGE_KEY_BITS.end())]
    Size(u32),
}

/// What the edge itself knows of the key that it is about to open; never taken from the sealed data.
#[derive(Clone, Copy)]
pub struct Expected<'a> {
    pub domain: &'a Hostname,
    /// SHA-256 of the certificate in DER.
    pub certificate: [u8; 32],
    /// SHA-256 of its SubjectPublicKeyInfo; only asked for where the key was sealed before there was a certificate.
    pub public_key: &'a dyn Fn() -> Option<[u8; 32]>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    #[error("the sealed key is malformed: {0}")]
    Malformed(&'static str),
    #[error("the sealed key uses `{0}`, only {ALG} with {ENC} is accepted")]
    Algorithm(String),
    #[error("the key is sealed for {0}, not for {1}")]
    OtherDomain(Hostname, Hostname),
    #[error("the key is sealed for another certificate of {0}")]
    OtherCertificate(Hostname),
    #[error("the secret is sealed for something else than this session ticket key")]
    OtherTicketKey,
    #[error("the key is not sealed to this edge's key {0}")]
    NotForUs(String),
    #[error("this edge's key can't be used now: {0}")]
    Unavailable(String),
    #[error("the sealed key does not open: it was altered, or sealed to another key under this one's kid")]
    Broken,
}

impl EdgeKey {
    pub fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        let key = PKey::private_key_from_pem(pem).map_err(|_| KeyError::Malformed)?;
        Self::new(key)
    }

    pub fn generate(bits: u32) -> Result<Self, KeyError> {
        let rsa = openssl::rsa::Rsa::generate(bits).map_err(|_| KeyError::Size(bits))?;
        Self::new(PKey::from_rsa(rsa).map_err(|_| KeyError::Malformed)?)
    }

    fn new(key: PKey<Private>) -> Result<Self, KeyError> {
        if key.id() != Id::RSA {
            return Err(KeyError::Malformed);
        }
        let rsa = key.rsa().map_err(|_| KeyError::Malformed)?;
        Self::with(&rsa.n().to_vec(), &rsa.e().to_vec(), Place::Memory(key))
    }

    /// A key whose private half is held by somebody else; modulus and exponent, big-endian.
    pub fn elsewhere(modulus: &[u8], exponent: &[u8], holder: Box<dyn Unwrap>) -> Result<Self, KeyError> {
        Self::with(modulus, exponent, Place::Elsewhere(holder))
    }

    fn with(modulus: &[u8], exponent: &[u8], private: Place) -> Result<Self, KeyError> {
        let number = |bytes| BigNum::from_slice(bytes).map_err(|_| KeyError::Malformed);
        let (modulus, exponent) = (number(modulus)?, number(exponent)?);
        let kid = rsa_thumbprint(&modulus.to_vec(), &exponent.to_vec());
        let public = Rsa::from_public_components(modulus, exponent).and_then(PKey::from_rsa);
        let public = public.map_err(|_| KeyError::Malformed)?;
        if !EDGE_KEY_BITS.contains(&public.bits()) {
            return Err(KeyError::Size(public.bits()));
        }
        Ok(Self { kid, public, private })
    }

    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// Whether it opens what is sealed to it.
    pub fn try_out(&self) -> Result<(), OpenError> {
        let mut secret = [0; 32];
        openssl::rand::rand_bytes(&mut secret).map_err(|_| OpenError::Broken)?;
        let wrapped = wrap(&self.public, &secret).ok_or(OpenError::Broken)?;
        let opened = self.unwrap(&wrapped)?;
        if *opened == secret { Ok(()) } else { Err(OpenError::Broken) }
    }

    /// What CertService is given (`-----BEGIN PUBLIC KEY-----`).
    pub fn public_pem(&self) -> Result<String, KeyError> {
        let pem = self.public.public_key_to_pem().map_err(|_| KeyError::Malformed)?;
        String::from_utf8(pem).map_err(|_| KeyError::Malformed)
    }

    /// PKCS #8 in PEM, to be written where only the edge reads it; an error where it is not here.
    pub fn private_pem(&self) -> Result<Zeroizing<String>, KeyError> {
        let Place::Memory(key) = &self.private else { return Err(KeyError::Elsewhere) };
        let pem = Zeroizing::new(key.private_key_to_pem_pkcs8().map_err(|_| KeyError::Malformed)?);
        let text = std::str::from_utf8(&pem).map_err(|_| KeyError::Malformed)?;
        Ok(Zeroizing::new(text.to_owned()))
    }

    /// RFC 7518 section 4.3. About 1 ms of CPU for 3072 bits: belongs on a blocking pool.
    pub(super) fn unwrap(&self, encrypted_key: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let unwrapped = match &self.private {
            Place::Memory(key) => unwrap(key, encrypted_key),
            Place::Elsewhere(holder) => holder.unwrap(encrypted_key).map_err(OpenError::Unavailable)?,
        };
        unwrapped.ok_or(OpenError::Broken)
    }
}

/// RFC 7518 section 4.3.
pub(super) fn wrap(key: &PKey<Public>, secret: &[u8]) -> Option<Vec<u8>> {
    let mut encrypter = Encrypter::new(key).ok()?;
    encrypter.set_rsa_padding(Padding::PKCS1_OAEP).ok()?;
    encrypter.set_rsa_oaep_md(MessageDigest::sha256()).ok()?;
    encrypter.set_rsa_mgf1_md(MessageDigest::sha256()).ok()?;
    let mut wrapped = vec![0; encrypter.encrypt_len(secret).ok()?];
    let len = encrypter.encrypt(secret, &mut wrapped).ok()?;
    wrapped.truncate(len);
    Some(wrapped)
}

fn unwrap(key: &PKey<Private>, encrypted_key: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut decrypter = Decrypter::new(key).ok()?;
    decrypter.set_rsa_padding(Padding::PKCS1_OAEP).ok()?;
    decrypter.set_rsa_oaep_md(MessageDigest::sha256()).ok()?;
    decrypter.set_rsa_mgf1_md(MessageDigest::sha256()).ok()?;
    let mut out = Zeroizing::new(vec![0; decrypter.decrypt_len(encrypted_key).ok()?]);
    let len = decrypter.decrypt(encrypted_key, &mut out).ok()?;
    out.truncate(len);
    Some(out)
}

impl std::fmt::Debug for EdgeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EdgeKey").field("kid", &self.kid).finish_non_exhaustive()
    }
}

/// Opens a sealed key: PKCS #8 in DER. Checks the algorithms, the domain and the certificate before it spends the RSA
/// operation.
pub fn open(sealed: &Sealed, key: &EdgeKey, expected: &Expected<'_>) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    opened(sealed, key, |aad| check_binding(aad, expected))
}

/// Opens the secret of the session ticket key of this name.
pub fn open_ticket_key(
    sealed: &Sealed,
    key: &EdgeKey,
    name: &KeyName,
) -> Result<Zeroizing<[u8; TICKET_SECRET_BYTES]>, OpenError> {
    let secret = opened(sealed, key, |aad| match aad {
        Aad { domain: None, certificate: None, public_key: None, ticket_key: Some(bound) }
            if *bound == URL_SAFE_NO_PAD.encode(name.0) =>
        {
            Ok(())
        }
        _ => Err(OpenError::OtherTicketKey),
    })?;
    let secret: &[u8; TICKET_SECRET_BYTES] = secret.as_slice().try_into().map_err(|_| OpenError::Broken)?;
    Ok(Zeroizing::new(*secret))
}

fn opened(
    sealed: &Sealed,
    key: &EdgeKey,
    check_aad: impl FnOnce(&Aad) -> Result<(), OpenError>,
) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    unlocked(sealed, key, check_aad).map(|unlocked| unlocked.content)
}

/// A content key that is known to be right, and what it opens.
pub(super) struct Unlocked {
    pub(super) content_key: Zeroizing<Vec<u8>>,
    content: Zeroizing<Vec<u8>>,
}

pub(super) fn unlocked(
    sealed: &Sealed,
    key: &EdgeKey,
    check_aad: impl FnOnce(&Aad) -> Result<(), OpenError>,
) -> Result<Unlocked, OpenError> {
    let header: Protected = decode_json(&sealed.protected, "protected header")?;
    if header.alg != ALG || header.enc != ENC {
        return Err(OpenError::Algorithm(format!("{}/{}", header.alg, header.enc).chars().take(64).collect()));
    }
    check_aad(&decode_json(&sealed.aad, "aad")?)?;
    if sealed.recipients.len() > RECIPIENTS_MAX {
        return Err(OpenError::Malformed("too many recipients"));
    }
    if sealed.ciphertext.len() > PRIVATE_KEY_BYTES_MAX * 2 {
        return Err(OpenError::Malformed("ciphertext too long"));
    }
    let ours = sealed.recipients.iter().find(|r| r.header.kid == key.kid);
    let ours = ours.ok_or_else(|| OpenError::NotForUs(key.kid.clone()))?;
    let iv = decode(&sealed.iv, "iv")?;
    let tag = decode(&sealed.tag, "tag")?;
    if iv.len() != 12 || tag.len() != 16 {
        return Err(OpenError::Malformed("iv or tag has the wrong length"));
    }
    let ciphertext = decode(&sealed.ciphertext, "ciphertext")?;
    let encrypted_key = decode(&ours.encrypted_key, "encrypted_key")?;

    // One error for all that follows (RFC 7516 section 11.5).
    let content_key = Some(key.unwrap(&encrypted_key)?).filter(|k| k.len() == 32).ok_or(OpenError::Broken)?;
    let aad = format!("{}.{}", sealed.protected, sealed.aad);
    let content = decrypt_aead(Cipher::aes_256_gcm(), &content_key, Some(&iv), aad.as_bytes(), &ciphertext, &tag);
    let content = content.map(Zeroizing::new).map_err(|_| OpenError::Broken)?;
    Ok(Unlocked { content_key, content })
}

fn check_binding(aad: &Aad, expected: &Expected<'_>) -> Result<(), OpenError> {
    let (Some(domain), None) = (&aad.domain, &aad.ticket_key) else {
        return Err(OpenError::Malformed("aad must name a domain"));
    };
    if domain != expected.domain {
        return Err(OpenError::OtherDomain(domain.clone(), expected.domain.clone()));
    }
    let is = |claimed: &str, digest: [u8; 32]| claimed == URL_SAFE_NO_PAD.encode(digest);
    let bound = match (&aad.certificate, &aad.public_key) {
        (Some(certificate), None) => is(certificate, expected.certificate),
        (None, Some(public_key)) => (expected.public_key)().is_some_and(|digest| is(public_key, digest)),
        _ => return Err(OpenError::Malformed("aad must name a certificate or a public key")),
    };
    bound.then_some(()).ok_or_else(|| OpenError::OtherCertificate(expected.domain.clone()))
}

pub(super) fn decode(text: &str, what: &'static str) -> Result<Vec<u8>, OpenError> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| OpenError::Malformed(what))
}

fn decode_json<T: serde::de::DeserializeOwned>(text: &str, what: &'static str) -> Result<T, OpenError> {
    serde_json::from_slice(&decode(text, what)?).map_err(|_| OpenError::Malformed(what))
}
