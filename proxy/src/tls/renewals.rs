//! Domains whose renewal fails: CertService tells of the first try that fails, long before a certificate's dates show it.

use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use contract::Hostname;
use hashbrown::HashMap;

/// Beyond them a certificate is known as overdue by its dates only. About 25 MB.
const NAMES_MAX: usize = 262_144;

/// Since when, in Unix seconds.
type Failing = HashMap<Hostname, u64>;

#[derive(Default)]
pub struct Renewals {
    failing: ArcSwap<Failing>,
    /// Spares nearly every request the look.
    any: AtomicBool,
}

impl Renewals {
    /// Also of the wildcard that a certificate for the name may be of.
    pub fn failing_since(&self, name: &Hostname) -> Option<u64> {
        if !self.any.load(Ordering::Relaxed) {
            return None;
        }
        let failing = self.failing.load();
        let own = failing.get(name);
        own.or_else(|| failing.get(&name.wildcard()?)).copied()
    }

    /// What became different. One caller at a time.
    pub fn hear<'a>(&self, told: impl Iterator<Item = (&'a Hostname, Option<u64>)>) -> bool {
        let current = self.failing.load();
        let news: Vec<_> = told.filter(|(name, since)| current.get(*name).copied() != *since).collect();
        if news.is_empty() {
            return false;
        }
        let mut failing = Failing::clone(&current);
        for (name, since) in news {
            match since {
                Some(since) if failing.len() < NAMES_MAX => drop(failing.insert(name.clone(), since)),
                Some(_) => {}
                None => drop(failing.remove(name)),
            }
        }
        self.replace(failing);
        true
    }

    /// All of them.
    pub fn replace(&self, failing: impl IntoIterator<Item = (Hostname, u64)>) {
        let failing: Failing = failing.into_iter().take(NAMES_MAX).collect();
        self.any.store(!failing.is_empty(), Ordering::Relaxed);
        self.failing.store(failing.into());
    }

    /// A line each, for a file.
    pub fn to_text(&self) -> String {
        let failing = self.failing.load();
        let mut lines: Vec<_> = failing.iter().map(|(name, since)| format!("{since} {name}\n")).collect();
        lines.sort_unstable();
        lines.concat()
    }

    /// None for what is not whole: then it is asked for again.
    pub fn from_text(text: &str) -> Option<Vec<(Hostname, u64)>> {
        let line = |line: &str| {
            let (since, name) = line.split_once(' ')?;
            Some((Hostname::parse_domain(name).ok()?, since.parse().ok()?))
        };
        text.lines().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(renewals: &Renewals) -> usize {
        renewals.failing.load().len()
    }

    fn name(text: &str) -> Hostname {
        Hostname::parse_domain(text).unwrap()
    }

    #[test]
    fn a_failing_renewal_is_known_until_it_is_over() {
        let renewals = Renewals::default();
        let (shop, star) = (name("shop.example"), name("*.saas.example"));
        assert!(renewals.hear([(&shop, Some(7)), (&star, Some(8))].into_iter()));
        assert!(!renewals.hear([(&shop, Some(7)), (&name("other.example"), None)].into_iter()), "nothing new");
        let since = |text| renewals.failing_since(&name(text));
        assert_eq!(
            (since("shop.example"), since("a.saas.example"), since("a.b.saas.example")),
            (Some(7), Some(8), None)
        );
        assert!(renewals.hear([(&shop, None)].into_iter()));
        assert_eq!((since("shop.example"), count(&renewals)), (None, 1));
    }

    #[test]
    fn what_was_kept_is_read_again_and_what_is_damaged_is_not() {
        let renewals = Renewals::default();
        let all = [(name("*.saas.example"), 8), (name("shop.example"), 7)];
        renewals.replace(all.clone());
        let mut read = Renewals::from_text(&renewals.to_text()).unwrap();
        read.sort();
        assert_eq!(read, all);
        assert_eq!(Renewals::from_text(""), Some(Vec::new()));
        for damaged in ["shop.example", "x shop.example", "7 shop example", "7"] {
            assert_eq!(Renewals::from_text(damaged), None, "{damaged}");
        }
    }

    #[test]
    fn a_bounded_number_is_remembered() {
        let renewals = Renewals::default();
        renewals.replace((0..NAMES_MAX + 9).map(|n| (name(&format!("n{n}.example")), 1)));
        assert_eq!(count(&renewals), NAMES_MAX);
        renewals.hear([(&name("one-more.example"), Some(1))].into_iter());
        assert_eq!(count(&renewals), NAMES_MAX);
    }
}
