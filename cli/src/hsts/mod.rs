//! What a rollout of Strict-Transport-Security has come to, and what it will come to: pure, from what an edge says that its
//! plugin would answer for each host.

mod breaks;

use std::collections::BTreeMap;

use contract::Hostname;
use contract::admin::PreviewedHost;
use serde::Serialize;
use serde_json::Value;

pub(crate) use self::breaks::{Break, breaks};
use crate::when;

/// Names that stand for a group.
const EXAMPLES: usize = 5;
/// Hosts that are named one by one.
pub(crate) const NAMED_MAX: usize = 100;

/// `nothing`, or the value of the header.
type Promise = String;

#[derive(Debug, Serialize, PartialEq)]
pub(crate) struct Status {
    /// Those with the plugin.
    pub sites: usize,
    /// Hosts without a site, or whose site does not have the plugin.
    pub without_plugin: usize,
    /// The longest promise first.
    pub promises: Vec<Group>,
    /// Sites whose certificate is unwell, by what is wrong: no stage begins for them.
    pub unwell: BTreeMap<String, usize>,
    /// Those of them who would get another promise if it were well.
    pub held: Vec<Held>,
    /// Hosts for which there is no certificate: nothing is promised.
    pub without_certificate: usize,
    /// Hosts for which the plugin gave no answer.
    pub faults: Vec<(Hostname, String)>,
}

#[derive(Debug, Serialize, PartialEq)]
pub(crate) struct Group {
    pub promise: Promise,
    pub sites: usize,
    pub examples: Vec<Hostname>,
}

#[derive(Debug, Serialize, PartialEq)]
pub(crate) struct Held {
    pub host: Hostname,
    /// `renewal_failing`, `ending`, `handshake_errors`.
    pub why: String,
    /// Unix seconds.
    pub since: u64,
    /// When the certificate ends.
    pub ends: u64,
    pub promise: Promise,
    /// What it would be if the certificate were well.
    pub otherwise: Promise,
}

/// What becomes different at one moment.
#[derive(Debug, Serialize, PartialEq)]
pub(crate) struct Step {
    /// Unix seconds.
    pub at: u64,
    pub changes: Vec<Change>,
    /// Hosts that stay behind because their certificate is unwell now.
    pub held: usize,
    /// Of these, by what is wrong.
    pub held_why: BTreeMap<String, usize>,
    pub breaks: Vec<Break>,
}

#[derive(Debug, Serialize, PartialEq)]
pub(crate) struct Change {
    pub from: Promise,
    pub to: Promise,
    pub sites: usize,
    pub examples: Vec<Hostname>,
}

/// When stages of the plugin begin that have not begun, over all sites of a configuration.
pub(crate) fn stages_to_come(config: &Value, plugin: &str, now: u64) -> Vec<u64> {
    let list = |value: &Value, key: &str| value.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let bindings = list(config, "sites").into_iter().flat_map(|site| list(&site, "plugins"));
    let ours = bindings.filter(|binding| binding.get("plugin").and_then(Value::as_str) == Some(plugin));
    let stages = ours.flat_map(|binding| list(binding.get("config").unwrap_or(&Value::Null), "stages"));
    let begins = stages.filter_map(|stage| when::unix(stage.get("from")?.as_str()?));
    let mut moments: Vec<u64> = begins.filter(|begin| *begin > now).collect();
    moments.sort_unstable();
    moments.dedup();
    moments
}

