//! Starts real processes on free loopback ports, each with a data folder of its own, and ends them on drop.
//!
//! Below: [`process`] and what it stands on. Above it the fleet's own parts ([`certservice`], [`edge`], and both wired: [`fleet`]), then what they
//! talk to ([`upstream`], [`redis`], [`mariadb`], [`meddler`], [`pebble`], [`haproxy`], each with certificates of an [`authority`] of its own), then who talks to them ([`visitor`], [`api`]).

mod error;
pub mod folder;
pub mod port;
pub mod process;
pub mod program;
pub mod wait;

pub mod certservice;
pub mod edge;
pub mod fleet;

pub mod authority;
pub mod haproxy;
pub mod mariadb;
pub mod meddler;
pub mod pebble;
pub mod redis;
pub mod upstream;

pub mod api;
pub mod http1;
pub mod proxy_header;
pub mod visitor;

pub use error::{Context, Error, Result, fail};

#[cfg(test)]
mod tests;
