//! `GET /v1/plugins/{plugin}/rules`: rules of a plugin that have not decided for a while.

use std::sync::Arc;

use axum::extract::{Path as UrlPath, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use contract::admin::{RulesOfBinding, UnusedRule, UnusedRules};
use serde::Deserialize;
use serde_json::Value;

use super::problem;
use crate::control::Control;
use crate::control::snapshot::Snapshot;
use crate::wasm::Binding;

/// Named one by one, of a binding.
const NAMED_MAX: usize = 10_000;
const DAY: u64 = 86_400;
pub(super) const DAYS_MAX: u64 = 3650;
const DAYS_USUAL: &str = "30";

#[derive(Deserialize)]
pub(super) struct Span {
    unused_days: Option<String>,
}

pub(super) async fn get(
    State(control): State<Arc<Control>>,
    UrlPath(plugin): UrlPath<String>,
    Query(span): Query<Span>,
) -> Response {
    let text = span.unused_days.as_deref().unwrap_or(DAYS_USUAL);
    let Some(days) = text.parse().ok().filter(|days| *days <= DAYS_MAX) else {
        let says = format!("unused_days is `{text}`; it must be 0 to {DAYS_MAX}");
        return problem(StatusCode::BAD_REQUEST, "invalid_unused_days", &says, vec![]);
    };
    let then = crate::tls::now().saturating_sub(days * DAY);
    let snapshot = control.current.get();
    // A million rules take a while to look at.
    let looking = control.leisure.run(move || {
        let bindings = bindings(&snapshot, &plugin).map(|(config, binding)| rules(config, binding, then));
        UnusedRules { days, bindings: bindings.collect() }
    });
    match looking.await {
        Ok(unused) => Json(unused).into_response(),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, "failed", &error.to_string(), vec![]),
    }
}

/// Those of the plugin that the configuration calls so.
fn bindings<'a>(snapshot: &'a Snapshot, plugin: &str) -> impl Iterator<Item = (&'a str, &'a Binding)> {
    let document: Value = serde_json::from_str(&snapshot.document).unwrap_or_default();
    let digest = document.get("plugins").and_then(|plugins| plugins.get(plugin)?.get("digest")?.as_str());
    let digest = digest.unwrap_or_default().to_owned();
    let of_plugin = snapshot.bindings.iter().filter(move |(key, _)| key.plugin.to_string() == digest);
    of_plugin.map(|(key, binding)| (key.config.as_str(), &**binding))
}

fn rules(config: &str, binding: &Binding, then: u64) -> RulesOfBinding {
    let mut unused = binding.rules().unused_since(then).map(|unused| UnusedRule {
        rule: unused.rule,
        last_at: unused.last,
        known_since: unused.last.is_none().then_some(unused.since),
    });
    RulesOfBinding {
        config: serde_json::from_str(config).unwrap_or_default(),
        rules: binding.rules().count() as u64,
        unused: unused.by_ref().take(NAMED_MAX).collect(),
        more: unused.count() as u64,
    }
}
