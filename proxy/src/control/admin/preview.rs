//! `POST /v1/plugins/{plugin}/preview`: what a plugin would do to the answers of hosts, now and later.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path as UrlPath, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use contract::admin::{HOSTS_MAX, MOMENTS_MAX, Preview, Previewed};

use super::problem;
use crate::control::Control;
use crate::http::preview;
use crate::wasm::keep_nothing_here;

/// A name has at most 253 characters, and two dates beside it.
pub(super) const BODY_BYTES_MAX: usize = HOSTS_MAX * 400;

pub(super) async fn post(
    State(control): State<Arc<Control>>,
    UrlPath(plugin): UrlPath<String>,
    body: Bytes,
) -> Response {
    let asked: Preview = match serde_json::from_slice(&body) {
        Ok(asked) => asked,
        Err(error) => {
            let says = format!("the body is not {{\"hosts\": [{{\"host\"}}], \"at\": [seconds]}}: {error}");
            return problem(StatusCode::BAD_REQUEST, "invalid_body", &says, vec![]);
        }
    };
    let (hosts, moments) = (asked.hosts.len(), asked.at.len());
    if hosts > HOSTS_MAX || !(1..=MOMENTS_MAX).contains(&moments) {
        let says = format!(
            "{hosts} hosts at {moments} moments; at most {HOSTS_MAX} hosts at 1 to {MOMENTS_MAX} moments are accepted"
        );
        return problem(StatusCode::BAD_REQUEST, "too_many", &says, vec![]);
    }
    // One at a time: it takes seconds of a processor that serves others, and a viewer may ask it.
    let _turn = control.previewing.lock().await;
    let (snapshot, table) = (control.current.get(), control.table.clone());
    let asking = control.leisure.run(move || {
        let hosts = asked.hosts.iter().map(|host| preview(&snapshot.routes, &table, &plugin, host, &asked.at));
        let previewed = Previewed { hosts: hosts.collect() };
        // The next one may have another thread.
        keep_nothing_here();
        previewed
    });
    match asking.await {
        Ok(previewed) => Json(previewed).into_response(),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, "failed", &error.to_string(), vec![]),
    }
}
