//! Whether the process is well, and what it counts.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Json, Response};
use contract::admin::{ListenerInfo, Readiness};

use super::super::Control;
use crate::config::Listener;
use crate::observe::METRICS;
use crate::tls::Tier;
use crate::wasm::Answers;

/// For CertService to answer, which readiness does not depend on.
const CHECK_WITHIN: Duration = Duration::from_millis(500);

pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// Ready: connections are accepted, and a configuration is in force, so that requests can be routed. CertService is
/// shown, but a proxy that has its certificates serves without it.
pub(super) async fn readyz(State(control): State<Arc<Control>>) -> Response {
    let revision = control.current.load().revision;
    let accepting = control.accepting.load(Ordering::Acquire);
    let check = tokio::time::timeout(CHECK_WITHIN, control.supply.check()).await;
    let certservice = check.unwrap_or_else(|_| Err(format!("CertService has not answered within {CHECK_WITHIN:?}")));
    let mut reasons = Vec::new();
    if revision == 0 {
        reasons.push("no configuration was applied yet: PUT /v1/config, or `latchkey config apply`".to_owned());
    }
    if !accepting {
        reasons.push("no connections are accepted: this process is starting or stopping".to_owned());
    }
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let listener = |Listener { name, address, protocol, .. }: &Listener| ListenerInfo {
        name: name.clone(),
        address: address.to_string(),
        protocol: protocol.as_str().to_owned(),
    };
    let told = Readiness {
        ready: reasons.is_empty(),
        reasons,
        revision,
        certservice: certservice.map_or_else(|why| why, |()| "ok".to_owned()),
        accepting,
        listeners: control.listeners.iter().map(listener).collect(),
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    (status, Json(told)).into_response()
}

pub(super) async fn metrics(State(control): State<Arc<Control>>) -> Response {
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
