//! The running configuration, and the revisions before it.

use std::sync::Arc;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::header::{CONTENT_TYPE, ETAG, IF_MATCH};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use contract::admin::{Applied, Revisions};
use contract::api::Problem;

use super::super::{Control, NotApplied, Order};
use super::access::Caller;
use super::shadow::no_shadow;
use super::{answer, handed_over, problem};
use crate::observe::METRICS;

/// Longest message of a revision, and name of who it is for, in characters.
pub(super) const MESSAGE_CHARS_MAX: usize = 1000;
pub(super) const BY_CHARS_MAX: usize = 64;

pub(super) async fn get(State(control): State<Arc<Control>>) -> Response {
    let snapshot = control.current.get();
    let headers = [(CONTENT_TYPE, "application/json".to_owned()), (ETAG, etag(snapshot.revision))];
    (headers, snapshot.document.to_string()).into_response()
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Parameters {
    #[serde(default)]
    dry_run: bool,
    #[serde(default)]
    message: String,
    by: Option<String>,
    /// Of shadows only: which binding's.
    pub(super) at: Option<String>,
}

pub(super) async fn put(
    State(control): State<Arc<Control>>,
    Extension(caller): Extension<Caller>,
    Query(parameters): Query<Parameters>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let order = match order(&caller, parameters, &headers) {
        Ok(order) => order,
        Err(refused) => return bad(refused),
    };
    let Ok(text) = String::from_utf8(body.into()) else {
        METRICS.config_applies.with_label_values(&["invalid"]).inc();
        return problem(StatusCode::UNPROCESSABLE_ENTITY, "invalid_config", "the configuration is not UTF-8", vec![]);
    };
    applied(&control, control.apply(text, order).await)
}

pub(super) async fn revert(
    State(control): State<Arc<Control>>,
    Extension(caller): Extension<Caller>,
    Path(number): Path<u64>,
    Query(parameters): Query<Parameters>,
    headers: HeaderMap,
) -> Response {
    match order(&caller, parameters, &headers) {
        Ok(order) => applied(&control, control.revert(number, order).await),
        Err(refused) => bad(refused),
    }
}

pub(super) async fn revisions(State(control): State<Arc<Control>>) -> Response {
    Json(Revisions { revisions: control.revisions.list() }).into_response()
}

pub(super) async fn revision(State(control): State<Arc<Control>>, Path(number): Path<u64>) -> Response {
    match control.revisions.find(number) {
        Some(revision) => Json(revision).into_response(),
        None => not_applied(&control, NotApplied::UnknownRevision(number)),
    }
}

pub(super) async fn revision_config(State(control): State<Arc<Control>>, Path(number): Path<u64>) -> Response {
    match control.text_of(number) {
        Some(text) => ([(CONTENT_TYPE, "application/json")], text).into_response(),
        None => not_applied(&control, NotApplied::UnknownRevision(number)),
    }
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Since {
    /// Default: the one before.
    since: Option<u64>,
}

pub(super) async fn diff(
    State(control): State<Arc<Control>>,
    Path(number): Path<u64>,
    Query(Since { since }): Query<Since>,
) -> Response {
    let since = since.unwrap_or(number.saturating_sub(1));
    let comparing = control.clone();
    let compared = control.leisure.run(move || comparing.between(since, number)).await;
    match compared.unwrap_or_else(|error| Err(NotApplied::Io(error))) {
        Ok(plan) => Json(plan).into_response(),
        Err(error) => not_applied(&control, error),
    }
}

pub(super) fn order(
    caller: &Caller,
    parameters: Parameters,
    headers: &HeaderMap,
) -> Result<Order, (&'static str, String)> {
    let expected = expected_revision(headers)
        .map_err(|given| ("bad_if_match", format!("If-Match `{given}` is not an ETag of GET /v1/config")))?;
    let Parameters { dry_run, message, by, at } = parameters;
    if at.is_some() {
        return Err(("bad_parameter", "`at` is for shadows only".to_owned()));
    }
    for (name, text, most) in
        [("message", message.as_str(), MESSAGE_CHARS_MAX), ("by", by.as_deref().unwrap_or_default(), BY_CHARS_MAX)]
    {
        let count = text.chars().count();
        if count > most {
            return Err(("bad_parameter", format!("`{name}` has {count} characters, at most {most} are accepted")));
        }
        if text.chars().any(|c| c.is_control() && c != '\n') {
            return Err(("bad_parameter", format!("`{name}` has control characters")));
        }
    }
    Ok(Order { expected, dry_run, who: caller.author(by), message, reverts_to: None })
}

pub(super) fn bad((code, says): (&'static str, String)) -> Response {
    problem(StatusCode::BAD_REQUEST, code, &says, vec![])
}

pub(super) fn applied(control: &Control, applied: Result<Applied, NotApplied>) -> Response {
    match applied {
        Ok(applied) => ([(ETAG, etag(applied.revision))], Json(applied)).into_response(),
        Err(error) => not_applied(control, error),
    }
}

fn not_applied(control: &Control, error: NotApplied) -> Response {
    match error {
        NotApplied::Conflict { current, diff } => {
            let says = format!(
                "the running configuration is revision {current}, not the one of If-Match; read it again and merge"
            );
            let status = StatusCode::PRECONDITION_FAILED;
            let title = status.canonical_reason().unwrap_or_default().into();
            let (status_code, code) = (status.as_u16(), "conflict".into());
            answer(status, &Problem { status: status_code, code, title, detail: says, errors: vec![], diff })
        }
        NotApplied::Invalid(faults) => {
            let says = format!("{} fault(s) in the configuration; the running one is untouched", faults.len());
            problem(StatusCode::UNPROCESSABLE_ENTITY, "invalid_config", &says, faults)
        }
        NotApplied::UnknownRevision(number) => {
            let kept = control.revisions.list();
            let kept = match (kept.last(), kept.first()) {
                (Some(oldest), Some(newest)) => format!("{} to {} are kept", oldest.number, newest.number),
                _ => "none was applied yet".to_owned(),
            };
            let says = format!("there is no revision {number}; {kept}");
            problem(StatusCode::NOT_FOUND, "unknown_revision", &says, vec![])
        }
        NotApplied::NoShadow(error) => no_shadow(&error),
        NotApplied::HandedOver(error) => handed_over(&error),
        NotApplied::Io(error) => {
            let says = format!("the configuration is valid but could not be kept, so it was not applied: {error}");
            problem(StatusCode::INTERNAL_SERVER_ERROR, "not_kept", &says, vec![])
        }
    }
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
