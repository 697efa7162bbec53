//! Answers to http-01 challenges (RFC 8555 section 8.3), for any order of any CertService instance.

use contract::Hostname;
use pingora::Result;
use pingora::proxy::Session;
use tokio::sync::Semaphore;

use super::ctx::Ctx;
use super::local;
use crate::supply::{Supply, SupplyError};

const PREFIX: &str = "/.well-known/acme-challenge/";
/// RFC 8555 section 8.1: base64url with at least 128 bits of entropy; CAs use 43 characters.
const TOKEN_LENGTHS: std::ops::RangeInclusive<usize> = 16..=128;
/// Look-ups at once: a CA asks seldom, a scanner may ask often.
const LOOKUPS_MAX: usize = 64;

static LOOKUPS: Semaphore = Semaphore::const_new(LOOKUPS_MAX);

/// The token that a path asks for; `None` for any other path.
pub(super) fn token(path: &str) -> Option<&str> {
    path.strip_prefix(PREFIX)
}

pub(super) async fn answer(
    session: &mut Session,
    ctx: &mut Ctx,
    supply: &Supply,
    host: &Hostname,
    token: &str,
) -> Result<()> {
    let base64url = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    let found = match LOOKUPS.try_acquire() {
        _ if !TOKEN_LENGTHS.contains(&token.len()) || !token.bytes().all(base64url) => Err(SupplyError::Unknown),
        Err(_) => Err(SupplyError::Unavailable(format!("{LOOKUPS_MAX} challenges are being looked up already"))),
        Ok(_permit) => supply.challenge(host, token).await,
    };
    let (status, body) = match found {
        Ok(challenge) => (200, challenge.key_authorization),
        Err(SupplyError::Unavailable(why)) => {
            tracing::warn!(%host, "challenge could not be looked up: {why}");
            (503, "The answer to this challenge can't be looked up now.\n".into())
        }
        Err(_) => (404, "No challenge of this name is open.\n".into()),
    };
    local::text(session, ctx, local::CHALLENGE, status, body).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_well_known_path_is_a_challenge() {
        assert_eq!(token("/.well-known/acme-challenge/abc"), Some("abc"));
        assert_eq!(token("/.well-known/acme-challenge/a/b"), Some("a/b"));
        assert_eq!(token("/x/.well-known/acme-challenge/abc"), None);
        assert_eq!(token("/.well-known/acme-challenge"), None);
    }
}
