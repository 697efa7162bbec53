//! Uploaded tables.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use serde_json::{Value, json};

use super::super::Control;
use super::super::tables::{Kept, TableError};
use super::{handed_over, problem};

pub(super) async fn list(State(control): State<Arc<Control>>) -> Response {
    match control.tables.list() {
        Ok(tables) => {
            let named = named(&control);
            let shown = |kept: &Kept| {
                let names: Vec<_> =
                    named.iter().filter(|(_, digest)| *digest == kept.digest).map(|(name, _)| name).collect();
                json!({"digest": kept.digest, "bytes": kept.bytes, "uploaded_at": kept.uploaded_at, "named": names})
            };
            Json(json!({ "tables": tables.iter().map(shown).collect::<Vec<_>>() })).into_response()
        }
        Err(error) => refused(&error.into()),
    }
}

pub(super) async fn put(State(control): State<Arc<Control>>, Path(digest): Path<String>, body: Body) -> Response {
    let received = match control.tables.receive(&digest, body).await {
        Ok(received) => received,
        Err(error) => return refused(&error),
    };
    // Only now: who uploads slowly keeps nobody from changing anything.
    let _turn = match control.turn().await {
        Ok(turn) => turn,
        Err(error) => return handed_over(&error),
    };
    match control.tables.keep(&received) {
        Ok((kept, new)) => (if new { StatusCode::CREATED } else { StatusCode::OK }, Json(kept)).into_response(),
        Err(error) => refused(&error),
    }
}

pub(super) async fn delete(State(control): State<Arc<Control>>, Path(digest): Path<String>) -> Response {
    let _turn = match control.turn().await {
        Ok(turn) => turn,
        Err(error) => return handed_over(&error),
    };
    let named = named(&control);
    match control.tables.remove(&digest, |digest| named.iter().any(|(_, used)| used == digest)) {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => refused(&error),
    }
}

/// Names and digests in the running configuration.
fn named(control: &Control) -> Vec<(String, String)> {
    let document: Value = serde_json::from_str(&control.current.get().document).unwrap_or_default();
    let digest = |table: &Value| table["digest"].as_str().unwrap_or_default().to_ascii_lowercase();
    let tables = document["tables"].as_object().into_iter().flatten();
    tables.map(|(name, table)| (name.clone(), digest(table))).collect()
}

fn refused(error: &TableError) -> Response {
    let (status, code) = match error {
        TableError::NotADigest(_) | TableError::OtherDigest { .. } => (StatusCode::BAD_REQUEST, "wrong_digest"),
        TableError::Slow => (StatusCode::REQUEST_TIMEOUT, "too_slow"),
        TableError::Broken(_) => (StatusCode::BAD_REQUEST, "broken_off"),
        TableError::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
        TableError::Full => (StatusCode::INSUFFICIENT_STORAGE, "full"),
        TableError::Unknown(_) => (StatusCode::NOT_FOUND, "unknown_table"),
        TableError::InUse(_) => (StatusCode::CONFLICT, "in_use"),
        TableError::Io(_) => (StatusCode::INTERNAL_SERVER_ERROR, "not_kept"),
    };
    problem(status, code, &error.to_string(), vec![])
}
