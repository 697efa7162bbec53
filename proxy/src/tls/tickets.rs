//! The keys of session tickets. Sessions live in tickets only, never in this process: any edge that has the key resumes
//! them (RFC 5077, RFC 8446 section 4.6.1). Keys that the fleet shares come from CertService; until they are there, and
//! if they ever run out, a key of this process takes their place.
//!
//! What a ticket is worth depends on what it was issued for: the key that protects it is derived from the ticket key, the
//! host name and the certificate's revision. For another name, or once the certificate was replaced, it does not open,
//! and the handshake is a full one.

use std::sync::Arc;

use arc_swap::ArcSwap;
use openssl::error::ErrorStack;
use openssl::md::Md;
use openssl::md_ctx::MdCtx;
use openssl::pkey::{PKey, Private};
use openssl::rand::rand_bytes;
use openssl::ssl::SslRef;
use zeroize::Zeroizing;

pub(super) const KEY_NAME_BYTES: usize = 16;
pub(super) const SECRET_BYTES: usize = 32;
/// How long a session may be resumed while no keys are shared, in seconds.
const LOCAL_LIFETIME_SECONDS: u32 = 24 * 3600;
/// When a key of this process is replaced, in seconds.
const LOCAL_ROTATION_SECONDS: u64 = 12 * 3600;

const LOCAL_KEYS_MAX: usize = 4;

/// How OpenSSL is told which key to take.
pub(super) type KeyName = [u8; KEY_NAME_BYTES];

/// What the handshake asks for its tickets.
pub(super) trait TicketKeys: Send + Sync {
    /// For a new ticket; none if there is to be no ticket.
    fn protect(&self, ssl: &SslRef) -> Option<(KeyName, Protection)>;
    /// For a ticket that a client presents, and whether it gets a new one; none for a full handshake.
    fn open(&self, ssl: &SslRef, name: &KeyName) -> Option<(Protection, bool)>;
}

/// Two keys, for AES-256-CBC and for HMAC-SHA-256. Wiped when dropped.
pub(super) struct Protection(Zeroizing<[u8; 64]>);

impl Protection {
    pub(super) fn cipher_key(&self) -> &[u8] {
        &self.0[..32]
    }

    pub(super) fn mac_key(&self) -> &[u8] {
        &self.0[32..]
    }
}

/// A ticket key and when it is good for what. Shows no secret: OpenSSL holds it, and wipes it.
#[derive(Clone)]
pub struct TicketKey {
    pub(super) name: KeyName,
    secret: PKey<Private>,
    /// Unix seconds.
    encrypts_from: u64,
    /// Unix seconds.
    accepts_until: u64,
}

impl TicketKey {
    pub fn new(
        name: KeyName,
        secret: &[u8; SECRET_BYTES],
        encrypts_from: u64,
        accepts_until: u64,
    ) -> Result<Self, ErrorStack> {
        Ok(Self { name, secret: PKey::hmac(secret)?, encrypts_from, accepts_until })
    }

    fn random(now: u64) -> Result<Self, ErrorStack> {
        let (mut name, mut secret) = ([0; KEY_NAME_BYTES], Zeroizing::new([0; SECRET_BYTES]));
        rand_bytes(&mut name)?;
        rand_bytes(secret.as_mut())?;
        let accepts_until = now + LOCAL_ROTATION_SECONDS + u64::from(LOCAL_LIFETIME_SECONDS);
        Self::new(name, &secret, now, accepts_until)
    }

    /// HMAC-SHA-512 of what the ticket is for: 256 bits for each of the two keys.
    pub(super) fn protection(&self, purpose: &[u8]) -> Result<Protection, ErrorStack> {
        let mut out = Zeroizing::new([0; 64]);
        let mut context = MdCtx::new()?;
        context.digest_sign_init(Some(Md::sha512()), &self.secret)?;
        context.digest_sign(purpose, Some(out.as_mut()))?;
        Ok(Protection(out))
    }
}

impl std::fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TicketKey").field("encrypts_from", &self.encrypts_from).finish_non_exhaustive()
    }
}

