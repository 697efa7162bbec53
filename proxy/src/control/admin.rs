//! The admin API, on a Unix socket that only its owner opens.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{DefaultBodyLimit, Path as UrlPath, Query, State};
use axum::http::header::{CONTENT_TYPE, ETAG, IF_MATCH};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, put};
use contract::api::{Fault, Problem};
use serde_json::json;
use tokio::net::UnixListener;

use super::apply::DOCUMENT_BYTES_MAX;
use super::plugins::UploadError;
use super::{Control, HandedOver, NotApplied};
use crate::observe::{By, METRICS, NAMES_MAX, Ranked, TOP};
use crate::tls::Tier;
use crate::wasm::Plugin;

/// Largest component that is read, in bytes; the Wasm host has its own limit below it.
const COMPONENT_BYTES_MAX: usize = 32 * 1024 * 1024;

pub(super) async fn serve(listener: UnixListener, control: Arc<Control>) {
    let routes = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/v1/top", get(top))
        .route("/v1/config", get(get_config).put(put_config).layer(DefaultBodyLimit::max(DOCUMENT_BYTES_MAX)))
        .route("/v1/plugins", get(list_plugins))
        .route("/v1/plugins/{digest}", put(put_plugin).layer(DefaultBodyLimit::max(COMPONENT_BYTES_MAX)))
        .fallback(|| async { problem(StatusCode::NOT_FOUND, "unknown_path", "no such path in the admin API", vec![]) })
        .with_state(control);
    if let Err(error) = axum::serve(listener, routes).await {
        tracing::error!(%error, "the admin API ended");
    }
}

async fn healthz() -> &'static str {
    "ok\n"
}

/// Ready: connections are accepted, and a configuration is in force, so that requests can be routed. CertService is
/// shown, but a proxy that has its certificates serves without it.
async fn readyz(State(control): State<Arc<Control>>) -> Response {
    let revision = control.current.load().revision;
    let accepting = control.accepting.load(Ordering::Acquire);
    let certservice = control.supply.check().await;
    let mut reasons = Vec::new();
    if revision == 0 {
        reasons.push("no configuration was applied yet: PUT /v1/config, or `latchkey config apply`");
    }
    if !accepting {
        reasons.push("no connections are accepted: this process is starting or stopping");
    }
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let certservice = certservice.map_or_else(|why| why, |()| "ok".to_owned());
    let listeners = control.listeners.iter().map(
        |listener| json!({"name": listener.name, "address": listener.address, "protocol": listener.protocol.as_str()}),
    );
    let told = json!({
        "ready": reasons.is_empty(),
        "reasons": reasons,
        "revision": revision,
        "certservice": certservice,
        "accepting": accepting,
        "listeners": listeners.collect::<Vec<_>>(),
        "pid": std::process::id(),
        "version": env!("CARGO_PKG_VERSION"),
    });
    (status, Json(told)).into_response()
}

async fn metrics(State(control): State<Arc<Control>>) -> Response {
    for (tier, size) in [(Tier::Parsed, control.table.parsed_size()), (Tier::Warm, control.table.warm_size())] {
        METRICS.certificates_held(tier.label(), size.entries, size.bytes);
    }
    let (names, bytes) = control.known.size();
    METRICS.known_names.set(i64::try_from(names).unwrap_or(i64::MAX));
    METRICS.known_names_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    for upstream in control.current.get().upstreams.values() {
        let healthy = i64::try_from(upstream.healthy()).unwrap_or(i64::MAX);
        METRICS.upstream_healthy_peers.with_label_values(&[upstream.name.as_str()]).set(healthy);
    }
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], METRICS.render()).into_response()
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct TopQuery {
    #[serde(default)]
    by: Option<String>,
    #[serde(default)]
    n: Option<usize>,
}

async fn top(query: Result<Query<TopQuery>, QueryRejection>) -> Response {
    let bad = |says: &str| problem(StatusCode::BAD_REQUEST, "bad_query", says, vec![]);
    let Query(TopQuery { by, n }) = match query {
        Ok(query) => query,
        Err(error) => return bad(&error.body_text()),
    };
    let named = by.as_deref().unwrap_or(By::Requests.name());
    let Some(by) = By::ALL.into_iter().find(|by| by.name() == named) else {
        let known = By::ALL.map(By::name).join(", ");
        return bad(&format!("by: `{}` is no ranking; there are {known}", named.chars().take(64).collect::<String>()));
    };
    let n = n.unwrap_or(20);
    if !(1..=NAMES_MAX).contains(&n) {
        return bad(&format!("n: {n} is out of range; accepted are 1 to {NAMES_MAX}"));
    }
    let ranking = TOP.ranking(by, n);
    let name = |ranked: &Ranked| json!({"name": ranked.name, "count": ranked.count, "at_least": ranked.at_least});
    let names: Vec<_> = ranking.names.iter().map(name).collect();
    Json(json!({ "by": by.name(), "seconds": ranking.seconds, "total": ranking.total, "names": names })).into_response()
}

