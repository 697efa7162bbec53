//! Every route, in one table: who may ask it, what answers, and what the OpenAPI document says of it.

use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::routing::{delete, get, post, put};
use contract::admin::{
    Applied, AuditPage, Crashes, Plan, PluginInfo, Plugins, Preview, Previewed, Ranking, Readiness, Revision,
    Revisions, Shadows, TableInfo, Tables, UnusedRules,
};
use door::{Info, PathInput, route};
use serde_json::{Value, json};

use super::super::Control;
use super::super::apply::DOCUMENT_BYTES_MAX;
use super::access::Allowed::{self, *};
use super::{COMPONENT_BYTES_MAX, audit, config, health, plugins, preview, rules, shadow, tables, top};
use crate::observe::{By, NAMES_MAX};

pub(super) type Route = door::Route<Arc<Control>, Allowed>;

const INFO: Info = Info {
    title: "Latchkey edge",
    version: env!("CARGO_PKG_VERSION"),
    says: "Configuration, plugins and tables of one edge. Over the Unix socket everything may be asked; over TCP, `x-roles` of an \
           operation are the roles that may ask it.",
    path_inputs: &[
        PathInput {
            name: "digest",
            says: "`sha256:` and 64 hexadecimal digits",
            example: "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            format: None,
        },
        PathInput {
            name: "plugin",
            says: "as the configuration calls it, or its digest",
            example: "hsts",
            format: None,
        },
        PathInput { name: "number", says: "of a revision", example: "1", format: None },
    ],
};

/// The document that describes this API, in the form in which it is checked in.
pub fn openapi() -> String {
    door::openapi(&INFO, &routes())
}

pub(super) fn routes() -> Vec<Route> {
    [watching(), configuration(), plugin_routes(), table_routes()].into_iter().flatten().collect()
}

fn watching() -> Vec<Route> {
    vec![
        route("GET", "/healthz", See, get(health::healthz))
            .says("The process answers")
            .text(200, "text/plain; charset=utf-8")
            .errors(&[]),
        route("GET", "/readyz", See, get(health::readyz))
            .says("Connections are accepted, and a configuration is in force")
            .json::<Readiness>(200)
            .json::<Readiness>(503)
            .errors(&[]),
        route("GET", "/metrics", See, get(health::metrics))
            .says("For Prometheus")
            .text(200, "text/plain; version=0.0.4")
            .errors(&[]),
        route("GET", "/v1/top", See, get(top::get))
            .says("The hosts that are asked for most")
            .query("by", json!({"enum": By::ALL.map(By::name)}), "default requests")
            .query("n", whole(1, NAMES_MAX as u64), "default 20")
            .json::<Ranking>(200)
            .errors(&[400]),
        route("GET", "/v1/audit", See, get(audit::get))
            .says("Changes that were asked for, newest first")
            .query("limit", whole(1, audit::LIMIT_MAX as u64), "default 100")
            .json::<AuditPage>(200)
            .errors(&[400, 500]),
    ]
}

fn configuration() -> Vec<Route> {
    vec![
        route("GET", "/v1/config", See, get(config::get))
            .says("The configuration, byte for byte as it was applied")
            .json::<Value>(200)
            .errors(&[]),
        ordered(route(
            "PUT",
            "/v1/config",
            Operator,
            put(config::put).layer(DefaultBodyLimit::max(DOCUMENT_BYTES_MAX)),
        ))
        .says("Checks a configuration and puts it in force")
        .takes::<serde_json::Map<String, Value>>()
        .json::<Applied>(200)
        .errors(&[400, 412, 413, 415, 422, 500]),
        route("GET", "/v1/revisions", See, get(config::revisions))
            .says("The revisions that are kept, newest first")
            .json::<Revisions>(200)
            .errors(&[]),
        route("GET", "/v1/revisions/{number}", See, get(config::revision))
            .says("One of them")
            .json::<Revision>(200)
            .errors(&[400, 404]),
        route("GET", "/v1/revisions/{number}/config", See, get(config::revision_config))
            .says("Its text, byte for byte")
            .json::<Value>(200)
            .errors(&[400, 404]),
        route("GET", "/v1/revisions/{number}/diff", See, get(config::diff))
            .says("What it changed")
            .query("since", whole(0, u64::MAX), "compared with this one instead of the one before")
            .json::<Plan>(200)
            .errors(&[400, 404]),
        ordered(route("POST", "/v1/revisions/{number}/revert", Operator, post(config::revert)))
            .says("Applies its text as a new revision")
            .json::<Applied>(200)
            .errors(&[400, 404, 412, 422, 500]),
    ]
}

