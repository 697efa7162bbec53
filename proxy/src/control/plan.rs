//! How far a configuration reaches: which hosts, plugins, upstreams and listeners it touches, before it does.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use contract::admin::{Extent, Plan};
use serde_json::{Map, Value};

use super::apply::buckets;
use super::diff::{diff, fingerprint};
use crate::http::Pattern;

/// Most names that are given as examples.
const EXAMPLES_MAX: usize = 10;
/// Of these, how many are in the summary.
const SUMMARISED_MAX: usize = 3;

/// Compares two configurations that are valid.
pub(super) fn plan(old: &Value, new: &Value) -> Plan {
    let (before, after) = (Reach::of(old), Reach::of(new));
    let mut plan = Plan {
        hosts: extent(&before.hosts, &after.hosts),
        plugins: plugins(&before.bindings, &after.bindings),
        shadows: plugins(&before.shadows, &after.shadows),
        upstreams: extent(&before.upstreams, &after.upstreams),
        listeners: extent(&before.listeners, &after.listeners),
        diff: diff(old, new),
        ..Plan::default()
    };
    plan.hosts_unchanged = after.hosts.len() as u64 - plan.hosts.added - plan.hosts.changed;
    plan.summary = summary(&plan);
    plan
}

/// Fingerprints of all that has an effect of its own. What refers to a thing changes with that thing: a host has the
/// fingerprint of its upstream's settings and of its plugins' components in its own.
#[derive(Default)]
struct Reach {
    hosts: BTreeMap<String, u64>,
    upstreams: BTreeMap<String, u64>,
    listeners: BTreeMap<String, u64>,
    /// Plugin → host or listener → settings and component.
    bindings: BTreeMap<String, BTreeMap<String, u64>>,
    /// The same of shadows, which have no effect.
    shadows: BTreeMap<String, BTreeMap<String, u64>>,
}

impl Reach {
    fn of(document: &Value) -> Self {
        let mut reach = Self { upstreams: fingerprints(&document["upstreams"]), ..Self::default() };
        let parts = Parts {
            plugins: fingerprints(&document["plugins"]),
            tables: fingerprints(&document["tables"]),
            upstreams: reach.upstreams.clone(),
        };
        let wide = list(&document["bindings"]);
        for site in list(&document["sites"]) {
            let chain: Vec<&Value> = wide.iter().filter(|wide| covers(wide, site)).chain([site]).collect();
            reach.site(site, &attached(&chain), &parts);
        }
        let of_boot_file = wide.iter().flat_map(|wide| list(&wide["listeners"])).map(text);
        let listeners: BTreeSet<&str> = of_boot_file
            .chain(object(&document["listeners"]).into_iter().flatten().map(|(name, _)| name.as_str()))
            .collect();
        for name in listeners {
            let named = |wide: &&Value| list(&wide["listeners"]).iter().any(|listener| listener == name);
            let chain: Vec<&Value> = wide.iter().filter(named).chain([&document["listeners"][name]]).collect();
            reach.listener(name, &attached(&chain), &parts);
        }
        reach
    }

    fn site(&mut self, site: &Value, chain: &[&Value], parts: &Parts) {
        let upstream = text(&site["upstream"]);
        let upstream = combined(&(upstream, self.upstreams.get(upstream)));
        let (bindings, shadows) = (bindings(chain, parts), shadows(chain, parts));
        for host in list(&site["hosts"]).iter().filter_map(Value::as_str) {
            let pattern = Pattern::parse(host);
            let bucket = pattern.as_ref().ok().and_then(Pattern::bucket);
            let host = pattern.map_or_else(|_| host.to_owned(), |pattern| pattern.to_string());
            let (bindings, shadows) = (reaching(&bindings, bucket), reaching(&shadows, bucket));
            bound(&mut self.bindings, &host, &bindings);
            bound(&mut self.shadows, &host, &shadows);
            self.hosts.insert(host, combined(&(upstream, &bindings)));
        }
    }

