//! What a shadow has done so far. Counts are taken without a lock; only differences and failures take one.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use contract::admin::{ShadowCost, ShadowDifference, ShadowExample, ShadowReport};

use super::differ::Difference;
use crate::observe::{Cause, Crashes};
use crate::wasm::component::Plugin;
use crate::wasm::types::{Fault, Usage};
use crate::wasm::verify::shown;

/// Kinds of differences; those of others are only counted.
const KINDS_MAX: usize = 32;
/// For each kind, the first ones.
const EXAMPLES_MAX: usize = 3;
const ABOUT_CHARS_MAX: usize = 200;

pub(super) struct Tally {
    /// Unix seconds.
    since: u64,
    same: AtomicU64,
    different: AtomicU64,
    not_compared: AtomicU64,
    pub(super) live: Cost,
    pub(super) shadow: Cost,
    crashes: Crashes,
    found: Mutex<Found>,
}

/// Of calls that were made.
#[derive(Default)]
pub(super) struct Cost {
    calls: AtomicU64,
    nanos: AtomicU64,
    nanos_max: AtomicU64,
    /// An instance that is not kept says nothing of its instructions.
    instructions: AtomicU64,
    calls_with_instructions: AtomicU64,
    without_call: AtomicU64,
    faults: AtomicU64,
    reasons: Mutex<BTreeMap<&'static str, u64>>,
}

#[derive(Default)]
struct Found {
    kinds: BTreeMap<String, Kind>,
    beyond: u64,
}

struct Kind {
    count: u64,
    examples: Vec<ShadowExample>,
}

impl Tally {
    pub(super) fn new(since: u64) -> Self {
        Self {
            since,
            same: AtomicU64::new(0),
            different: AtomicU64::new(0),
            not_compared: AtomicU64::new(0),
            live: Cost::default(),
            shadow: Cost::default(),
            crashes: Crashes::default(),
            found: Mutex::default(),
        }
    }

    pub(super) fn same(&self) {
        self.same.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn not_compared(&self) {
        self.not_compared.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn different(&self, difference: Difference, about: impl FnOnce() -> String) {
        self.different.fetch_add(1, Ordering::Relaxed);
        let mut found = lock(&self.found);
        let room = found.kinds.len() < KINDS_MAX;
        if !room && !found.kinds.contains_key(&difference.kind) {
            found.beyond += 1;
            return;
        }
        let Difference { kind, live, shadow } = difference;
        let kind = found.kinds.entry(kind).or_insert_with(|| Kind { count: 0, examples: Vec::new() });
        kind.count += 1;
        if kind.examples.len() < EXAMPLES_MAX {
            kind.examples.push(ShadowExample { about: shown(&about(), ABOUT_CHARS_MAX), live, shadow });
        }
    }

    pub(super) fn live_failed(&self, fault: &Fault) {
        self.live.failed(fault);
    }

    pub(super) fn shadow_failed(&self, name: &str, plugin: &Plugin, hook: &str, fault: &Fault) {
        self.shadow.failed(fault);
        let now = std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
        self.crashes.add(Cause::new(name, plugin, hook, fault), now);
    }

    /// Of the shadow.
    pub(super) fn faults(&self) -> u64 {
        self.shadow.faults.load(Ordering::Relaxed)
    }

    pub(super) fn report(&self, name: &str) -> ShadowReport {
        let (same, different) = (self.same.load(Ordering::Relaxed), self.different.load(Ordering::Relaxed));
        let (live, shadow) = (self.live.report(), self.shadow.report());
        let found = lock(&self.found);
        let kind = |(kind, found): (&String, &Kind)| ShadowDifference {
            kind: kind.clone(),
            count: found.count,
            examples: found.examples.clone(),
        };
        let mut differences: Vec<_> = found.kinds.iter().map(kind).collect();
        differences.sort_by_key(|difference| std::cmp::Reverse(difference.count));
        ShadowReport {
            since: self.since,
            calls: same + different,
            same,
            different,
            not_compared: self.not_compared.load(Ordering::Relaxed),
            micros_ratio: ratio(shadow.micros_mean, live.micros_mean),
            instructions_ratio: ratio(shadow.instructions_mean, live.instructions_mean),
            live,
            shadow,
            differences,
            differences_beyond: found.beyond,
            crashes: self.crashes.of(name).0,
            ..ShadowReport::default()
        }
    }
}

impl Cost {
    /// None where the question took no call.
    pub(super) fn add(&self, call: Option<(Duration, Option<Usage>)>) {
        let Some((took, usage)) = call else {
            self.without_call.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
        self.nanos_max.fetch_max(nanos, Ordering::Relaxed);
        if let Some(usage) = usage {
            self.instructions.fetch_add(usage.instructions, Ordering::Relaxed);
            self.calls_with_instructions.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn failed(&self, fault: &Fault) {
        self.faults.fetch_add(1, Ordering::Relaxed);
        *lock(&self.reasons).entry(fault.reason()).or_default() += 1;
    }

    fn report(&self) -> ShadowCost {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let calls = of(&self.calls);
        ShadowCost {
            calls,
            without_call: of(&self.without_call),
            micros_mean: mean(of(&self.nanos), calls).map(|nanos| rounded(nanos / 1000.0)),
            micros_max: (calls > 0).then(|| rounded(of(&self.nanos_max) as f64 / 1000.0)),
            instructions_mean: mean(of(&self.instructions), of(&self.calls_with_instructions)).map(f64::round),
            faults: lock(&self.reasons).iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect(),
        }
    }
}

fn mean(sum: u64, count: u64) -> Option<f64> {
    (count > 0).then(|| sum as f64 / count as f64)
}

fn ratio(shadow: Option<f64>, live: Option<f64>) -> Option<f64> {
    let live = live.filter(|live| *live > 0.0)?;
    Some(rounded(shadow? / live))
}

fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn difference(kind: &str) -> Difference {
        Difference { kind: kind.to_owned(), live: "next".into(), shadow: "deny 403".into() }
    }

    #[test]
    fn kinds_and_examples_are_bounded_and_the_rest_is_counted() {
        let tally = Tally::new(7);
        for n in 0..=KINDS_MAX {
            tally.different(difference(&n.to_string()), || "a.example/".into());
        }
        for n in 0..10 {
            tally.different(difference("0"), || format!("a.example/{n}"));
        }
        tally.same();
        let report = tally.report("p");
        assert_eq!((report.calls, report.same, report.different), (44, 1, 43));
        assert_eq!((report.differences.len(), report.differences_beyond), (KINDS_MAX, 1));
        assert_eq!((report.differences[0].count, report.differences[0].examples.len()), (11, EXAMPLES_MAX));
        assert_eq!(report.since, 7);
    }

    #[test]
    fn costs_are_means_of_the_calls_that_were_made() {
        let tally = Tally::new(0);
        let usage = |instructions| Some(Usage { instructions, memory_bytes: 0 });
        tally.live.add(Some((Duration::from_micros(1), usage(100))));
        tally.live.add(Some((Duration::from_micros(3), None)));
        tally.live.add(None);
        tally.shadow.add(Some((Duration::from_micros(4), usage(300))));
        let report = tally.report("p");
        assert_eq!((report.live.calls, report.live.without_call), (2, 1));
        assert_eq!((report.live.micros_mean, report.live.micros_max), (Some(2.0), Some(3.0)));
        assert_eq!((report.micros_ratio, report.instructions_ratio), (Some(2.0), Some(3.0)));
        assert_eq!(Tally::new(0).report("p").micros_ratio, None);
    }
}
