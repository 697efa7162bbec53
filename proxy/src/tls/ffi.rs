//! The one room where `unsafe` is allowed: what OpenSSL can do and its Rust binding does not offer.

#![allow(unsafe_code)]

use openssl::ssl::SslRef;
use pingora::protocols::tls::SslStream;
use pingora::tls::ext;

/// Lets a suspended handshake be changed before it goes on.
pub(super) fn with_ssl<S, T>(stream: &mut SslStream<S>, change: impl FnOnce(&mut SslRef) -> T) -> T {
    // SAFETY: `SslStream` owns the SSL object and offers it by `&self` only. The exclusive borrow of the stream, held
    // until `change` returns, makes this the only reference to it; nothing in `change` can reach the stream.
    let ssl = unsafe { ext::ssl_mut(stream.ssl()) };
    change(ssl)
}
