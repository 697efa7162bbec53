//! The edge. A connection flows through the rooms in this order; `control` swaps the snapshots that they read.
//!
//! ```text
//! accept ──> tls ──> guard ──> http ──> wasm ──> upstream
//!              │ (on a miss)
//!              └──> supply (disk, Redis, then CertService)
//! ```

pub mod config;
pub mod connection;
mod files;

pub mod accept;
pub mod tls;
pub mod guard;
pub mod http;
pub mod wasm;
pub mod upstream;

pub mod supply;
pub mod token;
pub mod control;
pub mod observe;
mod workers;
pub mod serve;
mod life;
pub mod handover;
pub mod workshop;
pub mod rewrap;
