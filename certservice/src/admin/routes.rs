//! Every route, in one table: who may ask it, what answers, and what the OpenAPI document says of it.

use std::sync::Arc;

use axum::routing::{delete, get, post, put};
use contract::api::*;
use contract::journal;
use door::{Info, PathInput, route};
use serde_json::json;

use super::access::Allowed::{self, *};
use super::{
    Api, audit, budgets, changes, doctor, domains, edges, events, forecast, health, keys, lists, own, page, rewrap,
    verbs, webhooks,
};

pub(super) type Route = door::Route<Arc<Api>, Allowed>;

/// The document that describes this API, in the form in which it is checked in.
pub fn openapi() -> String {
    let info = Info {
        title: "Latchkey CertService",
        version: env!("CARGO_PKG_VERSION"),
        says: "Registers domains, obtains their certificates and hands them, sealed, to the edges. \
               `x-roles` of an operation are the roles that may ask it; without them anybody may.",
        path_inputs: &[PathInput {
            name: "name",
            says: "a host name; Unicode is taken, too",
            example: "shop.example",
            format: Some("hostname"),
        }],
    };
    door::openapi(&info, &routes())
}

pub(super) fn routes() -> Vec<Route> {
    [domain_routes(), edge_routes(), key_routes(), operator_routes()].into_iter().flatten().collect()
}

fn domain_routes() -> Vec<Route> {
    vec![
        route("GET", "/v1/domains", SeeDomains, get(domains::list))
            .says("Domains, by name; with `expires_before` by the end of their certificates")
            .query("after", json!({"type": "string"}), "`next` of the page before")
            .query("limit", whole(1, domains::PAGE_MAX.into()), "default 100")
            .query("state", json!({"enum": ["working", "action_needed", "live", "blocked"]}), "only these")
            .query("tenant", tenant(), "only this tenant's; role app has its own")
            .query("expires_before", whole(0, u64::MAX), "Unix seconds")
            .json::<DomainPage>(200)
            .errors(&[400]),
        route("GET", "/v1/domains/{name}", SeeDomains, get(domains::get))
            .says("Where a domain stands, and who must act")
            .json::<Domain>(200)
            .errors(&[400, 404]),
        route("PUT", "/v1/domains/{name}", Domains, put(domains::put))
            .says("Registers a domain; again is no other")
            .header("If-None-Match", json!({"const": "*"}), "insists on a new domain")
            .takes::<PutDomain>()
            .json::<Domain>(200)
            .json::<Domain>(201)
            .errors(&[400, 408, 409, 412, 413]),
        route("DELETE", "/v1/domains/{name}", Domains, delete(domains::delete))
            .says("Off-boards a domain: no more renewals, and edges forget it")
            .empty(204)
            .errors(&[400, 404, 500]),
        route("GET", "/v1/domains/{name}/certificate", SeeDomains, get(own::get))
            .says("What is served of a domain, and when it is replaced; never the key")
            .json::<CertificatePage>(200)
            .errors(&[400, 404]),
        route("PUT", "/v1/domains/{name}/certificate", Domains, put(own::put))
            .says("Serves a certificate that is brought along; over TLS or a Unix socket only")
            .takes::<BringCertificate>()
            .json::<Domain>(200)
            .json::<Domain>(201)
            .errors(&[400, 408, 409, 413, 500]),
        route("DELETE", "/v1/domains/{name}/certificate", Domains, delete(own::delete))
            .says("Back to the issuers; what was brought along is served until they have made another")
            .json::<Domain>(202)
            .errors(&[400, 404, 409]),
        route("POST", "/v1/domains/{name}:check", Domains, post(verbs::post))
            .says("How the domain looks now, asked without any CA; changes nothing")
            .json::<CheckReport>(200)
            .errors(&[400, 404]),
        route("POST", "/v1/domains/{name}:renew", Domains, post(verbs::post))
            .says("Orders a new certificate, or tries a failed order now")
            .json::<Domain>(202)
            .errors(&[400, 404, 409, 429]),
        route("POST", "/v1/domains/{name}:revoke", Domains, post(verbs::post))
            .says("Has the CA take the certificate back, and orders another")
            .takes::<RevokeDomain>()
            .json::<Domain>(202)
            .errors(&[400, 404, 408, 409, 413, 429, 502]),
        route("POST", "/v1/imports", Domains, post(lists::post))
            .says("Takes a list of domains; they are registered in the background")
            .query("tenant", tenant(), "for lines without one")
            .query("issuer", json!({"type": "string"}), "for lines without one")
            .query("www", json!({"type": "boolean"}), "for lines without it")
            .query("order", json!({"enum": ["now", "first_visit"]}), "for lines without it")
            .header(
                "Idempotency-Key",
                json!({"type": "string", "pattern": "^[!-~]{1,64}$"}),
                "the same list again is not another one",
            )
            .takes_text("text/csv", "name[,tenant[,issuer[,order]]] a line")
            .takes_text(
                "application/x-ndjson",
                "an object with `name`, `tenant`, `issuer` or `issuers`, `profile`, `www`, `order` a line",
            )
            .json::<DomainList>(200)
            .json::<DomainList>(202)
            .errors(&[400, 408, 413, 415]),
        route("GET", "/v1/imports/{id}", SeeDomains, get(lists::get))
            .says("How far a list has come")
            .query("errors_after", whole(0, u64::MAX), "a line: its errors are left out, and those before")
            .json::<DomainList>(200)
            .errors(&[400, 404]),
        route("GET", "/v1/events", SeeDomains, get(events::stream))
            .says("The journal as it grows, as server-sent events")
            .query("after", whole(0, u64::MAX), "`seq` of the last entry that is known")
            .query("tenant", tenant(), "only this tenant's")
            .header("Last-Event-ID", json!({"type": "string", "pattern": "^[0-9]{1,19}$"}), "goes before `after`")
            .text(200, "text/event-stream")
            .errors(&[400]),
        route("GET", "/p/{name}/{key}", Anybody, get(page::get))
            .says("A page of one domain, for whoever has the link")
            .text(200, "text/html; charset=utf-8")
            .errors(&[400, 404]),
    ]
}

