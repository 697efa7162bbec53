//! What rules do together: circles, chains, and rules that are never reached.

use latchkey_sdk::config::brief;

use crate::expression::beginning;
use crate::location;
use crate::rules::{KEYS, Read, url};
use crate::table::{Found, Kind, Tables, covers};

/// Browsers follow about twenty.
const HOPS_MAX: usize = 10;

/// For the groups of expressions.
const SAMPLES: [&str; 5] = ["x", "1", "x/x", "x.html", ""];
/// `$0` to `$9`.
const GROUPS: usize = 10;

/// Follows a rule's target for as long as rules answer for it. A circle is refused; a chain costs visitors a round trip
/// for each hop, so it is named.
pub(crate) fn trail(read: &Read<'_>, tables: &Tables) {
    if read.rule.status.redirect().is_none() {
        return;
    }
    if read.rule.kind == Kind::Regex {
        return expression_trail(read, tables);
    }
    let rests: &[&str] = if read.rule.kind == Kind::Prefix { &["", "/x"] } else { &[""] };
    let begin = read.host.strip_prefix("*.").map_or_else(|| read.host.clone(), |suffix| format!("x.{suffix}"));
    for rest in rests {
        let from = &read.rule.from;
        let mut at = if rest.is_empty() { from.clone() } else { format!("{}{rest}", from.trim_end_matches('/')) };
        let mut trail = vec![at.clone()];
        let mut numbers = vec![read.rule.number];
        let mut target = location::make(&Found { rule: &read.rule, groups: Vec::new() }.target(), &at, None);
        // A rule for every host goes on where it leads.
        let mut begin = begin.clone();
        while let Some((host, there)) = path_on(&target, &begin) {
            at = there.to_owned();
            // To one host for all, with the same path: on that host it redirects nothing (`is_here`).
            if begin.is_empty() && !host.is_empty() && numbers.len() == 1 && at == trail[0] {
                break;
            }
            begin = host;
            trail.push(at.clone());
            if at == trail[0] || trail.len() > HOPS_MAX {
                return refuse_circle(read, &trail);
            }
            let Some(next) = tables.find(&begin, &at).filter(|next| next.rule.status.redirect().is_some()) else {
                break;
            };
            numbers.push(next.rule.number);
            target = location::make(&next.target(), &at, None);
        }
        if numbers.len() > 1 {
            let rules: Vec<_> = numbers.iter().map(u16::to_string).collect();
            let message = format!("is a chain of rules {} (counted from 0)", rules.join(", "));
            read.place.object(&KEYS).inspect(|object| {
                object.warn_at("to", message, format!("send it to `{}` at once", brief(&target)));
            });
            return;
        }
    }
}

/// An expression's targets depend on the visitor, so some are tried. Whoever visits such a target is where a rule may send on
/// again: without end, if it goes on for that long.
fn expression_trail(read: &Read<'_>, tables: &Tables) {
    for sample in SAMPLES {
        let target = Found { rule: &read.rule, groups: vec![Some(sample); GROUPS] }.target();
        let mut location = location::make(&target, "/", None);
        let (host, mut trail) = (&read.host, Vec::<String>::new());
        while let Some((on, path)) = path_on(&location, host) {
            // What is sent to where it is is let through, and a rule for every host may lead to one that is not ours.
            if on != *host || trail.last().is_some_and(|last| last == path) {
                break;
            }
            trail.push(path.to_owned());
            if trail.len() > HOPS_MAX {
                return refuse_circle(read, &trail);
            }
            let Some(next) = tables.find(host, path).filter(|next| next.rule.status.redirect().is_some()) else {
                break;
            };
            location = location::make(&next.target(), path, None);
        }
    }
}

fn refuse_circle(read: &Read<'_>, trail: &[String]) {
    let shown: Vec<_> = trail.iter().take(4).map(brief).collect();
    let circle = if trail.last() == trail.first() { "in a circle" } else { "without end" };
    let message = format!("redirects {circle}: {}", shown.join(" -> "));
    read.place.object(&KEYS).inspect(|object| {
        object.error_at("to", message, "send it to a path that no rule sends on");
    });
}

/// Host and path of a location, if that is on the host that the rule is for; none is every host.
fn path_on<'a>(location: &'a str, host: &str) -> Option<(String, &'a str)> {
    let (host, path) = match url(location) {
        Some((authority, path)) if host.is_empty() || authority.eq_ignore_ascii_case(host) => {
            (authority.to_ascii_lowercase(), path)
        }
        Some(_) => return None,
        None => (host.to_owned(), location),
    };
    let path = path.split(['?', '#']).next()?;
    Some((host, if path.is_empty() { "/" } else { path }))
}

/// A prefix rule goes before every expression, so one that covers all that an expression matches leaves it nothing.
pub(crate) fn shadows(read: &[Read<'_>]) {
    let of = |kind| read.iter().filter(move |read| read.rule.kind == kind);
    for expression in of(Kind::Regex) {
        let begins = beginning(&expression.rule.from);
        let before = of(Kind::Prefix)
            .find(|prefix| reaches(&prefix.host, &expression.host) && leaves_nothing(&prefix.rule.from, &begins));
        if let Some(prefix) = before {
            let message = format!(
                "is never reached: the prefix `{}` of rule {} (counted from 0) goes first",
                prefix.rule.from, prefix.rule.number
            );
            expression.place.object(&KEYS).inspect(|object| {
                object.warn_at(
                    "from",
                    message,
                    "make the prefix an expression too, below this one, or remove one of the two",
                );
            });
        }
    }
}

/// All paths that begin so are covered by the prefix.
fn leaves_nothing(prefix: &str, begins: &str) -> bool {
    covers(prefix, begins) && (begins.len() > prefix.len() || prefix.ends_with('/'))
}

/// Whether a rule for `wide` is asked on every host of `narrow`.
fn reaches(wide: &str, narrow: &str) -> bool {
    let below = |suffix: &str| narrow.strip_suffix(suffix).is_some_and(|rest| rest.ends_with('.'));
    wide.is_empty() || wide == narrow || wide.strip_prefix("*.").is_some_and(below)
}