/// What is known of a key that a ticket names.
#[derive(Debug)]
pub(super) enum Found {
    Current(Arc<TicketKey>),
    /// Still accepted; a newer one encrypts.
    Older(Arc<TicketKey>),
    Expired,
    Unknown,
}

pub struct Tickets {
    ring: ArcSwap<Ring>,
}

#[derive(Clone, Default)]
struct Ring {
    /// Of the fleet's keys; 0 while there are none.
    revision: u64,
    lifetime_seconds: u32,
    /// The fleet's, the one that encrypts last at first.
    shared: Vec<Arc<TicketKey>>,
    /// This process', the newest first.
    local: Vec<Arc<TicketKey>>,
}

impl Tickets {
    pub fn new(now: u64) -> Result<Self, ErrorStack> {
        let local = vec![Arc::new(TicketKey::random(now)?)];
        let ring = Ring { local, lifetime_seconds: LOCAL_LIFETIME_SECONDS, ..Ring::default() };
        Ok(Self { ring: ArcSwap::from_pointee(ring) })
    }

    /// Puts the fleet's keys in force. Tickets under this process' own keys stay good.
    pub fn share(&self, revision: u64, lifetime_seconds: u32, keys: Vec<TicketKey>) {
        let mut shared: Vec<_> = keys.into_iter().map(Arc::new).collect();
        shared.sort_by_key(|key| std::cmp::Reverse(key.encrypts_from));
        self.ring.rcu(|ring| Ring { revision, lifetime_seconds, shared: shared.clone(), ..Ring::clone(ring) });
    }

    /// Of the fleet's keys in force; 0 while there are none.
    pub fn revision(&self) -> u64 {
        self.ring.load().revision
    }

    /// The fleet's key of this name, so that it need not be opened again.
    pub fn shared_key(&self, name: &KeyName) -> Option<TicketKey> {
        self.ring.load().shared.iter().find(|key| key.name == *name).map(|key| TicketKey::clone(key))
    }

    /// Replaces this process' own key when it is due, and drops those that open nothing any more.
    pub fn renew_local(&self, now: u64) -> Result<(), ErrorStack> {
        let due = |ring: &Ring| {
            let made = ring.local.first().map_or(0, |key| key.encrypts_from);
            // Also if the clock was put back.
            now >= made + LOCAL_ROTATION_SECONDS || now + LOCAL_ROTATION_SECONDS < made
        };
        if !due(&self.ring.load()) {
            return Ok(());
        }
        let new = Arc::new(TicketKey::random(now)?);
        self.ring.rcu(|ring| {
            let kept = ring.local.iter().filter(|key| now < key.accepts_until).take(LOCAL_KEYS_MAX - 1);
            Ring { local: std::iter::once(&new).chain(kept).cloned().collect(), ..Ring::clone(ring) }
        });
        Ok(())
    }

    pub(super) fn encrypting(&self, now: u64) -> Option<Arc<TicketKey>> {
        self.ring.load().encrypting(now).cloned()
    }

    pub(super) fn find(&self, name: &KeyName, now: u64) -> Found {
        self.ring.load().find(name, now)
    }

    /// How long a new session may be resumed.
    pub(super) fn lifetime_seconds(&self) -> u32 {
        self.ring.load().lifetime_seconds
    }
}

impl Ring {
    /// The fleet's newest key whose time has come, else this process'. Every edge has the fleet's keys before it: with
    /// clocks that differ, one edge encrypts with a key earlier than another, which can open it all the same.
    fn encrypting(&self, now: u64) -> Option<&Arc<TicketKey>> {
        let shared = self.shared.iter().find(|key| key.encrypts_from <= now && now < key.accepts_until);
        shared.or_else(|| self.local.first())
    }