fn edge_routes() -> Vec<Route> {
    vec![
        route("GET", "/v1/bundles/{name}", Edge, get(edges::bundle))
            .says("Certificate and sealed key, signed")
            .text(200, "application/jose")
            .errors(&[400, 404, 500]),
        route("GET", "/v1/challenges/{name}", Edge, get(edges::tls_challenge))
            .says("The answer to a tls-alpn-01 challenge, signed")
            .text(200, "application/jose")
            .errors(&[400, 404, 500]),
        route("GET", "/v1/challenges/{name}/{token}", Edge, get(edges::challenge))
            .says("The answer to an http-01 challenge, signed")
            .text(200, "application/jose")
            .errors(&[400, 404, 500]),
        route("GET", "/v1/ticket-keys", Edge, get(edges::ticket_keys))
            .says("Sealed keys of session tickets, signed")
            .text(200, "application/jose")
            .errors(&[404, 500]),
        route("GET", "/v1/changes", Edge, get(changes::list))
            .says("What became of which domain, oldest first")
            .query("since", whole(0, u64::MAX), "`cursor` of the page before")
            .query("limit", whole(1, CHANGES_MAX.into()), "default 10000")
            .header("latchkey-edge", json!({"type": "string", "pattern": "^[A-Za-z0-9_-]{43}$"}), "the edge's key ID")
            .json::<ChangePage>(200)
            .errors(&[400]),
    ]
}

