//! `latchkey`, the operator's command: [`args`] say what to do, [`command`] does it through a [`client`] of
//! CertService's API or of a proxy's admin API. [`demo`] starts a whole fleet on loopback and walks through it.

pub mod args;
pub mod client;
pub mod command;
pub mod demo;
mod author;
mod failure;
mod hsts;
mod import;
pub mod pki;
mod when;

pub use failure::Failure;
