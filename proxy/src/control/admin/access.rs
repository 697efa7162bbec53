//! Who may do what. Whoever opens the Unix socket may do everything; over TCP a role is needed, and what no rule allows is
//! refused. Each change that is asked for goes into the audit log, with what was answered.

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{ORIGIN, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use contract::admin::{AuditEntry, Author};
use door::{ClientCertificate, Identified, Peer, Roles, Token, Unidentified, identify};

use super::super::Control;
use super::super::audit::Standing;
use super::{problem, who};
use crate::config::AdminRole;

/// Whom the boot file knows.
pub(in crate::control) struct Known {
    pub(in crate::control) tokens: Vec<Token<AdminRole>>,
    pub(in crate::control) certificates: Vec<ClientCertificate<AdminRole>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Allowed {
    /// Operator and viewer.
    See,
    Operator,
}

impl Roles for Allowed {
    fn roles(&self) -> &'static [&'static str] {
        match self {
            Self::See => &["operator", "viewer"],
            Self::Operator => &["operator"],
        }
    }
}

#[derive(Debug, Clone)]
pub(super) enum Caller {
    /// Over the Unix socket.
    Local(Option<u32>),
    Known(Identified<AdminRole>),
}

impl Caller {
    /// `by`: who the caller says to act for.
    pub(super) fn author(&self, by: Option<String>) -> Author {
        match self {
            Self::Local(uid) => who::author(*uid, by),
            Self::Known(known) => Author { caller: Some(named(known)), by, ..Author::default() },
        }
    }

    fn standing(&self) -> Standing {
        match self {
            Self::Local(_) => Standing::MayChange,
            Self::Known(known) if known.grant == AdminRole::Operator => Standing::MayChange,
            Self::Known(_) => Standing::MayNot,
        }
    }
}

/// Enough of the hash to find it in the boot file, or in the list of who issued the certificate.
fn named(Identified { grant, sha256 }: &Identified<AdminRole>) -> String {
    let id: String = sha256.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    format!("{}:{id}", grant.as_str())
}

/// What a request is checked by.
pub(super) struct Gate {
    pub(super) control: Arc<Control>,
    pub(super) rules: Vec<Rule>,
}

pub(super) struct Rule {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) allowed: Allowed,
}

/// Runs around every request.
pub(super) async fn check(State(gate): State<Arc<Gate>>, mut request: Request, next: Next) -> Response {
    let Some(peer) = request.extensions().get::<Peer>().cloned() else {
        return unknown(Unidentified::Nobody);
    };
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let caller = admit(&gate, request.method(), route.as_deref(), request.headers(), &peer);
    let who = caller.as_ref().map_or_else(|refusal| refusal.caller.as_ref(), Some);
    let entry = is_change(request.method()).then(|| entry(&request, &peer, who));
    match caller {
        Ok(caller) => {
            let standing = caller.standing();
            request.extensions_mut().insert(caller);
            match entry {
                Some(entry) => to_its_end(gate, request, next, entry, standing).await,
                None => next.run(request).await,
            }
        }
        Err(refusal) => {
            if let Some(mut entry) = entry {
                entry.status = refusal.response.status().as_u16();
                gate.control.audit.add(entry, refusal.standing).await;
            }
            refusal.response
        }
    }
}

fn is_change(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// Also where whoever asked has gone meanwhile: what was changed is told, and nothing is changed by halves.
async fn to_its_end(
    gate: Arc<Gate>,
    request: Request,
    next: Next,
    mut entry: AuditEntry,
    standing: Standing,
) -> Response {
    let carried_out = tokio::spawn(async move {
        let response = next.run(request).await;
        entry.status = response.status().as_u16();
        gate.control.audit.add(entry, standing).await;
        response
    });
    carried_out.await.unwrap_or_else(|error| {
        problem(StatusCode::INTERNAL_SERVER_ERROR, "failed", &format!("the request ended badly: {error}"), vec![])
    })
}

/// Whose request is not carried out.
struct Refusal {
    response: Response,
    caller: Option<Caller>,
    standing: Standing,
}

fn admit(
    gate: &Gate,
    method: &Method,
    route: Option<&str>,
    headers: &HeaderMap,
    peer: &Peer,
) -> Result<Caller, Box<Refusal>> {
    if peer.address.is_none() {
        return Ok(Caller::Local(peer.uid));
    }
    let known = &gate.control.known_callers;
    let identified = identify(&known.tokens, &known.certificates, headers, peer).map_err(|why| {
        let known = why == Unidentified::WrongNetwork;
        let standing = if known { Standing::MayNot } else { Standing::Unknown };
        Box::new(Refusal { response: unknown(why), caller: None, standing })
    })?;
    let forbidden = |code, says| {
        let response = problem(StatusCode::FORBIDDEN, code, says, vec![]);
        let caller = Some(Caller::Known(identified.clone()));
        Box::new(Refusal { response, caller, standing: Standing::MayNot })
    };
    // A browser shows a client certificate for whatever page asks it to; only such requests have an origin.
    if is_change(method) && headers.contains_key(ORIGIN) {
        return Err(forbidden("from_a_page", "changes are not taken from pages in browsers, which send an Origin"));
    }
    let method = if method == Method::HEAD { "GET" } else { method.as_str() };
    let rule = gate.rules.iter().find(|rule| rule.method == method && Some(rule.path) == route);
    // A path or method that is not there has no rule; who is known may learn that it is not there.
    let allowed = rule.map_or(Allowed::See, |rule| rule.allowed);
    if allowed == Allowed::Operator && identified.grant != AdminRole::Operator {
        let says = "the role of this token or certificate does not allow it; it takes role operator";
        return Err(forbidden("forbidden", says));
    }
    Ok(Caller::Known(identified))
}

fn unknown(why: Unidentified) -> Response {
    if why == Unidentified::WrongNetwork {
        let says = "this token or certificate is not taken from this address; see its `networks` in the boot file";
        return problem(StatusCode::FORBIDDEN, "wrong_network", says, vec![]);
    }
    let says = "send `Authorization: Bearer <token>` with a token whose SHA-256 is in the boot file, or come with a client \
                certificate that [[admin.certificates]] names";
    let mut response = problem(StatusCode::UNAUTHORIZED, "unknown_caller", says, vec![]);
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

fn entry(request: &Request, peer: &Peer, caller: Option<&Caller>) -> AuditEntry {
    let query = request.uri().query().unwrap_or_default();
    let parameter = |name: &str| {
        let found = form(query).find(|(key, _)| key == name);
        found.map(|(_, value)| value)
    };
    AuditEntry {
        at: std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs()),
        who: caller.map_or_else(|| "unknown".to_owned(), |caller| caller.author(parameter("by")).to_string()),
        from: peer.address.map(|address| address.to_string()),
        method: request.method().to_string(),
        path: request.uri().path().to_owned(),
        status: 0,
        message: parameter("message").unwrap_or_default(),
        left_out: 0,
    }
}

fn form(query: &str) -> impl Iterator<Item = (String, String)> {
    let pairs: Vec<(String, String)> =
        axum::extract::Query::try_from_uri(&format!("/?{query}").parse().unwrap_or_default())
            .map(|axum::extract::Query(pairs)| pairs)
            .unwrap_or_default();
    pairs.into_iter()
}
