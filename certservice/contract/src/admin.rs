//! Types of a proxy's admin API, shared with its clients.

mod preview;
mod rules;
mod shadow;
mod told;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::preview::{HOSTS_MAX, MOMENTS_MAX, Preview, PreviewHost, Previewed, PreviewedHost};
pub use self::rules::{RulesOfBinding, UnusedRule, UnusedRules};
pub use self::shadow::{Shadow, ShadowCost, ShadowDifference, ShadowExample, ShadowReport, Shadows};
pub use self::told::{
    AuditEntry, AuditPage, ListenerInfo, PluginInfo, Plugins, Ranked, Ranking, Readiness, TableInfo, Tables,
};
use crate::api::Fault;

/// One applied configuration, without its text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Revision {
    /// From 1, without gaps.
    pub number: u64,
    /// Unix seconds.
    pub at: u64,
    pub who: Author,
    /// Why, in the words of who applied it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// `sha256:<hex>` of the text, as it was given.
    pub digest: String,
    /// Length of the text.
    pub bytes: u64,
    /// The revision whose text it took up again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reverts_to: Option<u64>,
    /// What it changed, in one line.
    pub summary: String,
}

/// Who applied a configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Author {
    /// Of the process at the other end of the Unix socket, as the kernel says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// That user's name on the edge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Over TCP: the role, and the first digits of the SHA-256 of the token or certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller: Option<String>,
    /// Who the caller says to act for; nobody checks it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

impl std::fmt::Display for Author {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.caller, &self.user, self.uid) {
            (Some(caller), ..) => f.write_str(caller)?,
            (_, Some(user), _) => f.write_str(user)?,
            (_, None, Some(uid)) => write!(f, "uid {uid}")?,
            (_, None, None) => f.write_str("unknown")?,
        }
        self.by.as_ref().map_or(Ok(()), |by| write!(f, " for {by}"))
    }
}

/// Answer of `GET /v1/revisions`, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Revisions {
    pub revisions: Vec<Revision>,
}

/// Answer of `PUT /v1/config`, and of going back to a revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Applied {
    /// The one that is in force now.
    pub revision: u64,
    /// False for a dry run, and where the configuration says what the running one says.
    pub changed: bool,
    pub plan: Plan,
}

/// What a configuration changes, compared with the running one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Plan {
    /// For a person.
    pub summary: String,
    /// Hosts of sites, wildcards counted as one: those whose requests are treated differently.
    pub hosts: Extent,
    pub hosts_unchanged: u64,
    /// By plugin: the hosts and listeners on which it comes, goes, or has other settings.
    pub plugins: BTreeMap<String, Extent>,
    /// By plugin: the hosts and listeners on which a shadow of its bindings comes, goes, or has other settings. Their
    /// requests are treated as before.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub shadows: BTreeMap<String, Extent>,
    pub upstreams: Extent,
    pub listeners: Extent,
    pub diff: Diff,
    /// What plugins remark about settings that they accept; of a configuration that is applied or only looked at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Fault>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Extent {
    pub added: u64,
    pub changed: u64,
    pub removed: u64,
    /// The first few by name.
    pub examples: Vec<String>,
}

impl Extent {
    pub fn total(&self) -> u64 {
        self.added + self.changed + self.removed
    }
}

/// What is different in the text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Diff {
    pub differences: Vec<Difference>,
    /// How many there are beyond these.
    #[serde(default)]
    pub more: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Difference {
    /// JSON pointer (RFC 6901): into the old text where something was removed, else into the new one.
    pub at: String,
    pub kind: DifferenceKind,
    /// JSON, cut where it is long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum DifferenceKind {
    Added,
    Removed,
    Replaced,
    /// A list has the same entries in another order.
    Reordered,
}

/// Answer of `GET /v1/plugins/{name}/crashes`: failed calls of a plugin since the proxy started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Crashes {
    pub crashes: Vec<Crash>,
    /// Failed calls, of any plugin, that are in no group.
    pub beyond: u64,
}

/// Those of one cause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Crash {
    /// As the configuration calls it.
    pub plugin: String,
    /// As the component says.
    pub version: String,
    pub digest: String,
    /// `connection`, `request`, `response`, `request-body` or `response-body`.
    pub hook: String,
    /// `trap`, `deadline`, `memory`, `output` or `unavailable`.
    pub reason: String,
    /// The host's words, without values.
    pub says: String,
    /// Functions of the guest, innermost first.
    pub stack: Vec<String>,
    pub count: u64,
    /// Unix seconds.
    pub first_at: u64,
    pub last_at: u64,
}
