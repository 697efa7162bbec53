//! Entries found by their whole key. Prefixes and suffixes are looked for from the longest that there can be to the
//! shortest: a visitor's path costs no more than the deepest key.

use std::hash::{BuildHasher, Hasher};

use hashbrown::{DefaultHashBuilder, HashTable};

use super::store::Store;
use super::{Kind, Refused, Subject, split, suffixes};

/// Slashes of a prefix: each may be a look-up more.
const SLASHES_MAX: usize = 32;

pub(super) struct Hashed {
    kind: Kind,
    subject: Subject,
    hashes: DefaultHashBuilder,
    entries: HashTable<u32>,
    /// What there is: hosts of all of these need not be looked for otherwise.
    hosts: Hosts,
    /// Of the prefix with the most.
    slashes: usize,
    /// How many entries may come.
    expected: usize,
}

#[derive(Default)]
struct Hosts {
    own: bool,
    wild: bool,
    every: bool,
}

impl Hashed {
    pub(super) fn new(kind: Kind, subject: Subject) -> Self {
        let (hashes, entries) = (DefaultHashBuilder::default(), HashTable::new());
        Self { kind, subject, hashes, entries, hosts: Hosts::default(), slashes: 0, expected: 0 }
    }

    /// Room for them is made with the first one: to grow by and by would hash all keys again each time.
    pub(super) fn expect(&mut self, entries: usize) {
        self.expected = entries;
    }

    pub(super) fn bytes(&self) -> usize {
        self.entries.allocation_size()
    }

    pub(super) fn shrink(&mut self, store: &Store) {
        let (hashes, subject) = (&self.hashes, self.subject);
        self.entries.shrink_to_fit(|entry| hash_key(hashes, subject, store.key(*entry)));
    }

    pub(super) fn add(&mut self, store: &mut Store, subject: Subject, key: &str, value: &[u8]) -> Result<(), Refused> {
        let slashes = key.bytes().filter(|byte| *byte == b'/').count();
        self.check(key, slashes).map_err(Refused::Illegal)?;
        let hash = hash_key(&self.hashes, subject, key.as_bytes());
        if self.entries.find(hash, |entry| store.key(*entry) == key.as_bytes()).is_some() {
            return Err(Refused::Repeated);
        }
        let Some(entry) = store.push(key, value) else {
            return Err(Refused::Illegal("the dataset is full".to_owned()));
        };
        let hashes = &self.hashes;
        if self.entries.is_empty() {
            // Without it there is only more to do.
            let _ = self.entries.try_reserve(self.expected, |entry| hash_key(hashes, subject, store.key(*entry)));
        }
        self.entries.insert_unique(hash, entry, |entry| hash_key(hashes, subject, store.key(*entry)));
        match split(key).0 {
            "" => self.hosts.every = true,
            host if host.starts_with("*.") => self.hosts.wild = true,
            _ => self.hosts.own = true,
        }
        self.slashes = self.slashes.max(slashes);
        Ok(())
    }

    fn check(&self, key: &str, slashes: usize) -> Result<(), String> {
        let legal = match self.subject {
            Subject::Path => key.starts_with('/'),
            Subject::Route => key.contains('/'),
            _ => !key.is_empty() && !key.contains('/'),
        };
        if !legal {
            return Err(format!("`{}` is not a {:?}", key.chars().take(80).collect::<String>(), self.subject));
        }
        if self.subject != Subject::Path {
            check_host(split(key).0, self.subject == Subject::Route)?;
        }
        if self.kind == Kind::Prefix && slashes > SLASHES_MAX {
            return Err(format!("the prefix has {slashes} slashes, at most {SLASHES_MAX} are accepted"));
        }
        Ok(())
    }

    pub(super) fn find(&self, store: &Store, host: &str, path: &str) -> Option<u32> {
        match (self.kind, self.subject) {
            (Kind::Suffix, _) => self.suffix(store, host),
            (Kind::Prefix, Subject::Route) => self.prefixes(path, |path| self.route(store, host, path)),
            (Kind::Prefix, _) => self.prefixes(path, |path| self.entry(store, "", path)),
            (_, Subject::Route) => self.route(store, host, path),
            _ => self.entry(store, host, path),
        }
    }

