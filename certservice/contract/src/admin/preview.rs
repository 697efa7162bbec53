//! What a plugin would say, asked without a visitor.

use serde::{Deserialize, Serialize};

use crate::Hostname;

/// Most hosts in one question.
pub const HOSTS_MAX: usize = 10_000;
/// Most moments in one question.
pub const MOMENTS_MAX: usize = 32;

/// Body of `POST /v1/plugins/{plugin}/preview`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Preview {
    pub hosts: Vec<PreviewHost>,
    /// Unix seconds; the first one also says when certificates are looked at.
    pub at: Vec<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PreviewHost {
    pub host: Hostname,
    /// Unix seconds; of its certificate. Without both there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<u64>,
}

/// Its answer, in the same order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Previewed {
    pub hosts: Vec<PreviewedHost>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PreviewedHost {
    pub host: Hostname,
    /// A site with this plugin answers for the host. Without, nothing else is told.
    pub bound: bool,
    /// `none`, `healthy`, `renewal_failing`, `ending`, `handshake_errors`.
    pub certificate: String,
    /// Unix seconds; of a certificate that is not healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// Unix seconds; the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends: Option<u64>,
    /// For each moment, what the plugin would do to the header of an answer, such as `set name: value`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<Vec<String>>,
    /// The same if the certificate were healthy, where it is not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub if_healthy: Vec<Vec<String>>,
    /// Why the plugin gave no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}