fn plugin_routes() -> Vec<Route> {
    vec![
        route("GET", "/v1/plugins", See, get(plugins::list)).says("Uploaded plugins").json::<Plugins>(200).errors(&[]),
        route(
            "PUT",
            "/v1/plugins/{plugin}",
            Operator,
            put(plugins::put).layer(DefaultBodyLimit::max(COMPONENT_BYTES_MAX)),
        )
        .says("Uploads a plugin by its digest")
        .header("latchkey-signature", json!({"type": "string"}), "`ed25519 <kid> <signature>`")
        .takes_text("application/octet-stream", "a component")
        .json::<PluginInfo>(200)
        .json::<PluginInfo>(201)
        .errors(&[400, 403, 413, 422, 500]),
        route("GET", "/v1/plugins/{plugin}/crashes", See, get(plugins::crashes))
            .says("Failed calls since the process began, grouped")
            .json::<Crashes>(200)
            .errors(&[400, 404]),
        route("GET", "/v1/plugins/{plugin}/rules", See, get(rules::get))
            .says("Rules that have not decided for a while")
            .query("unused_days", whole(0, rules::DAYS_MAX), "default 30")
            .json::<UnusedRules>(200)
            .errors(&[400, 500]),
        route(
            "POST",
            "/v1/plugins/{plugin}/preview",
            See,
            post(preview::post).layer(DefaultBodyLimit::max(preview::BODY_BYTES_MAX)),
        )
        .says("What it would do to the answers of hosts, now and later; applied nowhere")
        .takes::<Preview>()
        .json::<Previewed>(200)
        .errors(&[400, 413, 500]),
        route("GET", "/v1/plugins/{plugin}/shadow", See, get(shadow::get))
            .says("What the shadows beside its bindings would have done")
            .json::<Shadows>(200)
            .errors(&[400, 404]),
        of_binding(route("PUT", "/v1/plugins/{plugin}/shadow", Operator, put(shadow::put)))
            .says("Puts a shadow beside its bindings")
            .takes::<shadow::Settings>()
            .json::<Applied>(200)
            .errors(&[400, 404, 412, 413, 422, 500]),
        of_binding(route("DELETE", "/v1/plugins/{plugin}/shadow", Operator, delete(shadow::delete)))
            .says("Takes them away")
            .json::<Applied>(200)
            .errors(&[400, 404, 412, 422, 500]),
        of_binding(route("POST", "/v1/plugins/{plugin}/shadow/promote", Operator, post(shadow::promote)))
            .says("Lets them take the place of their bindings")
            .json::<Applied>(200)
            .errors(&[400, 404, 412, 422, 500]),
    ]
}

fn table_routes() -> Vec<Route> {
    vec![
        route("GET", "/v1/tables", See, get(tables::list)).says("Uploaded tables").json::<Tables>(200).errors(&[500]),
        route("PUT", "/v1/tables/{digest}", Operator, put(tables::put))
            .says("Uploads a table by its digest")
            .takes_text("text/plain", "lines")
            .json::<TableInfo>(200)
            .json::<TableInfo>(201)
            .errors(&[400, 408, 413, 500, 503, 507]),
        route("DELETE", "/v1/tables/{digest}", Operator, delete(tables::delete))
            .says("Removes one that the running configuration does not name")
            .empty(204)
            .errors(&[400, 404, 409, 500]),
    ]
}

/// How, and by whom, a configuration is to be applied.
fn ordered(route: Route) -> Route {
    let text = |most: usize| json!({"type": "string", "maxLength": most});
    route
        .query("dry_run", json!({"type": "boolean"}), "only check, and say what would change")
        .query("message", text(config::MESSAGE_CHARS_MAX), "why")
        .query("by", text(config::BY_CHARS_MAX), "for whom")
        .header("If-Match", json!({"type": "string"}), "the ETag of the configuration that it replaces")
}

fn of_binding(route: Route) -> Route {
    ordered(route).query("at", json!({"type": "string"}), "only the binding there, a JSON pointer")
}

fn whole(least: u64, most: u64) -> Value {
    json!({"type": "integer", "minimum": least, "maximum": most})
}
