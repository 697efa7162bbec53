//! `/v1/webhooks`: how far each of them is.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use contract::api::WebhookPage;

use super::Api;
use super::problem::ApiError;

pub(super) async fn list(State(api): State<Arc<Api>>) -> Result<Json<WebhookPage>, ApiError> {
    let head = api.store.journal_page(0, 1).await?.head.seq;
    Ok(Json(WebhookPage { webhooks: api.store.webhooks().await?, head }))
}
