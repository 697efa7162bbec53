//! Private keys whose certificate has not come yet, in memory: so the certificate can be sealed into the bundle's binding. A
//! restart loses them, and the sealed copy in the order is used.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use contract::Hostname;

use crate::issue::PrivateKey;

/// At once; what is beyond is sealed without its certificate's digest.
const KEYS_MAX: usize = 1024;
/// Of an order that takes longer, or that another instance has ended, nothing is kept in clear.
const KEPT_SECONDS: u64 = 3600;

#[derive(Default)]
pub(super) struct Made(Mutex<HashMap<Hostname, (u64, Arc<PrivateKey>)>>);

impl Made {
    fn keys(&self) -> MutexGuard<'_, HashMap<Hostname, (u64, Arc<PrivateKey>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn keep(&self, domain: &Hostname, key: PrivateKey, now: u64) {
        let mut keys = self.keys();
        if keys.len() < KEYS_MAX || keys.contains_key(domain) {
            keys.insert(domain.clone(), (now, Arc::new(key)));
        }
    }

    pub(super) fn of(&self, domain: &Hostname) -> Option<Arc<PrivateKey>> {
        self.keys().get(domain).map(|(_, key)| key.clone())
    }

    pub(super) fn forget(&self, domain: &Hostname) {
        self.keys().remove(domain);
    }

    /// A time that is to come was noted while a clock was wrong.
    pub(super) fn forget_old(&self, now: u64) {
        self.keys().retain(|_, (since, _)| (*since..*since + KEPT_SECONDS).contains(&now));
    }

    pub(super) fn count(&self) -> usize {
        self.keys().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::issue::{KeyKind, new_key};

    const NOW: u64 = 1_800_000_000;

    #[test]
    fn a_key_is_kept_until_its_order_is_over_and_never_for_long() {
        let made = Made::default();
        let name = |text: &str| Hostname::parse(text).unwrap();
        let make =
            |domain: &str, now| made.keep(&name(domain), new_key(&name(domain), KeyKind::EcdsaP256).unwrap().0, now);
        make("a.example", NOW);
        make("b.example", NOW + 600);
        make("c.example", NOW + 600);
        made.forget(&name("c.example"));
        assert!(made.of(&name("a.example")).is_some() && made.of(&name("c.example")).is_none());
        made.forget_old(NOW + 3599);
        assert_eq!(made.count(), 2);
        made.forget_old(NOW + 3600);
        assert!(made.of(&name("a.example")).is_none() && made.of(&name("b.example")).is_some());
        // The clock was ahead.
        made.forget_old(NOW);
        assert_eq!(made.count(), 0);
    }
}
