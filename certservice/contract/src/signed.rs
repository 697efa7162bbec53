//! CertService's signature over all that an edge believes: a JWS in compact serialization (RFC 7515) with Ed25519
//! (RFC 9864). Redis and the database can be tampered with; the edge takes only what verifies under a key from its boot
//! file.

// Who has neither side, such as the operator's command, uses the types only.
#![cfg_attr(not(any(feature = "sign", feature = "open")), allow(dead_code, unused_imports))]

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

#[cfg(feature = "sign")]
pub use self::signing::{SigningKey, SigningKeyError, sign};
#[cfg(feature = "open")]
pub use self::verifying::{VerifyError, VerifyKeyError, VerifyKeys, verify};

/// Longest token that is read, in bytes.
pub const TOKEN_BYTES_MAX: usize = 256 * 1024;

const ALG: &str = "Ed25519";

/// Something that CertService signs. The type is part of what is signed, so one can't be taken for another.
pub trait Payload: Serialize + for<'de> Deserialize<'de> {
    const TYPE: &'static str;
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    typ: String,
    kid: String,
}

/// The JWK thumbprint (RFC 7638, RFC 8037 appendix A.3) of an Ed25519 public key.
#[cfg(any(feature = "sign", feature = "open"))]
fn thumbprint(public_key: &[u8]) -> String {
    let jwk = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, URL_SAFE_NO_PAD.encode(public_key));
    URL_SAFE_NO_PAD.encode(crate::bundle::sha256(jwk.as_bytes()))
}

#[cfg(feature = "sign")]
mod signing {
    use base64::engine::general_purpose::STANDARD;
    use ring::rand::SystemRandom;
    use ring::signature::{Ed25519KeyPair, KeyPair};
    use zeroize::Zeroizing;

    use super::*;

    /// CertService's signing key. Shows only its `kid`.
    pub struct SigningKey {
        kid: String,
        pair: Ed25519KeyPair,
    }

    #[derive(Debug, thiserror::Error)]
    pub enum SigningKeyError {
        #[error("not an Ed25519 private key in PEM (`-----BEGIN PRIVATE KEY-----`)")]
        Malformed,
        #[error("the system's random number generator failed")]
        Random,
    }

    /// Ed25519 SubjectPublicKeyInfo up to the 32 bytes of the key (RFC 8410 section 4).
    const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

    impl SigningKey {
        /// A new key, and its PKCS #8 in PEM to be written where only CertService reads it.
        pub fn generate() -> Result<(Self, Zeroizing<String>), SigningKeyError> {
            let der = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| SigningKeyError::Random)?;
            let key = Self::from_der(der.as_ref())?;
            let body = Zeroizing::new(STANDARD.encode(der.as_ref()));
            Ok((key, Zeroizing::new(pem("PRIVATE KEY", &body))))
        }

        pub fn from_pem(pem: &str) -> Result<Self, SigningKeyError> {
            let body = pem.trim().strip_prefix("-----BEGIN PRIVATE KEY-----");
            let body = body.and_then(|b| b.strip_suffix("-----END PRIVATE KEY-----"));
            let body: Zeroizing<String> =
                Zeroizing::new(body.ok_or(SigningKeyError::Malformed)?.split_whitespace().collect());
            let der = Zeroizing::new(STANDARD.decode(body.as_bytes()).map_err(|_| SigningKeyError::Malformed)?);
            Self::from_der(&der)
        }

        fn from_der(der: &[u8]) -> Result<Self, SigningKeyError> {
            let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map_err(|_| SigningKeyError::Malformed)?;
            Ok(Self { kid: thumbprint(pair.public_key().as_ref()), pair })
        }

        pub fn kid(&self) -> &str {
            &self.kid
        }

