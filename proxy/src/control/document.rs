//! The runtime configuration as it is given to the admin API.

use contract::document::{Faults, JsonObject, Named};
use deserr::Deserr;

use crate::upstream::UpstreamSettings;

#[derive(Debug, Default, Deserr)]
#[deserr(error = Faults, deny_unknown_fields)]
pub(super) struct RuntimeConfig {
    #[deserr(default)]
    pub plugins: Named<Plugin>,
    #[deserr(default)]
    pub tables: Named<Table>,
    #[deserr(default)]
    pub upstreams: Named<UpstreamSettings>,
    #[deserr(default)]
    pub sites: Vec<Site>,
    #[deserr(default)]
    pub listeners: Named<Listener>,
}

#[derive(Debug, Deserr)]
#[deserr(error = Faults, deny_unknown_fields)]
pub(super) struct Plugin {
    /// `sha256:<hex>` of a component that was uploaded.
    pub digest: String,
}

#[derive(Debug, Deserr)]
#[deserr(error = Faults, deny_unknown_fields)]
pub(super) struct Table {
    /// `sha256:<hex>` of a table that was uploaded.
    pub digest: String,
}

#[derive(Debug, Deserr)]
#[deserr(error = Faults, deny_unknown_fields)]
pub(super) struct Site {
    /// Names, `*.suffix`, or `*` for all others.
    pub hosts: Vec<String>,
    pub upstream: String,
    #[deserr(default)]
    pub plugins: Vec<Attached>,
}

#[derive(Debug, Deserr)]
#[deserr(error = Faults, deny_unknown_fields)]
pub(super) struct Listener {
    #[deserr(default)]
    pub plugins: Vec<Attached>,
}

#[derive(Debug, Deserr)]
#[deserr(error = Faults, deny_unknown_fields)]
pub(super) struct Attached {
    pub plugin: String,
    /// The plugin's own; it says what it takes.
    #[deserr(default)]
    pub config: JsonObject,
    /// Tables that the plugin may read while it plans.
    #[deserr(default)]
    pub tables: Vec<String>,
    /// Default: `closed` for connection plugins; what the plugin declares safe for others.
    #[deserr(default)]
    pub on_failure: Option<OnFailure>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserr)]
#[deserr(error = Faults, rename_all = lowercase)]
pub(super) enum OnFailure {
    Open,
    Closed,
}
