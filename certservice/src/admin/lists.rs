//! `/v1/imports`: lists of domains, worked off in the background.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Path, Query, State};
use axum::response::{IntoResponse, Response};
use contract::api::{DomainList, OrderWhen};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use serde::Deserialize;
use tokio::time::timeout;

use super::Api;
use super::access::Caller;
use super::places::Places;
use super::problem::ApiError;
use crate::clock;
use crate::intake::{Format, LINE_BYTES_MAX, Wanted};
use crate::store::NewList;

/// Lines that are stored, and later registered, at once.
const PART_LINES: u64 = 250;
const LINES_MAX: u64 = 2_000_000;
/// Lists that arrive at once; of one tenant.
const ARRIVING_MAX: usize = 4;
const ARRIVING_OF_TENANT_MAX: usize = 2;
/// A whole list: it holds a place among few.
const LIST_SECONDS_MAX: u64 = 30 * 60;
/// Between two pieces of a body.
const PIECE_SECONDS_MAX: u64 = 30;
/// A list that has not grown for so long was broken off.
const SILENT_SECONDS_MAX: u64 = 120;
const BUSY_SECONDS: u64 = 10;
const KEY_BYTES_MAX: usize = 64;
/// Errors in one answer.
const ERRORS_PAGE: u32 = 1000;

static ARRIVING: Places = Places::new("lists arrive", ARRIVING_MAX, ARRIVING_OF_TENANT_MAX, BUSY_SECONDS);

/// For what the lines leave out.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Others {
    tenant: Option<String>,
    issuer: Option<String>,
    www: Option<bool>,
    order: Option<OrderWhen>,
}

pub(super) async fn post(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    others: Result<Query<Others>, QueryRejection>,
    request: axum::extract::Request,
) -> Result<Response, ApiError> {
    let Query(others) = others.map_err(|error| invalid("query", error.body_text()))?;
    let own = caller.tenant();
    let others = Wanted {
        name: String::new(),
        tenant: others.tenant,
        issuer: others.issuer,
        www: others.www,
        order: others.order,
        issuers: None,
        profile: None,
    };
    // What stands for all lines is looked at before the first.
    api.rules.admit(own, Wanted { name: "a.example".to_owned(), ..others.clone() })?;
    let (format, key) = (format(request.headers())?, key(request.headers())?);
    let _place = ARRIVING.take(own)?;
    let new = NewList {
        own_tenant: own.unwrap_or_default(),
        key: key.as_deref(),
        format,
        others: &others,
        actor: &caller.actor(),
    };
    let (mut list, mut is_new) = api.store.begin_list(&new, clock::now()).await?;
    if !is_new && show(&api, &list, own, 0).await?.lines == 0 {
        // Somebody sends it now, or has been broken off.
        if !api.store.remove_broken_off(&list, clock::now().saturating_sub(SILENT_SECONDS_MAX)).await? {
            let says =
                format!("this list arrives already; one that was broken off begins anew {SILENT_SECONDS_MAX} s later");
            return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "Busy", says).retry_after(BUSY_SECONDS));
        }
        (list, is_new) = api.store.begin_list(&new, clock::now()).await?;
    }
    if is_new {
        let arriving = Arriving { api: &api, list: &list, lines: 0, part: Vec::new(), first_line: 1 };
        let received = timeout(Duration::from_secs(LIST_SECONDS_MAX), arriving.receive(request.into_body())).await;
        let too_slow =
            |_| Err(too_slow(format!("the list did not arrive within {LIST_SECONDS_MAX} s; send it in parts")));
        if let Err(error) = received.unwrap_or_else(too_slow) {
            api.store.remove_list(&list).await?;
            return Err(error);
        }
        tracing::info!(list, "a list of domains has arrived");
        api.listed.notify_one();
    }
    let status = if is_new { StatusCode::ACCEPTED } else { StatusCode::OK };
    Ok((status, Json(show(&api, &list, own, 0).await?)).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct After {
    errors_after: Option<u64>,
}

pub(super) async fn get(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Path(list): Path<String>,
    after: Result<Query<After>, QueryRejection>,
) -> Result<Json<DomainList>, ApiError> {
    let Query(after) = after.map_err(|error| invalid("query", error.body_text()))?;
    show(&api, &list, caller.tenant(), after.errors_after.unwrap_or(0)).await.map(Json)
}

async fn show(api: &Api, list: &str, own: Option<&str>, errors_after: u64) -> Result<DomainList, ApiError> {
    let found = api.store.list(list, own.unwrap_or_default(), errors_after, ERRORS_PAGE).await?;
    found.ok_or_else(|| {
        let says = "there is no such import, or it began more than 30 days ago; POST /v1/imports begins one";
        ApiError::new(StatusCode::NOT_FOUND, "unknown_import", "Unknown import", says)
    })
}

/// A list on its way in. Memory holds a part of it, however long it is.
struct Arriving<'a> {
    api: &'a Api,
    list: &'a str,
    lines: u64,
    part: Vec<u8>,
    first_line: u64,
}

