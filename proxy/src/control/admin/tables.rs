//! Uploaded tables.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use contract::admin::{TableInfo, Tables};
use serde_json::Value;

use super::super::Control;
use super::super::tables::{Kept, TableError};
use super::{handed_over, problem};

pub(super) async fn list(State(control): State<Arc<Control>>) -> Response {
    match control.tables.list() {
        Ok(tables) => {
            let named = named(&control);
            let of = |kept: &Kept| {
                let named = named.iter().filter(|(_, digest)| *digest == kept.digest);
                let names = named.map(|(name, _)| name.clone()).collect();
                shown(kept, names)
            };
            Json(Tables { tables: tables.iter().map(of).collect() }).into_response()
        }
        Err(error) => refused(&error.into()),
    }
}

pub(super) async fn put(State(control): State<Arc<Control>>, Path(digest): Path<String>, body: Body) -> Response {
    let received = match control.tables.receive(&digest, body, &control.leisure).await {
        Ok(received) => received,
        Err(error) => return refused(&error),
    };
    // Only now: who uploads slowly keeps nobody from changing anything.
    let _turn = match control.turn().await {
        Ok(turn) => turn,
        Err(error) => return handed_over(&error),
    };
    match control.tables.keep(&received) {
        Ok((kept, new)) => {
            let status = if new { StatusCode::CREATED } else { StatusCode::OK };
            let digest = kept.digest.clone();
            let names = named(&control).into_iter().filter(|(_, known)| *known == digest).map(|(name, _)| name);
            (status, Json(shown(&kept, names.collect()))).into_response()
        }
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

fn shown(kept: &Kept, named: Vec<String>) -> TableInfo {
    TableInfo { digest: kept.digest.clone(), bytes: kept.bytes, uploaded_at: kept.uploaded_at, named }
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
        TableError::Empty => (StatusCode::BAD_REQUEST, "empty"),
        TableError::Broken(_) => (StatusCode::BAD_REQUEST, "broken_off"),
        TableError::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
        TableError::Full => (StatusCode::INSUFFICIENT_STORAGE, "full"),
        TableError::Unknown(_) => (StatusCode::NOT_FOUND, "unknown_table"),
        TableError::InUse(_) => (StatusCode::CONFLICT, "in_use"),
        TableError::Io(_) => (StatusCode::INTERNAL_SERVER_ERROR, "not_kept"),
    };
    problem(status, code, &error.to_string(), vec![])
}
