//! The HTTP API. Every route has a rule; a route without one is refused.

mod access;
mod audit;
mod budgets;
mod changes;
mod doctor;
mod domains;
mod edges;
mod events;
mod forecast;
mod health;
mod listen;
mod page;
mod lists;
mod problem;
mod progress;
mod verbs;
mod webhooks;

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post, put};
use contract::signed::SigningKey;
use tokio::sync::Notify as Wake;

pub use self::access::Caller;
pub use self::listen::Server;
pub use self::page::Links;
pub use self::progress::Progress;
use crate::budget::Limits;
use crate::config::Token;
use crate::doctor::Doctor;
use crate::intake::Rules;
use crate::notify::Notify;
use crate::observe::Metrics;
use crate::order::Hands;
use crate::precheck::Checks;
use crate::store::Store;

/// Largest body that is read.
pub const BODY_BYTES_MAX: usize = 4 * 1024;

/// What requests are answered with.
pub struct Api {
    pub store: Store,
    pub notify: Notify,
    pub signing_key: Arc<SigningKey>,
    pub metrics: Arc<Metrics>,
    pub tokens: Vec<Token>,
    /// The listener is a Unix socket: only who may open it speaks to us.
    pub local: bool,
    pub rules: Rules,
    pub progress: Progress,
    pub checks: Checks,
    pub links: Links,
    pub doctor: Doctor,
    pub hands: Arc<Hands>,
    /// By issuer.
    pub limits: HashMap<String, Limits>,
    /// Wakes who works lists off.
    pub listed: Arc<Wake>,
    /// Wakes the runner for a new order.
    pub wake: Arc<Wake>,
}

pub fn router(api: Arc<Api>) -> Router {
    Router::new()
        .route("/v1/domains", get(domains::list))
        .route("/v1/domains/{name}", put(domains::put).get(domains::get).delete(domains::delete).post(verbs::post))
        .route("/v1/imports", post(lists::post))
        .route("/v1/imports/{id}", get(lists::get))
        .route("/v1/bundles/{name}", get(edges::bundle))
        .route("/v1/challenges/{name}", get(edges::tls_challenge))
        .route("/v1/challenges/{name}/{token}", get(edges::challenge))
        .route("/v1/ticket-keys", get(edges::ticket_keys))
        .route("/v1/changes", get(changes::list))
        .route("/v1/audit", get(audit::list))
        .route("/v1/budgets", get(budgets::list))
        .route("/v1/doctor", get(doctor::get))
        .route("/v1/events", get(events::stream))
        .route("/v1/webhooks", get(webhooks::list))
        .route("/v1/forecast", get(forecast::get))
        .route("/v1/edges", get(changes::edges))
        .route("/p/{name}/{key}", get(page::get))
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .fallback(problem::unknown_path)
        .method_not_allowed_fallback(problem::wrong_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn_with_state(api.clone(), access::check))
        .with_state(api)
}
