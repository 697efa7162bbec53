//! CertService: domains in, sealed certificates out. The rooms stand in flow order; each says what it must never do.

pub mod config;

pub mod admin;
pub mod intake;
pub mod order;
pub mod budget;

pub mod precheck;
pub mod challenge;
pub mod dns;
pub mod issue;
pub mod seal;
pub mod keys;
pub mod store;

pub mod notify;
pub mod webhooks;
pub mod renew;
pub mod tickets;

pub mod doctor;
pub mod backup;
pub mod clock;
pub mod observe;
mod https;
mod instance;
mod secret_file;
mod traces;
pub mod service;
