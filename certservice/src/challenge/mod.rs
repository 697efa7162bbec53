//! Answers to http-01 and tls-alpn-01 challenges, for any edge that is asked by the CA. Must never hand out an answer that is over.

use std::hash::{BuildHasher, RandomState};

use contract::{Challenge, ChallengeKind, Hostname};

use crate::notify::Notify;
use crate::store::{Store, StoreError};

/// Longest token that is looked up. RFC 8555 section 8.1 asks for 128 bits in base64url at least and has no upper bound.
pub const TOKEN_BYTES_MAX: usize = 256;

/// Tokens of our own look at the challenge path begin with it. No CA's does: base64url of random bytes, 22 at least.
const SELF_CHECK: &str = "latchkey-check-";
/// A look is over long before.
const SELF_CHECK_SECONDS: u64 = 600;

/// What our edge answers to our own look: known to whoever has our key ID, which is no secret, so it proves to
/// nobody but us that the path leads here. Not stored: the time of its making is part of the token.
pub fn self_check(domain: &Hostname, kid: &str, now: u64) -> Challenge {
    let random = RandomState::new().hash_one(domain.as_str());
    self_answer(domain, format!("{SELF_CHECK}{now:x}-{random:016x}"), kid, now)
}

fn self_answer(domain: &Hostname, token: String, kid: &str, made_at: u64) -> Challenge {
    let key_authorization = format!("{token}.{kid}");
    let (kind, expires_at) = (ChallengeKind::Http01, made_at + SELF_CHECK_SECONDS);
    Challenge { domain: domain.clone(), token, kind, key_authorization, expires_at }
}

/// The answer to a look of our own that is under way.
pub fn find_self_check(domain: &Hostname, token: &str, kid: &str, now: u64) -> Option<Challenge> {
    let (made_at, random) = token.strip_prefix(SELF_CHECK)?.split_once('-')?;
    let made_at = u64::from_str_radix(made_at, 16).ok().filter(|made_at| *made_at <= now + SELF_CHECK_SECONDS)?;
    let is_random = random.len() == 16 && random.bytes().all(|b| b.is_ascii_hexdigit());
    let answer = is_random.then(|| self_answer(domain, token.to_owned(), kid, made_at))?;
    (answer.expires_at > now).then_some(answer)
}

fn asked_of_edges(answers: &[Challenge]) -> impl Iterator<Item = &Challenge> {
    answers.iter().filter(|answer| answer.kind != ChallengeKind::Dns01)
}

/// Puts the answers where every edge looks first. Without it they ask CertService and find the same.
pub async fn publish(answers: &[Challenge], notify: &Notify, now: u64) {
    for answer in asked_of_edges(answers) {
        notify.challenge(answer, now).await;
    }
}

pub async fn withdraw(answers: &[Challenge], notify: &Notify) {
    for answer in asked_of_edges(answers) {
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

/// The answer to a tls-alpn-01 challenge, of which a domain has one at a time.
pub async fn find_tls(store: &Store, domain: &Hostname, now: u64) -> Result<Option<Challenge>, StoreError> {
    let answers = store.job_answers(domain).await?;
    let open = |answer: &Challenge| answer.kind == ChallengeKind::TlsAlpn01 && answer.expires_at > now;
    Ok(answers.into_iter().find(open))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_look_is_answered_while_it_lasts() {
        let (domain, now) = (Hostname::parse("shop.example").unwrap(), 1_800_000_000);
        let answer = self_check(&domain, "kid", now);
        assert_ne!(answer.token, self_check(&domain, "kid", now).token);
        // What an edge accepts as a token.
        assert!((16..=128).contains(&answer.token.len()));
        let found = |token: &str, now| find_self_check(&domain, token, "kid", now);
        assert_eq!(found(&answer.token, now + SELF_CHECK_SECONDS - 1), Some(answer.clone()));
        assert_eq!(found(&answer.token, now + SELF_CHECK_SECONDS), None);
        assert_eq!(found(&answer.token, now - SELF_CHECK_SECONDS - 1), None);
        for token in ["", "latchkey-check-", "latchkey-check-x-0123456789abcdef", "latchkey-check-6b49d200-short"] {
            assert_eq!(found(token, now), None, "{token}");
        }
    }
}
