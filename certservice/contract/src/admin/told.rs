//! What a proxy tells of itself.

use serde::{Deserialize, Serialize};

/// Answer of `GET /readyz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Readiness {
    pub ready: bool,
    /// Why not.
    pub reasons: Vec<String>,
    /// Of the configuration; 0 before the first.
    pub revision: u64,
    /// `ok`, or why it does not answer; a proxy that has its certificates serves without it.
    pub certservice: String,
    pub accepting: bool,
    pub listeners: Vec<ListenerInfo>,
    pub pid: u32,
    pub version: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ListenerInfo {
    pub name: String,
    pub address: String,
    /// `https` or `http`.
    pub protocol: String,
}

/// Answer of `GET /v1/plugins`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Plugins {
    pub plugins: Vec<PluginInfo>,
}

/// An uploaded component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PluginInfo {
    /// `sha256:` and hexadecimal digits.
    pub digest: String,
    /// As the plugin calls itself.
    pub name: String,
    pub version: String,
    /// `connection` or `http`.
    pub class: String,
    /// The key that vouches for it.
    pub signed_by: Option<String>,
}

/// Answer of `GET /v1/tables`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Tables {
    pub tables: Vec<TableInfo>,
}

/// A text that plugins read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TableInfo {
    /// `sha256:` and hexadecimal digits.
    pub digest: String,
    pub bytes: u64,
    /// Unix seconds.
    pub uploaded_at: u64,
    /// What the running configuration calls it.
    pub named: Vec<String>,
}

/// Answer of `GET /v1/top`: the hosts that are asked for most.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Ranking {
    pub by: String,
    /// How far it looks back.
    pub seconds: u64,
    pub total: u64,
    pub names: Vec<Ranked>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Ranked {
    pub name: String,
    /// At most so many, and at least `at_least`.
    pub count: u64,
    pub at_least: u64,
}

/// Answer of `GET /v1/audit`, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AuditPage {
    pub entries: Vec<AuditEntry>,
}

/// A change that was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AuditEntry {
    /// Unix seconds.
    pub at: u64,
    /// The user of the Unix socket, or the role and the first digits of a token's or certificate's SHA-256.
    pub who: String,
    /// Over TCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    pub method: String,
    pub path: String,
    /// What was answered.
    pub status: u16,
    /// Why, in the words of who asked.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Requests before this one that are in no entry: of callers who may change nothing, only a few are.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
fn is_zero(count: &u64) -> bool {
    *count == 0
}
