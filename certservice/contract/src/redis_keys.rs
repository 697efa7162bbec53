//! Where both sides look in Redis. Values are [`crate::signed`] tokens: Redis is a cache that may be stolen or tampered with.

use crate::Hostname;

/// The signed bundle of a domain; expires with its certificate.
pub fn bundle(domain: &Hostname) -> String {
    format!("latchkey:bundle:{domain}")
}

/// The signed answer to an http-01 challenge (RFC 8555 section 8.3); expires with its order.
pub fn challenge(domain: &Hostname, token: &str) -> String {
    format!("latchkey:challenge:{domain}:{token}")
}

/// The signed answer to a tls-alpn-01 challenge (RFC 8737): who looks knows the domain only.
pub fn tls_challenge(domain: &Hostname) -> String {
    format!("latchkey:tls-challenge:{domain}")
}

/// The signed keys of session tickets ([`crate::TicketKeys`]).
pub const TICKET_KEYS: &str = "latchkey:ticket-keys";

/// Pub/sub channel on which CertService says that there are changes. The message is empty of meaning: it is a hint to ask
/// `GET /v1/changes` now instead of at the next poll.
pub const CHANGES_CHANNEL: &str = "latchkey:changes";
