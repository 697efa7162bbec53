//! Edges wrap bundles for further edge keys. CertService can't tell whether an entry is right, so it takes none without a
//! proof of a key that opens the bundle, puts it beside the others, and counts on it only when the edge that it is for has
//! opened it.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use contract::Bundle;
use contract::api::{REWRAP_MAX, RewrapOutcome, RewrapRefusal, Rewrapped, RewrappedBundle};
use contract::bundle::sha256;
use contract::sealed::{RECIPIENTS_MAX, Recipient, SealError, Sealed, SealedRecipient};
use ring::hmac;

use super::{KeySet, Keys, hex};
use crate::store::{Rekeyed, StoreError};

/// A challenge is good in the hour in which it was made, and in the next.
const PROOF_SECONDS: u64 = 3600;

#[derive(Debug, thiserror::Error)]
pub enum RewrapError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0} is no active edge key; `latchkey keys ls` names them, `latchkey keys add` adds one")]
    Unknown(String),
    #[error("the proof does not fit key {0} and this body: the edge has not that key, or its challenge is too old")]
    Proof(String),
    #[error("{0} bundles, at most {REWRAP_MAX} are taken at once")]
    TooMany(usize),
    #[error("the challenge can't be sealed: {0}")]
    Seal(#[from] SealError),
}

/// Bundles that want something of an edge.
pub struct Offered {
    /// With the version of each.
    pub bundles: Vec<(Bundle, String)>,
    pub next: Option<String>,
    pub challenge: String,
}

/// What is to become of a bundle.
struct Changed {
    bundle: Bundle,
    set: KeySet,
    what: What,
}

#[derive(Default, Clone, Copy)]
struct What {
    rewrapped: bool,
    confirmed: bool,
    removed: bool,
}

impl Keys {
    /// Bundles that key `kid` is to be tried on, or that it opens and one of `to` does not.
    pub async fn offer(
        &self,
        kid: &str,
        to: &[&str],
        after: &str,
        limit: usize,
        now: u64,
    ) -> Result<Offered, RewrapError> {
        let active = self.active().await?;
        let ours = of(&active, kid)?;
        to.iter().try_for_each(|kid| of(&active, kid).map(drop))?;
        let mut bundles = Vec::new();
        for set in self.store.key_sets().await? {
            let wanting = set.has(kid) && (!set.opens(kid) || to.iter().any(|to| !set.has(to)));
            if wanting {
                bundles.extend(self.store.bundles_of_set(&set, after, limit + 1).await?);
            }
        }
        bundles.sort_by(|a, b| a.bundle.domain.cmp(&b.bundle.domain));
        let more = bundles.len() > limit;
        bundles.truncate(limit);
        let next = bundles.last().filter(|_| more).map(|last| last.bundle.domain.to_string());
        let bundles = bundles.into_iter().map(|stored| (stored.bundle, version(&stored.body))).collect();
        Ok(Offered { bundles, next, challenge: ours.wrap(&self.secret(kid, now / PROOF_SECONDS))? })
    }

    /// Whether `body` comes from who has key `kid`.
    pub fn check_proof(&self, kid: &str, body: &[u8], proof: &str, now: u64) -> Result<(), RewrapError> {
        let proof = URL_SAFE_NO_PAD.decode(proof).unwrap_or_default();
        let hour = now / PROOF_SECONDS;
        let fits = |hour| {
            let secret = hmac::Key::new(hmac::HMAC_SHA256, &self.secret(kid, hour));
            hmac::verify(&secret, body, &proof).is_ok()
        };
        let fits = fits(hour) || hour.checked_sub(1).is_some_and(fits);
        if fits { Ok(()) } else { Err(RewrapError::Proof(kid.chars().take(64).collect())) }
    }

    fn secret(&self, kid: &str, hour: u64) -> [u8; 32] {
        let secret = hmac::sign(&self.secrets.proofs, format!("{hour} {kid}").as_bytes());
        std::array::from_fn(|at| secret.as_ref()[at])
    }

