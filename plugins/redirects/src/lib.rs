//! Redirects by path: exact rules before prefix rules, the longest prefix first.

mod location;
mod rules;
mod table;

use latchkey_sdk::config::Value;
use latchkey_sdk::http::{Action, Facts, HttpPolicy, Plan, Redirect, RedirectStatus, Request, Scheme};
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
        let Some(rule) = self.tables.find(request.host, request.path) else { return Action::Next };
        let location = location::make(rule, request.path, request.query);
        // A rule for all hosts may name one of them as its target; on that one there is nothing to redirect.
        if is_here(&location, facts, request) {
            return Action::Next;
        }
        if location.len() > LOCATION_BYTES_MAX {
            return Action::Deny(414);
        }
        Action::Redirect(Redirect { status: rule.status.into(), location, edits: Vec::new() })
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Status {
    MovedPermanently,
    Found,
    SeeOther,
    TemporaryRedirect,
    PermanentRedirect,
}

impl From<Status> for RedirectStatus {
    fn from(status: Status) -> Self {
        match status {
            Status::MovedPermanently => Self::MovedPermanently,
            Status::Found => Self::Found,
            Status::SeeOther => Self::SeeOther,
            Status::TemporaryRedirect => Self::TemporaryRedirect,
            Status::PermanentRedirect => Self::PermanentRedirect,
        }
    }
}

#[cfg(test)]
mod tests;
