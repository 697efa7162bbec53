pub mod client;
pub mod flood;
pub mod handshakes;
pub mod requests;
