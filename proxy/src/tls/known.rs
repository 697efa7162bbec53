//! Which names exist at all: a filter of about 9 bits a name that says no to nearly every name that nobody registered,
//! before anything is looked up for it.
//!
//! It may take an unknown name for a known one (1 in 256, under a key of this edge, so that nobody can choose such
//! names); it never takes a known name for an unknown one. It is kept on disk, so that a restart has it at once.

use std::collections::HashSet;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use sha2::{Digest, Sha256};
use xorf::{BinaryFuse8, BinaryFuse8Ref, DmaSerializable, Filter, FilterRef};

use super::budget::Budgets;

/// Names added since the filter was built; past this share of it a new one is due.
const ADDED_SHARE_MAX: usize = 20;
const ADDED_MIN: usize = 10_000;

/// Look-ups for names that are not listed, per second and at once: a domain issued moments ago is served before the feed
/// of changes has told of it, and a flood of made-up names costs the sources no more than this. What one client or one
/// registrable domain may spend of it is less, so that a flood leaves something to others.
const UNLISTED: (u32, u32) = (10, 50);
const UNLISTED_OF_ONE: (u32, u32) = (2, 10);
const CELLS: usize = 4096;

pub struct Known {
    unlisted: Budgets,
    unlisted_of_client: Budgets,
    unlisted_of_domain: Budgets,
    names: ArcSwapOption<Names>,
    key: [u8; 16],
}

#[derive(Clone)]
struct Names {
    /// Absent while there are no names at all: a filter needs one.
    base: Option<Arc<Base>>,
    base_names: usize,
    /// Cursor of the feed of changes at which the list was complete.
    listed_at: u64,
    added: HashSet<u64>,
}

/// A filter in the form in which it is kept.
struct Base {
    descriptor: [u8; BinaryFuse8::DESCRIPTOR_LEN],
    fingerprints: Box<[u8]>,
}

impl Base {
    fn contains(&self, hash: u64) -> bool {
        BinaryFuse8Ref::from_dma(&self.descriptor, &self.fingerprints).contains(&hash)
    }
}

impl From<BinaryFuse8> for Base {
    fn from(filter: BinaryFuse8) -> Self {
        let mut descriptor = [0; BinaryFuse8::DESCRIPTOR_LEN];
        filter.dma_copy_descriptor_to(&mut descriptor);
        Self { descriptor, fingerprints: filter.fingerprints }
    }
}

/// The first bytes of a kept list.
const MAGIC: &[u8; 17] = b"latchkey known 1\n";

/// A list of names in the making.
pub struct Listing {
    hashes: Vec<u64>,
}

impl Known {
    /// Knows nothing yet, and so excludes nothing.
    pub fn new() -> Self {
        let random = || RandomState::new().build_hasher().finish().to_le_bytes();
        let mut key = [0; 16];
        key[..8].copy_from_slice(&random());
        key[8..].copy_from_slice(&random());
        Self::with(key, None)
    }

    fn with(key: [u8; 16], names: Option<Names>) -> Self {
        Self {
            unlisted: Budgets::new(UNLISTED.0, UNLISTED.1, 1),
            unlisted_of_client: Budgets::new(UNLISTED_OF_ONE.0, UNLISTED_OF_ONE.1, CELLS),
            unlisted_of_domain: Budgets::new(UNLISTED_OF_ONE.0, UNLISTED_OF_ONE.1, CELLS),
            names: ArcSwapOption::from_pointee(names),
            key,
        }
    }

    fn hash(&self, name: &str) -> u64 {
        let digest = Sha256::new().chain_update(self.key).chain_update(name).finalize();
        let mut first = [0; 8];
        first.copy_from_slice(&digest[..8]);
        u64::from_le_bytes(first)
    }