    /// The host itself, then wildcards, the longest first, then every host.
    fn route(&self, store: &Store, host: &str, path: &str) -> Option<u32> {
        let own = || self.hosts.own.then(|| self.entry(store, host, path)).flatten();
        let wild = || {
            let below = self.hosts.wild.then(|| suffixes(host)).into_iter().flatten();
            below.into_iter().find_map(|suffix| self.wildcard(store, suffix, path))
        };
        let every = || self.hosts.every.then(|| self.entry(store, "", path)).flatten();
        own().or_else(wild).or_else(every)
    }

    fn suffix(&self, store: &Store, host: &str) -> Option<u32> {
        let below = suffixes(host).filter_map(|suffix| suffix.get(1..));
        std::iter::once(host).chain(below).find_map(|suffix| self.entry(store, suffix, ""))
    }

    /// All that covers the path, the longest first.
    fn prefixes(&self, path: &str, find: impl Fn(&str) -> Option<u32>) -> Option<u32> {
        let mut ends = [0; 2 * SLASHES_MAX + 1];
        let mut count = 0;
        let mut slashes = 0;
        for (at, _) in path.match_indices('/').take(self.slashes + 1) {
            slashes += 1;
            // `/a` covers `/a/b`, and so does `/a/`.
            let covering = [Some(at).filter(|at| *at > 0), Some(at + 1).filter(|_| slashes <= self.slashes)];
            for end in covering.into_iter().flatten() {
                if let Some(place) = ends.get_mut(count) {
                    *place = end;
                    count += 1;
                }
            }
        }
        let whole = (slashes <= self.slashes).then_some(path);
        let shorter = ends.iter().take(count).rev().filter_map(|end| path.get(..*end));
        whole.into_iter().chain(shorter).find_map(find)
    }

    fn entry(&self, store: &Store, host: &str, path: &str) -> Option<u32> {
        let hash = hash(&self.hashes, host.as_bytes(), path.as_bytes());
        self.entries.find(hash, |entry| is(store.key(*entry), b"", host, path)).copied()
    }

    fn wildcard(&self, store: &Store, suffix: &str, path: &str) -> Option<u32> {
        let mut hasher = self.hashes.build_hasher();
        hasher.write(suffix.as_bytes());
        hasher.write_u8(b'*');
        hasher.write(path.as_bytes());
        self.entries.find(hasher.finish(), |entry| is(store.key(*entry), b"*", suffix, path)).copied()
    }
}

/// A host that is written otherwise than requests have it would never be found, and a list that denies would let all pass.
fn check_host(host: &str, wildcards: bool) -> Result<(), String> {
    let shown = || host.chars().take(80).collect::<String>();
    let name = if wildcards { host.strip_prefix("*.").unwrap_or(host) } else { host };
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(format!("`{}` has capitals; hosts are compared in lower case", shown()));
    }
    if name.starts_with('.') || name.ends_with('.') || name.contains("..") || name.contains('*') {
        return Err(format!("`{}` is not how a host is written; without a dot at either end, and no `*`", shown()));
    }
    Ok(())
}

fn is(key: &[u8], before: &[u8], host: &str, path: &str) -> bool {
    let rest = key.strip_prefix(before).and_then(|rest| rest.strip_prefix(host.as_bytes()));
    rest == Some(path.as_bytes())
}

/// Of a key as it is written. A visitor's host and path are hashed apart, so that nobody has to join them.
fn hash_key(hashes: &DefaultHashBuilder, subject: Subject, key: &[u8]) -> u64 {
    let (host, path) = match subject {
        Subject::Path => (&[] as &[u8], key),
        _ => key.split_at(key.iter().position(|byte| *byte == b'/').unwrap_or(key.len())),
    };
    match host.strip_prefix(b"*") {
        Some(suffix) if subject == Subject::Route => {
            let mut hasher = hashes.build_hasher();
            hasher.write(suffix);
            hasher.write_u8(b'*');
            hasher.write(path);
            hasher.finish()
        }
        _ => hash(hashes, host, path),
    }
}

fn hash(hashes: &DefaultHashBuilder, host: &[u8], path: &[u8]) -> u64 {
    let mut hasher = hashes.build_hasher();
    hasher.write(host);
    hasher.write_u8(0);
    hasher.write(path);
    hasher.finish()
}
