//! Which rules of plugins are in use: handed from one configuration to the next, and kept on disk, so that a rule that nobody
//! has needed for a month is known as such after a restart too.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::snapshot::Snapshot;
use crate::files::write_atomically;
use crate::observe::disk_failed;
use crate::wasm::{Binding, History};

/// What a crash may lose.
pub(super) const KEEP_EVERY: Duration = Duration::from_secs(600);
/// Rules that are remembered; those of a large fleet, twice.
const KNOWN_MAX: usize = 20_000_000;
const MAGIC: &[u8; 17] = b"latchkey rules 1\n";
const DIGEST_BYTES: usize = 32;

/// By the name that a plugin has for itself: a new version goes on with what was known.
type Histories = BTreeMap<String, History>;

pub(super) struct InUse {
    file: PathBuf,
    /// What is known, also of rules that are in no configuration now; and the digest of what is on disk.
    kept: Mutex<(Histories, [u8; DIGEST_BYTES])>,
}

impl InUse {
    /// What is damaged is begun anew: rules count as unused only once they have been watched for long enough.
    pub(super) fn open(file: PathBuf) -> Self {
        let bytes = std::fs::read(&file).unwrap_or_default();
        let histories = decode(&bytes).unwrap_or_default();
        Self { file, kept: Mutex::new((histories, [0; DIGEST_BYTES])) }
    }

    /// What is known of their rules goes to the bindings that are new, and is not forgotten with those that go: their
    /// configuration may come back.
    pub(super) fn hand_on(&self, previous: &Snapshot, next: &Snapshot) {
        let with_rules = |snapshot: &Snapshot| -> Vec<Arc<Binding>> {
            snapshot.bindings.values().filter(|binding| binding.rules().count() > 0).cloned().collect()
        };
        let (before, after) = (with_rules(previous), with_rules(next));
        let is_in =
            |binding: &Arc<Binding>, list: &[Arc<Binding>]| list.iter().any(|other| Arc::ptr_eq(other, binding));
        if before.len() == after.len() && after.iter().all(|binding| is_in(binding, &before)) {
            return;
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        record(&before, &mut kept.0);
        for binding in after.iter().filter(|binding| !is_in(binding, &before)) {
            binding.rules().recall(kept.0.entry(binding.plugin().name().to_owned()).or_default());
        }
        if kept.0.values().map(|history| history.0.len()).sum::<usize>() > KNOWN_MAX {
            kept.0.clear();
        }
    }

    /// Writes what is known of the rules in force. Blocks.
    pub(super) fn keep(&self, snapshot: &Snapshot) {
        let mut histories = Histories::new();
        record(&snapshot.bindings.values().cloned().collect::<Vec<_>>(), &mut histories);
        let bytes = encode(&histories);
        let digest: [u8; DIGEST_BYTES] = Sha256::digest(&bytes).into();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.1 == digest || (bytes.len() == MAGIC.len() && !self.file.exists()) {
            return;
        }
        match write_atomically(&self.file, &[&bytes[..], &digest].concat()) {
            Ok(()) => kept.1 = digest,
            Err(error) => disk_failed("which rules are in use can't be kept", "a restart begins anew with it", &error),
        }
    }
}

fn record(bindings: &[Arc<Binding>], histories: &mut Histories) {
    for binding in bindings.iter().filter(|binding| binding.rules().count() > 0) {
        binding.rules().record(histories.entry(binding.plugin().name().to_owned()).or_default());
    }
}

/// For each plugin: the length of its name, the name, how many rules, and each rule's id and mark; in order, so that the
/// same is the same bytes.
fn encode(histories: &Histories) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    for (name, History(rules)) in histories {
        let mut rules: Vec<_> = rules.iter().collect();
        rules.sort_unstable();
        bytes.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(&u32::try_from(rules.len()).unwrap_or(u32::MAX).to_le_bytes());
        for (id, mark) in rules {
            bytes.extend_from_slice(&id.to_le_bytes());
            bytes.extend_from_slice(&mark.to_le_bytes());
        }
    }
    bytes
}

fn decode(bytes: &[u8]) -> Option<Histories> {
    let (rest, digest) = bytes.split_last_chunk::<DIGEST_BYTES>()?;
    if *digest != <[u8; DIGEST_BYTES]>::from(Sha256::digest(rest)) {
        return None;
    }
    let mut rest = rest.strip_prefix(MAGIC)?;
    let mut histories = Histories::new();
    while let Some((length, after)) = rest.split_first() {
        let (name, after) = after.split_at_checked((*length).into())?;
        let (count, after) = after.split_first_chunk::<4>()?;
        let (rules, after) =
            after.split_at_checked(usize::try_from(u32::from_le_bytes(*count)).ok()?.checked_mul(12)?)?;
        let rule = |rule: &[u8]| {
            let (id, mark) = rule.split_first_chunk::<8>()?;
            Some((u64::from_le_bytes(*id), u32::from_le_bytes(*mark.first_chunk::<4>()?)))
        };
        let rules = rules.chunks_exact(12).filter_map(rule).collect();
        histories.insert(String::from_utf8(name.to_vec()).ok()?, History(rules));
        rest = after;
    }
    Some(histories)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_read_again_and_what_is_damaged_is_not() {
        let history = |rules: &[(u64, u32)]| History(rules.iter().copied().collect());
        let histories: Histories =
            [("a".to_owned(), history(&[(7, 1), (u64::MAX, u32::MAX)])), ("b".to_owned(), history(&[]))].into();
        let bytes = encode(&histories);
        let whole = [&bytes[..], &Sha256::digest(&bytes)].concat();
        assert_eq!(decode(&whole), Some(histories));
        for length in 0..whole.len() {
            assert_eq!(decode(&whole[..length]), None, "{length} bytes");
        }
        let mut damaged = whole.clone();
        damaged[20] ^= 1;
        assert_eq!(decode(&damaged), None);
    }
}
