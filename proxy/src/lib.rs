//! The edge. A connection flows through the rooms in this order; `control` swaps the snapshots that they read.
//!
//! ```text
//! accept ──> tls ──> http ──> wasm ──> upstream
//!              │ (on a miss)
//!              └──> supply (Redis, then CertService)
//! ```

pub mod config;

pub mod accept;
pub mod http;
pub mod tls;
pub mod upstream;
pub mod wasm;

pub mod connection;
pub mod control;
pub mod observe;
pub mod serve;
pub mod supply;
