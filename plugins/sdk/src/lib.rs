//! Write a Latchkey plugin in Rust: a type, a trait, one line to export it.
//!
//! A plugin is a *policy*: a value that is made once from a configuration and then asked many times. Implement
//! [`http::HttpPolicy`] or [`connection::ConnectionPolicy`] for a serde type, and export it with [`export_http!`] or
//! [`export_connection!`]; a [`body::BodyPolicy`] sees bodies too, and is exported with [`export_http_body!`]. `plan` reads the configuration with [`config`], which collects everything that is wrong, and
//! returns the policy; the proxy keeps its compact form and rebuilds the value wherever it needs one.
//!
//! The same crate compiles natively, so that `cargo test` tests a policy as the plain Rust that it is.

#[doc(hidden)]
pub mod bindings;
pub mod body;
pub mod callout;
pub mod config;
pub mod connection;
pub mod datasets;
#[doc(hidden)]
pub mod glue;
pub mod http;
pub mod log;
pub mod rates;
pub mod rules;

/// What a plugin says of itself.
pub struct Manifest {
    /// Lower-case letters, digits and hyphens.
    pub name: &'static str,
    pub version: &'static str,
    /// JSON Schema of the configuration.
    pub config_schema: &'static str,
    /// Whether traffic may pass without the plugin when it fails.
    pub fail_open_safe: bool,
}

/// The README's example is compiled with the tests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
