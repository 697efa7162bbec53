//! The signature of a plugin: who vouches for a component. Detached, so that the component stays as it was built.
//!
//! What is signed (Ed25519, RFC 8032) is the text `latchkey-plugin-v1`, a line feed, `sha256:` and the digest of the
//! component in lower-case hexadecimal. The signature is a text of one line:
//!
//! ```text
//! ed25519 <kid> <signature, base64url without padding>
//! ```
//!
//! `kid` is the thumbprint of the public key (RFC 7638): it says which key to try, and is not believed by itself.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The request header that carries it to a proxy's admin API.
pub const SIGNATURE_HEADER: &str = "latchkey-signature";
const ALGORITHM: &str = "ed25519";
const CONTEXT: &str = "latchkey-plugin-v1";
const KID_BYTES_MAX: usize = 64;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    kid: String,
    bytes: [u8; 64],
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    #[error(
        "not a plugin's signature: `ed25519 <kid> <64 bytes in base64url>` is expected, as `latchkey plugin sign` writes it"
    )]
    Malformed,
    #[error("signed by the key {0}, which is not among plugins.trusted_keys of the boot file")]
    UnknownKey(String),
    #[error("the signature of key {0} is not of this component; it was altered, or the signature belongs to another")]
    Wrong(String),
}

impl Signature {
    pub fn kid(&self) -> &str {
        &self.kid
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{ALGORITHM} {} {}", self.kid, URL_SAFE_NO_PAD.encode(self.bytes))
    }
}

impl FromStr for Signature {
    type Err = SignatureError;

    fn from_str(text: &str) -> Result<Self, SignatureError> {
        let words: Vec<&str> = text.trim_ascii_end().split(' ').collect();
        let [ALGORITHM, kid, bytes] = words[..] else { return Err(SignatureError::Malformed) };
        let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if kid.is_empty() || kid.len() > KID_BYTES_MAX || !kid.bytes().all(legal) {
            return Err(SignatureError::Malformed);
        }
        let bytes = URL_SAFE_NO_PAD.decode(bytes).ok().and_then(|bytes| bytes.try_into().ok());
        Ok(Self { kid: kid.into(), bytes: bytes.ok_or(SignatureError::Malformed)? })
    }
}

#[cfg(any(feature = "sign", feature = "open"))]
fn signed_text(component_sha256: &[u8; 32]) -> String {
    let hex: String = component_sha256.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{CONTEXT}\nsha256:{hex}")
}

#[cfg(feature = "sign")]
pub fn sign(component_sha256: &[u8; 32], key: &crate::signed::SigningKey) -> Signature {
    Signature { kid: key.kid().to_owned(), bytes: key.sign_bytes(signed_text(component_sha256).as_bytes()) }
}

#[cfg(feature = "open")]
pub fn verify(
    component_sha256: &[u8; 32],
    signature: &Signature,
    keys: &crate::signed::VerifyKeys,
) -> Result<(), SignatureError> {
    match keys.verify_bytes(&signature.kid, signed_text(component_sha256).as_bytes(), &signature.bytes) {
        None => Err(SignatureError::UnknownKey(signature.kid.clone())),
        Some(false) => Err(SignatureError::Wrong(signature.kid.clone())),
        Some(true) => Ok(()),
    }
}

#[cfg(test)]
#[cfg(all(feature = "sign", feature = "open"))]
mod tests {
    use super::*;
    use crate::signed::{SigningKey, VerifyKeys};

    #[test]
    fn what_is_signed_verifies_and_nothing_else_does() {
        let (key, _) = SigningKey::generate().unwrap();
        let (stranger, _) = SigningKey::generate().unwrap();
        let keys = VerifyKeys::from_pems([&*key.public_pem()]).unwrap();
        let signature = sign(&[7; 32], &key);
        let text = signature.to_string();
        assert_eq!(format!("{text}\n").parse::<Signature>(), Ok(signature.clone()));
        assert_eq!(verify(&[7; 32], &signature, &keys), Ok(()));
        assert_eq!(verify(&[8; 32], &signature, &keys), Err(SignatureError::Wrong(key.kid().into())));
        let foreign = sign(&[7; 32], &stranger);
        assert_eq!(verify(&[7; 32], &foreign, &keys), Err(SignatureError::UnknownKey(stranger.kid().into())));
        let claimed = Signature { kid: key.kid().into(), ..foreign };
        assert_eq!(verify(&[7; 32], &claimed, &keys), Err(SignatureError::Wrong(key.kid().into())));
    }

    #[test]
    fn refuses_texts_that_are_no_signatures() {
        let (key, _) = SigningKey::generate().unwrap();
        let text = sign(&[7; 32], &key).to_string();
        let (short, other) = (&text[..text.len() - 2], text.replace("ed25519", "rsa"));
        for bad in [
            "",
            "ed25519",
            short,
            &other,
            &format!("{text} x"),
            &text.replacen(' ', "  ", 1),
            &text.replacen(' ', " \u{e9}", 1),
        ] {
            assert_eq!(bad.parse::<Signature>(), Err(SignatureError::Malformed), "{bad}");
        }
    }
}
