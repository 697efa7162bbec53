//! Regular expressions: which is the first that matches, for a host.

use std::collections::HashMap;

use super::automata::{Budget, Tables, check, shown};
use super::store::Store;
use super::{Refused, Subject, suffixes};

const EXPRESSIONS_MAX: usize = 1000;
/// Longer paths match nothing.
const TEXT_BYTES_MAX: usize = 512;

#[derive(Default)]
pub(super) struct Expressions {
    /// By host as in a route: a name, `*.suffix`, or empty.
    by_host: HashMap<String, Set>,
    count: usize,
    tried: usize,
    /// The tables have all that was added.
    ready: bool,
}

#[derive(Default)]
struct Set {
    patterns: Vec<String>,
    entries: Vec<u32>,
    tables: Tables,
}

impl Expressions {
    pub(super) fn bytes(&self) -> usize {
        let texts = |set: &Set| set.patterns.iter().map(String::len).sum::<usize>();
        self.by_host.values().map(|set| texts(set) + set.tables.bytes()).sum()
    }

    pub(super) fn add(&mut self, store: &mut Store, subject: Subject, key: &str, value: &[u8]) -> Result<(), Refused> {
        let (host, pattern) = parts(subject, key);
        // Looking whether one compiles takes longer than anything else that a plan asks for.
        self.tried += 1;
        if self.tried > 2 * EXPRESSIONS_MAX {
            let says = format!("comes after {} expressions, of which too many were refused", 2 * EXPRESSIONS_MAX);
            return Err(Refused::Illegal(says));
        }
        if self.count >= EXPRESSIONS_MAX {
            let says = format!("is one expression too many, at most {EXPRESSIONS_MAX} are accepted in a dataset");
            return Err(Refused::Illegal(says));
        }
        if !pattern.starts_with('^') {
            return Err(Refused::Illegal(format!("`{}` does not begin with ^", shown(pattern))));
        }
        check(pattern).map_err(Refused::Illegal)?;
        let set = self.by_host.entry(host.to_owned()).or_default();
        if set.patterns.iter().any(|known| known == pattern) {
            return Err(Refused::Repeated);
        }
        let Some(entry) = store.push(key, value) else {
            return Err(Refused::Illegal("the dataset is full".to_owned()));
        };
        self.count += 1;
        set.patterns.push(pattern.to_owned());
        set.entries.push(entry);
        self.ready = false;
        Ok(())
    }

    pub(super) fn ready(&mut self) -> Result<(), String> {
        if self.ready {
            return Ok(());
        }
        let mut budget = Budget::of_a_dataset();
        let mut hosts: Vec<_> = self.by_host.iter_mut().collect();
        hosts.sort_unstable_by_key(|(host, _)| *host); // so that the same host is told each time
        for (host, set) in hosts {
            let built = Tables::build(&set.patterns, &mut budget);
            set.tables = built.map_err(|says| if host.is_empty() { says } else { format!("host `{host}`: {says}") })?;
        }
        self.ready = true;
        Ok(())
    }

    pub(super) fn find(&self, subject: Subject, host: &str, path: &str) -> Option<u32> {
        let text = if subject == Subject::Host { host } else { path };
        if text.len() > TEXT_BYTES_MAX {
            return None;
        }
        let first = |set: &Set| {
            let index = set.tables.first(text.as_bytes())?;
            set.entries.get(index).copied()
        };
        if subject != Subject::Route {
            return self.by_host.get("").and_then(first);
        }
        let own = self.by_host.get(host).and_then(first);
        let below = || suffixes(host).find_map(|suffix| self.by_host.get(&format!("*{suffix}")).and_then(first));
        own.or_else(below).or_else(|| self.by_host.get("").and_then(first))
    }
}

/// `shop.example^/a` → `shop.example`, `^/a`
fn parts(subject: Subject, key: &str) -> (&str, &str) {
    match subject {
        Subject::Route => key.split_at(key.find('^').unwrap_or(0)),
        _ => ("", key),
    }
}
