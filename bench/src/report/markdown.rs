//! The report that people read.

use std::fmt::Write;

use super::{Case, Part, targets};
use crate::peers::LATCHKEY;
use crate::stats::Spread;

pub(super) fn report(parts: &[Part]) -> String {
    let mut out = String::from(
        "# Results\n\nMade by `make bench`; do not edit. What is measured and how to read it: [bench/README.md](../README.md).\n\n",
    );
    verdicts(&mut out, parts);
    out.push_str("![relative cost](plot.svg)\n");
    for part in parts {
        section(&mut out, part);
    }
    out
}

fn verdicts(out: &mut String, parts: &[Part]) {
    out.push_str("| Target | At most | Measured | |\n|---|---|---|---|\n");
    for verdict in targets::verdicts(parts) {
        let sign = if verdict.ratio { " ×" } else { "" };
        let measured = verdict.measured.map_or("–".into(), |measured| format!("{}{sign}", number(measured)));
        let _ =
            writeln!(out, "| {} | {}{sign} | {measured} | {} |", verdict.says, number(verdict.at_most), verdict.word());
    }
    out.push('\n');
}

fn section(out: &mut String, part: &Part) {
    let quick = if part.quick { ", **quick: few and short rounds**" } else { "" };
    let _ = writeln!(out, "\n## ({}) {}{quick}\n", part.letter, part.title);
    let _ = writeln!(
        out,
        "{}; taken {} in {} s; load of the machine before: {:.1}.\n",
        part.machine,
        date(part.taken_at),
        part.seconds,
        part.load_before
    );
    for missing in &part.missing {
        let _ = writeln!(out, "- **Missing: {}.** {}", missing.peer, missing.why.replace('\n', " "));
    }
    for note in &part.notes {
        let _ = writeln!(out, "- {note}");
    }
    for case in &part.cases {
        table(out, case);
    }
    if !part.versions.is_empty() {
        let versions: Vec<String> = part.versions.iter().map(|(peer, version)| format!("{peer}: {version}")).collect();
        let _ = writeln!(out, "\nVersions: {}.", versions.join("; "));
    }
}

fn table(out: &mut String, case: &Case) {
    let _ = writeln!(out, "\n**{}**, {}\n", case.name, case.unit);
    let compared = case.of(LATCHKEY).is_some() && case.series.len() > 1 && !case.unit.starts_with('%');
    let (head, rule) = if compared { (" latchkey ÷ it | min … max |", "---|---|") } else { ("", "") };
    let _ = writeln!(out, "| | median | min … max |{head}\n|---|---|---|{rule}");
    for series in &case.series {
        let Some(spread) = series.spread() else { continue };
        let _ = write!(out, "| {} | {} | {} |", series.peer, number(spread.median), range(spread));
        if compared {
            let ratio = case.ratio(LATCHKEY, &series.peer).filter(|_| series.peer != LATCHKEY);
            let _ = match ratio {
                Some(ratio) => write!(out, " **{:.2}** | {} |", ratio.median, range(ratio)),
                None => write!(out, " | |"),
            };
        }
        out.push('\n');
    }
}

fn range(spread: Spread) -> String {
    format!("{} … {}", number(spread.min), number(spread.max))
}

/// As many digits as mean something.
fn number(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        medium if medium >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Day and minute, UTC (days to a date after Howard Hinnant's civil_from_days).
fn date(unix_seconds: u64) -> String {
    let (days, seconds) = (unix_seconds / 86_400 + 719_468, unix_seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", seconds / 3600, seconds / 60 % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0), "1970-01-01 00:00 UTC");
        assert_eq!(date(951_782_400 + 3_660), "2000-02-29 01:01 UTC");
        assert_eq!(date(1_795_392_000), "2026-11-23 00:00 UTC");
    }

    #[test]
    fn a_peer_is_compared_with_the_edge_and_a_missing_one_is_named() {
        let mut case = Case::new("HTTP/1.1, 3 plugins", "µs CPU per request");
        case.add(LATCHKEY, 60.0);
        case.add("nginx", 40.0);
        let missing = vec![crate::peers::Missing { peer: "caddy".into(), why: "not installed".into() }];
        let part = Part { letter: 'a', cases: vec![case], missing, ..Part::default() };
        let report = report(&[part]);
        assert!(report.contains("| nginx | 40.0 | 40.0 … 40.0 | **1.50** | 1.50 … 1.50 |"), "{report}");
        assert!(report.contains("**Missing: caddy.** not installed"), "{report}");
        assert!(report.contains("| HTTP/1.1: beside nginx doing the same | 1.50 × | 1.50 × | met |"), "{report}");
    }
}
