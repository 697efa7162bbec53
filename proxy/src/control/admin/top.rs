//! Which hosts are asked for most.

use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use contract::admin::{Ranked, Ranking};

use super::problem;
use crate::observe::{self, By, NAMES_MAX, TOP};

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TopQuery {
    #[serde(default)]
    by: Option<String>,
    #[serde(default)]
    n: Option<usize>,
}

pub(super) async fn get(query: Result<Query<TopQuery>, QueryRejection>) -> Response {
    let bad = |says: &str| problem(StatusCode::BAD_REQUEST, "bad_query", says, vec![]);
    let Query(TopQuery { by, n }) = match query {
        Ok(query) => query,
        Err(error) => return bad(&error.body_text()),
    };
    let named = by.as_deref().unwrap_or(By::Requests.name());
    let Some(by) = By::ALL.into_iter().find(|by| by.name() == named) else {
        let known = By::ALL.map(By::name).join(", ");
        return bad(&format!("by: `{}` is no ranking; there are {known}", named.chars().take(64).collect::<String>()));
    };
    let n = n.unwrap_or(20);
    if !(1..=NAMES_MAX).contains(&n) {
        return bad(&format!("n: {n} is out of range; accepted are 1 to {NAMES_MAX}"));
    }
    let ranking = TOP.ranking(by, n);
    let name = |observe::Ranked { name, count, at_least }| Ranked { name, count, at_least };
    let names = ranking.names.into_iter().map(name).collect();
    let (seconds, total) = (ranking.seconds, ranking.total);
    Json(Ranking { by: by.name().to_owned(), seconds, total, names }).into_response()
}
