//! The customer's server: where it is and how it is spoken to.
//!
//! TLS is verified, always: chain and name. Connections are pooled by Pingora per address, name and upstream.

mod peer;

pub use peer::{Upstream, UpstreamError, UpstreamSettings};
