//! Shadows: what they would have done, and what becomes of them.

use std::sync::Arc;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use contract::admin::Shadows;
use serde_json::{Map, Value};

use super::super::{Change, Control, NoShadow, Of};
use super::access::Caller;
use super::config::{Parameters, applied, bad, order};
use super::problem;

/// For the OpenAPI document: the configuration's reader is the one that checks them.
#[derive(schemars::JsonSchema)]
#[allow(dead_code)]
#[schemars(rename = "ShadowSettings", deny_unknown_fields)]
pub(super) struct Settings {
    /// Default: the binding's, and so on.
    plugin: Option<String>,
    config: Option<Map<String, Value>>,
    tables: Option<Vec<String>>,
    /// Of the binding's calls, 0.01 to 100. Default 1.
    #[schemars(range(min = 0.01, max = 100.0))]
    percent: Option<f64>,
}

pub(super) async fn get(State(control): State<Arc<Control>>, Path(plugin): Path<String>) -> Response {
    match control.shadows(&plugin) {
        Ok(shadows) => Json(Shadows { shadows }).into_response(),
        Err(error) => no_shadow(&error),
    }
}

pub(super) async fn put(
    state: State<Arc<Control>>,
    caller: Extension<Caller>,
    plugin: Path<String>,
    parameters: Query<Parameters>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    match serde_json::from_slice(&body) {
        Ok(settings) => change(state, caller, plugin, parameters, headers, Change::Start(settings)).await,
        Err(error) => bad(("bad_body", format!("the settings of a shadow are a JSON object: {error}"))),
    }
}

pub(super) async fn promote(
    state: State<Arc<Control>>,
    caller: Extension<Caller>,
    plugin: Path<String>,
    parameters: Query<Parameters>,
    headers: HeaderMap,
) -> Response {
    change(state, caller, plugin, parameters, headers, Change::Promote).await
}

pub(super) async fn delete(
    state: State<Arc<Control>>,
    caller: Extension<Caller>,
    plugin: Path<String>,
    parameters: Query<Parameters>,
    headers: HeaderMap,
) -> Response {
    change(state, caller, plugin, parameters, headers, Change::Drop).await
}

async fn change(
    State(control): State<Arc<Control>>,
    Extension(caller): Extension<Caller>,
    Path(plugin): Path<String>,
    Query(mut parameters): Query<Parameters>,
    headers: HeaderMap,
    change: Change,
) -> Response {
    let at = parameters.at.take();
    match order(&caller, parameters, &headers) {
        Ok(order) => applied(&control, control.change_shadow(Of { plugin, at }, change, order).await),
        Err(refused) => bad(refused),
    }
}

pub(super) fn no_shadow(error: &NoShadow) -> Response {
    let code = match error {
        NoShadow::Plugin(..) => "unknown_plugin",
        NoShadow::Binding(..) => "unknown_binding",
        NoShadow::Shadow(..) => "no_shadow",
    };
    problem(StatusCode::NOT_FOUND, code, &error.to_string(), vec![])
}
