//! CertService as it runs: the real binary on a socket, real CAs, real crashes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub)]

mod access;
mod apart;
mod backups;
mod changes;
mod ca;
mod crash;
mod databases;
mod doctor;
mod dns01;
mod edge;
mod events;
mod http;
mod imports;
mod internal;
mod issuers;
mod keys;
mod kills;
mod openapi;
mod own;
mod pebble;
mod profiles;
mod precheck;
mod process;
mod redis;
mod renewal;
mod renews;
mod scripted;
mod scripts;
mod visits;