pub(crate) fn status(hosts: &[PreviewedHost]) -> Status {
    let mut groups: BTreeMap<Promise, Vec<&Hostname>> = BTreeMap::new();
    let mut held = Vec::new();
    for host in sites(hosts) {
        let now = promise(host.changes.first());
        if let (Some(since), Some(ends), Some(otherwise)) = (host.since, host.ends, host.if_healthy.first()) {
            let otherwise = promise(Some(otherwise));
            if otherwise != now {
                let (host, why) = (host.host.clone(), host.certificate.clone());
                held.push(Held { host, why, since, ends, promise: now.clone(), otherwise });
            }
        }
        groups.entry(now).or_default().push(&host.host);
    }
    let mut promises: Vec<Group> = groups
        .into_iter()
        .map(|(promise, hosts)| Group { promise, sites: hosts.len(), examples: examples(&hosts) })
        .collect();
    promises.sort_by_key(|group| std::cmp::Reverse(age(&group.promise)));
    Status {
        sites: sites(hosts).count(),
        without_plugin: hosts.iter().filter(|host| !host.bound).count(),
        promises,
        unwell: by_reason(sites(hosts).filter(|host| host.since.is_some())),
        held,
        without_certificate: sites(hosts).filter(|host| host.certificate == "none").count(),
        faults: hosts.iter().filter_map(|host| Some((host.host.clone(), host.fault.clone()?))).collect(),
    }
}

/// `moments`: those that the hosts were asked about; the first is now. `lacking`: names that are registered and have no certificate.
pub(crate) fn plan(hosts: &[PreviewedHost], moments: &[u64], lacking: &[Hostname]) -> Vec<Step> {
    let pairs = moments.windows(2).enumerate();
    let step = |(index, pair): (usize, &[u64])| {
        let mut changes: BTreeMap<(Promise, Promise), Vec<&Hostname>> = BTreeMap::new();
        let (mut held, mut gaining) = (Vec::new(), Vec::new());
        for host in sites(hosts) {
            let (from, to) = (promise(host.changes.get(index)), promise(host.changes.get(index + 1)));
            let advances = |said: &[Vec<String>]| said.get(index) != said.get(index + 1);
            if !host.if_healthy.is_empty() && advances(&host.if_healthy) && from == to {
                held.push(host);
            }
            if binds_subdomains(&to) && !binds_subdomains(&from) {
                gaining.push(&host.host);
            }
            if from != to {
                changes.entry((from, to)).or_default().push(&host.host);
            }
        }
        let changes = changes.into_iter().map(|((from, to), hosts)| Change {
            from,
            to,
            sites: hosts.len(),
            examples: examples(&hosts),
        });
        let mut changes: Vec<Change> = changes.collect();
        changes.sort_by_key(|change| std::cmp::Reverse(change.sites));
        let at = pair.get(1).copied().unwrap_or_default();
        let (count, held_why) = (held.len(), by_reason(held.into_iter()));
        Step { at, changes, held: count, held_why, breaks: breaks(&gaining, lacking) }
    };
    pairs.map(step).collect()
}

/// Hosts that already bind what is below them, and names below that have no certificate.
pub(crate) fn broken_now(hosts: &[PreviewedHost], lacking: &[Hostname]) -> Vec<Break> {
    let binding = sites(hosts).filter(|host| binds_subdomains(&promise(host.changes.first())));
    breaks(&binding.map(|host| &host.host).collect::<Vec<_>>(), lacking)
}

fn by_reason<'a>(hosts: impl Iterator<Item = &'a PreviewedHost>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for host in hosts {
        *counts.entry(host.certificate.clone()).or_default() += 1;
    }
    counts
}

fn sites(hosts: &[PreviewedHost]) -> impl Iterator<Item = &PreviewedHost> {
    hosts.iter().filter(|host| host.bound && host.fault.is_none())
}

fn examples(hosts: &[&Hostname]) -> Vec<Hostname> {
    hosts.iter().take(EXAMPLES).map(|host| (*host).clone()).collect()
}

fn promise(changes: Option<&Vec<String>>) -> Promise {
    let value = |change: &String| {
        let (_, header) = change.split_once(' ')?;
        header.strip_prefix("strict-transport-security: ").map(str::to_owned)
    };
    changes.into_iter().flatten().find_map(value).unwrap_or_else(|| "nothing".to_owned())
}

fn binds_subdomains(promise: &str) -> bool {
    promise.contains("includeSubDomains")
}

