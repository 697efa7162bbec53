//! Finds the rule for a path. Sorted lists, so that a miss costs a few comparisons whatever the visitor sends; regular
//! expressions are tried last, in their order, and only those whose beginning fits.

use std::collections::BTreeMap;
use std::ops::Bound;

use serde::{Deserialize, Serialize};

use crate::expression::Expression;
use crate::location::Target;
use crate::{Query, Status};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rule {
    /// Where it stands in the configuration, from 0.
    pub(crate) number: u16,
    /// A path, or a regular expression.
    pub(crate) from: String,
    pub(crate) kind: Kind,
    pub(crate) to: String,
    pub(crate) status: Status,
    pub(crate) query: Query,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Kind {
    Exact,
    Prefix,
    Regex,
}

/// A rule that answers for a path, and what its groups matched there, from the whole match on.
pub(crate) struct Found<'a> {
    pub(crate) rule: &'a Rule,
    pub(crate) groups: Vec<Option<&'a str>>,
}

impl<'a> Found<'a> {
    pub(crate) fn target(&self) -> Target<'a> {
        let Rule { from, kind, to, query, .. } = self.rule;
        Target { to, kind: *kind, from_bytes: from.len(), query: *query, groups: self.groups.clone() }
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Tables {
    /// `*.suffix` holds rules for all names below the suffix, the empty name those for every host.
    by_host: BTreeMap<String, Table>,
    /// Longer paths are compared with no expression: the time of that grows with the path.
    expression_path_bytes_max: usize,
}

/// Both lists are sorted by `from`.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Table {
    exact: Vec<Rule>,
    prefix: Vec<Nested>,
    regex: Vec<Expression>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Nested {
    rule: Rule,
    /// The longest other `from` that this one starts with.
    within: Option<usize>,
}

impl Tables {
    /// `rules` has no two of the same host, kind and path, and expressions that compile.
    pub(crate) fn new(mut rules: Vec<(String, Rule)>, expression_path_bytes_max: usize) -> Self {
        rules.sort_by(|(_, a), (_, b)| a.from.cmp(&b.from));
        let mut tables = Self { by_host: BTreeMap::new(), expression_path_bytes_max };
        for (host, rule) in rules {
            let table = tables.by_host.entry(host).or_default();
            match rule.kind {
                Kind::Exact => table.exact.push(rule),
                Kind::Prefix => {
                    let within = table.nearest(&rule.from, |prefix, path| path.starts_with(prefix));
                    table.prefix.push(Nested { rule, within });
                }
                Kind::Regex => table.regex.extend(Expression::try_from(rule)),
            }
        }
        for table in tables.by_host.values_mut() {
            table.regex.sort_by_key(Expression::number);
        }
        tables
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_host.is_empty()
    }

    /// Exact before prefix before regular expression; longer prefixes before shorter ones, expressions in their order;
    /// this host before wildcards, the longest of them first, before every host.
    pub(crate) fn find<'a>(&'a self, host: &str, path: &'a str) -> Option<Found<'a>> {
        let tables: Vec<&Table> = self.for_host(host).collect();
        let exact = tables.iter().find_map(|table| table.exact(path));
        // `max_by_key` takes the last of equals, hence the reverse.
        let prefix = || tables.iter().rev().filter_map(|table| table.prefix(path)).max_by_key(|rule| rule.from.len());
        if let Some(rule) = exact.or_else(prefix) {
            return Some(Found { rule, groups: Vec::new() });
        }
        if path.len() > self.expression_path_bytes_max {
            return None;
        }
        tables.iter().find_map(|table| table.regex.iter().find_map(|expression| expression.find(path)))
    }

    fn for_host<'a>(&'a self, host: &str) -> impl Iterator<Item = &'a Table> {
        // Most configurations have no wildcards.
        let wild = self.by_host.range::<str, _>((Bound::Included("*."), Bound::Excluded("*/"))).next().is_some();
        let suffixes = host.match_indices('.').take(if wild { usize::MAX } else { 0 });
        let below = suffixes.filter_map(move |(at, _)| self.by_host.get(&format!("*{}", &host[at..])));
        self.by_host.get(host).into_iter().chain(below).chain(self.by_host.get(""))
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
pub(crate) fn covers(prefix: &str, path: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || prefix.ends_with('/'))
}
