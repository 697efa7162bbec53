//! Certificates in memory: bounded in bytes, scan-resistant, and names known to have none, bounded too.

use std::sync::Arc;
use std::time::{Duration, Instant};

use contract::Hostname;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::certificate::Certificate;
use super::miss::Miss;

/// Names remembered as having no certificate.
const ABSENT_NAMES_MAX: usize = 65_536;

/// Names remembered as changed; a load takes seconds, so older ones no longer matter.
const CHANGED_NAMES_MAX: usize = 65_536;

pub struct Table {
    present: Cache<Hostname, Arc<Certificate>, ByBytes>,
    absent: Cache<Hostname, (Miss, Instant)>,
    /// What the feed of changes said last of names that changed.
    floors: Cache<Hostname, u64>,
    refresh_after: u64,
}

#[derive(Clone)]
struct ByBytes;

impl Weighter<Hostname, Arc<Certificate>> for ByBytes {
    fn weight(&self, name: &Hostname, certificate: &Arc<Certificate>) -> u64 {
        certificate.weight + name.as_str().len() as u64 + 64
    }
}

/// What memory says of a name.
pub enum Found {
    /// To be served as it is.
    Fresh(Arc<Certificate>),
    /// To be served, and asked for again in the background.
    Aging(Arc<Certificate>),
    /// Looked for moments ago, in vain.
    Absent(Miss),
    Nothing,
}

impl Table {
    pub fn new(bytes_max: u64, refresh_after: Duration) -> Self {
        // A certificate weighs about 8 KB: the estimate only sizes the hash table.
        let items = usize::try_from(bytes_max / 8192).unwrap_or(usize::MAX).clamp(64, 1_000_000);
        Self {
            present: Cache::with_weighter(items, bytes_max, ByBytes),
            absent: Cache::new(ABSENT_NAMES_MAX),
            floors: Cache::new(CHANGED_NAMES_MAX),
            refresh_after: refresh_after.as_secs(),
        }
    }

    pub fn find(&self, name: &Hostname, now: u64) -> Found {
        if let Some(certificate) = self.present.get(name) {
            if certificate.not_after > now {
                let aging = now.saturating_sub(certificate.checked_at) >= self.refresh_after;
                // A refresh that failed moments ago is not tried again at once: the sources may be down.
                let again = aging && self.absent(name).is_none();
                return if again { Found::Aging(certificate) } else { Found::Fresh(certificate) };
            }
            self.present.remove(name);
        }
        self.absent(name).map_or(Found::Nothing, Found::Absent)
    }

    fn absent(&self, name: &Hostname) -> Option<Miss> {
        self.absent.get(name).filter(|(_, until)| *until > Instant::now()).map(|(miss, _)| miss)
    }

    /// Keeps the newer of what is there and what was loaded, and returns it; nothing if what was loaded is outdated.
    pub fn keep(&self, name: &Hostname, loaded: Arc<Certificate>) -> Option<Arc<Certificate>> {
        let current = self.present.peek(name).filter(|current| current.revision > loaded.revision);
        let kept = current.unwrap_or(loaded);
        self.present.insert(name.clone(), kept.clone());
        // Looked at after the insertion: a floor that came meanwhile removes what it finds, or is found here.
        if kept.revision < self.floor(name) {
            self.present.remove(name);
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
        self.require(name, u64::MAX);
        self.remove(name);
    }

    pub fn remove(&self, name: &Hostname) {
        self.present.remove(name);
    }

    pub fn withdrawn(&self, name: &Hostname) -> bool {
        self.floor(name) == u64::MAX
    }

    pub fn floor(&self, name: &Hostname) -> u64 {
        self.floors.get(name).unwrap_or(0)
    }

    pub fn keep_absent(&self, name: &Hostname, miss: Miss) {
        let until = Instant::now() + miss.remembered_for();
        self.absent.insert(name.clone(), (miss, until));
    }

    pub fn revision(&self, name: &Hostname) -> Option<u64> {
        self.present.peek(name).map(|certificate| certificate.revision)
    }

    /// Certificates held, and their weight in bytes.
    pub fn size(&self) -> (usize, u64) {
        (self.present.len(), self.present.weight())
    }
}
