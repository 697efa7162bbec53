//! HTTP phases: which host, which site, what its plugins say, and what the upstream is told.
//!
//! Must never hold logic in the implementation of Pingora's trait, name wasmtime, or do I/O other than through `wasm`,
//! `upstream` and `supply`.

mod access;
mod app;
mod arrival;
mod bodies;
mod challenge;
mod ctx;
mod edits;
mod fault;
mod forward;
mod host;
mod limits;
mod local;
mod phases;
mod plugins;
mod preview;
mod route;
mod target;
mod waiting;

pub use app::App;
pub use phases::Edge;
pub use plugins::Attached;
pub use preview::preview;
pub use route::{Pattern, Routes, Site};