async fn get_config(State(control): State<Arc<Control>>) -> Response {
    let snapshot = control.current.get();
    let headers = [(CONTENT_TYPE, "application/json".to_owned()), (ETAG, etag(snapshot.revision))];
    (headers, snapshot.document.to_string()).into_response()
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct PutConfig {
    #[serde(default)]
    dry_run: bool,
}

async fn put_config(
    State(control): State<Arc<Control>>,
    Query(query): Query<PutConfig>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let expected = match expected_revision(&headers) {
        Ok(expected) => expected,
        Err(given) => {
            let says = format!("If-Match `{given}` is not an ETag of GET /v1/config");
            return problem(StatusCode::BAD_REQUEST, "bad_if_match", &says, vec![]);
        }
    };
    let Ok(text) = std::str::from_utf8(&body) else {
        METRICS.config_applies.with_label_values(&["invalid"]).inc();
        return problem(StatusCode::UNPROCESSABLE_ENTITY, "invalid_config", "the configuration is not UTF-8", vec![]);
    };
    match control.apply(text, expected, query.dry_run).await {
        Ok(revision) => ([(ETAG, etag(revision))], Json(json!({ "revision": revision }))).into_response(),
        Err(NotApplied::Conflict { current }) => {
            let says = format!(
                "the running configuration is revision {current}, not the one of If-Match; read it again and merge"
            );
            problem(StatusCode::PRECONDITION_FAILED, "conflict", &says, vec![])
        }
        Err(NotApplied::Invalid(faults)) => {
            let says = format!("{} fault(s) in the configuration; the running one is untouched", faults.len());
            problem(StatusCode::UNPROCESSABLE_ENTITY, "invalid_config", &says, faults)
        }
        Err(NotApplied::Io(error)) => {
            let says = format!("the configuration is valid but could not be kept, so it was not applied: {error}");
            problem(StatusCode::INTERNAL_SERVER_ERROR, "not_kept", &says, vec![])
        }
        Err(NotApplied::HandedOver(error)) => handed_over(&error),
    }
}

fn handed_over(error: &HandedOver) -> Response {
    problem(StatusCode::SERVICE_UNAVAILABLE, "handed_over", &error.to_string(), vec![])
}

fn etag(revision: u64) -> String {
    format!("\"{revision}\"")
}

fn expected_revision(headers: &HeaderMap) -> Result<Option<u64>, String> {
    let Some(given) = headers.get(IF_MATCH) else {
        return Ok(None);
    };
    let given = given.to_str().unwrap_or_default();
    if given == "*" {
        return Ok(None);
    }
    let revision =
        given.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).and_then(|digits| digits.parse().ok());
    revision.map(Some).ok_or_else(|| given.chars().take(64).collect())
}

async fn list_plugins(State(control): State<Arc<Control>>) -> Response {
    let plugins: Vec<_> = control.plugins.list().iter().map(|plugin| shown(plugin)).collect();
    Json(json!({ "plugins": plugins })).into_response()
}

async fn put_plugin(State(control): State<Arc<Control>>, UrlPath(digest): UrlPath<String>, body: Bytes) -> Response {
    let _turn = match control.turn().await {
        Ok(turn) => turn,
        Err(error) => return handed_over(&error),
    };
    let uploader = control.clone();
    let uploading = tokio::task::spawn_blocking(move || uploader.plugins.upload(&uploader.host, &digest, &body));
    let uploaded = match uploading.await {
        Ok(uploaded) => uploaded,
        Err(error) => Err(UploadError::Io(std::io::Error::other(error))),
    };
    let result = if uploaded.is_ok() { "ok" } else { "refused" };
    METRICS.plugin_uploads.with_label_values(&[result]).inc();
    match uploaded {
        Ok((plugin, new)) => {
            let status = if new { StatusCode::CREATED } else { StatusCode::OK };
            (status, Json(shown(&plugin))).into_response()
        }
        Err(error) => {
            let (status, code) = match &error {
                UploadError::NotADigest(_) | UploadError::OtherDigest { .. } => {
                    (StatusCode::BAD_REQUEST, "wrong_digest")
                }
                UploadError::Load(_) => (StatusCode::UNPROCESSABLE_ENTITY, "invalid_plugin"),
                UploadError::Io(_) => (StatusCode::INTERNAL_SERVER_ERROR, "not_kept"),
            };
            problem(status, code, &error.to_string(), vec![])
        }
    }
}

fn shown(plugin: &Plugin) -> serde_json::Value {
    json!({
        "digest": plugin.digest().to_string(),
        "name": plugin.name(),
        "version": plugin.version(),
        "class": plugin.class().to_string(),
    })
}

/// RFC 9457.
fn problem(status: StatusCode, code: &str, detail: &str, errors: Vec<Fault>) -> Response {
    let title = status.canonical_reason().unwrap_or_default().to_owned();
    let problem = Problem { status: status.as_u16(), code: code.into(), title, detail: detail.into(), errors };
    (status, [(CONTENT_TYPE, "application/problem+json")], serde_json::to_string(&problem).unwrap_or_default())
        .into_response()
}
