//! Regular expressions, all of them tried in one pass over the path.

use std::collections::HashMap;

use regex::bytes::{RegexBuilder, RegexSet, RegexSetBuilder};

use super::store::Store;
use super::{Refused, Subject, suffixes};

const EXPRESSIONS_MAX: usize = 1000;
/// Of one, compiled.
const COMPILED_BYTES_MAX: usize = 64 << 10;
/// Of those of one host together: together with the length of a path it bounds the time of a look-up.
const SET_BYTES_MAX: usize = 1 << 20;
/// Longer paths match nothing.
const TEXT_BYTES_MAX: usize = 512;

#[derive(Default)]
pub(super) struct Expressions {
    /// By host as in a route: a name, `*.suffix`, or empty.
    by_host: HashMap<String, Set>,
    count: usize,
    tried: usize,
}

#[derive(Default)]
struct Set {
    patterns: Vec<String>,
    entries: Vec<u32>,
    compiled: Option<RegexSet>,
}

impl Expressions {
    /// Roughly: compiled expressions do not say what they take.
    pub(super) fn bytes(&self) -> usize {
        let of_set = |set: &Set| set.patterns.iter().map(|pattern| 50 * pattern.len()).sum::<usize>();
        self.by_host.values().map(of_set).sum()
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
        set.compiled = None;
        Ok(())
    }

    pub(super) fn ready(&mut self) -> Result<(), String> {
        for (host, set) in self.by_host.iter_mut().filter(|(_, set)| set.compiled.is_none()) {
            let mut builder = RegexSetBuilder::new(&set.patterns);
            let compiled = builder.unicode(false).size_limit(SET_BYTES_MAX).build();
            set.compiled = Some(compiled.map_err(|_| {
                format!(
                    "the {} regular expressions for host `{host}` take more than {SET_BYTES_MAX} bytes when they are compiled together",
                    set.patterns.len()
                )
            })?);
        }
        Ok(())
    }

    pub(super) fn find(&self, subject: Subject, host: &str, path: &str) -> Option<u32> {
        let text = if subject == Subject::Host { host } else { path };
        if text.len() > TEXT_BYTES_MAX {
            return None;
        }
        let first = |set: &Set| {
            let matches = set.compiled.as_ref()?.matches(text.as_bytes());
            matches.iter().next().and_then(|index| set.entries.get(index).copied())
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

fn check(pattern: &str) -> Result<(), String> {
    let shown = || pattern.chars().take(80).flat_map(char::escape_debug).collect::<String>();
    if !pattern.starts_with('^') {
        return Err(format!("`{}` does not begin with ^", shown()));
    }
    let compiled = RegexBuilder::new(pattern).unicode(false).size_limit(COMPILED_BYTES_MAX).build();
    compiled.map(drop).map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => {
            format!("`{}` takes more than {COMPILED_BYTES_MAX} bytes when it is compiled", shown())
        }
        error => format!("`{}`: {}", shown(), error.to_string().lines().last().unwrap_or_default()),
    })
}
