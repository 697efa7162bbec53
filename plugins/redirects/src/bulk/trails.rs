//! Where the table's rules lead: circles are refused, chains are named. All targets are asked about in batches, since nearly
//! all lead to no rule.

use std::ops::Range;

use latchkey_sdk::config::brief;
use latchkey_sdk::datasets::Table;

use super::csv::Row;
use super::{BATCH, Bulk, Report, Stored, each_row, rule, source};
use crate::location;
use crate::rules::url;
use crate::table::Tables;

/// Browsers follow about twenty.
const HOPS_MAX: usize = 10;

/// Rules whose targets may be under a rule again. Filled again when they have been asked about.
#[derive(Default)]
struct Starts {
    /// Host and path that each leads to.
    at: Vec<String>,
    of: Vec<Start>,
    /// What is said of them, end to end.
    texts: String,
}

struct Start {
    line: u32,
    /// Host and path that the rule was found for; in `texts`.
    from: Range<usize>,
    /// As visitors are sent there; the same.
    location: Range<usize>,
}

pub(super) fn check(table: &Table, bulk: &Bulk, inline: &Tables, report: &Report<'_>) {
    let mut starts = Starts::default();
    each_row(table, report, |line, row| {
        // All of them are good, or nobody would look where they lead.
        match (row.status, row.kind) {
            ("410", _) => {}
            (_, "" | "exact") => starts.push_exact(line, row),
            _ => starts.push_prefix(line, row),
        }
        if starts.of.len() >= BATCH {
            starts.follow(bulk, inline, report);
        }
    });
    starts.follow(bulk, inline, report);
}

impl Starts {
    /// Leads to its target, whatever the visitor sent.
    fn push_exact(&mut self, line: u32, row: &Row<'_>) {
        let (host, path) = source(row);
        self.push(line, host, path, "", row.to);
    }

    fn push_prefix(&mut self, line: u32, row: &Row<'_>) {
        let Ok(rule) = rule(line, row) else { return };
        for rest in ["", "/x"] {
            let path = format!("{}{rest}", rule.from);
            let location = location::make(&rule.stored.target(), &path, None);
            self.push(line, rule.host, rule.from, rest, &location);
        }
    }

    fn push(&mut self, line: u32, host: &str, path: &str, rest: &str, location: &str) {
        let (below, host) = host.strip_prefix("*.").map_or(("", host), |suffix| ("x.", suffix));
        let begin = self.texts.len();
        [below, host].iter().for_each(|part| self.texts.push_str(part));
        let host = begin..self.texts.len();
        [path, rest].iter().for_each(|part| self.texts.push_str(part));
        let from = begin..self.texts.len();
        self.texts.push_str(location);
        let location = from.end..self.texts.len();
        if self.at.len() == self.of.len() {
            self.at.push(String::new());
        }
        let text = |range: &Range<usize>| self.texts.get(range.clone()).unwrap_or_default();
        if let Some(at) = self.at.get_mut(self.of.len()) {
            at.clear();
            place(text(&location), text(&host), at);
            self.of.push(Start { line, from, location });
        }
    }

    fn follow(&mut self, bulk: &Bulk, inline: &Tables, report: &Report<'_>) {
        let at = self.at.get(..self.of.len()).unwrap_or_default();
        let mut led_on = vec![false; at.len()];
        let mut places = bulk.exact.find_any(at);
        if bulk.prefixes > 0 {
            places.extend(bulk.prefix.find_any(at));
        }
        for place in places {
            led_on.get_mut(place as usize).into_iter().for_each(|led_on| *led_on = true);
        }
        if !inline.is_empty() {
            let found = |subject: &String| inline.find(host_of(subject), path_of(subject)).is_some();
            at.iter().zip(&mut led_on).for_each(|(subject, led_on)| *led_on |= found(subject));
        }
        let mut told = None;
        for ((start, at), _) in self.of.iter().zip(at).zip(led_on).filter(|(_, led_on)| *led_on) {
            // A prefix is looked at twice, with and without something below it.
            if told != Some(start.line) && follow(start, at, &self.texts, bulk, inline, report) {
                told = Some(start.line);
            }
        }
        self.of.clear();
        self.texts.clear();
    }
}

/// Host and path of a location, behind what is in `at`. A rule for every host has no host of its own.
fn place(location: &str, host: &str, at: &mut String) {
    let (host, path) = match url(location) {
        Some((authority, path)) => (authority.split(':').next().unwrap_or_default(), path),
        None => (host, location),
    };
    let path = path.split_at(path.bytes().position(|byte| byte == b'?' || byte == b'#').unwrap_or(path.len())).0;
    let begin = at.len();
    at.push_str(host);
    at.get_mut(begin..).into_iter().for_each(str::make_ascii_lowercase);
    at.push_str(if path.is_empty() { "/" } else { path });
}

fn host_of(subject: &str) -> &str {
    subject.split('/').next().unwrap_or_default()
}

fn path_of(subject: &str) -> &str {
    subject.get(host_of(subject).len()..).unwrap_or_default()
}

/// Whether there was something to say.
fn follow(start: &Start, at: &str, texts: &str, bulk: &Bulk, inline: &Tables, report: &Report<'_>) -> bool {
    let text = |range: &Range<usize>| texts.get(range.clone()).unwrap_or_default().to_owned();
    let mut trail = vec![text(&start.from), at.to_owned()];
    let mut rules = vec![format!("line {}", start.line)];
    let mut end = text(&start.location);
    let circle = |trail: &[String], rules: &[String]| {
        let how = if trail.last() == trail.first() { "in a circle" } else { "without end" };
        let shown: Vec<_> = trail.iter().take(4).map(brief).collect();
        let message = format!("redirects {how}: {} ({})", shown.join(" -> "), rules.join(", "));
        report.error(start.line, message, Some("send it to a path that no rule sends on".to_owned()));
    };
    while let Some(at) = trail.last().cloned() {
        if Some(&at) == trail.first() || trail.len() > HOPS_MAX {
            circle(&trail, &rules);
            return true;
        }
        let Some((rule, location)) = next(&at, bulk, inline) else { break };
        let mut place = String::new();
        self::place(&location, host_of(&at), &mut place);
        // What is sent to where it is is let through.
        if place == at {
            break;
        }
        rules.push(rule);
        end = location;
        trail.push(place);
    }
    if rules.len() > 1 {
        let message = format!("is a chain of rules: {}", rules.join(", "));
        report.warn(start.line, message, format!("send it to `{}` at once", brief(&end)));
    }
    rules.len() > 1
}

/// The rule that answers there, by its name, and where it leads.
fn next(at: &str, bulk: &Bulk, inline: &Tables) -> Option<(String, String)> {
    let path = path_of(at);
    if let Some(found) = inline.find(host_of(at), path) {
        found.rule.status.redirect()?;
        return Some((format!("rule {}", found.rule.number), location::make(&found.target(), path, None)));
    }
    let value = bulk.exact.find(at).or_else(|| bulk.prefix.find(at))?;
    let stored = Stored::decode(&value)?;
    stored.status.redirect()?;
    Some((format!("line {}", stored.line), location::make(&stored.target(), path, None)))
}
