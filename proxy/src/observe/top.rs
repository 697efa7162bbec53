//! Which hosts are asked for most: counts in bounded memory, which never make a request wait.
//!
//! Each thread counts into tables of its own (space-saving: Metwally, Agrawal, El Abbadi, 2005): a table holds so many
//! names; a new one takes the place of the least counted and inherits its count, as the most by which its own may be too
//! high. A host with more than its table's total / `NAMES_MAX` is never missed. A window ends after `WINDOW`; a look sees
//! the running one and the one before, of all threads together.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use super::METRICS;

/// Names that each table holds: of each thread, for each ranking, for each of two windows.
pub const NAMES_MAX: usize = 256;
const WINDOW: Duration = Duration::from_secs(300);

pub static TOP: std::sync::LazyLock<Top> = std::sync::LazyLock::new(|| Top::new(Instant::now()));

/// What hosts are ranked by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    Requests,
    /// Of bodies, both ways.
    Bytes,
    /// Answers of 500 and above, and none at all that is not the visitor's fault.
    Errors,
    Handshakes,
    /// Names that visitors asked for and nobody registered, by registered domain.
    UnknownSni,
}

impl By {
    pub const ALL: [Self; 5] = [Self::Requests, Self::Bytes, Self::Errors, Self::Handshakes, Self::UnknownSni];

    pub fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Bytes => "bytes",
            Self::Errors => "errors",
            Self::Handshakes => "handshakes",
            Self::UnknownSni => "unknown_sni",
        }
    }
}

pub struct Top {
    began: Instant,
    /// Of all threads that have counted.
    threads: Mutex<Vec<Arc<Mutex<Tables>>>>,
}

/// The most counted names.
#[derive(Debug, PartialEq, Eq)]
pub struct Ranking {
    /// How long ago the older of the two windows began.
    pub seconds: u64,
    pub total: u64,
    pub names: Vec<Ranked>,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Ranked {
    pub name: String,
    /// At most so many,
    pub count: u64,
    /// and at least so many.
    pub at_least: u64,
}

impl Top {
    fn new(began: Instant) -> Self {
        Self { began, threads: Mutex::default() }
    }

    pub fn request(&self, host: &str, bytes: u64, failed: bool) {
        self.with_tables(|tables, window| {
            tables.of(By::Requests).add(window, host, 1);
            tables.of(By::Bytes).add(window, host, bytes);
            tables.of(By::Errors).add(window, host, failed.into());
        });
    }

    pub fn handshake(&self, host: &str) {
        self.with_tables(|tables, window| tables.of(By::Handshakes).add(window, host, 1));
    }

    pub fn unknown_sni(&self, name: &str) {
        let domain = psl::domain_str(name).unwrap_or(name);
        self.with_tables(|tables, window| tables.of(By::UnknownSni).add(window, domain, 1));
    }

    pub fn ranking(&self, by: By, most: usize) -> Ranking {
        self.ranking_at(by, most, Instant::now())
    }

    fn ranking_at(&self, by: By, most: usize, now: Instant) -> Ranking {
        let window = self.window(now);
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (mut total, mut counts) = (0, HashMap::<String, (u64, u64)>::new());
        for tables in threads {
            let mut tables = tables.lock().unwrap_or_else(PoisonError::into_inner);
            let windows = tables.of(by);
            windows.turn(window);
            for table in [&windows.now, &windows.before] {
                total += table.total;
                for Entry { name, count, inherited } in &table.heap {
                    let sum = counts.entry(name.to_string()).or_default();
                    *sum = (sum.0 + count, sum.1 + count - inherited);
                }
            }
        }
        let mut names: Vec<_> =
            counts.into_iter().map(|(name, (count, at_least))| Ranked { name, count, at_least }).collect();
        names.sort_by(|a, b| (b.count, &a.name).cmp(&(a.count, &b.name)));
        names.truncate(most);
        let began = self.began + WINDOW * u32::try_from(window.saturating_sub(1)).unwrap_or(u32::MAX);
        Ranking { seconds: now.saturating_duration_since(began).as_secs(), total, names }
    }