impl Arriving<'_> {
    async fn receive(mut self, mut body: axum::body::Body) -> Result<(), ApiError> {
        // Bytes of the line at hand; what is beyond the limit is left out, and told as an error of that line.
        let mut line_bytes = 0;
        loop {
            let piece = timeout(Duration::from_secs(PIECE_SECONDS_MAX), body.frame()).await;
            let piece = piece.map_err(|_| too_slow(format!("nothing came for {PIECE_SECONDS_MAX} s")))?;
            let Some(piece) = piece else { break };
            let piece = piece.map_err(|error| invalid("body", format!("the body broke off: {error}")))?;
            for byte in piece.into_data().unwrap_or_default() {
                if byte == b'\n' {
                    line_bytes = 0;
                    self.end_line().await?;
                } else {
                    line_bytes += 1;
                    if line_bytes <= LINE_BYTES_MAX + 1 {
                        self.part.push(byte);
                    }
                }
            }
        }
        if line_bytes > 0 {
            self.end_line().await?;
        }
        self.store().await?;
        Ok(self.api.store.list_arrived(self.list, self.lines).await?)
    }

    async fn end_line(&mut self) -> Result<(), ApiError> {
        self.lines += 1;
        if self.lines > LINES_MAX {
            let says =
                format!("the list has more than {LINES_MAX} lines, which is the most that is accepted; split it");
            return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "Body too large", says));
        }
        self.part.push(b'\n');
        if self.lines + 1 - self.first_line >= PART_LINES { self.store().await } else { Ok(()) }
    }

    async fn store(&mut self) -> Result<(), ApiError> {
        if self.lines + 1 > self.first_line {
            let text = String::from_utf8_lossy(&self.part);
            // Each line ends with a break; the last one's would begin another.
            let text = text.strip_suffix('\n').unwrap_or(&text);
            self.api.store.add_part(self.list, self.first_line, text, clock::now()).await?;
        }
        self.part.clear();
        self.first_line = self.lines + 1;
        Ok(())
    }
}

fn format(headers: &HeaderMap) -> Result<Format, ApiError> {
    let named = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    named.and_then(Format::of_media_type).ok_or_else(|| {
        let says = "send the list with Content-Type text/csv or application/x-ndjson";
        ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unknown_format", "Unknown format", says)
    })
}

fn key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let fits = |text: &&str| (1..=KEY_BYTES_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    let key = value.to_str().ok().filter(fits);
    let says = || format!("Idempotency-Key takes 1 to {KEY_BYTES_MAX} visible ASCII characters");
    key.map(|key| Some(key.to_owned())).ok_or_else(|| invalid("header", says()))
}

fn too_slow(says: String) -> ApiError {
    ApiError::new(StatusCode::REQUEST_TIMEOUT, "body_too_slow", "Body too slow", says)
}

fn invalid(what: &str, says: String) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, &format!("invalid_{what}"), &format!("Invalid {what}"), says)
}
