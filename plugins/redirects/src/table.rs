//! Finds the rule for a path. Sorted lists, so that a miss costs a few comparisons whatever the visitor sends.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Status;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rule {
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) status: Status,
    pub(crate) prefix: bool,
    pub(crate) keep_query: bool,
}

/// Rules by host; the empty name holds those for every host.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Tables(BTreeMap<String, Table>);

/// Both lists are sorted by `from`.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Table {
    exact: Vec<Rule>,
    prefix: Vec<Nested>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Nested {
    rule: Rule,
    /// The longest other `from` that this one starts with.
    within: Option<usize>,
}

impl Tables {
    /// `rules` has no two of the same host, kind and path.
    pub(crate) fn new(mut rules: Vec<(String, Rule)>) -> Self {
        rules.sort_by(|(_, a), (_, b)| a.from.cmp(&b.from));
        let mut tables = Self::default();
        for (host, rule) in rules {
            let table = tables.0.entry(host).or_default();
            if rule.prefix {
                let within = table.nearest(&rule.from, |prefix, path| path.starts_with(prefix));
                table.prefix.push(Nested { rule, within });
            } else {
                table.exact.push(rule);
            }
        }
        tables
    }

    /// Exact before prefix, longer before shorter, this host before every host.
    pub(crate) fn find(&self, host: &str, path: &str) -> Option<&Rule> {
        let tables = || [host, ""].into_iter().filter_map(|name| self.0.get(name));
        let exact = tables().find_map(|table| table.exact(path));
        // `max_by_key` takes the last of equals, hence the reverse.
        exact.or_else(|| tables().rev().filter_map(|table| table.prefix(path)).max_by_key(|rule| rule.from.len()))
    }
}

impl Table {
    fn exact(&self, path: &str) -> Option<&Rule> {
        let index = self.exact.binary_search_by(|rule| rule.from.as_str().cmp(path)).ok()?;
        self.exact.get(index)
    }

    fn prefix(&self, path: &str) -> Option<&Rule> {
        self.nearest(path, covers).and_then(|index| self.prefix.get(index)).map(|nested| &nested.rule)
    }

    /// The longest prefix that `accepts` the path. All that sorts between a prefix and the path starts with that prefix,
    /// so each candidate is the last entry before the path, or one that this entry lies within.
    fn nearest(&self, path: &str, accepts: impl Fn(&str, &str) -> bool) -> Option<usize> {
        let mut next = self.prefix.partition_point(|nested| nested.rule.from.as_str() <= path).checked_sub(1);
        while let Some(index) = next {
            let nested = self.prefix.get(index)?;
            if accepts(&nested.rule.from, path) {
                return Some(index);
            }
            next = nested.within;
        }
        None
    }
}

/// `/old` covers itself and what is below `/old/`, but not `/older`.
fn covers(prefix: &str, path: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || prefix.ends_with('/'))
}