    /// What `to_bytes` gave; nothing if it is damaged: a filter that is not whole would exclude names that exist.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (rest, digest) = bytes.split_last_chunk::<32>()?;
        if *digest != <[u8; 32]>::from(Sha256::digest(rest)) {
            return None;
        }
        let rest = rest.strip_prefix(MAGIC)?;
        let (key, rest) = rest.split_first_chunk::<16>()?;
        let (listed_at, rest) = rest.split_first_chunk::<8>()?;
        let (names, rest) = rest.split_first_chunk::<8>()?;
        let (descriptor, fingerprints) = rest.split_first_chunk::<{ BinaryFuse8::DESCRIPTOR_LEN }>()?;
        let base = Base { descriptor: *descriptor, fingerprints: fingerprints.into() };
        let names = Names {
            base: Some(Arc::new(base)),
            base_names: usize::try_from(u64::from_le_bytes(*names)).ok()?,
            listed_at: u64::from_le_bytes(*listed_at),
            added: HashSet::new(),
        };
        Some(Self::with(*key, Some(names)))
    }

    /// The list as it was put in force, to be kept on disk. What was added since is in the feed after `listed_at`.
    pub fn to_bytes(&self) -> Option<Vec<u8>> {
        let names = self.names.load();
        let names = names.as_ref()?;
        let base = names.base.as_ref()?;
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&self.key);
        bytes.extend_from_slice(&names.listed_at.to_le_bytes());
        bytes.extend_from_slice(&(names.base_names as u64).to_le_bytes());
        bytes.extend_from_slice(&base.descriptor);
        bytes.extend_from_slice(&base.fingerprints);
        let digest = Sha256::digest(&bytes);
        bytes.extend_from_slice(&digest);
        Some(bytes)
    }

    /// Cursor of the feed of changes at which the list was complete, if there is one.
    pub fn listed_at(&self) -> Option<u64> {
        self.names.load().as_ref().map(|names| names.listed_at)
    }

    /// False only if no such name exists.
    pub fn may_exist(&self, name: &str) -> bool {
        let names = self.names.load();
        let Some(names) = names.as_ref() else {
            return true;
        };
        let hash = self.hash(name);
        names.base.as_ref().is_some_and(|base| base.contains(hash)) || names.added.contains(&hash)
    }

    /// Whether a name that is not listed may be looked up for this client all the same.
    pub fn may_look_up_unlisted(&self, name: &str, client: IpAddr) -> bool {
        let domain = psl::domain_str(name).unwrap_or(name);
        self.unlisted_of_client.take(client) && self.unlisted_of_domain.take(domain) && self.unlisted.take(())
    }

    pub fn listing(&self) -> Listing {
        Listing { hashes: Vec::new() }
    }

    pub fn list(&self, listing: &mut Listing, name: &str) {
        listing.hashes.push(self.hash(name));
    }

    /// Puts a complete list in force: all that is in the feed of changes up to this cursor.
    pub fn replace(&self, listing: Listing, listed_at: u64) {
        let mut hashes = listing.hashes;
        hashes.sort_unstable();
        hashes.dedup();
        let built = (!hashes.is_empty()).then(|| BinaryFuse8::try_from(&hashes));
        let (base, added) = match built {
            None => (None, HashSet::new()),
            Some(Ok(base)) => (Some(Arc::new(Base::from(base))), HashSet::new()),
            // Construction fails only for repeated hashes, and there are none; a set of them serves as well.
            Some(Err(_)) => (None, hashes.iter().copied().collect()),
        };
        self.names.store(Some(Arc::new(Names { base, base_names: hashes.len(), listed_at, added })));
    }

    /// Adds what came after the list. False if the list has grown so much that a new one is due.
    pub fn add<'a>(&self, new: impl IntoIterator<Item = &'a str>) -> bool {
        let Some(current) = self.names.load_full() else {
            return false;
        };
        let mut names = Names::clone(&current);
        let hashes = new.into_iter().map(|name| self.hash(name));
        names.added.extend(hashes.filter(|hash| !current.base.as_ref().is_some_and(|base| base.contains(*hash))));
        let due = names.added.len() > ADDED_MIN.max(names.base_names / ADDED_SHARE_MAX);
        self.names.store(Some(Arc::new(names)));
        !due
    }

    /// Names listed, and the memory that they take in bytes.
    pub fn size(&self) -> (usize, usize) {
        self.names.load().as_ref().map_or((0, 0), |names| {
            let base = names.base.as_ref().map_or(0, |base| base.fingerprints.len());
            (names.base_names + names.added.len(), base + names.added.capacity() * 9)
        })
    }
}

impl Default for Known {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(names: impl IntoIterator<Item = String>) -> Known {
        let known = Known::new();
        let mut listing = known.listing();
        names.into_iter().for_each(|name| known.list(&mut listing, &name));
        known.replace(listing, 7);
        known
    }

    #[test]
    fn excludes_nothing_before_it_has_a_list() {
        let known = Known::new();
        assert!(known.may_exist("a.example"));
        assert!(!known.add(["a.example"]), "without a list there is nothing to add to");
        assert!(known.may_exist("b.example"));
    }

    #[test]
    fn an_empty_list_excludes_everything() {
        let known = known([]);
        assert!(!known.may_exist("a.example"));
        assert!(known.add(["a.example"]));
        assert!(known.may_exist("a.example") && !known.may_exist("b.example"));
    }