        /// What each edge is given (`-----BEGIN PUBLIC KEY-----`).
        pub fn public_pem(&self) -> String {
            let der = [&SPKI_PREFIX, self.pair.public_key().as_ref()].concat();
            pem("PUBLIC KEY", &STANDARD.encode(der))
        }
    }

    fn pem(label: &str, body: &str) -> String {
        let mut out = format!("-----BEGIN {label}-----\n");
        let mut rest = body;
        while !rest.is_empty() {
            let (line, after) = rest.split_at(rest.len().min(64));
            out.push_str(line);
            out.push('\n');
            rest = after;
        }
        out + &format!("-----END {label}-----\n")
    }

    impl SigningKey {
        /// For what is not a token.
        pub(crate) fn sign_bytes(&self, message: &[u8]) -> [u8; 64] {
            let mut bytes = [0; 64];
            bytes.copy_from_slice(self.pair.sign(message).as_ref());
            bytes
        }
    }

    impl std::fmt::Debug for SigningKey {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_struct("SigningKey").field("kid", &self.kid).finish_non_exhaustive()
        }
    }

    pub fn sign<T: Payload>(payload: &T, key: &SigningKey) -> Result<String, serde_json::Error> {
        let header = Header { alg: ALG.into(), typ: T::TYPE.into(), kid: key.kid.clone() };
        let encode = |json: Vec<u8>| URL_SAFE_NO_PAD.encode(json);
        let signed = format!("{}.{}", encode(serde_json::to_vec(&header)?), encode(serde_json::to_vec(payload)?));
        let signature = URL_SAFE_NO_PAD.encode(key.pair.sign(signed.as_bytes()));
        Ok(format!("{signed}.{signature}"))
    }
}

#[cfg(feature = "open")]
mod verifying {
    use openssl::pkey::{Id, PKey, Public};
    use openssl::sign::Verifier;

    use super::*;

    /// Public keys; several while one replaces another.
    #[derive(Clone)]
    pub struct VerifyKeys(Vec<(String, PKey<Public>)>);

    #[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
    pub enum VerifyKeyError {
        #[error("not an Ed25519 public key in PEM (`-----BEGIN PUBLIC KEY-----`)")]
        Malformed,
        #[error("no key to verify signatures with; configure at least one")]
        None,
    }

    #[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
    pub enum VerifyError {
        #[error("{0} bytes, at most {TOKEN_BYTES_MAX} are accepted")]
        TooLong(usize),
        #[error("not a signed token: {0}")]
        Malformed(&'static str),
        #[error("it is a `{0}`, not a `{1}`")]
        OtherType(String, &'static str),
        #[error("it is signed by a key that is not in the boot file: {0}")]
        UnknownKey(String),
        #[error("its signature is wrong: it was altered on the way")]
        BadSignature,
    }

    impl VerifyKeys {
        pub fn from_pems<'a>(pems: impl IntoIterator<Item = &'a str>) -> Result<Self, VerifyKeyError> {
            let read = |pem: &str| {
                let key = PKey::public_key_from_pem(pem.as_bytes()).map_err(|_| VerifyKeyError::Malformed)?;
                if key.id() != Id::ED25519 {
                    return Err(VerifyKeyError::Malformed);
                }
                let raw = key.raw_public_key().map_err(|_| VerifyKeyError::Malformed)?;
                Ok((thumbprint(&raw), key))
            };
            let keys = pems.into_iter().map(read).collect::<Result<Vec<_>, _>>()?;
            if keys.is_empty() { Err(VerifyKeyError::None) } else { Ok(Self(keys)) }
        }

        /// For what is not a token. None where the key is not known.
        pub(crate) fn verify_bytes(&self, kid: &str, message: &[u8], signature: &[u8]) -> Option<bool> {
            let (_, key) = self.0.iter().find(|(known, _)| known == kid)?;
            let verified = Verifier::new_without_digest(key).and_then(|mut v| v.verify_oneshot(signature, message));
            Some(verified.unwrap_or(false))
        }
    }

    impl std::fmt::Debug for VerifyKeys {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_list().entries(self.0.iter().map(|(kid, _)| kid)).finish()
        }
    }

