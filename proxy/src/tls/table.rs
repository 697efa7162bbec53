//! Certificates in memory, in two tiers bounded in bytes and scan-resistant: warm for all that is served, parsed above
//! it for what is served most. And names known to have none, bounded too.

use std::sync::Arc;
use std::time::{Duration, Instant};

use contract::{Hostname, Validity};
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::miss::Miss;
use super::warm::{Certificate, Warm};
use crate::supply;

/// Names remembered as having no certificate.
const ABSENT_NAMES_MAX: usize = 65_536;

/// Names remembered as changed; a load takes seconds, so older ones no longer matter.
const CHANGED_NAMES_MAX: usize = 65_536;

/// No revision reaches it.
const WITHDRAWN: u64 = u64::MAX;

/// What an entry of a cache takes beside its value: the name's text, its slot, its place in the hash table.
const ENTRY_BYTES: u64 = 112;

/// Only size the hash tables.
const WARM_BYTES_USUAL: u64 = 1400;
const PARSED_BYTES_USUAL: u64 = 8192;

pub struct Table {
    warm: Cache<Hostname, Arc<Warm>, ByBytes>,
    /// Never believed by itself: an entry counts only for the very certificate that is warm now, so what leaves the warm
    /// tier is out of this one too, however the threads race.
    parsed: Cache<Hostname, Arc<Certificate>, ByBytes>,
    absent: Cache<Hostname, (Miss, Instant)>,
    /// What the feed of changes said last of names that changed.
    floors: Cache<Hostname, u64>,
    refresh_after: u64,
}

#[derive(Debug, Clone, Copy)]
pub struct Capacity {
    pub warm_bytes_max: u64,
    pub parsed_bytes_max: u64,
}

#[derive(Clone)]
struct ByBytes;

impl Weighter<Hostname, Arc<Warm>> for ByBytes {
    fn weight(&self, name: &Hostname, warm: &Arc<Warm>) -> u64 {
        warm.weight() as u64 + name.as_str().len() as u64 + ENTRY_BYTES
    }
}

impl Weighter<Hostname, Arc<Certificate>> for ByBytes {
    fn weight(&self, _: &Hostname, certificate: &Arc<Certificate>) -> u64 {
        certificate.weight() as u64 + ENTRY_BYTES
    }
}

/// What answered for a certificate, nearest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// Memory, as OpenSSL uses it.
    Parsed,
    /// Memory, as DER and raw key.
    Warm,
    Supplied(supply::Tier),
}

impl Tier {
    /// Label of metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Parsed => "parsed",
            Self::Warm => "warm",
            Self::Supplied(tier) => tier.label(),
        }
    }
}

/// What memory says of a name.
pub enum Found {
    /// To be served as it is.
    Fresh(Arc<Certificate>, Tier),
    /// To be served, and asked for again in the background.
    Aging(Arc<Certificate>, Tier),
    /// Looked for moments ago, in vain.
    Absent(Miss),
    Nothing,
}

/// Entries, and the bytes they take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    pub entries: usize,
    pub bytes: u64,
}

impl Table {
    pub fn new(capacity: Capacity, refresh_after: Duration) -> Self {
        let items = |bytes_max: u64, of_each: u64| {
            usize::try_from(bytes_max / of_each).unwrap_or(usize::MAX).clamp(64, 10_000_000)
        };
        let Capacity { warm_bytes_max, parsed_bytes_max } = capacity;
        Self {
            warm: Cache::with_weighter(items(warm_bytes_max, WARM_BYTES_USUAL), warm_bytes_max, ByBytes),
            parsed: Cache::with_weighter(items(parsed_bytes_max, PARSED_BYTES_USUAL), parsed_bytes_max, ByBytes),
            absent: Cache::new(ABSENT_NAMES_MAX),
            floors: Cache::new(CHANGED_NAMES_MAX),
            refresh_after: refresh_after.as_secs(),
        }
    }

    pub fn find(&self, name: &Hostname, now: u64) -> Found {
        if let Some(warm) = self.warm.get(name) {
            if warm.validity.not_after > now
                && let Some((certificate, tier)) = self.parse(name, &warm)
            {
                // Either way: a check that lies in the future was dated by a clock that was wrong.
                let aging = now.abs_diff(warm.checked_at) >= self.refresh_after;
                // A refresh that failed moments ago is not tried again at once: the sources may be down.
                let again = aging && self.absent(name).is_none();
                return if again { Found::Aging(certificate, tier) } else { Found::Fresh(certificate, tier) };
            }
            self.remove(name);
        }
        self.absent(name).map_or(Found::Nothing, Found::Absent)
    }

