//! What is aimed at, and whether it is reached.

use super::Part;
use crate::peers::LATCHKEY;

/// What the edge's number is compared with.
#[derive(Clone, Copy)]
enum To {
    /// A peer's number of the same round; of several ways to run it, the best one.
    Peer(&'static str),
    /// Nothing: the number itself counts.
    Itself,
}

struct Target {
    says: &'static str,
    letter: char,
    case: &'static str,
    to: To,
    at_most: f64,
}

const fn target(says: &'static str, letter: char, case: &'static str, to: To, at_most: f64) -> Target {
    Target { says, letter, case, to, at_most }
}

const TARGETS: [Target; 35] = [
    target("HTTP/1.1: three plugins, beside bare Pingora without", 'a', "HTTP/1.1, 3 plugins", To::Peer("bare"), 1.15),
    target("HTTP/2: three plugins, beside bare Pingora without", 'a', "HTTP/2, 3 plugins", To::Peer("bare"), 1.15),
    target("HTTP/1.1: beside nginx doing the same", 'a', "HTTP/1.1, 3 plugins", To::Peer("nginx"), 1.5),
    target("HTTP/2: beside nginx doing the same", 'a', "HTTP/2, 3 plugins", To::Peer("nginx"), 1.5),
    target("HTTP/1.1: beside Caddy doing the same", 'a', "HTTP/1.1, 3 plugins", To::Peer("caddy"), 0.5),
    target("HTTP/2: beside Caddy doing the same", 'a', "HTTP/2, 3 plugins", To::Peer("caddy"), 0.5),
    target("full handshake at 100,000 names, beside nginx", 'b', "full, 100000 names, X25519", To::Peer("nginx"), 1.05),
    target("cold name from Redis, p50, beside Caddy", 'c', "from Redis, p50", To::Peer("caddy"), 0.5),
    target("cold name from Redis, p99, beside Caddy", 'c', "from Redis, p99", To::Peer("caddy"), 0.5),
    target("bytes a hot name, of 100,000", 'd', "100000 names", To::Itself, 1536.0),
    target("seconds from start to the first answer, 1,000,000 names", 'e', "start to first answer", To::Itself, 2.0),
    target("seconds from start to the list of 1,000,000 names", 'e', "start to all names listed", To::Itself, 2.0),
    target("hot names' p99 in a flood, beside before", 'f', "p99 in the flood ÷ before", To::Itself, 1.5),
    target("memory grown in a flood, in MiB", 'f', "memory grown", To::Itself, 8.0),
    target(
        "CertService's processor time of an order, in ms, on SQLite (50 a second and core)",
        'g',
        "an order, on SQLite",
        To::Itself,
        20.0,
    ),
    target(
        "CertService's processor time of an order, in ms, on MariaDB (50 a second and core)",
        'g',
        "an order, on MariaDB",
        To::Itself,
        20.0,
    ),
    target(
        "seconds from CertService's start to ready, 1,000,000 names on MariaDB",
        'h',
        "MariaDB: start to ready",
        To::Itself,
        2.0,
    ),
    target(
        "orders that are due, 1,000,000 names on MariaDB: p99 in ms",
        'h',
        "MariaDB: orders that are due",
        To::Itself,
        5.0,
    ),
    target(
        "renewals that are due, 1,000,000 names on MariaDB: p99 in ms",
        'h',
        "MariaDB: renewals that are due",
        To::Itself,
        5.0,
    ),
    target("one domain, 1,000,000 names on MariaDB: p99 in ms", 'h', "MariaDB: one domain", To::Itself, 5.0),
    target("one bundle, 1,000,000 names on MariaDB: p99 in ms", 'h', "MariaDB: one bundle", To::Itself, 5.0),
    target("a page of all, 1,000,000 names on MariaDB: p99 in ms", 'h', "MariaDB: a page of all", To::Itself, 5.0),
    target(
        "CertService's memory grown from 10,000 to 1,000,000 names on MariaDB, in MiB",
        'h',
        "MariaDB: memory grown",
        To::Itself,
        8.0,
    ),
    target(
        "seconds from CertService's start to ready, 1,000,000 names on SQLite",
        'h',
        "SQLite: start to ready",
        To::Itself,
        2.0,
    ),
    target(
        "orders that are due, 1,000,000 names on SQLite: p99 in ms",
        'h',
        "SQLite: orders that are due",
        To::Itself,
        5.0,
    ),
    target(
        "renewals that are due, 1,000,000 names on SQLite: p99 in ms",
        'h',
        "SQLite: renewals that are due",
        To::Itself,
        5.0,
    ),
    target("one domain, 1,000,000 names on SQLite: p99 in ms", 'h', "SQLite: one domain", To::Itself, 5.0),
    target("one bundle, 1,000,000 names on SQLite: p99 in ms", 'h', "SQLite: one bundle", To::Itself, 5.0),
    target("a page of all, 1,000,000 names on SQLite: p99 in ms", 'h', "SQLite: a page of all", To::Itself, 5.0),
    target(
        "CertService's memory grown from 10,000 to 1,000,000 names on SQLite, in MiB",
        'h',
        "SQLite: memory grown",
        To::Itself,
        8.0,
    ),
    target("seconds to load 1,000,000 redirects", 'i', "loading all rules", To::Itself, 2.0),
    target("bytes a redirect, of 1,000,000", 'i', "memory of a rule", To::Itself, 150.0),
    target("p99 of requests while they are loaded, beside before", 'i', "p99 while loading ÷ before", To::Itself, 1.2),
    target("a redirect among 1,000,000, beside nginx's map", 'i', "a redirect among all", To::Peer("nginx map"), 2.0),
    target(
        "p99 of a site beside the costliest misdeed of another's guest",
        'i',
        "misdeeds: the costliest",
        To::Itself,
        1.2,
    ),
];

pub(super) struct Verdict {
    pub(super) says: &'static str,
    /// The median.
    pub(super) measured: Option<f64>,
    pub(super) at_most: f64,
    pub(super) ratio: bool,
}

pub(super) fn verdicts(parts: &[Part]) -> Vec<Verdict> {
    TARGETS.iter().map(|target| target.verdict(parts)).collect()
}

impl Target {
    fn verdict(&self, parts: &[Part]) -> Verdict {
        let part = parts.iter().find(|part| part.letter == self.letter);
        let case = part.and_then(|part| part.cases.iter().find(|case| case.name == self.case));
        let measured = case.and_then(|case| match self.to {
            To::Itself => case.of(LATCHKEY)?.spread().map(|spread| spread.median),
            To::Peer(prefix) => {
                let peers = case.series.iter().filter(|series| series.peer.starts_with(prefix));
                let ratios = peers.filter_map(|peer| case.ratio(LATCHKEY, &peer.peer)).map(|spread| spread.median);
                ratios.max_by(f64::total_cmp)
            }
        });
        let ratio = matches!(self.to, To::Peer(_));
        Verdict { says: self.says, measured, at_most: self.at_most, ratio }
    }
}

impl Verdict {
    pub(super) fn word(&self) -> String {
        match self.measured {
            None => "not measured".into(),
            Some(measured) if measured <= self.at_most => "met".into(),
            Some(measured) => format!("missed, {:.0} % over", (measured / self.at_most - 1.0) * 100.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Case;

    #[test]
    fn the_best_way_to_run_a_peer_counts() {
        let mut case = Case::new("full, 100000 names, X25519", "µs");
        for (peer, sample) in [(LATCHKEY, 12.0), ("nginx files", 24.0), ("nginx lua", 10.0)] {
            case.add(peer, sample);
        }
        let part = Part { letter: 'b', cases: vec![case], ..Part::default() };
        let verdicts = verdicts(&[part]);
        let verdict = verdicts.iter().find(|verdict| verdict.says.starts_with("full handshake")).unwrap();
        assert_eq!(verdict.measured, Some(1.2));
        assert_eq!(verdict.word(), "missed, 14 % over");
        assert!(verdicts.iter().filter(|verdict| verdict.measured.is_none()).count() > 5);
    }
}
