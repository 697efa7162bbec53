//! Whose plugins this edge runs.

use contract::plugin::{Signature, SignatureError, verify};
use contract::signed::VerifyKeys;

/// A plugin runs with the proxy's rights to see and change traffic, so somebody that the boot file names must have
/// signed it.
#[derive(Debug, Clone)]
pub enum Trust {
    /// Only what one of these keys has signed.
    Signed(VerifyKeys),
    /// Whatever whoever reaches the admin socket uploads. A signature that is given is checked all the same.
    Anything(Option<VerifyKeys>),
    /// No key is configured, so there is nothing to believe.
    Nothing,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    #[error(
        "the plugin is not signed; sign it (`latchkey plugin sign`) with a key of plugins.trusted_keys in the boot file"
    )]
    Unsigned,
    #[error(
        "no plugin is trusted: the boot file names no plugins.trusted_keys; make a key (`latchkey plugin keygen`) and name its .pub file there"
    )]
    NoKeys,
    #[error(transparent)]
    Signature(#[from] SignatureError),
}

impl Trust {
    pub fn check(&self, component_sha256: &[u8; 32], signature: Option<&Signature>) -> Result<(), TrustError> {
        match (self, signature) {
            (Self::Signed(keys) | Self::Anything(Some(keys)), Some(signature)) => {
                Ok(verify(component_sha256, signature, keys)?)
            }
            (Self::Anything(_), _) => Ok(()),
            (Self::Signed(_), None) => Err(TrustError::Unsigned),
            (Self::Nothing, _) => Err(TrustError::NoKeys),
        }
    }
}