    fn find(&self, name: &KeyName, now: u64) -> Found {
        match self.shared.iter().chain(&self.local).find(|key| key.name == *name) {
            None => Found::Unknown,
            Some(key) if key.accepts_until <= now => Found::Expired,
            Some(key) if self.encrypting(now).is_some_and(|current| Arc::ptr_eq(current, key)) => {
                Found::Current(key.clone())
            }
            Some(key) => Found::Older(key.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3600;
    const START: u64 = 1_800_000_000;

    fn key(number: u8) -> TicketKey {
        let from = START + u64::from(number) * 12 * HOUR;
        TicketKey::new([number; 16], &[number; 32], from, from + 36 * HOUR).unwrap()
    }

    fn shared(numbers: impl IntoIterator<Item = u8>) -> Tickets {
        let tickets = Tickets::new(START).unwrap();
        tickets.share(7, 24 * 3600, numbers.into_iter().map(key).collect());
        tickets
    }

    fn encrypts(tickets: &Tickets, now: u64) -> KeyName {
        tickets.encrypting(now).unwrap().name
    }

    #[test]
    fn the_newest_key_whose_time_has_come_encrypts() {
        let tickets = shared([1, 3, 2]);
        let at = |hour: u64| encrypts(&tickets, START + hour * HOUR);
        assert_eq!((at(12), at(23), at(24), at(36), at(60)), ([1; 16], [1; 16], [2; 16], [3; 16], [3; 16]));
    }

    #[test]
    fn a_key_is_accepted_from_before_its_time_until_it_ends() {
        let tickets = shared([1, 2]);
        let found = |number: u8, hour: u64| tickets.find(&[number; 16], START + hour * HOUR);
        assert!(matches!(found(1, 12), Found::Current(_)));
        // Of an edge whose clock is ahead.
        assert!(matches!(found(2, 23), Found::Older(_)));
        assert!(matches!((found(2, 24), found(1, 24)), (Found::Current(_), Found::Older(_))));
        assert!(matches!(found(1, 47), Found::Older(_)));
        assert!(matches!(found(1, 48), Found::Expired));
        assert!(matches!(found(9, 12), Found::Unknown));
    }

    #[test]
    fn own_keys_stand_in_before_the_first_shared_one_and_after_the_last() {
        let tickets = Tickets::new(START).unwrap();
        let own = encrypts(&tickets, START);
        assert_eq!(tickets.lifetime_seconds(), 24 * 3600);
        tickets.share(7, 600, vec![key(1)]);
        assert_eq!((tickets.revision(), tickets.lifetime_seconds()), (7, 600));
        assert_eq!(encrypts(&tickets, START), own);
        assert_eq!(encrypts(&tickets, START + 12 * HOUR), [1; 16]);
        assert!(matches!(tickets.find(&own, START + 12 * HOUR), Found::Older(_)));
        assert_eq!(encrypts(&tickets, START + 48 * HOUR), own);
    }

    #[test]
    fn own_keys_are_replaced_and_their_number_is_bounded() {
        let tickets = Tickets::new(START).unwrap();
        let first = encrypts(&tickets, START);
        tickets.renew_local(START + 11 * HOUR).unwrap();
        assert_eq!(encrypts(&tickets, START), first);
        tickets.renew_local(START + 12 * HOUR).unwrap();
        assert_ne!(encrypts(&tickets, START), first);
        assert!(matches!(tickets.find(&first, START + 12 * HOUR), Found::Older(_)));
        (2..100).for_each(|turn| tickets.renew_local(START + turn * 12 * HOUR).unwrap());
        assert!(matches!(tickets.find(&first, START), Found::Unknown));
        assert!(tickets.ring.load().local.len() <= LOCAL_KEYS_MAX);
        // A clock that was far ahead and is put right.
        tickets.renew_local(START).unwrap();
        assert_eq!(tickets.encrypting(START).unwrap().encrypts_from, START);
    }

    #[test]
    fn protection_depends_on_key_and_purpose() {
        let protection = |number: u8, purpose: &[u8]| key(number).protection(purpose).unwrap().0.to_vec();
        let one = protection(1, b"a.example 1");
        assert_eq!(one, protection(1, b"a.example 1"));
        for other in [protection(2, b"a.example 1"), protection(1, b"b.example 1"), protection(1, b"a.example 2")] {
            assert_ne!(one, other);
        }
        assert_ne!(one[..32], one[32..]);
    }

    #[test]
    fn debug_shows_no_secret() {
        assert_eq!(format!("{:?}", key(0)), "TicketKey { encrypts_from: 1800000000, .. }");
    }
}
