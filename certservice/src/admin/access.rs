//! Who may do what. Default-deny: what no rule allows is refused.

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use door::{Identified, Peer, Roles, Unidentified};
use http::{HeaderMap, Method, StatusCode};

use super::Api;
use super::problem::{ApiError, is_verb, wrong_method};
use super::routes::Route;
use crate::config::Grant;

/// Who calls, as far as the API cares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// By a token, or by a client certificate.
    Known(Identified<Grant>),
    /// On a Unix socket: who may open it is trusted with what tokens are not configured for.
    Local { trusted: bool },
    /// Nobody asked who: the route is for all.
    Anybody,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Allowed {
    /// Role app for its tenant, operator for all.
    Domains,
    /// The same, and viewer for all.
    SeeDomains,
    Edge,
    Operator,
    /// Operator and viewer.
    See,
    /// The same, and whoever can open the Unix socket.
    Watch,
    /// Whoever has the link: it is the key.
    Anybody,
}

/// What a request is checked by.
pub(super) struct Gate {
    pub(super) api: Arc<Api>,
    pub(super) rules: Vec<Rule>,
}

/// A path stands here as the router has it.
pub(super) struct Rule {
    method: &'static str,
    path: &'static str,
    allowed: Allowed,
}

impl From<&Route> for Rule {
    fn from(route: &Route) -> Self {
        Self { method: route.method, path: route.served_at(), allowed: route.allowed }
    }
}

impl Allowed {
    fn covers(self, caller: &Caller) -> bool {
        let grant = match caller {
            Caller::Local { trusted } => return *trusted || self == Self::Watch,
            Caller::Anybody => return self == Self::Anybody,
            Caller::Known(known) => &known.grant,
        };
        match self {
            Self::Anybody => true,
            Self::Domains => matches!(grant, Grant::App { .. } | Grant::Operator),
            Self::SeeDomains => matches!(grant, Grant::App { .. } | Grant::Operator | Grant::Viewer),
            Self::Edge => *grant == Grant::Edge,
            Self::Operator => *grant == Grant::Operator,
            Self::See | Self::Watch => matches!(grant, Grant::Operator | Grant::Viewer),
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Domains => "role app or operator",
            Self::SeeDomains => "role app, operator or viewer",
            Self::Edge => "role edge",
            Self::Operator => "role operator",
            Self::See => "role operator or viewer",
            Self::Watch => "role operator or viewer, or the Unix socket",
            Self::Anybody => "nothing",
        }
    }
}

impl Roles for Allowed {
    fn roles(&self) -> &'static [&'static str] {
        match self {
            Self::Domains => &["app", "operator"],
            Self::SeeDomains => &["app", "operator", "viewer"],
            Self::Edge => &["edge"],
            Self::Operator => &["operator"],
            Self::See | Self::Watch => &["operator", "viewer"],
            Self::Anybody => &[],
        }
    }
}

impl Caller {
    /// The tenant whose domains it is confined to.
    pub(super) fn tenant(&self) -> Option<&str> {
        match self {
            Self::Known(Identified { grant: Grant::App { tenant }, .. }) => Some(tenant),
            _ => None,
        }
    }

    /// As the journal names it. Of a token or certificate it has the first digits of its hash:
    /// enough to find it in the boot file, or in the list of who issued it.
    pub(super) fn actor(&self) -> String {
        let (grant, sha256) = match self {
            Self::Known(Identified { grant, sha256 }) => (grant, sha256),
            Self::Local { .. } => return "local".to_owned(),
            Self::Anybody => return "anybody".to_owned(),
        };
        let id: String = sha256[..4].iter().map(|byte| format!("{byte:02x}")).collect();
        match grant {
            Grant::App { tenant } => format!("app/{tenant}:{id}"),
            Grant::Edge => format!("edge:{id}"),
            Grant::Operator => format!("operator:{id}"),
            Grant::Viewer => format!("viewer:{id}"),
        }
    }
}

/// Runs around every request: identifies the caller, applies the rule of the route, counts the outcome.
pub(super) async fn check(State(gate): State<Arc<Gate>>, mut request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let Some(peer) = request.extensions().get::<Peer>().cloned() else {
        return unknown_caller().into_response();
    };
    let response = match admit(&gate, request.method(), route.as_deref(), request.headers(), &peer) {
        Ok(_) if is_verb(request.uri()) && request.method() != Method::POST => {
            wrong_method(request.uri().clone()).await
        }
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(refusal) => refusal.into_response(),
    };
    let status = response.status();
    let labels = [route.as_deref().unwrap_or("unknown"), status.as_str()];
    gate.api.metrics.requests.with_label_values(&labels).inc();
    response
}

fn admit(
    gate: &Gate,
    method: &Method,
    route: Option<&str>,
    headers: &HeaderMap,
    peer: &Peer,
) -> Result<Caller, ApiError> {
    let method = if method == Method::HEAD { &Method::GET } else { method };
    let of_route = || gate.rules.iter().filter(|rule| Some(rule.path) == route);
    if of_route().any(|rule| rule.method == method.as_str() && rule.allowed == Allowed::Anybody) {
        return Ok(Caller::Anybody);
    }
    let caller = identify(&gate.api, headers, peer)?;
    // An unknown path or method has no rule; who is known may learn that it is unknown.
    let Some(Rule { allowed, .. }) = of_route().find(|rule| rule.method == method.as_str()) else {
        return match (route, of_route().next(), &caller) {
            (_, _, Caller::Local { trusted: false }) => Err(unknown_caller()),
            (Some(_), None, _) => Err(forbidden("nobody")),
            _ => Ok(caller),
        };
    };
    match (allowed.covers(&caller), &caller) {
        (true, _) => Ok(caller),
        (false, Caller::Local { .. } | Caller::Anybody) => Err(unknown_caller()),
        (false, Caller::Known(_)) => Err(forbidden(allowed.words())),
    }
}

fn identify(api: &Api, headers: &HeaderMap, peer: &Peer) -> Result<Caller, ApiError> {
    match door::identify(&api.tokens, &api.certificates, headers, peer) {
        Ok(known) => Ok(Caller::Known(known)),
        Err(Unidentified::Nobody) if api.local => Ok(Caller::Local { trusted: api.tokens.is_empty() }),
        Err(Unidentified::Nobody | Unidentified::Unknown) => Err(unknown_caller()),
        Err(Unidentified::WrongNetwork) => Err(wrong_network()),
    }
}

fn unknown_caller() -> ApiError {
    let says = "send `Authorization: Bearer <token>` with a token whose SHA-256 is in the boot file, or come with a client \
                certificate that [[certificates]] names";
    ApiError::new(StatusCode::UNAUTHORIZED, "unknown_caller", "Unknown caller", says)
}

fn wrong_network() -> ApiError {
    let says = "this token or certificate is not taken from this address; see its `networks` in the boot file";
    ApiError::new(StatusCode::FORBIDDEN, "wrong_network", "Forbidden from here", says)
}

fn forbidden(needed: &str) -> ApiError {
    let says = format!("the role of this token or certificate does not allow it; it takes {needed}");
    ApiError::new(StatusCode::FORBIDDEN, "forbidden", "Forbidden", says)
}
