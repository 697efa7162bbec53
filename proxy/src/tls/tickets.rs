//! The keys of session tickets. Sessions live in tickets only, never in this process: any edge that has the key resumes
//! them (RFC 5077, RFC 8446 section 4.6.1). Keys that the fleet shares come from CertService; until they are there, and
//! if they ever run out, a key of this process takes their place.
//!
//! What a ticket is worth depends on what it was issued for: the key that protects it is derived from the ticket key, the
//! host name and the certificate's revision. For another name, or once the certificate was replaced, it does not open,
//! and the handshake is a full one.

use std::sync::Arc;

use arc_swap::ArcSwap;
use contract::TicketKeys;
use contract::sealed::{EdgeKey, OpenError, open_ticket_key};
use contract::tickets::{KeyName, TICKET_SECRET_BYTES, TicketKeysError};
use openssl::error::ErrorStack;
use openssl::md::Md;
use openssl::md_ctx::MdCtx;
use openssl::pkey::{PKey, Private};
use openssl::rand::rand_bytes;
use openssl::ssl::SslRef;
use zeroize::Zeroizing;

/// How long a session may be resumed while no keys are shared, in seconds.
const LOCAL_LIFETIME_SECONDS: u32 = 24 * 3600;
/// When a key of this process is replaced, in seconds.
const LOCAL_ROTATION_SECONDS: u64 = 12 * 3600;

const LOCAL_KEYS_MAX: usize = 4;

/// What the handshake asks for its tickets.
pub(super) trait Protects: Send + Sync {
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
pub(super) struct TicketKey {
    pub(super) name: KeyName,
    secret: PKey<Private>,
    /// Unix seconds.
    encrypts_from: u64,
    /// Unix seconds.
    accepts_until: u64,
}

impl TicketKey {
    fn new(
        name: KeyName,
        secret: &[u8; TICKET_SECRET_BYTES],
        encrypts_from: u64,
        accepts_until: u64,
    ) -> Result<Self, ErrorStack> {
        Ok(Self { name, secret: PKey::hmac(secret)?, encrypts_from, accepts_until })
    }

    fn random(now: u64) -> Result<Self, ErrorStack> {
        let (mut name, mut secret) = ([0; 16], Zeroizing::new([0; TICKET_SECRET_BYTES]));
        rand_bytes(&mut name)?;
        rand_bytes(secret.as_mut())?;
        let accepts_until = now + LOCAL_ROTATION_SECONDS + u64::from(LOCAL_LIFETIME_SECONDS);
        Self::new(KeyName(name), &secret, now, accepts_until)
    }

    fn is(&self, sealed: &contract::tickets::TicketKey) -> bool {
        (self.name, self.encrypts_from, self.accepts_until) == (sealed.name, sealed.encrypts_from, sealed.accepts_until)
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

/// Why a document is not put in force. What was in force stays.
#[derive(Debug, thiserror::Error)]
pub enum NotTurned {
    #[error("revision {0} is older than {1}, which is in force")]
    RolledBack(u64, u64),
    #[error(transparent)]
    Malformed(#[from] TicketKeysError),
    #[error(transparent)]
    Sealed(#[from] OpenError),
    #[error("OpenSSL: {0}")]
    Internal(#[from] ErrorStack),
}

impl NotTurned {
    /// Label of the counter.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::RolledBack(..) => "rolled_back",
            Self::Malformed(_) => "malformed",
            Self::Sealed(_) => "key_does_not_open",
            Self::Internal(_) => "internal",
        }
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

    /// Puts the fleet's keys in force, those of them that this edge can open. Tickets under this process' own keys stay
    /// good. True if they are newer than what was in force. Takes about 1 ms of CPU for each key that is new: belongs on
    /// a blocking thread.
    pub fn turn(&self, keys: &TicketKeys, edge: &EdgeKey) -> Result<bool, NotTurned> {
        let current = self.ring.load();
        if keys.revision < current.revision {
            return Err(NotTurned::RolledBack(keys.revision, current.revision));
        }
        if keys.revision == current.revision {
            return Ok(false);
        }
        keys.check()?;
        let mut shared = Vec::new();
        for key in &keys.keys {
            if let Some(known) = current.shared.iter().find(|known| known.is(key)) {
                shared.push(known.clone());
                continue;
            }
            match open_ticket_key(&key.secret, edge, &key.name) {
                Ok(secret) => {
                    let key = TicketKey::new(key.name, &secret, key.encrypts_from, key.accepts_until)?;
                    shared.push(Arc::new(key));
                }
                // Made before this edge was known to CertService.
                Err(OpenError::NotForUs(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.share(keys.revision, keys.lifetime_seconds, shared);
        Ok(true)
    }

    fn share(&self, revision: u64, lifetime_seconds: u32, mut shared: Vec<Arc<TicketKey>>) {
        shared.sort_by_key(|key| std::cmp::Reverse(key.encrypts_from));
        self.ring.rcu(|ring| Ring { revision, lifetime_seconds, shared: shared.clone(), ..Ring::clone(ring) });
    }

    /// Of the fleet's keys in force; 0 while there are none.
    pub fn revision(&self) -> u64 {
        self.ring.load().revision
    }

    /// The fleet's keys that open tickets now.
    pub fn shared_keys(&self, now: u64) -> usize {
        self.ring.load().shared.iter().filter(|key| now < key.accepts_until).count()
    }

    /// When the next of the fleet's keys begins; none if it is not known yet, though it should be.
    pub fn next_from(&self, now: u64) -> Option<u64> {
        self.ring.load().shared.iter().map(|key| key.encrypts_from).filter(|from| *from > now).min()
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
#[path = "tickets_tests.rs"]
mod tests;