/// Seconds; `nothing` is the least.
fn age(promise: &str) -> Option<u64> {
    promise.strip_prefix("max-age=")?.split(';').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn host(name: &str, certificate: &str, changes: &[&str], if_healthy: &[&str]) -> PreviewedHost {
        let said = |list: &[&str]| {
            let line = |value: &&str| match *value {
                "" => vec![],
                value => vec![format!("set strict-transport-security: {value}")],
            };
            list.iter().map(line).collect()
        };
        let unwell = (certificate != "healthy").then_some(7);
        PreviewedHost {
            host: Hostname::parse(name).unwrap(),
            bound: true,
            certificate: certificate.into(),
            since: unwell,
            ends: unwell,
            changes: said(changes),
            if_healthy: said(if_healthy),
            fault: None,
        }
    }

    #[test]
    fn counts_sites_by_what_they_promise_and_names_who_is_held() {
        let unbound = PreviewedHost { bound: false, ..host("other.example", "healthy", &[], &[]) };
        let hosts = [
            host("a.example", "healthy", &["max-age=300"], &[]),
            host("b.example", "healthy", &["max-age=86400"], &[]),
            host("c.example", "healthy", &["max-age=86400"], &[]),
            host("d.example", "renewal_failing", &["max-age=300"], &["max-age=86400"]),
            host("e.example", "renewal_failing", &["max-age=300"], &["max-age=300"]),
            host("f.example", "healthy", &[""], &[]),
            unbound,
        ];
        let status = status(&hosts);
        let groups: Vec<_> = status.promises.iter().map(|group| (group.promise.as_str(), group.sites)).collect();
        assert_eq!(groups, [("max-age=86400", 2), ("max-age=300", 3), ("nothing", 1)]);
        assert_eq!((status.sites, status.without_plugin, status.held.len()), (6, 1, 1));
        assert_eq!(status.unwell, BTreeMap::from([("renewal_failing".to_owned(), 2)]));
        let held = &status.held[0];
        assert_eq!(
            (held.host.as_str(), held.why.as_str(), held.otherwise.as_str()),
            ("d.example", "renewal_failing", "max-age=86400")
        );
    }

    #[test]
    fn tells_what_each_stage_changes_for_whom_and_what_it_breaks() {
        let (day, whole) = ("max-age=86400", "max-age=604800; includeSubDomains");
        let hosts = [
            host("a.example", "healthy", &["", day, whole], &[]),
            host("b.example", "healthy", &[day, day, whole], &[]),
            host("c.example", "renewal_failing", &[day, day, day], &[day, day, whole]),
        ];
        let lacking = ["old.a.example", "old.c.example", "a.example.other"].map(|name| Hostname::parse(name).unwrap());
        let steps = plan(&hosts, &[10, 20, 30], &lacking);
        assert_eq!(
            steps.iter().map(|step| (step.at, step.changes.len(), step.held)).collect::<Vec<_>>(),
            [(20, 1, 0), (30, 1, 1)]
        );
        assert_eq!(steps[1].held_why, BTreeMap::from([("renewal_failing".to_owned(), 1)]));
        assert_eq!((steps[1].changes[0].sites, steps[1].changes[0].to.as_str()), (2, whole));
        assert_eq!(steps[0].breaks, []);
        assert_eq!(steps[1].breaks.iter().map(|b| (b.host.as_str(), b.count)).collect::<Vec<_>>(), [("a.example", 1)]);
        assert_eq!(broken_now(&hosts, &lacking), []);
    }

    #[test]
    fn stages_are_found_in_the_configuration() {
        let binding = |plugin: &str, from: &str| json!({"plugin": plugin, "config": {"stages": [{"from": from}, {"from": "2020-01-01"}]}});
        let config = json!({"sites": [
            {"plugins": [binding("hsts", "2026-12-02"), binding("other", "2026-12-09")]},
            {"plugins": [binding("hsts", "2026-12-01T09:30Z"), binding("hsts", "2026-12-02")]},
            {},
        ]});
        let day = 1_796_083_200;
        assert_eq!(stages_to_come(&config, "hsts", day), [day + 34_200, day + 86_400]);
        assert_eq!(stages_to_come(&json!({}), "hsts", day), [0u64; 0]);
    }
}
