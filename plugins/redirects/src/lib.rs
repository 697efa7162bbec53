//! Redirects by path: exact rules before prefix rules before regular expressions, the longest prefix first.

mod bulk;
mod check;
mod expression;
mod location;
mod rules;
mod table;

use latchkey_sdk::config::Value;
use latchkey_sdk::http::{
    Action, Depends, Facts, HttpPolicy, LocalResponse, Plan, Redirect, RedirectStatus, Request, Verdict, header,
};
use latchkey_sdk::{Manifest, export_http};
use serde::{Deserialize, Serialize};

use bulk::Stored;
use table::Tables;

/// What the host accepts; a longer one is the visitor's doing, since rules are far shorter.
const LOCATION_BYTES_MAX: usize = 8 << 10;

/// Rules are the same for as long as the configuration; the table's are told to be in use once a minute.
const MEMO_SECONDS: u32 = 60;

#[derive(Debug, Serialize, Deserialize)]
struct Redirects {
    tables: Tables,
    /// Rules of the configuration: those of the table are numbered after them, by line.
    own: u32,
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
        let config = config.object(&["rules", "table"])?;
        if config.get("rules").is_none() && config.get("table").is_none() {
            return config.required("rules", |_| None);
        }
        let (tables, own) = config.optional("rules", (Tables::default(), 0), rules::read)?;
        let bulk = config.optional("table", None, |v| bulk::read(v, &tables).map(Some))?;
        let asked_always = !tables.is_empty();
        let plan = Plan::new(Self { tables, own }).on_request();
        Some(match bulk {
            Some(bulk) if asked_always => plan.wants_found(&[&bulk.exact, &bulk.prefix]),
            Some(bulk) => plan.wants_found(&[&bulk.exact, &bulk.prefix]).where_found(),
            None => plan,
        })
    }

    fn on_request(&self, facts: &Facts, request: &Request<'_>) -> Verdict {
        let here = Depends::HOST | Depends::PATH;
        let found = self.tables.find(request.host, request.path);
        // The rules of the configuration go before those of the table.
        let (status, target, rule) = match (&found, request.wanted.first()) {
            (Some(found), _) => (found.rule.status, found.target(), found.rule.number.into()),
            (None, Some(Some(value))) => match Stored::decode(value) {
                Some(stored) => (stored.status, stored.target(), self.own.saturating_add(stored.line)),
                None => return Verdict::from(Action::Next).holds(here, MEMO_SECONDS),
            },
            _ => return Verdict::from(Action::Next).holds(here, MEMO_SECONDS),
        };
        let Some(status) = status.redirect() else {
            return Verdict::from(gone()).by(rule).holds(here, MEMO_SECONDS);
        };
        let location = location::make(&target, request.path, request.query);
        let action = if is_here(&location, facts, request) {
            // A rule for all hosts may name one of them as its target; on that one there is nothing to redirect.
            Action::Next
        } else if location.len() > LOCATION_BYTES_MAX {
            Action::Deny(414)
        } else {
            Action::Redirect(Redirect { status, location, edits: Vec::new() })
        };
        Verdict::from(action).by(rule).holds(here | Depends::QUERY, MEMO_SECONDS)
    }
}

/// Whether the location is what was asked for. From HTTPS, plain HTTP is that as well: it leads back.
fn is_here(location: &str, facts: &Facts, request: &Request<'_>) -> bool {
    let location = location.split('#').next().unwrap_or_default();
    let absolute = match location.split_once("://") {
        Some(("https", rest)) if facts.is_https() => Some((rest, ":443")),
        Some(("http", rest)) => Some((rest, ":80")),
        _ => None,
    };
    let rest = match absolute {
        Some((rest, port)) => {
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            let (authority, rest) = rest.split_at(end);
            let host = authority.strip_suffix(port).unwrap_or(authority);
            if !host.eq_ignore_ascii_case(request.host) {
                return false;
            }
            rest
        }
        None => location,
    };
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
    /// By their place in the byte that a table's rule has for it.
    const ALL: [Self; 6] = [
        Self::MovedPermanently,
        Self::Found,
        Self::SeeOther,
        Self::TemporaryRedirect,
        Self::PermanentRedirect,
        Self::Gone,
    ];

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
