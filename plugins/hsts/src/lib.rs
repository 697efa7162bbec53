//! Strict-Transport-Security (RFC 6797), rolled out in stages: to more domains, for longer, and withdrawn at once.

mod date;
mod health; // of the site's certificate
mod stages;

use latchkey_sdk::config::{Object, Value};
use latchkey_sdk::http::{Changes, Depends, Edit, Facts, Field, HttpPolicy, Plan, Response, header};
use latchkey_sdk::{Manifest, export_http};
use serde::{Deserialize, Serialize};

use health::{Health, Reach};
use stages::Stage;

const FIELD: &str = "strict-transport-security";
const KEYS: [&str; 8] = [
    "max_age",
    "include_subdomains",
    "preload",
    "rollout_percent",
    "stages",
    "withdraw",
    "upstream_header",
    "unhealthy",
];

/// Ten years. More is most likely milliseconds.
const MAX_AGE_MOST: u64 = 315_360_000;
/// What browsers' preload lists ask for: one year.
const PRELOAD_MAX_AGE_LEAST: u64 = 31_536_000;
/// A subdomain without HTTPS can't be reached for as long as this: so the age is proven on a week first.
const SUBDOMAINS_MAX_AGE_LEAST: u64 = 604_800;

/// A domain's answer changes with the stages only.
const MEMO_SECONDS: u32 = 3600;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Hsts {
    /// Longer promises first.
    stages: Vec<Stage>,
    upstream: Upstream,
    /// None for a withdrawal, which does not depend on it.
    health: Option<Health>,
}

/// What becomes of the upstream's own field.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
enum Upstream {
    Replace,
    Keep,
    /// The one with the longer age stands.
    Max,
}

export_http!(Hsts);

impl HttpPolicy for Hsts {
    const MANIFEST: Manifest = Manifest {
        name: "hsts",
        version: env!("CARGO_PKG_VERSION"),
        config_schema: include_str!("../config.schema.json"),
        fail_open_safe: true,
    };

    fn plan(config: &Value<'_>) -> Option<Plan<Self>> {
        let config = config.object(&KEYS)?;
        let words = [("replace", Upstream::Replace), ("keep", Upstream::Keep), ("max", Upstream::Max)];
        let upstream = config.optional("upstream_header", Upstream::Replace, |v| v.one_of(&words));
        let withdraw = config.optional("withdraw", false, Value::boolean);
        let health = Health::read(&config);
        let stages = match config.get("stages") {
            Some(list) => {
                let mixed = ["max_age", "include_subdomains", "preload", "rollout_percent"].map(|key| config.get(key));
                for other in mixed.into_iter().flatten() {
                    other.refuse::<()>("belongs into the stages, where there are any", None);
                }
                stages::read(&list)
            }
            None if withdraw == Some(true) && config.get("max_age").is_none() => Some(Vec::new()),
            None => one_stage(&config).map(|stage| vec![stage]),
        };
        // Browsers keep a promise until its age is over: only max-age=0 takes it back, so it goes to everybody.
        let (stages, upstream, health) = match (withdraw?, stages?, upstream?, health?) {
            (true, ..) => (vec![Stage::withdrawal()], Upstream::Replace, None),
            (false, stages, upstream, health) => (stages, upstream, Some(health)),
        };
        let plan = Plan::new(Self { stages, upstream, health }).on_response();
        Some(if upstream == Upstream::Max { plan.wants(Field::ResponseHeader(FIELD.to_owned())) } else { plan })
    }

    fn on_response(&self, facts: &Facts, response: &Response<'_>) -> Changes {
        let now = facts.now_ms / 1000;
        let reach = match &self.health {
            Some(health) => health.reach(facts.certificate, now),
            None => Some(Reach::full(now)),
        };
        let next_stage = self.stages.iter().filter_map(|stage| stage.begins_in(now)).min();
        let changes_in = reach.map_or(u64::MAX, |reach| reach.changes_in);
        let changes_in = u32::try_from(changes_in).unwrap_or(u32::MAX).min(next_stage.unwrap_or(MEMO_SECONDS));
        let mut on = Depends::BUCKET;
        on.set(Depends::WANTED, self.upstream == Upstream::Max);
        let edits = reach.map_or_else(Vec::new, |reach| self.edits(reach, facts, response));
        // The moment of the call was part of a second.
        Changes::from(edits).hold(on, changes_in.saturating_sub(1).min(MEMO_SECONDS))
    }
}

impl Hsts {
    fn edits(&self, reach: Reach, facts: &Facts, response: &Response<'_>) -> Vec<Edit> {
        // RFC 6797 section 7.2: only over secure transport; section 8.3: it means nothing for an IP address.
        if !facts.is_https() || facts.is_for_ip() {
            return Vec::new();
        }
        let begun = |stage: &&Stage| stage.has_begun(reach.until) && stage.holds(facts.rollout_bucket);
        let Some(stage) = self.stages.iter().find(begun) else {
            return Vec::new();
        };
        let theirs = response.wanted.first().and_then(Option::as_deref).and_then(max_age);
        let age = reach.age_most.map_or(stage.max_age, |most| most.min(stage.max_age));
        let field = header(FIELD, &stage.value(age));
        match self.upstream {
            Upstream::Keep => vec![Edit::SetIfAbsent(field)],
            // Who steps back does so for both.
            Upstream::Max if theirs.is_some_and(|theirs| theirs > age) && reach.age_most.is_none() => Vec::new(),
            Upstream::Max | Upstream::Replace => vec![Edit::Set(field)],
        }
    }
}

/// The short form: one stage, from now on.
fn one_stage(config: &Object<'_>) -> Option<Stage> {
    let max_age = config.required("max_age", |v| v.integer(0..=MAX_AGE_MOST));
    let include_subdomains = config.optional("include_subdomains", false, Value::boolean);
    let preload = config.optional("preload", false, Value::boolean);
    let percent = config.optional("rollout_percent", 100, |v| v.integer(0..=100));
    stages::check_preload(config, "rollout_percent", max_age, include_subdomains, preload, percent);
    if percent == Some(0) {
        config.warn_at("rollout_percent", "no domain gets the header", "to withdraw it, set \"withdraw\": true");
    }
    Some(Stage::new(0, percent?, max_age?, include_subdomains?, preload?))
}

/// The age in an upstream's field (RFC 6797 section 6.1), none where there is none to be read.
fn max_age(field: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(field).ok()?;
    let mut directives = text.split(';').filter_map(|directive| directive.split_once('='));
    let (_, value) = directives.find(|(name, _)| name.trim().eq_ignore_ascii_case("max-age"))?;
    value.trim().trim_matches('"').parse().ok()
}

#[cfg(test)]
mod tests;
