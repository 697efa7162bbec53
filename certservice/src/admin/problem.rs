//! Every error of the API (RFC 9457).

use axum::response::{IntoResponse, Response};
use contract::api::{Fault, Problem};
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode, Uri};

use crate::intake::Refusal;
use crate::store::StoreError;

const DOMAINS: &str = "/v1/domains/";

#[derive(Debug)]
pub(super) struct ApiError {
    problem: Box<Problem>,
    retry_after_seconds: Option<u64>,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, code: &str, title: &str, detail: impl Into<String>) -> Self {
        let problem = Problem {
            status: status.as_u16(),
            code: code.into(),
            title: title.into(),
            detail: detail.into(),
            errors: Vec::new(),
            diff: None,
        };
        Self { problem: Box::new(problem), retry_after_seconds: None }
    }

    /// Each fault, where there are several.
    pub(super) fn with(mut self, errors: Vec<Fault>) -> Self {
        self.problem.errors = errors;
        self
    }

    pub(super) fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after_seconds = Some(seconds);
        self
    }
}

impl From<Refusal> for ApiError {
    fn from(Refusal { code, says }: Refusal) -> Self {
        let (status, title) = match code {
            "forbidden" => (StatusCode::FORBIDDEN, "Forbidden"),
            "too_many_names" => (StatusCode::CONFLICT, "Too many names"),
            "public_suffix" => (StatusCode::BAD_REQUEST, "Public suffix"),
            "invalid_name" => (StatusCode::BAD_REQUEST, "Invalid host name"),
            "invalid_tenant" => (StatusCode::BAD_REQUEST, "Invalid tenant"),
            "unknown_issuer" => (StatusCode::BAD_REQUEST, "Unknown issuer"),
            _ => (StatusCode::BAD_REQUEST, "Refused"),
        };
        Self::new(status, code, title, says)
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        // The text may name hosts and tables: it is for the log, not for callers.
        tracing::error!(%error, "a request failed at the database");
        let (code, title, says) = match &error {
            StoreError::Bundles(_) => (
                "bundle_store_unavailable",
                "Database of bundles unavailable",
                "the database of bundles did not answer; edges serve what they have; try again".to_owned(),
            ),
            StoreError::BundleLost(..) => ("bundle_lost", "Bundle lost", error.to_string()),
            _ => ("store_unavailable", "Database unavailable", "the database did not answer; try again".to_owned()),
        };
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, title, says).retry_after(5)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self.problem).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        response
    }
}

pub(super) async fn unknown_path() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "unknown_path", "Unknown path", "no such path; the API is under /v1/")
}

/// Of a domain. It is a path of its own, which the router can't know.
pub(super) fn is_verb(uri: &Uri) -> bool {
    uri.path().strip_prefix(DOMAINS).is_some_and(|domain| domain.contains(':'))
}

pub(super) async fn wrong_method(uri: Uri) -> Response {
    let says = "this path does not take this method";
    let error = ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "wrong_method", "Method not allowed", says);
    let mut response = error.into_response();
    if uri.path().starts_with(DOMAINS) {
        let methods = if is_verb(&uri) { "POST" } else { "GET,HEAD,PUT,DELETE" };
        response.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
    }
    response
}
