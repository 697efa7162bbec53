//! Seals private keys to the edges, and makes the keys of session tickets. Must never keep plaintext after return.

use contract::Hostname;
use contract::sealed::{Bound, Recipient, Sealed, seal, seal_ticket_key};
use contract::tickets::{KeyName, TICKET_SECRET_BYTES, TicketKey};
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use crate::issue::{Csr, Facts, Failure, PrivateKey, Then};
use crate::traces::wiped_away;

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
    wiped_away(|| seal(key.pkcs8(), domain, bound, edges))
        .map_err(|error| Failure::ours(format!("sealing the key failed: {error}"), Then::Retry { after: 0 }))
}

/// A new session ticket key that only the edges know: its secret is forgotten here.
pub fn new_ticket_key(encrypts_from: u64, accepts_until: u64, edges: &[Recipient]) -> Result<TicketKey, String> {
    let (mut name, mut secret) = ([0; 16], Zeroizing::new([0; TICKET_SECRET_BYTES]));
    let random = SystemRandom::new();
    let filled = random.fill(&mut name).and_then(|()| random.fill(secret.as_mut()));
    filled.map_err(|_| "the system's random number generator failed".to_owned())?;
    let name = KeyName(name);
    let secret = wiped_away(|| seal_ticket_key(&secret, &name, edges))
        .map_err(|error| format!("sealing a ticket key failed: {error}"))?;
    Ok(TicketKey { name, encrypts_from, accepts_until, secret })
}

#[cfg(test)]
mod tests {
    use contract::sealed::EdgeKey;

    use super::*;
    use crate::issue::{KeyKind, new_key};
    use crate::traces::tests::left_on_the_stack;

    #[test]
    fn sealing_leaves_nothing_on_the_stack() {
        let domain = Hostname::parse("shop.example").unwrap();
        let edge = Recipient::from_pem(&EdgeKey::generate(2048).unwrap().public_pem().unwrap()).unwrap();
        assert!(!left_on_the_stack(move || {
            let (key, csr) = new_key(&domain, KeyKind::EcdsaP256).unwrap();
            before_issuance(&key, &csr, &domain, &[edge]).unwrap();
            // A part of what was encrypted, block by block, that holds digits of the key.
            key.pkcs8()[36..48].to_vec()
        }));
    }
}