    fn window(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.began).as_secs() / WINDOW.as_secs()
    }

    fn with_tables(&self, count: impl FnOnce(&mut Tables, u64)) {
        thread_local!(static TABLES: Arc<Mutex<Tables>> = TOP.join());
        let _ = TABLES.try_with(|tables| match tables.try_lock() {
            Ok(mut tables) => count(&mut tables, self.window(Instant::now())),
            Err(TryLockError::Poisoned(tables)) => count(&mut tables.into_inner(), self.window(Instant::now())),
            // Somebody looks at them at this moment: one request less is counted, and none waits.
            Err(TryLockError::WouldBlock) => METRICS.top_missed.inc(),
        });
    }

    /// A thread's tables; they stay after its end, as threads that serve do.
    fn join(&self) -> Arc<Mutex<Tables>> {
        let tables = Arc::<Mutex<Tables>>::default();
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(tables.clone());
        tables
    }
}

#[derive(Default)]
struct Tables([Windows; By::ALL.len()]);

impl Tables {
    fn of(&mut self, by: By) -> &mut Windows {
        &mut self.0[by as usize]
    }
}

#[derive(Default)]
struct Windows {
    window: u64,
    now: Table,
    before: Table,
}

impl Windows {
    fn add(&mut self, window: u64, name: &str, weight: u64) {
        if weight > 0 {
            self.turn(window);
            self.now.add(name, weight);
        }
    }

    fn turn(&mut self, window: u64) {
        if window <= self.window {
            return;
        }
        let finished = std::mem::take(&mut self.now);
        self.before = if window == self.window + 1 { finished } else { Table::default() };
        self.window = window;
    }
}

#[derive(Default)]
struct Table {
    total: u64,
    /// The least counted first.
    heap: Vec<Entry>,
    places: HashMap<Arc<str>, usize>,
}

struct Entry {
    name: Arc<str>,
    count: u64,
    /// Of it, what the name before had when this one took its place.
    inherited: u64,
}

impl Table {
    fn add(&mut self, name: &str, weight: u64) {
        self.total = self.total.saturating_add(weight);
        let at = match self.places.get(name) {
            Some(&at) => at,
            None if self.heap.len() < NAMES_MAX => {
                let name: Arc<str> = name.into();
                self.places.insert(name.clone(), self.heap.len());
                self.heap.push(Entry { name, count: 0, inherited: 0 });
                self.rise(self.heap.len() - 1)
            }
            None => {
                let name: Arc<str> = name.into();
                let least = &mut self.heap[0];
                self.places.remove(&*std::mem::replace(&mut least.name, name.clone()));
                least.inherited = least.count;
                self.places.insert(name, 0);
                0
            }
        };
        self.heap[at].count = self.heap[at].count.saturating_add(weight);
        self.sink(at);
    }

    /// Towards the front, to where it belongs: where that is.
    fn rise(&mut self, mut at: usize) -> usize {
        while at > 0 && self.heap[at].count < self.heap[(at - 1) / 2].count {
            self.swap(at, (at - 1) / 2);
            at = (at - 1) / 2;
        }
        at
    }

    /// Towards the end, to where it belongs.
    fn sink(&mut self, mut at: usize) {
        loop {
            let children = (2 * at + 1..=2 * at + 2).filter(|&child| child < self.heap.len());
            let Some(least) = children.min_by_key(|&child| self.heap[child].count) else { return };
            if self.heap[at].count <= self.heap[least].count {
                return;
            }
            self.swap(at, least);
            at = least;
        }
    }

    fn swap(&mut self, one: usize, other: usize) {
        self.heap.swap(one, other);
        for at in [one, other] {
            if let Some(place) = self.places.get_mut(&*self.heap[at].name) {
                *place = at;
            }
        }
    }
}

#[cfg(test)]
#[path = "top_tests.rs"]
mod tests;
