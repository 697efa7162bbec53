//! The stages of a rollout: each promises an age to a share of the domains, from a day on.

use latchkey_sdk::config::{Object, Value, brief};
use serde::{Deserialize, Serialize};

use crate::{MAX_AGE_MOST, PRELOAD_MAX_AGE_LEAST, SUBDOMAINS_MAX_AGE_LEAST, date};

const KEYS: [&str; 5] = ["from", "percent", "max_age", "include_subdomains", "preload"];
const STAGES_MAX: usize = 20;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Stage {
    /// Unix seconds.
    from: u64,
    /// Buckets below this one are in the stage.
    buckets: u16,
    pub(crate) max_age: u64,
    include_subdomains: bool,
    preload: bool,
}

impl Stage {
    pub(crate) fn new(from: u64, percent: u64, max_age: u64, include_subdomains: bool, preload: bool) -> Self {
        let buckets = u16::try_from(percent * 100).unwrap_or(10_000);
        Self { from, buckets, max_age, include_subdomains, preload }
    }

    /// To everybody, from now on.
    pub(crate) fn withdrawal() -> Self {
        Self::new(0, 100, 0, false, false)
    }

    pub(crate) fn has_begun(&self, now: u64) -> bool {
        self.from <= now
    }

    /// Seconds; none where it has begun.
    pub(crate) fn begins_in(&self, now: u64) -> Option<u32> {
        self.from.checked_sub(now).filter(|wait| *wait > 0).map(|wait| u32::try_from(wait).unwrap_or(u32::MAX))
    }

    pub(crate) fn holds(&self, bucket: u16) -> bool {
        bucket < self.buckets
    }

    /// With this age, which may be less than the stage's own: then browsers' lists, which are for years, are not for it.
    pub(crate) fn value(&self, age: u64) -> String {
        let mut value = format!("max-age={age}");
        value.push_str(if self.include_subdomains { "; includeSubDomains" } else { "" });
        value.push_str(if self.preload && age == self.max_age { "; preload" } else { "" });
        value
    }

    fn weight(&self) -> (u64, bool, bool) {
        (self.max_age, self.include_subdomains, self.preload)
    }
}

/// A domain has the longest promise of the stages that have begun for it, so none is ever taken back on the way.
pub(crate) fn read(list: &Value<'_>) -> Option<Vec<Stage>> {
    let places = list.list(STAGES_MAX)?;
    if places.is_empty() {
        return list.refuse("has no stage", "to withdraw the header, set \"withdraw\": true".to_owned());
    }
    let last = places.len() - 1;
    let mut stages: Vec<Stage> = Vec::new();
    let mut all = true;
    for (index, place) in places.iter().enumerate() {
        let Some(stage) = stage(place, index == last) else {
            all = false;
            continue;
        };
        if stages.last().is_some_and(|before| before.from > stage.from) {
            let hint = "write the stages in the order of their days".to_owned();
            place.refuse::<()>("begins before the stage before it", hint);
            all = false;
        }
        stages.push(stage);
    }
    for (index, stage) in stages.iter().enumerate() {
        let says_it_all = |earlier: &Stage| earlier.weight() >= stage.weight() && earlier.buckets >= stage.buckets;
        // A place for each stage, as long as none was refused.
        if let Some(place) = places.get(index).filter(|_| all && stages.iter().take(index).any(says_it_all)) {
            place.warn("adds nothing to the stages before it", "raise percent or max_age, or leave it out");
        }
    }
    stages.sort_by_key(|stage| std::cmp::Reverse(stage.weight()));
    all.then_some(stages)
}

fn stage(place: &Value<'_>, last: bool) -> Option<Stage> {
    let stage = place.object(&KEYS)?;
    let from = stage.required("from", |value| {
        let text = value.text()?;
        let hint = "write a day, 2026-12-01, or a time in UTC, 2026-12-01T09:30Z".to_owned();
        date::parse(text).or_else(|| value.refuse(format!("`{}` is not a date", brief(text)), hint))
    });
    let percent = stage.required("percent", |v| v.integer(1..=100));
    let max_age = stage.required("max_age", |v| v.integer(1..=MAX_AGE_MOST));
    let include_subdomains = stage.optional("include_subdomains", false, Value::boolean);
    let preload = stage.optional("preload", false, Value::boolean);
    check_preload(&stage, "percent", max_age, include_subdomains, preload, percent);
    if include_subdomains == Some(true)
        && let Some(max_age) = max_age.filter(|max_age| *max_age < SUBDOMAINS_MAX_AGE_LEAST)
    {
        let message = format!(
            "is for a stage whose max_age is at least {SUBDOMAINS_MAX_AGE_LEAST} (a week), here it is {max_age}"
        );
        stage.error_at(
            "include_subdomains",
            message,
            "prove the age without it first: it also binds hosts that are not served here",
        );
    }
    if preload == Some(true) && !last {
        stage.error_at("preload", "is for the last stage", "leaving browsers' lists takes months");
    }
    Some(Stage::new(from?, percent?, max_age?, include_subdomains?, preload?))
}

pub(crate) fn check_preload(
    config: &Object<'_>,
    percent_key: &str,
    max_age: Option<u64>,
    include_subdomains: Option<bool>,
    preload: Option<bool>,
    percent: Option<u64>,
) {
    if preload != Some(true) {
        return;
    }
    let refuse = |message: String, hint: &str| config.error_at("preload", message, hint);
    if include_subdomains == Some(false) {
        refuse("preload needs include_subdomains".to_owned(), "add \"include_subdomains\": true");
    }
    if let Some(max_age) = max_age.filter(|max_age| *max_age < PRELOAD_MAX_AGE_LEAST) {
        let message = format!("preload needs a max_age of at least {PRELOAD_MAX_AGE_LEAST}, it is {max_age}");
        refuse(message, "raise max_age step by step, and preload last: leaving the list takes months");
    }
    if let Some(percent) = percent.filter(|percent| *percent < 100) {
        refuse(format!("preload needs a {percent_key} of 100, it is {percent}"), "finish the rollout first");
    }
}
