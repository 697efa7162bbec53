//! Seals private keys to the edges. Must never keep plaintext after return.

use contract::Hostname;
use contract::sealed::{Bound, Recipient, Sealed, seal};

use crate::issue::{Csr, Facts, Failure, PrivateKey, Then};

/// At once after it was made, before anything is asked of a CA: what is stored for the case of a crash.
pub fn before_issuance(key: &PrivateKey, csr: &Csr, domain: &Hostname, edges: &[Recipient]) -> Result<Sealed, Failure> {
    sealed(key, domain, Bound::PublicKey(csr.public_key_sha256()), edges)
}

/// The usual case: the certificate is known, and the key is bound to it.
pub fn to_certificate(
    key: &PrivateKey,
    facts: &Facts,
    domain: &Hostname,
    edges: &[Recipient],
) -> Result<Sealed, Failure> {
    sealed(key, domain, Bound::Certificate(facts.sha256), edges)
}

fn sealed(key: &PrivateKey, domain: &Hostname, bound: Bound, edges: &[Recipient]) -> Result<Sealed, Failure> {
    seal(key.pkcs8(), domain, bound, edges)
        .map_err(|error| Failure::ours(format!("sealing the key failed: {error}"), Then::Retry { after: 0 }))
}
