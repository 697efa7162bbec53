//! Redirects by path: exact rules before prefix rules before regular expressions, the longest prefix first.

mod check;
mod expression;
mod location;
mod rules;
mod table;

use latchkey_sdk::config::Value;
use latchkey_sdk::http::{
    Action, Facts, HttpPolicy, LocalResponse, Plan, Redirect, RedirectStatus, Request, Scheme, header,
};
use latchkey_sdk::{Manifest, export_http};
use serde::{Deserialize, Serialize};

use table::Tables;

/// What the host accepts; a longer one is the visitor's doing, since rules are far shorter.
const LOCATION_BYTES_MAX: usize = 8 << 10;

#[derive(Debug, Serialize, Deserialize)]
struct Redirects {
    tables: Tables,
}

export_http!(Redirects);

impl HttpPolicy for Redirects {
    const MANIFEST: Manifest = Manifest {
        name: "redirects",
        version: env!("CARGO_PKG_VERSION"),
        config_schema: include_str!("../config.schema.json"),
        fail_open_safe: true,
    };

    fn plan(config: &Value<'_>) -> Option<Plan<Self>> {
        let tables = rules::read(config)?;
        Some(Plan::new(Self { tables }).on_request())
    }

    fn on_request(&self, facts: &Facts, request: &Request<'_>) -> Action {
        let Some(found) = self.tables.find(request.host, request.path) else { return Action::Next };
        let Some(status) = found.rule.status.redirect() else { return gone() };
        let location = location::make(&found, request.path, request.query);
        // A rule for all hosts may name one of them as its target; on that one there is nothing to redirect.
        if is_here(&location, facts, request) {
            return Action::Next;
        }
        if location.len() > LOCATION_BYTES_MAX {
            return Action::Deny(414);
        }
        Action::Redirect(Redirect { status, location, edits: Vec::new() })
    }
}

/// Whether the location is what was asked for.
fn is_here(location: &str, facts: &Facts, request: &Request<'_>) -> bool {
    let scheme = if facts.scheme == Scheme::Https { "https://" } else { "http://" };
    let rest = location.strip_prefix(scheme).and_then(|rest| rest.strip_prefix(request.host)).unwrap_or(location);
    let (path, query) = match rest.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (rest, None),
    };
    let path = if path.is_empty() { "/" } else { path };
    path == request.path && query == request.query
}

fn gone() -> Action {
    let headers = vec![header("content-type", "text/plain; charset=utf-8")];
    Action::Respond(LocalResponse { status: 410, headers, body: b"This page is gone.\n".to_vec() })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Status {
    MovedPermanently,
    Found,
    SeeOther,
    TemporaryRedirect,
    PermanentRedirect,
    Gone,
}

impl Status {
    /// None for what leads nowhere.
    fn redirect(self) -> Option<RedirectStatus> {
        Some(match self {
            Self::MovedPermanently => RedirectStatus::MovedPermanently,
            Self::Found => RedirectStatus::Found,
            Self::SeeOther => RedirectStatus::SeeOther,
            Self::TemporaryRedirect => RedirectStatus::TemporaryRedirect,
            Self::PermanentRedirect => RedirectStatus::PermanentRedirect,
            Self::Gone => return None,
        })
    }
}

/// What becomes of the visitor's query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Query {
    Keep,
    Drop,
    /// Kept, but where the rule's target has a parameter of that name.
    Merge,
}

#[cfg(test)]
mod tests;