    fn listener(&mut self, name: &str, chain: &[&Value], parts: &Parts) {
        let place = format!("listener {name}");
        let bindings = reaching(&bindings(chain, parts), None);
        bound(&mut self.bindings, &place, &bindings);
        bound(&mut self.shadows, &place, &reaching(&shadows(chain, parts), None));
        self.listeners.insert(name.to_owned(), combined(&bindings));
    }
}

/// Whether bindings for many are for this site.
fn covers(wide: &Value, site: &Value) -> bool {
    let tags = list(&wide["tags"]);
    list(&wide["listeners"]).is_empty() && (tags.is_empty() || tags.iter().any(|tag| list(&site["tags"]).contains(tag)))
}

fn attached<'a>(chain: &[&'a Value]) -> Vec<&'a Value> {
    chain.iter().flat_map(|place| list(&place["plugins"])).collect()
}

/// A binding of the plugin with that name, and the share of registered domains that it is for.
struct Bound<'a> {
    plugin: &'a str,
    fingerprint: u64,
    percent: f64,
}

/// Those that the names of this bucket have. Where there is none, it is some of the names: then the share counts.
fn reaching<'a>(all: &[Bound<'a>], bucket: Option<u16>) -> Vec<(&'a str, u64)> {
    let reaches = |Bound { plugin, fingerprint, percent }: &Bound<'a>| match bucket {
        Some(bucket) => (bucket < buckets(*percent)).then_some((*plugin, *fingerprint)),
        None => Some((*plugin, combined(&(fingerprint, percent.to_bits())))),
    };
    all.iter().filter_map(reaches).collect()
}

fn bound(all: &mut BTreeMap<String, BTreeMap<String, u64>>, place: &str, bindings: &[(&str, u64)]) {
    for (plugin, binding) in bindings {
        let places = all.entry((*plugin).to_owned()).or_default();
        let known = places.entry(place.to_owned()).or_default();
        // A chain may ask one plugin twice.
        *known = combined(&(*known, binding));
    }
}

/// What bindings name.
struct Parts {
    plugins: BTreeMap<String, u64>,
    tables: BTreeMap<String, u64>,
    /// For `callouts`.
    upstreams: BTreeMap<String, u64>,
}

/// Without their shadows.
fn bindings<'a>(chain: &[&'a Value], parts: &Parts) -> Vec<Bound<'a>> {
    let binding = |attached: &'a Value| {
        let settings = object(attached).into_iter().flatten();
        let settings = settings.filter(|(key, _)| !matches!(key.as_str(), "shadow" | "percent"));
        let settings: Vec<_> = settings.map(|(key, value)| (key, fingerprint(value))).collect();
        of(attached, combined(&(settings, named(attached, attached, parts))))
    };
    chain.iter().copied().map(binding).collect()
}

/// By the plugin beside which they stand.
fn shadows<'a>(chain: &[&'a Value], parts: &Parts) -> Vec<Bound<'a>> {
    let shadow = |attached: &'a Value| {
        let shadow = attached.get("shadow")?;
        Some(of(attached, combined(&(fingerprint(attached), named(shadow, attached, parts)))))
    };
    chain.iter().copied().filter_map(shadow).collect()
}

fn of(attached: &Value, fingerprint: u64) -> Bound<'_> {
    Bound { plugin: text(&attached["plugin"]), fingerprint, percent: attached["percent"].as_f64().unwrap_or(100.0) }
}

