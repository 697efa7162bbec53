//! Regular expressions: compiled when an instance starts, never within a request, and bounded so that all that may be tried
//! for one path ends within the time of a call.

use regex_lite::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize, Serializer};

use crate::table::{Found, Rule};

/// Paths that are compared with expressions are never longer.
pub(crate) const PATH_BYTES_MAX: usize = 512;
/// Below it the operator is told.
pub(crate) const PATH_BYTES_USUAL: usize = 256;
/// A limit on paths below it would leave out what people use.
pub(crate) const PATH_BYTES_LEAST: usize = 64;
/// What one compiled expression may take.
const COMPILED_BYTES_MAX: usize = 16 << 10;
/// What all of them may take: they are compiled within the time in which an instance has to start.
pub(crate) const ALL_COMPILED_BYTES_MAX: usize = 128 << 10;
/// Compiled bytes times path bytes. The costliest expressions that were found take 9 instructions for each, so this is nine
/// tenths of the 2,000,000 that a call has (wit/README.md). A typical one takes 2.
const WORK_MAX: usize = 200_000;
/// What a character takes that an expression begins with: it is passed once, however long the path is.
const CHAR_BYTES: usize = 16;

#[derive(Debug, Deserialize)]
#[serde(try_from = "Rule")]
pub(crate) struct Expression {
    rule: Rule,
    /// What every path that it matches begins with.
    begins: String,
    compiled: Regex,
}

impl TryFrom<Rule> for Expression {
    type Error = regex_lite::Error;

    fn try_from(rule: Rule) -> Result<Self, Self::Error> {
        Ok(Self { begins: beginning(&rule.from), compiled: compile(&rule.from)?, rule })
    }
}

impl Serialize for Expression {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.rule.serialize(serializer)
    }
}

impl Expression {
    pub(crate) fn number(&self) -> u16 {
        self.rule.number
    }

    pub(crate) fn find<'a>(&'a self, path: &'a str) -> Option<Found<'a>> {
        if !path.starts_with(&self.begins) {
            return None;
        }
        // Where groups are of no use it takes less without them.
        if !self.rule.to.contains('$') {
            return self.compiled.is_match(path).then(|| Found { rule: &self.rule, groups: Vec::new() });
        }
        let captures = self.compiled.captures(path)?;
        let groups = (0..captures.len()).map(|index| captures.get(index).map(|group| group.as_str())).collect();
        Some(Found { rule: &self.rule, groups })
    }
}

/// Linear in the path, whatever the expression: there is no backtracking.
pub(crate) fn compile(pattern: &str) -> Result<Regex, regex_lite::Error> {
    within(pattern, COMPILED_BYTES_MAX)
}

fn within(pattern: &str, bytes_max: usize) -> Result<Regex, regex_lite::Error> {
    RegexBuilder::new(pattern).size_limit(bytes_max).nest_limit(20).build()
}

/// What an expression takes when it is compiled, up to 64 bytes more.
pub(crate) fn compiled_bytes(pattern: &str) -> usize {
    let (mut below, mut enough) = (0, COMPILED_BYTES_MAX);
    while enough - below > 64 {
        let middle = below.midpoint(enough);
        match within(pattern, middle) {
            Ok(_) => enough = middle,
            Err(_) => below = middle,
        }
    }
    enough
}

/// How long a path may be so that every expression that may match it can be tried: those that begin as it does.
pub(crate) fn path_bytes_max(expressions: &[(&str, usize)]) -> usize {
    let sized = |(pattern, bytes): &(&str, usize)| {
        let begin = beginning(pattern);
        let bytes = bytes.saturating_sub(CHAR_BYTES * begin.len());
        (begin, bytes)
    };
    let sized: Vec<_> = expressions.iter().map(sized).collect();
    let tried =
        |path: &str| sized.iter().filter(|(begin, _)| path.starts_with(begin)).map(|(_, bytes)| bytes).sum::<usize>();
    let most = sized.iter().map(|(begin, _)| tried(begin)).max().unwrap_or_default();
    (WORK_MAX / most.max(1)).min(PATH_BYTES_MAX)
}

/// The plain characters that an expression begins with: `^/blog/(\d+)` → `/blog/`. Empty where that is not plain to see.
pub(crate) fn beginning(pattern: &str) -> String {
    let Some(rest) = pattern.strip_prefix('^') else { return String::new() };
    if pattern.contains('|') {
        return String::new();
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "/-_~%@!,;=&".contains(c);
    let end = rest.find(|c| !plain(c)).unwrap_or(rest.len());
    // What a repetition follows may be absent.
    match rest[end..].starts_with(['*', '?', '{']) {
        true => rest[..end].chars().rev().skip(1).collect::<Vec<_>>().into_iter().rev().collect(),
        false => rest[..end].to_owned(),
    }
}
