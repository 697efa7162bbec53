//! TLS towards visitors: a certificate per SNI, from memory at once or after a bounded wait.
//!
//! Must never block, call the network outside `miss`, or serve a certificate whose names do not cover the SNI, but for
//! the default one where the operator wants it.

mod acme;
mod budget;
mod certificate;
mod chains;
mod choice;
mod ffi;
mod handshake;
mod health;
mod hello;
mod known;
mod miss;
mod pool;
mod renewals;
mod table;
mod tickets;
mod unfinished;
mod warm;

pub use certificate::{CertificateError, Opener, from_pem};
pub use choice::{Fallback, NamePolicy, Sources};
pub(crate) use ffi::unpad_oaep_sha256;
pub use handshake::{Terminator, Timeouts};
pub use health::{HEALTH, Standing, Unwell};
pub use known::Known;
pub use miss::{Miss, Misses};
pub use pool::Pool;
pub use renewals::Renewals;
pub use table::{Capacity, Size, Table, Tier};
pub use tickets::{NotTurned, Tickets};
pub use unfinished::Unfinished;
pub use warm::{Certificate, Warm};

#[cfg(test)]
mod memory_tests;
#[cfg(test)]
pub(crate) use certificate::tests as test_bundles;

/// Unix seconds.
pub(crate) fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
