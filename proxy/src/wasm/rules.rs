//! When each rule of a policy decided last, so that rules that nobody needs can be found. One word a rule, written at most
//! once a minute; an identity beside it, so that what is known of a rule outlives its configuration and this process.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};

/// Of a binding.
pub(super) const RULES_MAX: usize = 10_000_000;

/// Minutes since 1970 and, in the lowest bit, whether that is when it decided last (1), or when it was seen first (0).
type Mark = u32;

#[derive(Default)]
pub struct Rules {
    /// 0 where there is no rule.
    ids: Box<[u64]>,
    marks: Box<[AtomicU32]>,
}

/// What is known of rules, by their identity.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct History(pub HashMap<u64, Mark>);

/// A rule that has not decided for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unused {
    /// Its place in the plan, from 0.
    pub rule: u32,
    /// Unix seconds, to the minute; none if it never has.
    pub last: Option<u64>,
    /// Unix seconds, to the minute: since when it is known, if it never has.
    pub since: u64,
}

impl Rules {
    pub(super) fn new(ids: Vec<u64>, now: u64) -> Self {
        let mark = minutes(now) << 1;
        let marks = ids.iter().map(|_| AtomicU32::new(mark)).collect();
        Self { ids: ids.into_boxed_slice(), marks }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.ids.iter().filter(|id| **id != 0).count()
    }

    pub(super) fn bytes(&self) -> usize {
        self.ids.len() * (size_of::<u64>() + size_of::<AtomicU32>())
    }

    /// The rule has decided. Of no effect for a number that stands for none.
    pub(super) fn used(&self, rule: u32, now: u64) {
        let Some(mark) = self.marks.get(rule as usize) else { return };
        let now = minutes(now) << 1 | 1;
        // Others only read it then: no fight over its cache line.
        if mark.load(Ordering::Relaxed) != now {
            mark.store(now, Ordering::Relaxed);
        }
    }

    /// Those that have not decided since then, and that were known then already.
    pub fn unused_since(&self, then: u64) -> impl Iterator<Item = Unused> {
        let then = minutes(then);
        let marks = self.ids.iter().zip(&self.marks).zip(0..);
        marks.filter_map(move |((id, mark), rule)| {
            let mark = mark.load(Ordering::Relaxed);
            let at = u64::from(mark >> 1) * 60;
            let unused = Unused { rule, last: (mark & 1 == 1).then_some(at), since: at };
            (*id != 0 && mark >> 1 <= then).then_some(unused)
        })
    }

    /// Takes over what is known of its rules.
    pub fn recall(&self, history: &History) {
        for (id, mark) in self.ids.iter().zip(&self.marks) {
            if let Some(known) = history.0.get(id) {
                mark.store(both(*known, mark.load(Ordering::Relaxed)), Ordering::Relaxed);
            }
        }
    }

    pub fn record(&self, history: &mut History) {
        for (id, mark) in self.ids.iter().zip(&self.marks).filter(|(id, _)| **id != 0) {
            let mark = mark.load(Ordering::Relaxed);
            history.0.entry(*id).and_modify(|known| *known = both(*known, mark)).or_insert(mark);
        }
    }
}

/// The last time that it decided; where it never has, the first that it was seen.
fn both(a: Mark, b: Mark) -> Mark {
    match (a & 1, b & 1) {
        (0, 0) => a.min(b),
        (1, 1) => a.max(b),
        (1, _) => a,
        _ => b,
    }
}

fn minutes(unix: u64) -> u32 {
    u32::try_from(unix / 60).unwrap_or(u32::MAX) & (u32::MAX >> 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;

    fn unused(rules: &Rules, then: u64) -> Vec<(u32, Option<u64>)> {
        rules.unused_since(then).map(|unused| (unused.rule, unused.last)).collect()
    }

    #[test]
    fn rules_that_have_not_decided_for_so_long_are_unused() {
        let rules = Rules::new(vec![11, 0, 12, 13], 100 * DAY);
        rules.used(0, 110 * DAY + 30);
        rules.used(2, 150 * DAY);
        rules.used(99, 150 * DAY);
        assert_eq!(rules.count(), 3);
        assert_eq!(unused(&rules, 99 * DAY), [], "none is known for so long");
        assert_eq!(unused(&rules, 120 * DAY), [(0, Some(110 * DAY)), (3, None)]);
        assert_eq!(unused(&rules, 150 * DAY).len(), 3);
    }

    #[test]
    fn what_is_known_of_a_rule_outlives_its_configuration() {
        let before = Rules::new(vec![11, 12], 100 * DAY);
        before.used(1, 120 * DAY);
        let mut history = History::default();
        before.record(&mut history);
        // Another order, and a new rule.
        let after = Rules::new(vec![13, 12, 11], 200 * DAY);
        after.recall(&history);
        assert_eq!(unused(&after, 150 * DAY), [(1, Some(120 * DAY)), (2, None)]);
        after.used(2, 201 * DAY);
        after.record(&mut history);
        let again = Rules::new(vec![11], 300 * DAY);
        again.recall(&history);
        assert_eq!(unused(&again, 200 * DAY), []);
        assert_eq!(unused(&again, 201 * DAY), [(0, Some(201 * DAY))]);
    }
}
