//! Where the table's rules lead: circles are refused, chains are named. All targets are asked about in batches, since nearly
//! all lead to no rule.

use latchkey_sdk::config::brief;
use latchkey_sdk::datasets::Table;

use super::{BATCH, Bulk, Report, Ruled, Stored, each_row, rule};
use crate::location;
use crate::rules::authority;
use crate::table::{Kind, Tables};

/// Browsers follow about twenty.
const HOPS_MAX: usize = 10;

/// A rule whose target may be under a rule again.
struct Start {
    line: u32,
    /// Host and path that the rule was found for.
    from: String,
    /// Host and path that it leads to.
    at: String,
    /// As visitors are sent there.
    location: String,
}

pub(super) fn check(table: &Table, bulk: &Bulk, inline: &Tables, report: &Report<'_>) {
    let mut starts = Vec::new();
    each_row(table, report, |line, row| {
        let Ok(rule) = rule(line, row) else { return };
        if rule.stored.status.redirect().is_some() {
            push_starts(&rule, &mut starts);
        }
        if starts.len() >= BATCH {
            follow_all(&mut starts, bulk, inline, report);
        }
    });
    follow_all(&mut starts, bulk, inline, report);
}

fn push_starts(rule: &Ruled<'_>, starts: &mut Vec<Start>) {
    let host = rule.host.strip_prefix("*.").map_or_else(|| rule.host.to_owned(), |suffix| format!("x.{suffix}"));
    let rests: &[&str] = if rule.stored.kind == Kind::Prefix { &["", "/x"] } else { &[""] };
    for rest in rests {
        let path = format!("{}{rest}", rule.from);
        let location = location::make(&rule.stored.target(), &path, None);
        if let Some(at) = place(&location, &host) {
            starts.push(Start { line: rule.stored.line, from: format!("{host}{path}"), at, location });
        }
    }
}

/// Host and path of a location. A rule for every host has no host of its own.
fn place(location: &str, host: &str) -> Option<String> {
    let (host, path) = match authority(location) {
        Some(authority) => (authority.split(':').next()?, location.split_once(authority)?.1),
        None => (host, location),
    };
    let path = path.split(['?', '#']).next()?;
    let path = if path.is_empty() { "/" } else { path };
    Some(format!("{}{path}", host.to_ascii_lowercase()))
}

fn follow_all(starts: &mut Vec<Start>, bulk: &Bulk, inline: &Tables, report: &Report<'_>) {
    let subjects: Vec<String> = starts.iter().map(|start| start.at.clone()).collect();
    let mut led_on = vec![false; starts.len()];
    let mut places = bulk.exact.find_any(&subjects);
    if bulk.prefixes > 0 {
        places.extend(bulk.prefix.find_any(&subjects));
    }
    for place in places {
        led_on.get_mut(place as usize).into_iter().for_each(|led_on| *led_on = true);
    }
    if !inline.is_empty() {
        let found = |subject: &String| inline.find(host_of(subject), path_of(subject)).is_some();
        subjects.iter().zip(&mut led_on).for_each(|(subject, led_on)| *led_on |= found(subject));
    }
    let mut told = None;
    for start in starts.drain(..).zip(led_on).filter_map(|(start, led_on)| led_on.then_some(start)) {
        // A prefix is looked at twice, with and without something below it.
        if told != Some(start.line) && follow(&start, bulk, inline, report) {
            told = Some(start.line);
        }
    }
}

fn host_of(subject: &str) -> &str {
    subject.split('/').next().unwrap_or_default()
}

fn path_of(subject: &str) -> &str {
    subject.get(host_of(subject).len()..).unwrap_or_default()
}

/// Whether there was something to say.
fn follow(start: &Start, bulk: &Bulk, inline: &Tables, report: &Report<'_>) -> bool {
    let mut trail = vec![start.from.clone(), start.at.clone()];
    let mut rules = vec![format!("line {}", start.line)];
    let mut end = start.location.clone();
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
        let Some(place) = place(&location, host_of(&at)) else { break };
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
