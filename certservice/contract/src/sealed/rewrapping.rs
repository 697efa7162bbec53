//! The edge's side of a change of edge keys: what one key opens is wrapped for another one. Certificate, ciphertext and what
//! it is bound to stay as CertService made them.

use openssl::hash::MessageDigest;
use openssl::pkey::{Id, PKey, Public};
use openssl::sign::Signer;

use super::opening::{Unlocked, decode, unlocked, wrap};
use super::*;

/// An edge's public key, as an operator has named it on the host of another edge.
pub struct WrapKey {
    kid: String,
    key: PKey<Public>,
}

impl WrapKey {
    pub fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        let key = PKey::public_key_from_pem(pem).map_err(|_| KeyError::MalformedPublic)?;
        if key.id() != Id::RSA {
            return Err(KeyError::MalformedPublic);
        }
        if !EDGE_KEY_BITS.contains(&key.bits()) {
            return Err(KeyError::Size(key.bits()));
        }
        let rsa = key.rsa().map_err(|_| KeyError::MalformedPublic)?;
        Ok(Self { kid: rsa_thumbprint(&rsa.n().to_vec(), &rsa.e().to_vec()), key })
    }

    pub fn kid(&self) -> &str {
        &self.kid
    }

    fn wrap(&self, content_key: &[u8]) -> Option<SealedRecipient> {
        let header = RecipientHeader { kid: self.kid.clone() };
        let encrypted_key = URL_SAFE_NO_PAD.encode(wrap(&self.key, content_key)?);
        Some(SealedRecipient { header, encrypted_key })
    }
}

impl std::fmt::Debug for WrapKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WrapKey").field("kid", &self.kid).finish_non_exhaustive()
    }
}

/// Entries for those of `to` that it has none for. It is opened to the end first: a content key that is passed on is known
/// to be the right one.
pub fn rewrap(sealed: &Sealed, key: &EdgeKey, to: &[WrapKey]) -> Result<Vec<SealedRecipient>, OpenError> {
    let Unlocked { content_key, .. } = unlocked(sealed, key, |_| Ok(()))?;
    let has = |to: &WrapKey| sealed.recipients.iter().any(|recipient| recipient.header.kid == to.kid);
    to.iter().filter(|to| !has(to)).map(|to| to.wrap(&content_key).ok_or(OpenError::Broken)).collect()
}

/// Proves that `body` comes from whoever has this key: HMAC-SHA-256 under a secret that was wrapped for it. The secret itself
/// never leaves, so that nothing else that is wrapped for the key can be learnt by asking for a proof.
pub fn prove(challenge: &str, key: &EdgeKey, body: &[u8]) -> Result<String, OpenError> {
    let secret = key.unwrap(&decode(challenge, "challenge")?)?;
    let mac = PKey::hmac(&secret).and_then(|secret| {
        let mut signer = Signer::new(MessageDigest::sha256(), &secret)?;
        signer.sign_oneshot_to_vec(body)
    });
    mac.map(|mac| URL_SAFE_NO_PAD.encode(mac)).map_err(|_| OpenError::Broken)
}
