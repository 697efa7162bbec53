//! What the HTTP APIs of CertService and of an edge stand on: the socket, who is at its other end, and the document that
//! describes an API from its table of routes. What is asked and who may ask it is theirs.
//!
//! Must never know a route, a role or a setting of either.

mod access; // tokens, client certificates, networks
mod listen; // Unix, TCP, TLS; deadlines
mod openapi; // table of routes → OpenAPI 3.1
mod patience; // answers that nobody reads
mod room; // how many connections at once
mod tls; // certificates, CAs, revocation lists, read again when they change

pub use access::{ClientCertificate, Identified, KnownBy, Networks, Peer, Presented, Token, Unidentified, identify};
pub use listen::{ClientFiles, Listen, Server, TlsFiles};
pub use openapi::{Info, PathInput, Roles, Route, openapi, route};
