//! Uploaded plugins, and what became of their calls.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use contract::admin::{Crashes, PluginInfo, Plugins};
use contract::plugin::{SIGNATURE_HEADER, SignatureError};

use super::super::Control;
use super::super::plugins::{UploadError, Uploaded};
use super::shadow::no_shadow;
use super::{handed_over, problem};
use crate::config::TrustError;
use crate::observe::{CRASHES, METRICS};

pub(super) async fn list(State(control): State<Arc<Control>>) -> Response {
    Json(Plugins { plugins: control.plugins.list().iter().map(shown).collect() }).into_response()
}

/// By the name that the configuration gives it, or by its digest.
pub(super) async fn crashes(State(control): State<Arc<Control>>, Path(plugin): Path<String>) -> Response {
    let (crashes, beyond) = CRASHES.of(&plugin);
    // One that has crashed and is gone is still told of.
    if crashes.is_empty()
        && control.plugins.find(&plugin).is_none()
        && let Err(error) = control.shadows(&plugin)
    {
        return no_shadow(&error);
    }
    Json(Crashes { crashes, beyond }).into_response()
}

pub(super) async fn put(
    State(control): State<Arc<Control>>,
    Path(digest): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let turn = match control.turn().await {
        Ok(turn) => turn,
        Err(error) => return handed_over(&error),
    };
    let uploader = control.clone();
    let uploading = control.leisure.run(move || {
        let _turn = turn;
        let signature = headers.get(SIGNATURE_HEADER).map(|value| value.to_str().unwrap_or_default());
        uploader.plugins.upload(&uploader.host, &digest, signature, &body)
    });
    let uploaded = match uploading.await {
        Ok(uploaded) => uploaded,
        Err(error) => Err(UploadError::Io(error)),
    };
    let result = if uploaded.is_ok() { "ok" } else { "refused" };
    METRICS.plugin_uploads.with_label_values(&[result]).inc();
    match uploaded {
        Ok((plugin, new)) => {
            let status = if new { StatusCode::CREATED } else { StatusCode::OK };
            (status, Json(shown(&plugin))).into_response()
        }
        Err(error) => refused(&error),
    }
}

fn refused(error: &UploadError) -> Response {
    let (status, code) = match error {
        UploadError::NotADigest(_) | UploadError::OtherDigest { .. } => (StatusCode::BAD_REQUEST, "wrong_digest"),
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

fn shown(Uploaded { plugin, signature }: &Uploaded) -> PluginInfo {
    PluginInfo {
        digest: plugin.digest().to_string(),
        name: plugin.name().to_owned(),
        version: plugin.version().to_owned(),
        class: plugin.class().to_string(),
        signed_by: signature.as_ref().map(|signature| signature.kid().to_owned()),
    }
}
