//! The admin API, on a Unix socket that only its owner opens.

mod config;
mod preview;
mod rules;
mod shadow;
mod tables;
mod top;
mod who;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path as UrlPath, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post, put};
use contract::admin::Crashes;
use contract::api::{Fault, Problem};
use contract::plugin::{SIGNATURE_HEADER, SignatureError};
use serde_json::json;
use tokio::net::UnixListener;

use self::who::Peer;
use super::apply::DOCUMENT_BYTES_MAX;
use super::plugins::{UploadError, Uploaded};
use super::{Control, HandedOver};
use crate::config::TrustError;
use crate::observe::{CRASHES, METRICS};
use crate::tls::Tier;
use crate::wasm::Answers;

/// For CertService to answer, which readiness does not depend on.
const CHECK_WITHIN: Duration = Duration::from_millis(500);
/// Largest component that is read, in bytes; the Wasm host has its own limit below it.
const COMPONENT_BYTES_MAX: usize = 32 * 1024 * 1024;

pub(super) async fn serve(listener: UnixListener, control: Arc<Control>) {
    let routes = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/v1/top", get(top::get))
        .route("/v1/config", get(config::get).put(config::put).layer(DefaultBodyLimit::max(DOCUMENT_BYTES_MAX)))
        .route("/v1/revisions", get(config::revisions))
        .route("/v1/revisions/{number}", get(config::revision))
        .route("/v1/revisions/{number}/config", get(config::revision_config))
        .route("/v1/revisions/{number}/diff", get(config::diff))
        .route("/v1/revisions/{number}/revert", post(config::revert))
        .route("/v1/plugins", get(list_plugins))
        .route("/v1/plugins/{plugin}/crashes", get(crashes))
        .route("/v1/plugins/{plugin}/shadow", get(shadow::get).put(shadow::put).delete(shadow::delete))
        .route("/v1/plugins/{plugin}/shadow/promote", post(shadow::promote))
        .route("/v1/plugins/{plugin}/rules", get(rules::get))
        .route(
            "/v1/plugins/{plugin}/preview",
            post(preview::post).layer(DefaultBodyLimit::max(preview::BODY_BYTES_MAX)),
        )
        .route("/v1/plugins/{plugin}", put(put_plugin).layer(DefaultBodyLimit::max(COMPONENT_BYTES_MAX)))
        .route("/v1/tables", get(tables::list))
        .route("/v1/tables/{digest}", put(tables::put).delete(tables::delete))
        .fallback(|| async { problem(StatusCode::NOT_FOUND, "unknown_path", "no such path in the admin API", vec![]) })
        .with_state(control)
        .into_make_service_with_connect_info::<Peer>();
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
    let check = tokio::time::timeout(CHECK_WITHIN, control.supply.check()).await;
    let certservice = check.unwrap_or_else(|_| Err(format!("CertService has not answered within {CHECK_WITHIN:?}")));
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
    METRICS.plugin_answers(Answers::total());
    METRICS.plugin_datasets(control.current.get().dataset_bytes());
    for upstream in control.current.get().upstreams.values() {
        let healthy = i64::try_from(upstream.healthy()).unwrap_or(i64::MAX);
        METRICS.upstream_healthy_peers.with_label_values(&[upstream.name.as_str()]).set(healthy);
    }
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], METRICS.render()).into_response()
}

fn handed_over(error: &HandedOver) -> Response {
    problem(StatusCode::SERVICE_UNAVAILABLE, "handed_over", &error.to_string(), vec![])
}

async fn list_plugins(State(control): State<Arc<Control>>) -> Response {
    let plugins: Vec<_> = control.plugins.list().iter().map(shown).collect();
    Json(json!({ "plugins": plugins })).into_response()
}

/// By the name that the configuration gives it, or by its digest. Who never crashed has none, also where nobody knows it.
async fn crashes(UrlPath(plugin): UrlPath<String>) -> Response {
    let (crashes, beyond) = CRASHES.of(&plugin);
    Json(Crashes { crashes, beyond }).into_response()
}

async fn put_plugin(
    State(control): State<Arc<Control>>,
    UrlPath(digest): UrlPath<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let _turn = match control.turn().await {
        Ok(turn) => turn,
        Err(error) => return handed_over(&error),
    };
    let uploader = control.clone();
    let uploading = tokio::task::spawn_blocking(move || {
        let signature = headers.get(SIGNATURE_HEADER).map(|value| value.to_str().unwrap_or_default());
        uploader.plugins.upload(&uploader.host, &digest, signature, &body)
    });
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
                UploadError::Trust(TrustError::Unsigned | TrustError::NoKeys) => (StatusCode::FORBIDDEN, "unsigned"),
                UploadError::Trust(TrustError::Signature(SignatureError::UnknownKey(_))) => {
                    (StatusCode::FORBIDDEN, "unknown_key")
                }
                UploadError::Trust(TrustError::Signature(_)) => (StatusCode::FORBIDDEN, "bad_signature"),
                UploadError::Load(_) => (StatusCode::UNPROCESSABLE_ENTITY, "invalid_plugin"),
                UploadError::Io(_) => (StatusCode::INTERNAL_SERVER_ERROR, "not_kept"),
            };
            problem(status, code, &error.to_string(), vec![])
        }
    }
}

fn shown(Uploaded { plugin, signature }: &Uploaded) -> serde_json::Value {
    json!({
        "signed_by": signature.as_ref().map(|signature| signature.kid()),
        "digest": plugin.digest().to_string(),
        "name": plugin.name(),
        "version": plugin.version(),
        "class": plugin.class().to_string(),
    })
}

/// RFC 9457.
fn problem(status: StatusCode, code: &str, detail: &str, errors: Vec<Fault>) -> Response {
    let title = status.canonical_reason().unwrap_or_default().to_owned();
    let problem =
        Problem { status: status.as_u16(), code: code.into(), title, detail: detail.into(), errors, diff: None };
    answer(status, &problem)
}

fn answer(status: StatusCode, problem: &Problem) -> Response {
    let body = serde_json::to_string(problem).unwrap_or_default();
    (status, [(CONTENT_TYPE, "application/problem+json")], body).into_response()
}