    /// Takes what an edge brings back, all in one transaction: what was changed, and the bundles that have new entries.
    pub async fn take(&self, brought: &Rewrapped, actor: &str) -> Result<(RewrapOutcome, Vec<Bundle>), RewrapError> {
        if brought.bundles.len() > REWRAP_MAX {
            return Err(RewrapError::TooMany(brought.bundles.len()));
        }
        let active = self.active().await?;
        of(&active, &brought.kid)?;
        let mut outcome = RewrapOutcome::default();
        let (mut changes, mut whats) = (Vec::new(), Vec::new());
        for one in &brought.bundles {
            let stored =
                self.store.sealed_bundle(&one.name).await?.filter(|stored| version(&stored.body) == one.version);
            let Some(stored) = stored else {
                outcome.outdated.push(one.name.clone());
                continue;
            };
            match applied(&stored.bundle, &stored.set, &brought.kid, one, &active) {
                Ok(Changed { bundle, set, what }) => {
                    whats.push(what);
                    changes.push(Rekeyed { before: stored, bundle, set });
                }
                Err(says) => outcome.refused.push(RewrapRefusal { name: one.name.clone(), says }),
            }
        }
        let written = self.store.rekey(&changes, actor, "bundles.rewrapped", &brought.kid).await?;
        let mut renewed = Vec::new();
        for ((change, what), written) in changes.into_iter().zip(whats).zip(written) {
            if !written {
                outcome.outdated.push(change.bundle.domain);
                continue;
            }
            outcome.rewrapped += u64::from(what.rewrapped);
            outcome.confirmed += u64::from(what.confirmed);
            outcome.removed += u64::from(what.removed);
            if what.rewrapped || what.removed {
                renewed.push(change.bundle);
            }
        }
        Ok((outcome, renewed))
    }
}

fn of<'a>(active: &'a [Recipient], kid: &str) -> Result<&'a Recipient, RewrapError> {
    let found = active.iter().find(|recipient| recipient.kid() == kid);
    found.ok_or_else(|| RewrapError::Unknown(kid.chars().take(64).collect()))
}

fn version(body: &str) -> String {
    hex(&sha256(body.as_bytes()))
}

/// What a bundle becomes by what the edge with key `kid` says and brings.
fn applied(
    bundle: &Bundle,
    set: &KeySet,
    kid: &str,
    brought: &RewrappedBundle,
    active: &[Recipient],
) -> Result<Changed, String> {
    if !set.has(kid) {
        return Err(format!("it is not sealed to {kid}"));
    }
    let mut what = What::default();
    let mut changed = bundle.clone();
    let mut set = set.clone();
    if !brought.opens {
        if set.opens(kid) {
            return Err(format!("{kid} was known to open it: its entry stays; is the bundle damaged?"));
        }
        sealed_keys(&mut changed).for_each(|key| key.recipients.retain(|entry| entry.header.kid != kid));
        what.removed = true;
        return Ok(Changed { set: set.after(&changed), bundle: changed, what });
    }
    what.confirmed = !set.opens(kid);
    set.confirm(kid);
    if brought.recipients.iter().any(|entries| !entries.is_empty()) {
        if brought.recipients.len() != sealed_keys(&mut changed).count() {
            return Err("entries are wanted for each certificate of the bundle".to_owned());
        }
        for (key, entries) in sealed_keys(&mut changed).zip(&brought.recipients) {
            entries.iter().try_for_each(|entry| fits(key, entry, active))?;
            key.recipients.extend(entries.iter().cloned());
            if key.recipients.len() > RECIPIENTS_MAX {
                return Err(format!("{} entries, at most {RECIPIENTS_MAX} are accepted", key.recipients.len()));
            }
        }
        what.rewrapped = true;
    }
    Ok(Changed { set: set.after(&changed), bundle: changed, what })
}

fn sealed_keys(bundle: &mut Bundle) -> impl Iterator<Item = &mut Sealed> {
    std::iter::once(&mut bundle.key).chain(bundle.rsa.iter_mut().map(|second| &mut second.key))
}

/// Whether an entry may stand beside the others, as far as it can be told without the key that it is for.
fn fits(key: &Sealed, entry: &SealedRecipient, active: &[Recipient]) -> Result<(), String> {
    let kid = &entry.header.kid;
    let recipient = of(active, kid).map_err(|error| error.to_string())?;
    if key.recipients.iter().any(|other| other.header.kid == *kid) {
        return Err(format!("it has an entry for {kid}, which no other one replaces"));
    }
    let wrapped = URL_SAFE_NO_PAD.decode(&entry.encrypted_key).map_or(0, |wrapped| wrapped.len());
    if wrapped != recipient.wrapped_bytes() {
        let wanted = recipient.wrapped_bytes();
        return Err(format!("the entry for {kid} is {wrapped} bytes in base64url, and has to be {wanted}"));
    }
    Ok(())
}

/// Without the entries of keys that are not let pass; `None` where nobody would be known to open it.
pub(super) fn without(
    bundle: &Bundle,
    set: &KeySet,
    retired: &[&str],
    active: &[Recipient],
) -> Option<(Bundle, KeySet)> {
    if !active.iter().any(|recipient| set.opens(recipient.kid())) {
        return None;
    }
    let mut changed = bundle.clone();
    sealed_keys(&mut changed).for_each(|key| key.recipients.retain(|entry| !retired.contains(&&*entry.header.kid)));
    let set = set.after(&changed);
    Some((changed, set))
}
