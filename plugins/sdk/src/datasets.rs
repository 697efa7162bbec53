//! Look-ups that the proxy does itself: `plan` fills a [`Dataset`], the policy is given what was found. One copy for all
//! threads, outside of every instance. Only in `plan`.

pub use crate::bindings::control::datasets::{Entry, Kind, Reason, Refusal, Subject};

#[cfg(target_arch = "wasm32")]
use crate::bindings::control::datasets as host;
#[cfg(not(target_arch = "wasm32"))]
use native as host;

/// Entries under way to the proxy.
pub struct Dataset {
    name: String,
    held: host::Dataset,
}

impl Dataset {
    /// Which subject can be found by which kind: see `wit/datasets.wit`.
    pub fn new(name: &str, kind: Kind, subject: Subject) -> Self {
        Self { name: name.to_owned(), held: host::Dataset::new(name, kind, subject) }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// What is refused. Give it hundreds at a time.
    pub fn add(&self, entries: &[Entry]) -> Vec<Refusal> {
        self.held.add(entries)
    }

    pub fn find(&self, subject: &str) -> Option<Vec<u8>> {
        self.held.find(subject)
    }

    /// The places of those that would be found.
    pub fn find_any(&self, subjects: &[String]) -> Vec<u32> {
        self.held.find_any(subjects)
    }
}

/// A text that the operator has uploaded apart and granted to the binding.
pub struct Table(host::Table);

impl Table {
    pub fn open(name: &str) -> Option<Self> {
        host::Table::open(name).map(Self)
    }

    /// The next whole lines; empty at the end.
    pub fn lines(&self) -> Vec<u8> {
        self.0.lines()
    }
}

/// Names of the tables that are granted.
pub fn tables() -> Vec<String> {
    host::tables()
}

/// For native tests: what [`Table::open`] finds on this thread.
#[cfg(not(target_arch = "wasm32"))]
pub use native::grant;

/// Stands in for the proxy in native tests. Networks and expressions are for the proxy: cases (`latchkey plugin test`)
/// go through it.
#[cfg(not(target_arch = "wasm32"))]
mod native {
    use std::cell::{Cell, RefCell};
    use std::collections::BTreeMap;

    use super::{Entry, Kind, Reason, Refusal, Subject};

    thread_local! {
        static TABLES: RefCell<BTreeMap<String, String>> = RefCell::default();
    }

    pub fn grant(name: &str, text: &str) {
        TABLES.with_borrow_mut(|tables| tables.insert(name.to_owned(), text.to_owned()));
    }

    pub(super) fn tables() -> Vec<String> {
        TABLES.with_borrow(|tables| tables.keys().cloned().collect())
    }

    pub(super) struct Table {
        text: String,
        read: Cell<bool>,
    }

    impl Table {
        pub(super) fn open(name: &str) -> Option<Self> {
            let text = TABLES.with_borrow(|tables| tables.get(name).cloned())?;
            Some(Self { text, read: Cell::new(false) })
        }

        pub(super) fn lines(&self) -> Vec<u8> {
            if self.read.replace(true) { Vec::new() } else { self.text.clone().into_bytes() }
        }
    }

    pub(super) struct Dataset {
        kind: Kind,
        subject: Subject,
        entries: RefCell<BTreeMap<String, Vec<u8>>>,
    }

    impl Dataset {
        pub(super) fn new(_name: &str, kind: Kind, subject: Subject) -> Self {
            Self { kind, subject, entries: RefCell::default() }
        }

        pub(super) fn add(&self, entries: &[Entry]) -> Vec<Refusal> {
            let mut refusals = Vec::new();
            for (place, entry) in (0..).zip(entries) {
                if self.entries.borrow().contains_key(&entry.key) {
                    refusals.push(Refusal { entry: place, why: Reason::Repeated });
                } else {
                    self.entries.borrow_mut().insert(entry.key.clone(), entry.value.clone());
                }
            }
            refusals
        }

        pub(super) fn find(&self, subject: &str) -> Option<Vec<u8>> {
            let entries = self.entries.borrow();
            let (host, path) = match self.subject {
                Subject::Route => subject.split_at(subject.find('/').unwrap_or(subject.len())),
                _ => ("", subject),
            };
            let below = host.match_indices('.').map(|(at, _)| format!("*{}", &host[at..]));
            let hosts: Vec<String> = [host.to_owned()].into_iter().chain(below).chain([String::new()]).collect();
            let paths: Vec<&str> = match self.kind {
                Kind::Prefix => covering(path),
                Kind::Suffix => {
                    std::iter::once(path).chain(path.match_indices('.').map(|(at, _)| &path[at + 1..])).collect()
                }
                _ => vec![path],
            };
            let keys = paths.iter().flat_map(|path| hosts.iter().map(move |host| format!("{host}{path}")));
            keys.into_iter().find_map(|key| entries.get(&key).cloned())
        }

        pub(super) fn find_any(&self, subjects: &[String]) -> Vec<u32> {
            (0..).zip(subjects).filter(|(_, subject)| self.find(subject).is_some()).map(|(place, _)| place).collect()
        }
    }

    /// All prefixes that would cover the path, the longest first.
    fn covering(path: &str) -> Vec<&str> {
        let mut ends: Vec<usize> =
            path.match_indices('/').flat_map(|(at, _)| [at, at + 1]).chain([path.len()]).collect();
        ends.sort_unstable();
        ends.dedup();
        ends.into_iter().rev().filter(|end| *end > 0).map(|end| &path[..end]).collect()
    }
}
