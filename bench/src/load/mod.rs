pub mod client;
pub mod requests;
