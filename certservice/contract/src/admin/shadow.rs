//! What a shadow binding would have done.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Crash;

/// Answer of `GET /v1/plugins/{name}/shadow`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Shadows {
    pub shadows: Vec<Shadow>,
}

/// One shadow; the same beside several bindings is one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Shadow {
    /// Of the live binding's calls.
    pub percent: f64,
    /// Beside how many bindings it stands.
    pub places: u64,
    /// The first of these, as JSON pointers into the configuration.
    pub examples: Vec<String>,
    #[serde(flatten)]
    pub report: ShadowReport,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ShadowReport {
    /// The shadow's plugin, as the configuration calls it.
    pub plugin: String,
    /// Of its component.
    pub version: String,
    pub digest: String,
    /// Unix seconds.
    pub since: u64,
    /// Calls that both were asked about. A body is one.
    pub calls: u64,
    pub same: u64,
    pub different: u64,
    /// Further ones: nobody knows what other servers would have told the shadow, or there was no place for one more body.
    pub not_compared: u64,
    /// Why it is not asked any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<String>,
    /// How many times what the live one takes a call of the shadow takes.
    pub micros_ratio: Option<f64>,
    pub instructions_ratio: Option<f64>,
    pub live: ShadowCost,
    pub shadow: ShadowCost,
    /// The most frequent first.
    pub differences: Vec<ShadowDifference>,
    /// Differences of further kinds.
    pub differences_beyond: u64,
    /// Failed calls of the shadow, grouped.
    pub crashes: Vec<Crash>,
}

/// Of the calls that both were asked about.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ShadowCost {
    /// Calls of the plugin.
    pub calls: u64,
    /// Answered without one: given again, or no dataset had anything. A shadow's answers are never given again.
    pub without_call: u64,
    pub micros_mean: Option<f64>,
    pub micros_max: Option<f64>,
    pub instructions_mean: Option<f64>,
    /// Failed calls by reason.
    pub faults: BTreeMap<String, u64>,
}

/// Answers that differ alike.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ShadowDifference {
    /// Such as `next → redirect`, `redirect: location`, `answered → failed (trap)`.
    pub kind: String,
    pub count: u64,
    /// The first ones.
    pub examples: Vec<ShadowExample>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ShadowExample {
    /// Host and path of the request, or who dialled.
    pub about: String,
    pub live: String,
    pub shadow: String,
}
