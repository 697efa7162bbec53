//! The journal: what was changed, when, and by whom. The hash of each entry covers the one before it: none can be changed,
//! taken out or put in without all later ones telling.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::bundle::sha256;

/// More about a change; sorted, so that it is written in one way.
pub type Detail = BTreeMap<String, Value>;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename = "JournalEntry"))]
pub struct Entry {
    /// From 1, without gaps.
    pub seq: u64,
    /// Unix seconds.
    pub at: u64,
    /// Who: `local` (the Unix socket), a role with the first digits of its token's SHA-256 (`operator:3fa9c1d2`,
    /// `app/shop:1b2c3d4e`), or `certservice` itself.
    pub actor: String,
    /// What: `domain.registered`, `domain.state`, `certificate.issued`, …
    pub action: String,
    /// Whose; empty where it is nobody's.
    pub tenant: String,
    /// Of a domain, or of what was changed.
    pub name: String,
    pub detail: Detail,
    /// SHA-256, hexadecimal, of the JSON array `[hash before, seq, at, actor, action, tenant, name, detail]`, without spaces
    /// and with sorted keys. Before the first there is "".
    pub hash: String,
}

impl Entry {
    pub fn hash_after(&self, before: &str) -> String {
        let Self { seq, at, actor, action, tenant, name, detail, .. } = self;
        let text = serde_json::json!([before, seq, at, actor, action, tenant, name, detail]).to_string();
        sha256(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Up to where a journal was read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename = "JournalHead"))]
#[serde(deny_unknown_fields)]
pub struct Head {
    pub seq: u64,
    pub hash: String,
}

/// Why a journal is not what was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    #[error("entry {0} is missing: what follows is entry {1}")]
    Gap(u64, u64),
    #[error("entry {0} is not what was written: its hash does not fit")]
    Changed(u64),
    #[error("the journal ends at entry {0}, before entry {1}")]
    Cut(u64, u64),
}

impl Head {
    pub fn follow(&mut self, entry: &Entry) -> Result<(), Broken> {
        if entry.seq != self.seq + 1 {
            return Err(Broken::Gap(self.seq + 1, entry.seq));
        }
        if entry.hash != entry.hash_after(&self.hash) {
            return Err(Broken::Changed(entry.seq));
        }
        *self = Self { seq: entry.seq, hash: entry.hash.clone() };
        Ok(())
    }
}

/// Answer of `GET /v1/audit`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename = "JournalPage"))]
pub struct Page {
    pub entries: Vec<Entry>,
    /// The newest of all.
    pub head: Head,
    /// Entries up to this one are in archives, and no longer here; 0 where all are.
    #[serde(default)]
    pub base: Head,
}

/// Answer of `POST /v1/audit/archive`, whose body is the [`Head`] up to which an archive has all entries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename = "JournalArchived"))]
pub struct Archived {
    /// Entries that were removed.
    pub removed: u64,
    /// Where the journal begins now.
    pub base: Head,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal(count: u64) -> Vec<Entry> {
        let mut before = String::new();
        let entry = |seq| Entry {
            seq,
            at: 1_800_000_000 + seq,
            actor: "local".into(),
            action: "domain.registered".into(),
            tenant: "shop".into(),
            name: format!("n{seq}.example"),
            detail: [("issuer".to_owned(), "ca".into()), ("a".to_owned(), 7.into())].into(),
            hash: String::new(),
        };
        let chained = |seq| {
            let mut entry = entry(seq);
            entry.hash = entry.hash_after(&before);
            before = entry.hash.clone();
            entry
        };
        (1..=count).map(chained).collect()
    }

    fn verdict(entries: &[Entry]) -> Result<Head, Broken> {
        let mut head = Head::default();
        entries.iter().try_for_each(|entry| head.follow(entry)).map(|()| head)
    }

    #[test]
    fn the_hash_is_over_the_documented_text() {
        let entry = &journal(1)[0];
        let text = r#"["",1,1800000001,"local","domain.registered","shop","n1.example",{"a":7,"issuer":"ca"}]"#;
        let hash: String = sha256(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(entry.hash, hash);
        // What went over the wire is the same.
        let read: Entry = serde_json::from_str(&serde_json::to_string(entry).unwrap()).unwrap();
        assert_eq!(read.hash_after(""), hash);
    }

    #[test]
    fn whatever_is_changed_taken_out_or_put_in_is_found() {
        let good = journal(5);
        assert_eq!(verdict(&good).unwrap(), Head { seq: 5, hash: good[4].hash.clone() });
        let with = |change: fn(&mut Entry)| {
            let mut entries = journal(5);
            change(&mut entries[2]);
            verdict(&entries)
        };
        for change in [
            (|entry| entry.at += 1) as fn(&mut Entry),
            |entry| entry.actor.push('x'),
            |entry| entry.action.clear(),
            |entry| entry.tenant = "other".into(),
            |entry| entry.name.clear(),
            |entry| entry.detail.clear(),
        ] {
            assert_eq!(with(change), Err(Broken::Changed(3)));
        }
        // One that fits in itself breaks what follows.
        let rewritten = with(|entry| {
            entry.actor = "nobody".into();
            entry.hash = entry.hash_after(&journal(5)[1].hash);
        });
        assert_eq!(rewritten, Err(Broken::Changed(4)));
        let without = [&good[..2], &good[3..]].concat();
        assert_eq!(verdict(&without), Err(Broken::Gap(3, 4)));
    }
}
