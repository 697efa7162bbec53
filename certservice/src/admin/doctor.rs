//! `/v1/doctor`: whether what CertService lives on is well.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use contract::api::DoctorReport;
use http::StatusCode;
use tokio::sync::Semaphore;

use super::Api;
use super::problem::ApiError;

/// It asks CAs: not for everybody at once.
static LOOK: Semaphore = Semaphore::const_new(1);
const BUSY_SECONDS: u64 = 5;

pub(super) async fn get(State(api): State<Arc<Api>>) -> Result<Json<DoctorReport>, ApiError> {
    let Ok(_turn) = LOOK.try_acquire() else {
        let says = "somebody is looking already; try again";
        return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "Busy", says).retry_after(BUSY_SECONDS));
    };
    Ok(Json(api.doctor.look().await))
}
