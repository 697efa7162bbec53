//! The keys of TLS session tickets (RFC 5077 section 4, RFC 8446 section 4.6.1), which all edges share: a visitor's session
//! is resumed on whichever edge he comes to.
//!
//! CertService makes each key, seals it to the edges and forgets it. Every edge has a key before its time comes, so none
//! meets a ticket under a key that it does not know, and clocks may differ.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::sealed::Sealed;
use crate::signed::Payload;

/// Most keys of one document: with 16 recipients of 4096 bits each, the largest that fits into a signed token.
pub const TICKET_KEYS_MAX: usize = 12;
/// Longest time that a session may be resumed, in seconds (RFC 8446 section 4.6.1).
pub const TICKET_LIFETIME_SECONDS_MAX: u32 = 7 * 24 * 3600;
/// What a key is derived from, in bytes.
pub const TICKET_SECRET_BYTES: usize = 32;

/// What a ticket calls the key that it is under (RFC 5077 section 4). Not secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyName(pub [u8; 16]);

/// What CertService signs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TicketKeys {
    /// Grows with each change; an edge never goes back to a lower one. About the time of the change in Unix seconds, so
    /// that it grows even if the database was lost.
    pub revision: u64,
    /// How long a session may be resumed, in seconds.
    pub lifetime_seconds: u32,
    pub keys: Vec<TicketKey>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TicketKey {
    pub name: KeyName,
    /// Unix seconds; new tickets are under the newest key whose time has come.
    pub encrypts_from: u64,
    /// Unix seconds.
    pub accepts_until: u64,
    pub secret: Sealed,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TicketKeysError {
    #[error("{0} ticket keys, 1 to {TICKET_KEYS_MAX} are accepted")]
    Number(usize),
    #[error("sessions of {0} s, 1 to {TICKET_LIFETIME_SECONDS_MAX} are accepted")]
    Lifetime(u32),
    #[error("two ticket keys have the same name")]
    SameName,
}

impl TicketKeys {
    pub fn check(&self) -> Result<(), TicketKeysError> {
        if !(1..=TICKET_KEYS_MAX).contains(&self.keys.len()) {
            return Err(TicketKeysError::Number(self.keys.len()));
        }
        if !(1..=TICKET_LIFETIME_SECONDS_MAX).contains(&self.lifetime_seconds) {
            return Err(TicketKeysError::Lifetime(self.lifetime_seconds));
        }
        let twice = |(at, key): (usize, &TicketKey)| self.keys[..at].iter().any(|other| other.name == key.name);
        if self.keys.iter().enumerate().any(twice) { Err(TicketKeysError::SameName) } else { Ok(()) }
    }

    /// Whether the next key is there already. Without it a newer document exists, or should.
    pub fn is_current(&self, now: u64) -> bool {
        self.keys.iter().any(|key| key.encrypts_from > now)
    }
}

impl Payload for TicketKeys {
    const TYPE: &'static str = "latchkey-ticket-keys+jws";
}

impl Serialize for KeyName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl<'de> Deserialize<'de> for KeyName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or_else(|| de::Error::custom("the name of a ticket key is 16 bytes in base64url"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: u8) -> TicketKey {
        let empty = String::new;
        let secret = Sealed {
            protected: empty(),
            recipients: vec![],
            aad: empty(),
            iv: empty(),
            ciphertext: empty(),
            tag: empty(),
        };
        TicketKey { name: KeyName([name; 16]), encrypts_from: 100 + u64::from(name), accepts_until: 900, secret }
    }

    fn keys(number: usize) -> TicketKeys {
        TicketKeys { revision: 1, lifetime_seconds: 60, keys: (0..number).map(|n| key(n as u8)).collect() }
    }

    #[test]
    fn keys_are_accepted_up_to_the_limits() {
        assert_eq!(keys(TICKET_KEYS_MAX).check(), Ok(()));
        for number in [0, TICKET_KEYS_MAX + 1] {
            assert_eq!(keys(number).check(), Err(TicketKeysError::Number(number)));
        }
        let lifetime = |lifetime_seconds| TicketKeys { lifetime_seconds, ..keys(1) }.check();
        assert_eq!(lifetime(TICKET_LIFETIME_SECONDS_MAX), Ok(()));
        for seconds in [0, TICKET_LIFETIME_SECONDS_MAX + 1] {
            assert_eq!(lifetime(seconds), Err(TicketKeysError::Lifetime(seconds)));
        }
        let twice = TicketKeys { keys: vec![key(1), key(2), key(1)], ..keys(1) };
        assert_eq!(twice.check(), Err(TicketKeysError::SameName));
    }

    #[test]
    fn a_document_is_current_while_the_next_key_is_in_it() {
        let keys = keys(3);
        assert_eq!((keys.is_current(101), keys.is_current(102)), (true, false));
    }

    #[test]
    fn a_name_is_sixteen_bytes() {
        let text = serde_json::to_string(&KeyName([7; 16])).unwrap();
        assert_eq!(serde_json::from_str::<KeyName>(&text).unwrap(), KeyName([7; 16]));
        for text in ["\"\"", "\"BwcH\"", "\"BwcHBwcHBwcHBwcHBwcHBwcH\"", "7", "\"*\""] {
            assert!(serde_json::from_str::<KeyName>(text).is_err(), "{text}");
        }
    }
}
