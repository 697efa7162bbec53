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
    /// For many sites or listeners at once.
    #[deserr(default)]
    pub bindings: Vec<Bindings>,
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
    /// By which `bindings` name it.
    #[deserr(default)]
    pub tags: Vec<String>,
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

/// What it names none of, it is for all sites.
#[derive(Debug, Deserr)]
#[deserr(error = Faults, deny_unknown_fields)]
pub(super) struct Bindings {
    /// Sites that have any of these.
    #[deserr(default)]
    pub tags: Vec<String>,
    /// Listeners of the boot file.
    #[deserr(default)]
    pub listeners: Vec<String>,
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
    /// Upstreams that the plugin may ask while a request waits.
    #[deserr(default)]
    pub callouts: Vec<String>,
    /// For all that one call asks. Default 500.
    #[deserr(default, try_from(Option<u32>) = checked_timeout -> String)]
    pub callout_timeout_ms: Option<u32>,
    /// Default: `closed` for connection plugins; what the plugin declares safe for others.
    #[deserr(default)]
    pub on_failure: Option<OnFailure>,
    /// Of the registered domains, 0.01 to 100. Default 100.
    #[deserr(default = 100.0, try_from(f64) = checked_percent -> String)]
    pub percent: f64,
    #[deserr(default)]
    pub isolation: Isolation,
    #[deserr(default)]
    pub shadow: Option<Shadow>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserr)]
#[deserr(error = Faults, rename_all = lowercase)]
pub(super) enum Isolation {
    #[default]
    Shared,
    Tenant,
    Request,
}

/// Another version of the plugin, or another configuration of it, that is asked too and compared, and changes nothing.
#[derive(Debug, Deserr)]
#[deserr(error = Faults, deny_unknown_fields)]
pub(super) struct Shadow {
    /// Default: the binding's, and so on.
    #[deserr(default)]
    pub plugin: Option<String>,
    #[deserr(default)]
    pub config: Option<JsonObject>,
    #[deserr(default)]
    pub tables: Option<Vec<String>>,
    /// Of the binding's calls, 0.01 to 100. Default 1.
    #[deserr(default = 1.0, try_from(f64) = checked_percent -> String)]
    pub percent: f64,
}

const CALLOUT_TIMEOUT_MS_MAX: u32 = 5000;

fn checked_timeout(given: Option<u32>) -> Result<Option<u32>, String> {
    match given {
        Some(ms) if !(1..=CALLOUT_TIMEOUT_MS_MAX).contains(&ms) => {
            Err(format!("{ms} is out of range; accepted are 1 to {CALLOUT_TIMEOUT_MS_MAX}"))
        }
        given => Ok(given),
    }
}

const PERCENT_MIN: f64 = 0.01;

fn checked_percent(given: f64) -> Result<f64, String> {
    if (PERCENT_MIN..=100.0).contains(&given) {
        return Ok(given);
    }
    Err(format!("{given} percent is out of range; accepted are {PERCENT_MIN} to 100"))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserr)]
#[deserr(error = Faults, rename_all = lowercase)]
pub(super) enum OnFailure {
    Open,
    Closed,
}
