//! Refuses what is on lists: hosts and all below them, and paths by regular expressions. The proxy looks into the lists; this
//! policy is called only where one of them has something: `{"hosts": ["bad.example"], "paths": ["^/\\.git(/|$)"]}`.

use latchkey_sdk::config::{Value, brief};
use latchkey_sdk::datasets::{Dataset, Entry, Kind, Reason, Subject, Table};
use latchkey_sdk::http::{Action, Depends, Facts, HttpPolicy, Plan, Request, Verdict};
use latchkey_sdk::{Manifest, export_http};
use serde::{Deserialize, Serialize};

const HOSTS_MAX: usize = 10_000;
const PATHS_MAX: usize = 1000;

#[derive(Serialize, Deserialize)]
struct Blocklist {
    status: u16,
}

export_http!(Blocklist);

impl HttpPolicy for Blocklist {
    const MANIFEST: Manifest = Manifest {
        name: "blocklist",
        version: env!("CARGO_PKG_VERSION"),
        config_schema: r#"{
            "type": "object", "additionalProperties": false,
            "properties": {
                "hosts": { "type": "array", "maxItems": 10000, "items": { "type": "string" } },
                "host_table": { "description": "A table that is granted: one more host a line.", "type": "string" },
                "paths": { "type": "array", "maxItems": 1000, "items": { "type": "string" } },
                "status": { "type": "integer", "minimum": 400, "maximum": 599, "default": 403 }
            }
        }"#,
        fail_open_safe: false,
    };

    fn plan(config: &Value<'_>) -> Option<Plan<Self>> {
        let config = config.object(&["hosts", "host_table", "paths", "status"])?;
        let hosts = Dataset::new("hosts", Kind::Suffix, Subject::Host);
        let paths = Dataset::new("paths", Kind::Regex, Subject::Path);
        let listed = config.optional("hosts", (), |list| fill(&hosts, list, HOSTS_MAX));
        let uploaded = config.optional("host_table", (), |name| fill_from_table(&hosts, name));
        let matched = config.optional("paths", (), |list| fill(&paths, list, PATHS_MAX));
        let status = config.optional("status", 403, |v| v.integer(400..=599));
        let ((), (), ()) = (listed?, uploaded?, matched?);
        let policy = Self { status: u16::try_from(status?).ok()? };
        Some(Plan::new(policy).on_request().wants_found(&[&hosts, &paths]).where_found())
    }

    /// Something was found, or nobody would ask.
    fn on_request(&self, _facts: &Facts, _request: &Request<'_>) -> Verdict {
        Verdict::from(Action::Deny(self.status)).holds(Depends::WANTED, 3600)
    }
}

/// Each text of the list; what the proxy refuses is told where it stands.
fn fill(dataset: &Dataset, list: &Value<'_>, most: usize) -> Option<()> {
    let items = list.list(most)?;
    let texts: Vec<&str> = items.iter().map(Value::text).collect::<Option<_>>()?;
    let entries: Vec<Entry> = texts.iter().map(|text| entry(text)).collect();
    let mut all = Some(());
    for refusal in dataset.add(&entries) {
        let place = refusal.entry as usize;
        // What is there twice is there.
        if let (Reason::Illegal(says), Some(item), Some(text)) = (refusal.why, items.get(place), texts.get(place)) {
            all = item.refuse(format!("`{}`: {says}", brief(text)), None);
        }
    }
    all
}

fn fill_from_table(dataset: &Dataset, name: &Value<'_>) -> Option<()> {
    let Some(table) = Table::open(name.text()?) else {
        let hint = "upload it with `latchkey table push`, and name it in the binding's `tables`".to_owned();
        return name.refuse("is no table that is granted to this binding", hint);
    };
    let mut before = 0;
    loop {
        let chunk = table.lines();
        if chunk.is_empty() {
            return Some(());
        }
        let text = String::from_utf8_lossy(&chunk);
        let entries: Vec<Entry> = text.lines().map(entry).collect();
        let faults = dataset.add(&entries).into_iter().find_map(|refusal| match refusal.why {
            Reason::Illegal(says) => Some((refusal.entry as usize, says)),
            Reason::Repeated => None,
        });
        if let Some((place, says)) = faults {
            return name.refuse(format!("line {}: {says}", before + place + 1), None);
        }
        before += entries.len();
    }
}

/// Nothing is to be told but that it is there.
fn entry(key: &str) -> Entry {
    Entry { key: key.to_owned(), value: Vec::new() }
}

#[cfg(test)]
mod tests {
    use latchkey_sdk::http::check;

    use super::*;

    #[test]
    fn whatever_is_found_is_refused() {
        let (plan, _) =
            check::<Blocklist>(r#"{"hosts": ["bad.example", "bad.example"], "status": 451}"#).expect("is accepted");
        let request = Request { host: "a.bad.example", path: "/", query: None, wanted: &[Some(Vec::new())] };
        assert_eq!(plan.policy.on_request(&Facts::EXAMPLE, &request).action, Action::Deny(451));
    }

    #[test]
    fn tells_every_fault_of_a_configuration() {
        let faults = check::<Blocklist>(r#"{"hosts": "x", "host_table": "none", "status": 200, "path": 1}"#);
        let faults = faults.err().expect("is refused");
        let at: Vec<_> = faults.iter().map(|fault| fault.at.as_str()).collect();
        assert_eq!(at, ["/path", "/hosts", "/host_table", "/status"]);
    }
}
