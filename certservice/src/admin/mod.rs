//! The HTTP API. Every route has a rule; a route without one is refused.

mod access;
mod audit;
mod body;
mod budgets;
mod changes;
mod doctor;
mod domains;
mod edges;
mod events;
mod forecast;
mod health;
mod keys;
mod own;
mod page;
mod places;
mod lists;
mod problem;
mod progress;
mod rewrap;
mod routes;
mod verbs;
mod visits;
mod webhooks;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use contract::signed::SigningKey;
pub use door::Server;
use tokio::sync::{Notify as Wake, watch};

pub use self::access::Caller;
use self::access::{Gate, Rule};
pub use self::page::Links;
pub use self::progress::Progress;
pub use self::routes::openapi;
use self::routes::routes;
use crate::budget::{Limit, Limits};
use crate::config::{ClientCertificate, Token};
use crate::doctor::Doctor;
use crate::intake::Rules;
use crate::keys::Keys;
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
    pub certificates: Vec<ClientCertificate>,
    /// The listener is a Unix socket: only who may open it speaks to us.
    pub local: bool,
    /// Over TLS or a Unix socket.
    pub confidential: bool,
    pub rules: Rules,
    pub progress: Progress,
    pub keys: Keys,
    pub checks: Checks,
    pub links: Links,
    pub doctor: Doctor,
    pub hands: Arc<Hands>,
    /// By issuer.
    pub limits: HashMap<String, Limits>,
    /// Orders that first visits may bring, of one tenant; `None` is no limit.
    pub first_visits: Option<Limit>,
    /// Orders that a tenant may ask for.
    pub renews: Option<Limit>,
    /// By issuer: how long an order takes at best where many are under way.
    pub ms_per_order: HashMap<String, u64>,
    /// Whether we are about to stop: who listens for events is told to come back.
    pub stopping: watch::Sender<bool>,
    /// Wakes who works lists off.
    pub listed: Arc<Wake>,
    /// Wakes the runner for a new order.
    pub wake: Arc<Wake>,
}

pub fn router(api: Arc<Api>) -> Router {
    let routes = routes();
    let gate = Gate { api: api.clone(), rules: routes.iter().map(Rule::from).collect() };
    let mut router = Router::new();
    let mut served = HashSet::new();
    for route in routes {
        // Verbs of one path have one handler.
        if served.insert((route.method, route.served_at())) {
            router = router.route(route.served_at(), route.handler);
        }
    }
    router
        .fallback(problem::unknown_path)
        .method_not_allowed_fallback(problem::wrong_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn_with_state(Arc::new(gate), access::check))
        .with_state(api)
}
