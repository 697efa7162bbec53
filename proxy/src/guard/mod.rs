//! Between TLS and HTTP: bounds the time and the frames that a visitor may spend on one connection. Pingora frames HTTP
//! well but waits for ever; every byte passes here, so every wait can be ended here.
//!
//! Must never change a byte, know a host name, or hold up a connection that makes progress.

mod h2;
mod held;
mod limits;
mod progress;
mod refusal;
mod stream;
mod through;
mod timer;

#[cfg(test)]
pub(crate) use limits::test_limits;
pub use limits::{Exceeded, Limits};
pub use progress::{OpenRequest, Progress, Rest};
pub use refusal::{Flaw, Refusal, fault_id};
pub use stream::Guarded;
