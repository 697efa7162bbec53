//! What requests bring, and work that goes on when their caller is gone.

use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use http::StatusCode;

use super::problem::ApiError;

/// The whole body, within its limits.
pub(super) async fn read(body: Body, bytes_max: usize, seconds_max: u64) -> Result<Bytes, ApiError> {
    let limit = Duration::from_secs(seconds_max);
    let read = tokio::time::timeout(limit, to_bytes(body, bytes_max)).await.map_err(|_| {
        let says = format!("the body did not arrive within {seconds_max} s");
        ApiError::new(StatusCode::REQUEST_TIMEOUT, "body_too_slow", "Body too slow", says)
    })?;
    read.map_err(|_| {
        let says =
            format!("the body is not to be read, or more than {bytes_max} bytes, which is the most that is accepted");
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "Body too large", says)
    })
}

/// In a task of its own: a caller who hangs up half-way does not end it.
pub(super) async fn to_the_end<T: Send + 'static>(
    what: &'static str,
    work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::spawn(work).await.map_err(|error| {
        tracing::error!(%error, "{what} ended badly");
        let says = format!("{what} ended badly; see CertService's log");
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "Internal error", says)
    })?
}