fn key_routes() -> Vec<Route> {
    let kid = || json!({"type": "string", "pattern": "^[A-Za-z0-9_-]{43}$"});
    vec![
        route("GET", "/v1/keys", See, get(keys::list))
            .says("To which edge keys is sealed, and was")
            .json::<KeyPage>(200)
            .errors(&[]),
        route("POST", "/v1/keys", Operator, post(keys::add))
            .says("An edge key that is sealed to from here on; again is no other")
            .query("dry_run", json!({"type": "boolean"}), "only say what would become of it")
            .takes::<AddKey>()
            .json::<EdgeKeyInfo>(200)
            .json::<EdgeKeyInfo>(201)
            .errors(&[400, 408, 409, 413]),
        route("DELETE", "/v1/keys/{kid}", Operator, delete(keys::retire))
            .says("Nothing is sealed to it any more; refused while there are bundles that no other key opens")
            .query("force", json!({"type": "boolean"}), "also where bundles become unreadable")
            .query("dry_run", json!({"type": "boolean"}), "only say what would become of it")
            .json::<RetiredKey>(200)
            .errors(&[400, 404, 409]),
        route("GET", "/v1/custody", See, get(keys::custody))
            .says("Which bundles are sealed to which edge keys")
            .json::<Custody>(200)
            .errors(&[]),
        route("GET", "/v1/rewrap", Edge, get(rewrap::offer))
            .says("Bundles that an edge key opens and that want something of its edge")
            .query("kid", kid(), "of the edge's own key; required")
            .query("to", json!({"type": "string"}), "key IDs that bundles are to be wrapped for, with commas")
            .query("after", json!({"type": "string"}), "`next` of the page before")
            .query("limit", whole(1, REWRAP_MAX as u64), "default 32")
            .json::<RewrapPage>(200)
            .errors(&[400, 404, 500]),
        route("POST", "/v1/rewrap", Edge, post(rewrap::take))
            .says("New entries of bundles, and whether those that there are open")
            .header(PROOF_HEADER, json!({"type": "string"}), "HMAC of the body under the challenge's secret; required")
            .takes::<Rewrapped>()
            .json::<RewrapOutcome>(200)
            .errors(&[400, 403, 404, 408, 413]),
    ]
}

fn operator_routes() -> Vec<Route> {
    vec![
        route("GET", "/v1/audit", See, get(audit::list))
            .says("The journal, a hash chain")
            .query("after", whole(0, u64::MAX), "`seq` of the last entry that is known")
            .query("limit", whole(1, audit::PAGE_MAX.into()), "default 1000")
            .json::<journal::Page>(200)
            .errors(&[400]),
        route("POST", "/v1/audit/archive", Operator, post(audit::archive))
            .says("Removes the entries that an archive has, up to one; the chain goes on from there")
            .takes::<journal::Head>()
            .json::<journal::Archived>(200)
            .errors(&[400, 408, 409, 413]),
        route("GET", "/v1/budgets", See, get(budgets::list))
            .says("What the CAs' limits leave")
            .query("domain", json!({"type": "string", "format": "hostname"}), "also what is counted by this domain")
            .json::<BudgetPage>(200)
            .errors(&[400]),
        route("GET", "/v1/doctor", Operator, get(doctor::get))
            .says("Whether all that CertService lives on is well")
            .json::<DoctorReport>(200)
            .errors(&[]),
        route("GET", "/v1/webhooks", See, get(webhooks::list))
            .says("How far each webhook has come")
            .json::<WebhookPage>(200)
            .errors(&[]),
        route("GET", "/v1/forecast", See, get(forecast::get))
            .says("What renewals will take, and what an outage of the CAs would do")
            .query("ca_down_seconds", whole(0, forecast::OUTAGE_SECONDS_MAX), "default 0")
            .json::<Forecast>(200)
            .errors(&[400]),
        route("GET", "/v1/edges", See, get(changes::edges))
            .says("How far each edge has followed the changes")
            .json::<changes::Edges>(200)
            .errors(&[]),
        route("GET", "/healthz", Watch, get(health::healthz))
            .says("The process answers")
            .text(200, "text/plain; charset=utf-8")
            .errors(&[]),
        route("GET", "/readyz", Watch, get(health::readyz))
            .says("The database answers, and that of bundles where they are apart")
            .text(200, "text/plain; charset=utf-8")
            .errors(&[]),
        route("GET", "/metrics", Watch, get(health::metrics))
            .says("For Prometheus")
            .text(200, "text/plain; version=0.0.4")
            .errors(&[500]),
    ]
}

fn whole(least: u64, most: u64) -> serde_json::Value {
    json!({"type": "integer", "minimum": least, "maximum": most})
}

fn tenant() -> serde_json::Value {
    json!({"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"})
}
