//! Failed calls of plugins, grouped by what went wrong where: a thousand crashes of one cause are one line.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

use contract::admin::Crash;

use super::METRICS;
use crate::wasm::{Binding, Fault, Plugin};

/// Most groups; what comes beyond them is only counted.
const GROUPS_MAX: usize = 256;
const SAYS_CHARS_MAX: usize = 300;
/// Between two lines of the log about one group: a visitor may cause a thousand crashes a second.
const TELL_SECONDS: u64 = 60;

pub static CRASHES: LazyLock<Crashes> = LazyLock::new(Crashes::default);

#[derive(Default)]
pub struct Crashes(Mutex<Groups>);

#[derive(Default)]
struct Groups {
    known: HashMap<Cause, Seen>,
    beyond: u64,
    beyond_told: Told,
}

/// What is the same for all crashes of a group.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Cause {
    /// As the configuration calls it.
    pub plugin: String,
    /// As the component says.
    pub version: String,
    pub digest: String,
    /// `connection`, `request` or `response`.
    pub hook: String,
    /// `trap`, `deadline`, `memory`, `output` or `unavailable`.
    pub reason: String,
    /// The host's words, without values.
    pub says: String,
    /// Functions of the guest, innermost first.
    pub stack: Vec<String>,
}

/// Unix seconds.
#[derive(Debug, Clone, Copy)]
struct Seen {
    count: u64,
    first_at: u64,
    last_at: u64,
    told: Told,
}

/// In the log.
#[derive(Debug, Clone, Copy, Default)]
struct Told {
    at: Option<u64>,
    untold: u64,
}

impl Told {
    /// Whether it is its turn to be told; and how many were not since the last.
    fn turn(&mut self, now: u64) -> Option<u64> {
        if self.at.is_some_and(|at| now.abs_diff(at) < TELL_SECONDS) {
            self.untold += 1;
            return None;
        }
        self.at = Some(now);
        Some(std::mem::take(&mut self.untold))
    }
}

impl Cause {
    pub fn new(name: &str, plugin: &Plugin, hook: &str, fault: &Fault) -> Self {
        Self {
            plugin: name.to_owned(),
            version: plugin.version().to_owned(),
            digest: plugin.digest().to_string(),
            hook: hook.to_owned(),
            reason: fault.reason().to_owned(),
            says: without_values(&fault.to_string()),
            stack: fault.stack().to_vec(),
        }
    }
}

impl Crashes {
    /// Whether the log is to tell of it; and how many of this group it did not tell of since the last.
    pub fn add(&self, cause: Cause, now: u64) -> Option<u64> {
        // Held for a look-up only. A crash has cost its request a thousand times that.
        let mut groups = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = groups.known.len() < GROUPS_MAX;
        if let Some(seen) = groups.known.get_mut(&cause) {
            (seen.count, seen.last_at) = (seen.count + 1, now);
            return seen.told.turn(now);
        }
        if !room {
            groups.beyond += 1;
            return groups.beyond_told.turn(now);
        }
        let mut seen = Seen { count: 1, first_at: now, last_at: now, told: Told::default() };
        let told = seen.told.turn(now);
        groups.known.insert(cause, seen);
        told
    }

    /// Of one plugin, the most frequent first; and how many crashes of any plugin are in no group.
    pub fn of(&self, plugin: &str) -> (Vec<Crash>, u64) {
        let groups = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_plugin = groups.known.iter().filter(|(cause, _)| cause.plugin == plugin || cause.digest == plugin);
        let mut crashes: Vec<_> = of_plugin.map(|(cause, seen)| told(cause.clone(), *seen)).collect();
        crashes.sort_by_key(|crash| std::cmp::Reverse((crash.count, crash.last_at)));
        (crashes, groups.beyond)
    }
}

/// Counts, groups and logs a failed plugin call.
pub fn plugin_fault(plugin: &str, binding: &Binding, hook: &str, fault: &Fault) {
    METRICS.plugin_faults.with_label_values(&[plugin, hook, fault.reason()]).inc();
    // Nothing was called: what led to it has been told.
    if matches!(fault, Fault::Resting(_)) {
        return;
    }
    let now = std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
    if let Some(untold) = CRASHES.add(Cause::new(plugin, binding.plugin(), hook, fault), now) {
        tracing::warn!(plugin, hook, reason = fault.reason(), untold, "plugin failed: {fault}");
    }
}

fn told(cause: Cause, Seen { count, first_at, last_at, .. }: Seen) -> Crash {
    let Cause { plugin, version, digest, hook, reason, says, stack } = cause;
    Crash { plugin, version, digest, hook, reason, says, stack, count, first_at, last_at }
}

/// What visitors send must neither make groups without end nor be kept: quoted words and numbers go.
fn without_values(text: &str) -> String {
    let mut out = String::new();
    for (index, part) in text.split('`').enumerate() {
        if index % 2 == 1 {
            out.push_str("`…`");
            continue;
        }
        let mut in_number = false;
        for char in part.chars() {
            if !char.is_ascii_digit() {
                out.push(char);
            } else if !in_number {
                out.push('#');
            }
            in_number = char.is_ascii_digit();
        }
    }
    out.chars().take(SAYS_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cause(says: &str) -> Cause {
        let [plugin, version, digest, hook, reason] = ["p", "1", "sha256:0", "request", "trap"].map(str::to_owned);
        Cause { plugin, version, digest, hook, reason, says: without_values(says), stack: vec!["p!f".into()] }
    }

    #[test]
    fn crashes_of_one_cause_are_one_group() {
        let crashes = Crashes::default();
        crashes.add(cause("status 7 of `/a`"), 10);
        crashes.add(cause("status 4711 of `/b`"), 20);
        crashes.add(cause("another"), 15);
        let (found, beyond) = crashes.of("p");
        assert_eq!((found.len(), beyond), (2, 0));
        assert_eq!(found[0].says, "status # of `…`");
        assert_eq!((found[0].count, found[0].first_at, found[0].last_at), (2, 10, 20));
        assert_eq!(crashes.of("sha256:0").0.len(), 2, "by digest as well");
        assert!(crashes.of("q").0.is_empty());
    }

    #[test]
    fn a_group_is_told_at_once_then_seldom_and_with_a_count() {
        let crashes = Crashes::default();
        let told: Vec<_> = [0, 1, 59, 60, 61, 200].map(|now| crashes.add(cause("status 7"), now)).into();
        assert_eq!(told, [Some(0), None, None, Some(2), None, Some(1)]);
        assert_eq!(crashes.add(cause("another"), 61), Some(0), "of a group for itself");
    }

    #[test]
    fn groups_are_bounded_and_what_is_beyond_is_counted() {
        let crashes = Crashes::default();
        let letter = |n: usize| char::from_u32('一' as u32 + n as u32).unwrap().to_string();
        for n in 0..=GROUPS_MAX {
            assert_eq!(crashes.add(cause(&letter(n)), 1), Some(0));
        }
        assert_eq!(crashes.add(cause(&letter(0)), 2), None);
        let more = GROUPS_MAX + 1;
        assert_eq!(crashes.add(cause(&letter(more)), 2), None, "what is in no group is told together");
        let (found, beyond) = crashes.of("p");
        assert_eq!((found.len(), beyond, found[0].count), (GROUPS_MAX, 2, 2));
    }
}
