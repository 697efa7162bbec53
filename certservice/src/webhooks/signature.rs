//! What tells a receiver that we sent it, and when.

use ring::hmac;

/// HMAC-SHA-256 of `<timestamp>.<body>`: an old one can't be sent again with a new time.
pub fn signature(secret: &str, timestamp: u64, body: &[u8]) -> String {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()));
    context.update(timestamp.to_string().as_bytes());
    context.update(b".");
    context.update(body);
    let tag = context.sign();
    format!("v1={}", tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checked with `printf '%s' '1800000000.{"seq":1}' | openssl dgst -sha256 -hmac a-secret-of-sixteen`.
    #[test]
    fn it_is_what_openssl_makes_of_it() {
        let made = signature("a-secret-of-sixteen", 1_800_000_000, br#"{"seq":1}"#);
        assert_eq!(made, "v1=36d828a01a9a0f1bedd1330ec1166876dc4a7f2e2a4620790a1f3a806677770d");
        assert_ne!(made, signature("a-secret-of-sixteen", 1_800_000_001, br#"{"seq":1}"#));
        assert_ne!(made, signature("another-secret-of-16", 1_800_000_000, br#"{"seq":1}"#));
    }
}
