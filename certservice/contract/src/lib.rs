//! What the edge and CertService agree on.
//!
//! Flow: a [`hostname`] is registered, its private key is [`sealed`] to the edge's public keys, the [`bundle`] that
//! carries it is [`signed`] by CertService, and both sides find it under the same [`redis_keys`] or [`api`] path.
//!
//! This crate must never do I/O, spawn, log, or depend on tokio, Pingora, ACME or SQL.

pub mod admin;
pub mod api;
pub mod bundle;
#[cfg(feature = "document")]
pub mod document;
pub mod hostname;
pub mod journal;
pub mod plugin;
pub mod redis_keys;
#[cfg(feature = "rsa-key")]
pub mod rsa_key;
pub mod sealed;
pub mod signed;
pub mod tickets;
pub mod validity;

pub use bundle::{Bundle, Challenge, ChallengeKind, Second};
pub use hostname::Hostname;
pub use tickets::TicketKeys;
pub use validity::Validity;