    pub fn verify<T: Payload>(token: &str, keys: &VerifyKeys) -> Result<T, VerifyError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(VerifyError::TooLong(token.len()));
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(VerifyError::Malformed("no signature"))?;
        let (header, payload) = signed.split_once('.').ok_or(VerifyError::Malformed("no payload"))?;
        let header: Header = json(&decode(header, "header")?, "header")?;
        if header.alg != ALG {
            return Err(VerifyError::Malformed("algorithm is not Ed25519"));
        }
        if header.typ != T::TYPE {
            return Err(VerifyError::OtherType(header.typ.chars().take(64).collect(), T::TYPE));
        }
        let key = keys.0.iter().find(|(kid, _)| *kid == header.kid);
        let (_, key) = key.ok_or_else(|| VerifyError::UnknownKey(header.kid.chars().take(64).collect()))?;
        let signature = decode(signature, "signature")?;
        let verified =
            Verifier::new_without_digest(key).and_then(|mut v| v.verify_oneshot(&signature, signed.as_bytes()));
        if !verified.unwrap_or(false) {
            return Err(VerifyError::BadSignature);
        }
        json(&decode(payload, "payload")?, "payload")
    }

    fn decode(text: &str, what: &'static str) -> Result<Vec<u8>, VerifyError> {
        URL_SAFE_NO_PAD.decode(text).map_err(|_| VerifyError::Malformed(what))
    }

    fn json<T: serde::de::DeserializeOwned>(bytes: &[u8], what: &'static str) -> Result<T, VerifyError> {
        serde_json::from_slice(bytes).map_err(|_| VerifyError::Malformed(what))
    }
}

#[cfg(test)]
#[cfg(all(feature = "sign", feature = "open"))]
mod tests {
    use super::*;
    use crate::{Challenge, Hostname};

    #[derive(Debug, Serialize, Deserialize)]
    struct Other {}
    impl Payload for Other {
        const TYPE: &'static str = "latchkey-other+jws";
    }

    fn challenge() -> Challenge {
        Challenge {
            domain: Hostname::parse("a.example").unwrap(),
            token: "t".into(),
            kind: crate::ChallengeKind::Http01,
            key_authorization: "t.k".into(),
            expires_at: 7,
        }
    }

    #[test]
    fn what_is_signed_verifies() {
        let (key, pem) = SigningKey::generate().unwrap();
        assert_eq!(SigningKey::from_pem(&pem).unwrap().kid(), key.kid());
        let keys = VerifyKeys::from_pems([&*key.public_pem()]).unwrap();
        let token = sign(&challenge(), &key).unwrap();
        assert_eq!(verify::<Challenge>(&token, &keys), Ok(challenge()));
    }

    #[test]
    fn refuses_altered_foreign_and_mistaken_tokens() {
        let (key, _) = SigningKey::generate().unwrap();
        let (stranger, _) = SigningKey::generate().unwrap();
        let keys = VerifyKeys::from_pems([&*key.public_pem()]).unwrap();
        let token = sign(&challenge(), &key).unwrap();

        let parts: Vec<&str> = token.split('.').collect();
        let payload = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&Challenge { expires_at: 8, ..challenge() }).unwrap());
        let altered = format!("{}.{payload}.{}", parts[0], parts[2]);
        assert_eq!(verify::<Challenge>(&altered, &keys), Err(VerifyError::BadSignature));

        let foreign = sign(&challenge(), &stranger).unwrap();
        assert_eq!(verify::<Challenge>(&foreign, &keys), Err(VerifyError::UnknownKey(stranger.kid().to_owned())));

        let other = sign(&Other {}, &key).unwrap();
        assert!(matches!(verify::<Challenge>(&other, &keys), Err(VerifyError::OtherType(..))));

        let none = format!(
            "{}.{}.",
            URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"latchkey-challenge+jws","kid":""}"#),
            parts[1]
        );
        assert!(matches!(verify::<Challenge>(&none, &keys), Err(VerifyError::Malformed(_))));
        for garbage in ["", ".", "..", "a.b", "a.b.c", &token[..token.len() - 4]] {
            assert!(verify::<Challenge>(garbage, &keys).is_err(), "{garbage}");
        }
        let long = "a".repeat(TOKEN_BYTES_MAX + 1);
        assert_eq!(verify::<Challenge>(&long, &keys), Err(VerifyError::TooLong(TOKEN_BYTES_MAX + 1)));
    }

    #[test]
    fn debug_shows_no_key() {
        let (key, _) = SigningKey::generate().unwrap();
        assert!(format!("{key:?}").len() < 100);
    }
}
