//! The alerts that are shipped, and the metrics: what they name exists, what exists is documented.

use std::collections::BTreeSet;
use std::process::Command;

use support::program;

use crate::world::{output, repository, stderr, stdout};

const RULES: &str = "deploy/prometheus/latchkey.rules.yml";
const METRICS: [(&str, &str, &str); 2] = [
    ("certservice/src/observe/mod.rs", "docs/certservice.md", "latchkey_certservice_"),
    ("proxy/src/observe/mod.rs", "docs/proxy.md", ""),
];

fn text(path: &str) -> String {
    std::fs::read_to_string(repository().join(path)).unwrap()
}

/// All metrics that a text names.
fn named(text: &str) -> BTreeSet<&str> {
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    text.split(|c| !is_name(c)).filter(|word| word.starts_with("latchkey_")).collect()
}

/// The metrics of a program, as it names them itself.
fn metrics(source: &str) -> BTreeSet<&str> {
    source.split('"').skip(1).step_by(2).filter(|word| named(word).contains(word)).collect()
}

#[tokio::test]
async fn each_alert_fires_in_its_time_and_none_without_need() {
    let mut command = Command::new(program::other("promtool").unwrap());
    command.args(["test", "rules", "latchkey.rules.test.yml"]).current_dir(repository().join("deploy/prometheus"));
    let tried = output(command).await;
    assert!(tried.status.success(), "{}{}", stdout(&tried), stderr(&tried));
    let (rules, test) = (text(RULES), text("deploy/prometheus/latchkey.rules.test.yml"));
    let alerts: Vec<_> = rules.lines().filter_map(|line| line.trim_start().strip_prefix("- alert: ")).collect();
    let untried: Vec<_> = alerts.iter().filter(|alert| !test.contains(&format!("\"{alert}\""))).collect();
    assert!(alerts.len() >= 30 && untried.is_empty(), "{untried:?} of {alerts:?}");
    let of = |key: &str| rules.lines().filter(|line| line.trim_start().starts_with(key)).count();
    assert_eq!((of("expr: "), of("labels: "), of("summary: ")), (alerts.len(), alerts.len(), alerts.len()));
}

#[test]
fn alerts_name_metrics_that_exist() {
    let sources = METRICS.map(|(source, ..)| text(source));
    let known: BTreeSet<_> = sources.iter().flat_map(|source| metrics(source)).collect();
    let rules = text(RULES);
    // A histogram's series have its name and `_bucket`; the rules of one program name it as it is scraped.
    let exists = |name: &str| known.contains(name) || known.contains(name.trim_end_matches("_bucket"));
    let missing: Vec<_> = named(&rules).into_iter().filter(|name| !exists(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_metric_is_documented() {
    for (source, page, left_out) in METRICS {
        let (source, page) = (text(source), text(page));
        let metrics = metrics(&source);
        let told = |name: &str| {
            let name = name.strip_prefix(left_out).unwrap_or(name);
            ["`", "{"].iter().any(|end| page.contains(&format!("`{name}{end}")))
        };
        let untold: Vec<_> = metrics.iter().filter(|name| !told(name)).collect();
        assert!(metrics.len() > 20 && untold.is_empty(), "{untold:?} of {metrics:?}");
    }
}
