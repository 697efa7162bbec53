//! Answers to http-01 challenges, for any edge that is asked by the CA. Must never hand out an answer that is over.

use contract::{Challenge, Hostname};

use crate::notify::Notify;
use crate::store::{Store, StoreError};

/// Longest token that is looked up. RFC 8555 section 8.1 asks for 128 bits in base64url at least and has no upper bound.
pub const TOKEN_BYTES_MAX: usize = 256;

/// Puts the answers where every edge looks first. Without it they ask CertService and find the same.
pub async fn publish(answers: &[Challenge], notify: &Notify, now: u64) {
    for answer in answers {
        notify.challenge(answer, now).await;
    }
}

pub async fn withdraw(answers: &[Challenge], notify: &Notify) {
    for answer in answers {
        notify.challenge_over(answer).await;
    }
}

pub async fn find(store: &Store, domain: &Hostname, token: &str, now: u64) -> Result<Option<Challenge>, StoreError> {
    if token.len() > TOKEN_BYTES_MAX || !token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
        return Ok(None);
    }
    let found = store.challenge(domain, token).await?;
    Ok(found.filter(|challenge| challenge.expires_at > now))
}