/// The component, the tables and the callees that a binding names, or leaves to another.
fn named(binding: &Value, otherwise: &Value, parts: &Parts) -> u64 {
    let of = |key: &str| binding.get(key).unwrap_or(&otherwise[key]);
    let tables: Vec<_> = list(of("tables")).iter().map(|name| parts.tables.get(text(name))).collect();
    let callees: Vec<_> = list(of("callouts")).iter().map(|name| parts.upstreams.get(text(name))).collect();
    combined(&(parts.plugins.get(text(of("plugin"))), tables, callees))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn fingerprints(named: &Value) -> BTreeMap<String, u64> {
    object(named).into_iter().flatten().map(|(name, value)| (name.clone(), fingerprint(value))).collect()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn object(value: &Value) -> Option<&Map<String, Value>> {
    value.as_object()
}

fn combined(parts: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    parts.hash(&mut hasher);
    hasher.finish()
}

fn extent(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> Extent {
    let mut extent = Extent::default();
    let mut touched = |count: fn(&mut Extent) -> &mut u64, name: &str| {
        *count(&mut extent) += 1;
        if extent.examples.len() < EXAMPLES_MAX {
            extent.examples.push(name.to_owned());
        }
    };
    for (name, value) in after {
        match before.get(name) {
            Some(same) if same == value => {}
            Some(_) => touched(|extent| &mut extent.changed, name),
            None => touched(|extent| &mut extent.added, name),
        }
    }
    for name in before.keys().filter(|name| !after.contains_key(*name)) {
        touched(|extent| &mut extent.removed, name);
    }
    extent
}

fn plugins(
    before: &BTreeMap<String, BTreeMap<String, u64>>,
    after: &BTreeMap<String, BTreeMap<String, u64>>,
) -> BTreeMap<String, Extent> {
    let none = BTreeMap::new();
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let compared = names.into_iter().map(|name| {
        let [before, after] = [before, after].map(|reach| reach.get(name).unwrap_or(&none));
        (name.clone(), extent(before, after))
    });
    compared.filter(|(_, extent)| extent.total() > 0).collect()
}

fn summary(plan: &Plan) -> String {
    if plan.diff.differences.is_empty() {
        return "changes nothing".to_owned();
    }
    let all = plan.hosts.total() + plan.hosts_unchanged;
    let mut parts = vec![format!("touches {} of {all} host{}", plan.hosts.total(), if all == 1 { "" } else { "s" })];
    if plan.hosts.total() > 0 {
        let few = plan.hosts.examples.iter().take(SUMMARISED_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
        let more = if plan.hosts.total() > SUMMARISED_MAX as u64 { ", …" } else { "" };
        parts.push(format!("({}: {few}{more})", counted(&plan.hosts)));
    }
    let mut text = parts.join(" ");
    for (what, extent) in [("upstreams", &plan.upstreams), ("listeners", &plan.listeners)] {
        if extent.total() > 0 {
            text += &format!("; {what}: {}", counted(extent));
        }
    }
    for (plugin, extent) in &plan.shadows {
        text += &format!("; shadows beside {plugin}: {}", counted(extent));
    }
    text
}

fn counted(extent: &Extent) -> String {
    let counts = [("added", extent.added), ("changed", extent.changed), ("removed", extent.removed)];
    let said = counts.iter().filter(|(_, count)| *count > 0).map(|(what, count)| format!("{count} {what}"));
    said.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn document() -> Value {
        json!({
            "plugins": {"hsts": {"digest": "sha256:1"}, "policy": {"digest": "sha256:2"}},
            "upstreams": {"one": {"url": "http://127.0.0.1:1"}, "two": {"url": "http://127.0.0.1:2"}},
            "sites": [
                {"hosts": ["a.example", "*.b.example"], "upstream": "one", "plugins": [{"plugin": "hsts", "config": {"max_age": 1}}]},
                {"hosts": ["c.example"], "upstream": "two"}
            ],
            "listeners": {"https": {"plugins": [{"plugin": "policy"}]}}
        })
    }

    fn counts(extent: &Extent) -> [u64; 3] {
        [extent.added, extent.changed, extent.removed]
    }

    #[test]
    fn the_same_configuration_touches_nothing() {
        let plan = plan(&document(), &document());
        assert_eq!((plan.hosts.total(), plan.hosts_unchanged, plan.summary.as_str()), (0, 3, "changes nothing"));
        assert!(plan.plugins.is_empty() && plan.diff.differences.is_empty());
    }

    #[test]
    fn another_component_touches_every_host_that_it_is_bound_to() {
        let mut new = document();
        new["plugins"]["hsts"]["digest"] = "sha256:3".into();
        let plan = plan(&document(), &new);
        assert_eq!(counts(&plan.hosts), [0, 2, 0]);
        assert_eq!(plan.hosts.examples, ["*.b.example", "a.example"]);
        assert_eq!(counts(&plan.plugins["hsts"]), [0, 2, 0]);
        assert_eq!(plan.summary, "touches 2 of 3 hosts (2 changed: *.b.example, a.example)");
    }

    #[test]
    fn bindings_for_many_touch_the_sites_with_their_tags() {
        let mut old = document();
        old["sites"][0]["tags"] = json!(["eu", "beta"]);
        let mut new = old.clone();
        new["bindings"] = json!([{"tags": ["beta"], "plugins": [{"plugin": "hsts", "config": {"max_age": 9}}]}]);
        let by_tag = plan(&old, &new);
        assert_eq!((counts(&by_tag.hosts), by_tag.hosts.examples.len()), ([0, 2, 0], 2));
        new["bindings"][0]["tags"] = json!([]);
        assert_eq!(counts(&plan(&old, &new).hosts), [0, 3, 0], "all sites");
        new["bindings"] = json!([{"listeners": ["http"], "plugins": [{"plugin": "policy"}]}]);
        assert_eq!(counts(&plan(&old, &new).listeners), [1, 0, 0]);
    }

    #[test]
    fn a_share_of_the_domains_touches_those_and_raising_it_only_adds() {
        let hosts: Vec<_> = (0..1000).map(|n| format!("www.shop-{n}.example")).collect();
        let with = |percent: f64| {
            json!({"plugins": {"hsts": {"digest": "sha256:1"}}, "upstreams": {},
                   "sites": [{"hosts": hosts, "upstream": "one", "plugins": [{"plugin": "hsts", "percent": percent}]}]})
        };
        let without = json!({"sites": [{"hosts": hosts, "upstream": "one"}]});
        let tenth = plan(&without, &with(10.0)).hosts.total();
        assert!((70..130).contains(&tenth), "{tenth} of 1,000");
        let more = plan(&with(10.0), &with(25.0));
        assert_eq!(more.hosts.total() + tenth, plan(&without, &with(25.0)).hosts.total());
        assert_eq!(counts(&more.plugins["hsts"])[1..], [0, 0], "nobody who has it is touched");
        // Names of many domains have it in part.
        let any =
            |percent: f64| json!({"sites": [{"hosts": ["*"], "plugins": [{"plugin": "hsts", "percent": percent}]}]});
        assert_eq!(counts(&plan(&any(10.0), &any(25.0)).hosts), [0, 1, 0]);
    }

    #[test]
    fn a_shadow_touches_no_host() {
        let mut new = document();
        new["sites"][0]["plugins"][0]["shadow"] = json!({"config": {"max_age": 2}, "percent": 5});
        let started = plan(&document(), &new);
        assert_eq!((started.hosts.total(), counts(&started.shadows["hsts"])), (0, [2, 0, 0]));
        assert_eq!(started.summary, "touches 0 of 3 hosts; shadows beside hsts: 2 added");
        let mut promoted = document();
        promoted["sites"][0]["plugins"][0]["config"] = json!({"max_age": 2});
        let promoted = plan(&new, &promoted);
        assert_eq!((counts(&promoted.hosts), counts(&promoted.shadows["hsts"])), ([0, 2, 0], [0, 0, 2]));
    }

    #[test]
    fn another_upstream_address_touches_its_hosts() {
        let mut new = document();
        new["upstreams"]["two"]["url"] = "http://127.0.0.1:3".into();
        let plan = plan(&document(), &new);
        assert_eq!((counts(&plan.hosts), counts(&plan.upstreams)), ([0, 1, 0], [0, 1, 0]));
        assert_eq!(plan.summary, "touches 1 of 3 hosts (1 changed: c.example); upstreams: 1 changed");
    }

    #[test]
    fn hosts_that_come_and_go_are_counted() {
        let mut new = document();
        new["sites"][0]["hosts"] = json!(["A.Example.", "d.example"]);
        new["listeners"] = json!({});
        let plan = plan(&document(), &new);
        assert_eq!(counts(&plan.hosts), [1, 0, 1], "the same name in another spelling is the same host");
        assert_eq!(counts(&plan.plugins["hsts"]), [1, 0, 1]);
        assert_eq!(counts(&plan.plugins["policy"]), [0, 0, 1]);
        assert_eq!(plan.plugins["policy"].examples, ["listener https"]);
        assert_eq!(counts(&plan.listeners), [0, 0, 1]);
    }
}
