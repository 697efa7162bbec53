//! The admin API: on a Unix socket that only its owner opens, and over TCP where the boot file says so.

mod access;
mod audit;
mod body;
mod config;
mod health;
mod plugins;
mod preview;
mod routes;
mod rules;
mod shadow;
mod tables;
mod top;
mod who;

use std::collections::HashSet;
use std::sync::Arc;

use axum::Router;
use axum::body::to_bytes;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use contract::api::{Fault, Problem};
use door::Server;
use tokio::net::UnixListener;
use tokio::sync::watch;

pub(super) use self::access::Known;
use self::access::{Gate, Rule};
pub use self::routes::openapi;
use super::{Control, HandedOver};

/// Largest component that is read, in bytes; the Wasm host has its own limit below it.
const COMPONENT_BYTES_MAX: usize = 32 * 1024 * 1024;
/// What a refusal of the HTTP library says, at most.
const REFUSAL_BYTES_MAX: usize = 4096;

/// The socket for as long as the process lives; TCP until another serves instead.
pub(super) fn serve(listener: UnixListener, over_tcp: Option<Server>, control: Arc<Control>) {
    let never = watch::Sender::new(false);
    let unix = (Server::on_unix(listener), never.subscribe());
    let tcp = over_tcp.map(|server| (server, control.left_tcp.subscribe()));
    let router = router(control);
    for (server, stop) in [Some(unix), tcp].into_iter().flatten() {
        let (router, never) = (router.clone(), never.clone());
        tokio::spawn(async move {
            server.run(router, stop).await;
            drop(never);
        });
    }
}

fn router(control: Arc<Control>) -> Router {
    let routes = routes::routes();
    let rule = |route: &routes::Route| Rule { method: route.method, path: route.path, allowed: route.allowed };
    let gate = Gate { control: control.clone(), rules: routes.iter().map(rule).collect() };
    let mut router = Router::new();
    let mut served = HashSet::new();
    for route in routes {
        if served.insert((route.method, route.path)) {
            router = router.route(route.path, route.handler);
        }
    }
    router
        .fallback(|| async { problem(StatusCode::NOT_FOUND, "unknown_path", "no such path in the admin API", vec![]) })
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn(body::in_time))
        .layer(from_fn(in_our_words))
        .layer(from_fn_with_state(Arc::new(gate), access::check))
        .with_state(control)
}

async fn wrong_method() -> Response {
    problem(StatusCode::METHOD_NOT_ALLOWED, "wrong_method", "this path does not take this method", vec![])
}

/// What the HTTP library refuses by itself (a query or path that can't be read, a body that is too large) is told like all else.
async fn in_our_words(request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let told = response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/"));
    if !response.status().is_client_error() || told {
        return response;
    }
    let (head, body) = response.into_parts();
    let says = to_bytes(body, REFUSAL_BYTES_MAX).await.unwrap_or_default();
    let code = match head.status {
        StatusCode::PAYLOAD_TOO_LARGE => "too_large",
        StatusCode::METHOD_NOT_ALLOWED => "wrong_method",
        _ => "bad_request",
    };
    let mut response = problem(head.status, code, &String::from_utf8_lossy(&says), vec![]);
    if let Some(allow) = head.headers.get(axum::http::header::ALLOW) {
        response.headers_mut().insert(axum::http::header::ALLOW, allow.clone());
    }
    response
}

fn handed_over(error: &HandedOver) -> Response {
    problem(StatusCode::SERVICE_UNAVAILABLE, "handed_over", &error.to_string(), vec![])
}

/// RFC 9457.
fn problem(status: StatusCode, code: &str, detail: &str, errors: Vec<Fault>) -> Response {
    let title = status.canonical_reason().unwrap_or_default().to_owned();
    let problem =
        Problem { status: status.as_u16(), code: code.into(), title, detail: detail.into(), errors, diff: None };
    answer(status, &problem)
}

fn answer(status: StatusCode, problem: &Problem) -> Response {
    let body = serde_json::to_string(problem).unwrap_or_default();
    (status, [(CONTENT_TYPE, "application/problem+json")], body).into_response()
}
