//! RSA keys of certificates for clients without ECDSA, made on CertService with OpenSSL: `ring` makes none, and the `rsa`
//! crate is kept away from private keys (RUSTSEC-2023-0071).

use zeroize::Zeroizing;

/// Size in bits: what such clients take, and what CAs issue for. Larger ones make handshakes several times as costly.
pub const RSA_BITS: u32 = 2048;

#[derive(Debug, thiserror::Error)]
#[error("OpenSSL made no RSA key of {RSA_BITS} bits")]
pub struct RsaKeyError;

/// A fresh key: PKCS #8 in DER. Takes tens of milliseconds of CPU: belongs on a blocking thread.
pub fn new_rsa_key() -> Result<Zeroizing<Vec<u8>>, RsaKeyError> {
    let key = openssl::rsa::Rsa::generate(RSA_BITS).and_then(openssl::pkey::PKey::from_rsa);
    key.and_then(|key| key.private_key_to_pkcs8()).map(Zeroizing::new).map_err(|_| RsaKeyError)
}

/// The `kid` of the edge key whose private half stands in this text, where there is one that can be read without a password.
#[cfg(feature = "seal")]
pub fn edge_key_in(text: &str) -> Option<String> {
    let blocks = text.match_indices("-----BEGIN ").map(|(at, _)| &text[at..]);
    // One with a password would be asked for on the terminal.
    let blocks = blocks.filter(|block| {
        let (label, body) = block["-----BEGIN ".len()..].split_once("-----").unwrap_or_default();
        let encrypted =
            label.contains("ENCRYPTED") || body.split("-----END").next().unwrap_or_default().contains("ENCRYPTED");
        label.ends_with("PRIVATE KEY") && !encrypted
    });
    blocks.into_iter().find_map(|block| {
        let key = openssl::pkey::PKey::private_key_from_pem(block.as_bytes()).ok()?.rsa().ok()?;
        Some(crate::sealed::rsa_thumbprint(&key.n().to_vec(), &key.e().to_vec()))
    })
}
