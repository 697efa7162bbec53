//! CertService's side: public keys only.

use aes_gcm::aead::{AeadInPlace, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce};
use rand_core::{OsRng, RngCore};
use rsa::pkcs8::{DecodePublicKey, EncodePublicKey, LineEnding};
use rsa::traits::PublicKeyParts;
use rsa::{Oaep, RsaPublicKey};
use zeroize::Zeroizing;

use super::*;
use crate::tickets::TICKET_SECRET_BYTES;

/// An edge's public key.
#[derive(Clone)]
pub struct Recipient {
    kid: String,
    key: RsaPublicKey,
}

#[derive(Debug, thiserror::Error)]
pub enum RecipientError {
    #[error("this is a private key; CertService takes edge public keys only (`-----BEGIN PUBLIC KEY-----`)")]
    Private,
    #[error("not an RSA public key in PEM (`-----BEGIN PUBLIC KEY-----`)")]
    Malformed,
    #[error("the RSA key is {0} bits, {min} to {max} are accepted", min = EDGE_KEY_BITS.start(), max = EDGE_KEY_BITS.end())]
    Size(usize),
}

#[derive(Debug, thiserror::Error)]
pub enum SealError {
    #[error("no edge key to seal to; configure at least one")]
    NoRecipient,
    #[error("{0} edge keys to seal to, at most {RECIPIENTS_MAX} are accepted")]
    TooManyRecipients(usize),
    #[error("the private key is {0} bytes, at most {PRIVATE_KEY_BYTES_MAX} are accepted")]
    TooLarge(usize),
    #[error("the system's random number generator failed")]
    Random,
    #[error("wrapping for edge key {0} failed")]
    Wrap(String),
    #[error("encryption failed")]
    Encrypt,
}

impl Recipient {
    pub fn from_pem(pem: &str) -> Result<Self, RecipientError> {
        if pem.contains("PRIVATE KEY-----") {
            return Err(RecipientError::Private);
        }
        let key = RsaPublicKey::from_public_key_pem(pem.trim()).map_err(|_| RecipientError::Malformed)?;
        let bits = key.n().bits();
        if !u32::try_from(bits).is_ok_and(|bits| EDGE_KEY_BITS.contains(&bits)) {
            return Err(RecipientError::Size(bits));
        }
        let kid = rsa_thumbprint(&key.n().to_bytes_be(), &key.e().to_bytes_be());
        Ok(Self { kid, key })
    }

    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// `-----BEGIN PUBLIC KEY-----`
    pub fn public_pem(&self) -> Result<String, RecipientError> {
        self.key.to_public_key_pem(LineEnding::LF).map_err(|_| RecipientError::Malformed)
    }

    pub fn bits(&self) -> u32 {
        u32::try_from(self.key.n().bits()).unwrap_or(u32::MAX)
    }

    /// Length of what is wrapped for it, in bytes (RFC 8017 section 7.1.1).
    pub fn wrapped_bytes(&self) -> usize {
        self.key.size()
    }

    /// Wraps a secret that only who has the private half can use, in base64url.
    pub fn wrap(&self, secret: &[u8; 32]) -> Result<String, SealError> {
        let wrapped = self.key.encrypt(&mut OsRng, Oaep::new::<sha2::Sha256>(), secret);
        wrapped.map(|wrapped| URL_SAFE_NO_PAD.encode(wrapped)).map_err(|_| SealError::Wrap(self.kid.clone()))
    }
}

impl std::fmt::Debug for Recipient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recipient").field("kid", &self.kid).finish_non_exhaustive()
    }
}

/// Seals `private_key` (PKCS #8 DER) so that each of `recipients`, and nobody else, can open it for `domain` and what it
/// is `bound` to. The caller wipes its own copy.
pub fn seal(
    private_key: &[u8],
    domain: &Hostname,
    bound: Bound,
    recipients: &[Recipient],
) -> Result<Sealed, SealError> {
    sealed(private_key, "application/pkcs8", &Aad::new(domain, bound), recipients)
}

/// Seals the secret of a session ticket key, bound to the key's name.
pub fn seal_ticket_key(
    secret: &[u8; TICKET_SECRET_BYTES],
    name: &KeyName,
    recipients: &[Recipient],
) -> Result<Sealed, SealError> {
    sealed(secret, "application/octet-stream", &Aad::of_ticket_key(name), recipients)
}

fn sealed(secret: &[u8], content_type: &str, aad: &Aad, recipients: &[Recipient]) -> Result<Sealed, SealError> {
    if recipients.is_empty() {
        return Err(SealError::NoRecipient);
    }
    if recipients.len() > RECIPIENTS_MAX {
        return Err(SealError::TooManyRecipients(recipients.len()));
    }
    if secret.len() > PRIVATE_KEY_BYTES_MAX {
        return Err(SealError::TooLarge(secret.len()));
    }
    let mut content_key = Zeroizing::new([0u8; 32]);
    let mut iv = [0u8; 12];
    OsRng.try_fill_bytes(content_key.as_mut()).map_err(|_| SealError::Random)?;
    OsRng.try_fill_bytes(&mut iv).map_err(|_| SealError::Random)?;

    let wrap = |to: &Recipient| {
        let encrypted_key = to.wrap(&content_key)?;
        Ok(SealedRecipient { header: RecipientHeader { kid: to.kid.clone() }, encrypted_key })
    };
    let recipients = recipients.iter().map(wrap).collect::<Result<Vec<_>, SealError>>()?;

    let header = Protected { alg: ALG.into(), enc: ENC.into(), typ: None, cty: Some(content_type.into()) };
    let encode = |value: Vec<u8>| URL_SAFE_NO_PAD.encode(value);
    let protected = serde_json::to_vec(&header).map(encode).map_err(|_| SealError::Encrypt)?;
    let aad = serde_json::to_vec(aad).map(encode).map_err(|_| SealError::Encrypt)?;

    let cipher = Aes256Gcm::new(content_key.as_ref().into());
    let mut content = Zeroizing::new(secret.to_vec());
    let tag = cipher
        .encrypt_in_place_detached(Nonce::from_slice(&iv), format!("{protected}.{aad}").as_bytes(), &mut content)
        .map_err(|_| SealError::Encrypt)?;
    Ok(Sealed {
        protected,
        recipients,
        aad,
        iv: URL_SAFE_NO_PAD.encode(iv),
        ciphertext: URL_SAFE_NO_PAD.encode(content.as_slice()),
        tag: URL_SAFE_NO_PAD.encode(tag),
    })
}