    #[test]
    fn never_excludes_a_known_name_and_nearly_always_an_unknown_one() {
        let known = known((0..100_000).map(|n| format!("shop{n}.example")));
        assert!((0..100_000).all(|n| known.may_exist(&format!("shop{n}.example"))));
        let mistaken = (0..100_000).filter(|n| known.may_exist(&format!("random{n}.example"))).count();
        assert!(mistaken < 1000, "{mistaken} of 100000 unknown names pass");
        let (names, bytes) = known.size();
        assert_eq!(names, 100_000);
        assert!(bytes <= 2 * names, "{bytes} bytes for {names} names");
    }

    #[test]
    fn a_restart_has_the_list_at_once() {
        let known = known((0..1000).map(|n| format!("shop{n}.example")));
        known.add(["later.example"]);
        let again = Known::from_bytes(&known.to_bytes().unwrap()).unwrap();
        assert_eq!((again.listed_at(), again.size().0), (Some(7), 1000));
        assert!((0..1000).all(|n| again.may_exist(&format!("shop{n}.example"))));
        let mistaken = (0..1000).filter(|n| again.may_exist(&format!("random{n}.example"))).count();
        assert!(mistaken < 30, "{mistaken}");
        assert!(again.add(["later.example"]) && again.may_exist("later.example"));
        assert!(Known::new().to_bytes().is_none());
    }

    #[test]
    fn a_damaged_list_is_not_believed() {
        let bytes = known((0..100).map(|n| format!("shop{n}.example"))).to_bytes().unwrap();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(Known::from_bytes(&damaged).is_none(), "{at}");
            assert!(Known::from_bytes(&bytes[..at]).is_none(), "{at}");
        }
    }

    #[test]
    #[ignore = "a measurement: cargo test --release --workspace --lib -- --ignored --nocapture a_million_names_are_listed"]
    fn a_million_names_are_listed_within_two_bytes_each() {
        let spent_ms = || {
            let spent = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
            spent.tv_sec * 1000 + spent.tv_nsec / 1_000_000
        };
        let began = spent_ms();
        let known = known((0..1_000_000).map(|n| format!("shop-{n:07}.customer.example")));
        let listed = spent_ms();
        let file = known.to_bytes().unwrap();
        let kept = spent_ms();
        let again = Known::from_bytes(&file).unwrap();
        let restored = spent_ms();
        assert!(again.may_exist("shop-0000007.customer.example") && again.size() == known.size());
        let (names, bytes) = known.size();
        println!(
            r#"{{"names":{names},"filter_bytes":{bytes},"list_cpu_ms":{},"file_bytes":{},"keep_cpu_ms":{},"restart_cpu_ms":{}}}"#,
            listed - began,
            file.len(),
            kept - listed,
            restored - kept,
        );
        if let Some(path) = std::env::var_os("KNOWN_FILE") {
            std::fs::write(path, file).unwrap();
        }
        assert!(names == 1_000_000 && bytes <= 2 * names);
    }

    #[test]
    fn what_comes_later_is_known_at_once_until_a_new_list_is_due() {
        let known = known((0..1000).map(|n| format!("shop{n}.example")));
        assert!(known.add(["new.example"]));
        assert!(known.may_exist("new.example") && known.may_exist("shop7.example"));
        let many: Vec<String> = (0..=2 * ADDED_MIN).map(|n| format!("later{n}.example")).collect();
        assert!(!known.add(many.iter().map(String::as_str)));
        assert!(known.may_exist("later10000.example"));
    }

    #[test]
    fn a_flood_of_unlisted_names_is_looked_up_within_a_budget() {
        let known = known((0..1000).map(|n| format!("shop{n}.example")));
        let client = |n: u32| IpAddr::from(n.to_be_bytes());
        // At most: the filter's mistakes, the burst, and what the budget grew by while this ran.
        let spent = |names: &mut dyn Iterator<Item = (String, IpAddr)>| {
            names.filter(|(n, c)| known.may_exist(n) || known.may_look_up_unlisted(n, *c)).count()
        };
        let one_client = spent(&mut (0..20_000).map(|n| (format!("random{n}.example"), client(1))));
        assert!(one_client < 200 + 10 + 20, "{one_client}");
        let one_domain = spent(&mut (0..20_000).map(|n| (format!("n{n}.target.example"), client(n))));
        assert!(one_domain < 200 + 10 + 20, "{one_domain}");
        let many = spent(&mut (0..20_000).map(|n| (format!("other{n}.example"), client(n))));
        assert!(many < 200 + 50 + 100, "{many}");
        assert!(known.may_exist("shop1.example"), "listed names need no budget");
    }
}
