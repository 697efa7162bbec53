//! Which names exist at all: a filter of about 9 bits a name that says no to nearly every name that nobody registered,
//! before anything is looked up for it.
//!
//! It may take an unknown name for a known one (1 in 256, under a key of this process, so that nobody can choose such
//! names); it never takes a known name for an unknown one.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use xorf::{BinaryFuse8, Filter};

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
    hasher: RandomState,
}

#[derive(Clone)]
struct Names {
    /// Absent while there are no names at all: a filter needs one.
    base: Option<Arc<BinaryFuse8>>,
    base_names: usize,
    added: HashSet<u64>,
}

/// A list of names in the making.
pub struct Listing {
    hashes: HashSet<u64>,
}

impl Known {
    /// Knows nothing yet, and so excludes nothing.
    pub fn new() -> Self {
        Self {
            unlisted: Budgets::new(UNLISTED.0, UNLISTED.1, 1),
            unlisted_of_client: Budgets::new(UNLISTED_OF_ONE.0, UNLISTED_OF_ONE.1, CELLS),
            unlisted_of_domain: Budgets::new(UNLISTED_OF_ONE.0, UNLISTED_OF_ONE.1, CELLS),
            names: ArcSwapOption::empty(),
            hasher: RandomState::new(),
        }
    }

    /// False only if no such name exists.
    pub fn may_exist(&self, name: &str) -> bool {
        let names = self.names.load();
        let Some(names) = names.as_ref() else {
            return true;
        };
        let hash = self.hasher.hash_one(name);
        names.base.as_ref().is_some_and(|base| base.contains(&hash)) || names.added.contains(&hash)
    }

    /// Whether a name that is not listed may be looked up for this client all the same.
    pub fn may_look_up_unlisted(&self, name: &str, client: IpAddr) -> bool {
        let domain = psl::domain_str(name).unwrap_or(name);
        self.unlisted_of_client.take(client) && self.unlisted_of_domain.take(domain) && self.unlisted.take(())
    }

    pub fn listing(&self) -> Listing {
        Listing { hashes: HashSet::new() }
    }

    pub fn list(&self, listing: &mut Listing, name: &str) {
        listing.hashes.insert(self.hasher.hash_one(name));
    }

    /// Puts a complete list in force.
    pub fn replace(&self, listing: Listing) {
        let hashes: Vec<u64> = listing.hashes.into_iter().collect();
        let built = (!hashes.is_empty()).then(|| BinaryFuse8::try_from(&hashes));
        let (base, added) = match built {
            None => (None, HashSet::new()),
            Some(Ok(base)) => (Some(Arc::new(base)), HashSet::new()),
            // Construction fails only for repeated hashes, which a set can't hold; the set itself serves as well.
            Some(Err(_)) => (None, hashes.iter().copied().collect()),
        };
        self.names.store(Some(Arc::new(Names { base, base_names: hashes.len(), added })));
    }

    /// Adds what came after the list. False if the list has grown so much that a new one is due.
    pub fn add<'a>(&self, new: impl IntoIterator<Item = &'a str>) -> bool {
        let Some(current) = self.names.load_full() else {
            return false;
        };
        let mut names = Names::clone(&current);
        let hashes = new.into_iter().map(|name| self.hasher.hash_one(name));
        names.added.extend(hashes.filter(|hash| !current.base.as_ref().is_some_and(|base| base.contains(hash))));
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
        known.replace(listing);
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