    /// Parses under no lock: two threads may both do it, once.
    fn parse(&self, name: &Hostname, warm: &Arc<Warm>) -> Option<(Arc<Certificate>, Tier)> {
        if let Some(parsed) = self.parsed.get(name).filter(|parsed| Arc::ptr_eq(parsed.warm(), warm)) {
            return Some((parsed, Tier::Parsed));
        }
        match warm.parse() {
            Ok(parsed) => {
                let parsed = Arc::new(parsed);
                self.parsed.insert(name.clone(), parsed.clone());
                // Withdrawn meanwhile: its key is not left behind.
                if !self.warm.peek(name).is_some_and(|now| Arc::ptr_eq(&now, warm)) {
                    self.parsed.remove(name);
                }
                Some((parsed, Tier::Warm))
            }
            // It parsed when it came: this is OpenSSL without memory.
            Err(error) => {
                tracing::error!(%name, %error, "a certificate in memory does not parse; it is loaded anew");
                None
            }
        }
    }

    fn absent(&self, name: &Hostname) -> Option<Miss> {
        self.absent.get(name).filter(|(_, until)| *until > Instant::now()).map(|(miss, _)| miss)
    }

    /// Keeps the newer of what is there and what was loaded, and returns it; nothing if what was loaded is outdated.
    pub fn keep(&self, name: &Hostname, loaded: Certificate) -> Option<Arc<Certificate>> {
        self.keep_unless(name, loaded, |revision, floor| revision < floor)
    }

    /// The same for what is known to be replaced, where its successor is not to be had: served until that comes.
    pub fn keep_outdated(&self, name: &Hostname, loaded: Certificate) -> Option<Arc<Certificate>> {
        self.keep_unless(name, loaded, |_, floor| floor == WITHDRAWN)
    }

    fn keep_unless(
        &self,
        name: &Hostname,
        loaded: Certificate,
        refused: fn(u64, u64) -> bool,
    ) -> Option<Arc<Certificate>> {
        let newer = self.warm.peek(name).filter(|current| current.revision > loaded.revision);
        let kept = match newer {
            Some(newer) => self.parse(name, &newer)?.0,
            None => Arc::new(loaded),
        };
        self.warm.insert(name.clone(), kept.warm().clone());
        self.parsed.insert(name.clone(), kept.clone());
        // Looked at after the insertion: a floor that came meanwhile removes what it finds, or is found here.
        if refused(kept.revision, self.floor(name)) {
            self.remove(name);
            return None;
        }
        self.absent.remove(name);
        Some(kept)
    }

    /// From now on nothing below this revision is kept, however long its load has been under way. What is in memory
    /// stays until it is replaced.
    pub fn require(&self, name: &Hostname, revision: u64) {
        self.floors.insert(name.clone(), revision);
    }

    /// Off-boarded: gone from memory, and not to come back by a load that is under way.
    pub fn withdraw(&self, name: &Hostname) {
        self.require(name, WITHDRAWN);
        self.remove(name);
    }

    pub fn remove(&self, name: &Hostname) {
        self.warm.remove(name);
        self.parsed.remove(name);
    }

    pub fn withdrawn(&self, name: &Hostname) -> bool {
        self.floor(name) == WITHDRAWN
    }

    pub fn floor(&self, name: &Hostname) -> u64 {
        self.floors.get(name).unwrap_or(0)
    }

    pub fn keep_absent(&self, name: &Hostname, miss: Miss) {
        let until = Instant::now() + miss.remembered_for();
        self.absent.insert(name.clone(), (miss, until));
    }

    pub fn revision(&self, name: &Hostname) -> Option<u64> {
        self.warm.peek(name).map(|warm| warm.revision)
    }

    /// Of what is served for this name, if it is in memory.
    pub fn validity(&self, name: &Hostname) -> Option<Validity> {
        self.warm.peek(name).map(|warm| warm.validity)
    }

    #[cfg(test)]
    pub(super) fn forget_parsed(&self) {
        self.parsed.clear();
    }

    pub fn warm_size(&self) -> Size {
        Size { entries: self.warm.len(), bytes: self.warm.weight() }
    }

    pub fn parsed_size(&self) -> Size {
        Size { entries: self.parsed.len(), bytes: self.parsed.weight() }
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
