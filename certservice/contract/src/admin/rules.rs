//! Rules of plugins that nobody needs.

use serde::{Deserialize, Serialize};

/// Answer of `GET /v1/plugins/{plugin}/rules`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct UnusedRules {
    /// The least for which the rules below have not decided.
    pub days: u64,
    /// One for each configuration that the plugin is bound with.
    pub bindings: Vec<RulesOfBinding>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RulesOfBinding {
    /// The plugin's own configuration.
    pub config: serde_json::Value,
    /// Rules in all.
    pub rules: u64,
    pub unused: Vec<UnusedRule>,
    /// Unused ones beyond these.
    pub more: u64,
}

impl Eq for RulesOfBinding {}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct UnusedRule {
    /// Its place in what the plugin has declared, from 0.
    pub rule: u32,
    /// Unix seconds; absent if it never has decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_at: Option<u64>,
    /// Unix seconds; since when it is known, if it never has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known_since: Option<u64>,
}
