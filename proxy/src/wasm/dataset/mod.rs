//! Datasets: look-ups that the host does for plugins. Filled while `plan` runs, then immutable, one copy for all threads.

mod automata; // expressions as tables
mod expressions; // regular expressions, the first that matches
mod hashed; // exact, prefix, suffix
mod networks; // the smallest network around an address
mod store; // keys and values, end to end
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use self::expressions::Expressions;
use self::hashed::Hashed;
use self::networks::Networks;
use self::store::Store;

const KEY_BYTES_MAX: usize = 2048;
const VALUE_BYTES_MAX: usize = 8192;
pub(super) const ENTRIES_MAX: usize = 10_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Exact,
    Prefix,
    Suffix,
    Cidr,
    Regex,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject {
    Host,
    Path,
    Route,
    Peer,
    Client,
}

/// What is looked for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wanted<'a> {
    /// A host or a path; the other part is empty. A route has both.
    Name {
        host: &'a str,
        path: &'a str,
    },
    Address(IpAddr),
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Repeated,
    Illegal(String),
}

pub(super) struct Dataset {
    subject: Subject,
    store: Store,
    index: Index,
}

enum Index {
    Hashed(Hashed),
    Networks(Networks),
    Expressions(Expressions),
}

impl Dataset {
    pub(super) fn new(kind: Kind, subject: Subject) -> Result<Self, String> {
        let index = match (kind, subject) {
            (Kind::Exact, Subject::Host | Subject::Path | Subject::Route) => Index::Hashed(Hashed::new(kind, subject)),
            (Kind::Prefix, Subject::Path | Subject::Route) => Index::Hashed(Hashed::new(kind, subject)),
            (Kind::Suffix, Subject::Host) => Index::Hashed(Hashed::new(kind, subject)),
            (Kind::Cidr, Subject::Peer | Subject::Client) => Index::Networks(Networks::default()),
            (Kind::Regex, Subject::Host | Subject::Path | Subject::Route) => Index::Expressions(Expressions::default()),
            _ => return Err(format!("a dataset can't find a {subject:?} by {kind:?}")),
        };
        Ok(Self { subject, store: Store::default(), index })
    }

    /// About so many entries will come, or none at all.
    pub(super) fn expect(&mut self, entries: usize) {
        if let Index::Hashed(index) = &mut self.index {
            index.expect(entries.min(ENTRIES_MAX));
        }
    }

    pub(super) fn subject(&self) -> Subject {
        self.subject
    }

    pub(super) fn len(&self) -> usize {
        self.store.len()
    }

    /// Of memory, all indexes included.
    pub(super) fn bytes(&self) -> usize {
        let index = match &self.index {
            Index::Hashed(index) => index.bytes(),
            Index::Networks(index) => index.bytes(),
            Index::Expressions(index) => index.bytes(),
        };
        self.store.bytes() + index
    }

    pub(super) fn add(&mut self, key: &str, value: &[u8]) -> Result<(), Refused> {
        check(key, value, self.store.len()).map_err(Refused::Illegal)?;
        match &mut self.index {
            Index::Hashed(index) => index.add(&mut self.store, self.subject, key, value),
            Index::Networks(index) => index.add(&mut self.store, key, value),
            Index::Expressions(index) => index.add(&mut self.store, self.subject, key, value),
        }
    }

    /// To be called when all is added, and before a look-up.
    pub(super) fn ready(&mut self) -> Result<(), String> {
        match &mut self.index {
            Index::Hashed(_) => Ok(()),
            Index::Networks(index) => {
                index.ready();
                Ok(())
            }
            Index::Expressions(index) => index.ready(),
        }
    }

    /// To be called last: what was only needed to add goes.
    pub(super) fn shrink(&mut self) {
        self.store.shrink();
        match &mut self.index {
            Index::Hashed(index) => index.shrink(&self.store),
            Index::Networks(index) => index.shrink(),
            Index::Expressions(_) => {}
        }
    }

    /// The number of the entry that answers.
    pub(super) fn find(&self, wanted: Wanted<'_>) -> Option<u32> {
        match (&self.index, wanted) {
            (Index::Hashed(index), Wanted::Name { host, path }) => index.find(&self.store, host, path),
            (Index::Expressions(index), Wanted::Name { host, path }) => index.find(self.subject, host, path),
            (Index::Networks(index), Wanted::Address(ip)) => index.find(ip),
            _ => None,
        }
    }

    pub(super) fn value(&self, entry: u32) -> &[u8] {
        self.store.value(entry)
    }

    /// What `plan` asks about, in a text.
    pub(super) fn wanted<'a>(&self, text: &'a str) -> Option<Wanted<'a>> {
        Some(match self.subject {
            Subject::Host => Wanted::Name { host: text, path: "" },
            Subject::Path => Wanted::Name { host: "", path: text },
            Subject::Route => {
                let (host, path) = split(text);
                Wanted::Name { host, path }
            }
            Subject::Peer | Subject::Client => Wanted::Address(text.parse().ok()?),
        })
    }
}

fn check(key: &str, value: &[u8], entries: usize) -> Result<(), String> {
    if key.len() > KEY_BYTES_MAX {
        return Err(format!("the key is {} bytes, at most {KEY_BYTES_MAX} are accepted", key.len()));
    }
    if value.len() > VALUE_BYTES_MAX {
        return Err(format!("the value is {} bytes, at most {VALUE_BYTES_MAX} are accepted", value.len()));
    }
    if entries >= ENTRIES_MAX {
        return Err(format!("the dataset is full: it takes {ENTRIES_MAX} entries"));
    }
    Ok(())
}

/// A route's host and path. A host has no slash.
fn split(route: &str) -> (&str, &str) {
    route.split_at(route.find('/').unwrap_or(route.len()))
}

/// `a.b.c` → `.b.c`, `.c`
fn suffixes(host: &str) -> impl Iterator<Item = &str> {
    host.match_indices('.').filter_map(|(at, _)| host.get(at..))
}
