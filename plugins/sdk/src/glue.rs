//! Between the traits and the generated exports.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::panic;
use std::sync::Once;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::bindings::control::{CompiledPlan, Diagnostic, Hooks, Severity};
use crate::bindings::{body as body_wit, connection as connection_wit, control as control_wit, http as http_wit};
use crate::body::{Body, BodyPolicy, Course};
use crate::connection::{ConnectionPolicy, address, seen};
use crate::http::{HttpPolicy, Request, Response};
use crate::log::{self, Level};
use crate::{Manifest, config, connection, http};

pub struct Http<P>(PhantomData<P>);
pub struct Connection<P>(PhantomData<P>);

/// A policy as the resource that the proxy holds.
pub struct Held<P>(P);

/// A body as the resource that the proxy holds.
pub struct UnderWay<B>(RefCell<B>);

impl<P: HttpPolicy> control_wit::Guest for Http<P> {
    fn describe() -> control_wit::Manifest {
        manifest(&P::MANIFEST)
    }

    fn plan(config: Vec<u8>) -> Result<CompiledPlan, Vec<Diagnostic>> {
        log_panics();
        let (plan, warnings) = config::read(&config, P::plan).map_err(diagnostics)?;
        let http::Plan { policy, request, response, found_only, wants } = plan;
        let mut hooks = Hooks::empty();
        hooks.set(Hooks::REQUEST, request);
        hooks.set(Hooks::RESPONSE, response);
        hooks.set(Hooks::FOUND_ONLY, found_only);
        Ok(CompiledPlan { compiled: compile(&policy), hooks, wants, warnings: diagnostics(warnings) })
    }
}

impl<P: ConnectionPolicy> control_wit::Guest for Connection<P> {
    fn describe() -> control_wit::Manifest {
        manifest(&P::MANIFEST)
    }

    fn plan(config: Vec<u8>) -> Result<CompiledPlan, Vec<Diagnostic>> {
        log_panics();
        let (plan, warnings) = config::read(&config, P::plan).map_err(diagnostics)?;
        let connection::Plan { policy, wants } = plan;
        let (compiled, warnings) = (compile(&policy), diagnostics(warnings));
        Ok(CompiledPlan { compiled, hooks: Hooks::empty(), wants, warnings })
    }
}

impl<P: HttpPolicy> http_wit::Guest for Http<P> {
    type Policy = Held<P>;
}

impl<P: HttpPolicy> http_wit::GuestPolicy for Held<P> {
    fn new(compiled: Vec<u8>) -> Self {
        restore(&compiled)
    }

    fn on_request(
        &self,
        facts: http::Facts,
        host: String,
        path: String,
        query: Option<String>,
        wanted: Vec<Option<Vec<u8>>>,
    ) -> http::Verdict {
        let request = Request { host: &host, path: &path, query: query.as_deref(), wanted: &wanted };
        self.0.on_request(&facts, &request)
    }

    fn on_response(
        &self,
        facts: http::Facts,
        host: String,
        path: String,
        status: u16,
        wanted: Vec<Option<Vec<u8>>>,
    ) -> http::Changes {
        self.0.on_response(&facts, &Response { host: &host, path: &path, status, wanted: &wanted })
    }
}

impl<P: BodyPolicy> body_wit::Guest for Http<P> {
    type Policy = Held<P>;
    type Body = UnderWay<P::Body>;
}

impl<P: BodyPolicy> body_wit::GuestPolicy for Held<P> {
    fn new(compiled: Vec<u8>) -> Self {
        restore(&compiled)
    }

    fn messages(&self) -> body_wit::Messages {
        self.0.messages()
    }

    fn begin(&self, head: body_wit::Head) -> body_wit::Course {
        let under_way = |body| body_wit::Body::new(UnderWay(RefCell::new(body)));
        match self.0.begin(&head) {
            Course::Pass => body_wit::Course::Pass,
            Course::Watch(body) => body_wit::Course::Watch(under_way(body)),
            Course::Change(body) => body_wit::Course::Change(under_way(body)),
        }
    }
}

impl<B: Body> body_wit::GuestBody for UnderWay<B> {
    fn push(&self, piece: Vec<u8>, end: bool) -> body_wit::Passage {
        self.0.borrow_mut().push(&piece, end)
    }
}

impl<P: ConnectionPolicy> connection_wit::Guest for Connection<P> {
    type Policy = Held<P>;
}

impl<P: ConnectionPolicy> connection_wit::GuestPolicy for Held<P> {
    fn new(compiled: Vec<u8>) -> Self {
        restore(&compiled)
    }

    fn expect(
        &self,
        listener: String,
        peer: connection_wit::Endpoint,
        found: Vec<Option<Vec<u8>>>,
    ) -> connection_wit::Expectation {
        self.0.expect(&connection::Connection { listener: &listener, peer: address(peer), found: &found })
    }

    fn judge(
        &self,
        listener: String,
        peer: connection_wit::Endpoint,
        header: connection_wit::Seen,
        found: Vec<Option<Vec<u8>>>,
    ) -> connection_wit::Outcome {
        let who = connection::Connection { listener: &listener, peer: address(peer), found: &found };
        self.0.judge(&who, seen(header))
    }
}

fn manifest(manifest: &Manifest) -> control_wit::Manifest {
    control_wit::Manifest {
        name: manifest.name.to_owned(),
        version: manifest.version.to_owned(),
        config_schema: manifest.config_schema.to_owned(),
        fail_open_safe: manifest.fail_open_safe,
    }
}

fn diagnostics(list: Vec<config::Diagnostic>) -> Vec<Diagnostic> {
    let diagnostic = |diagnostic: config::Diagnostic| Diagnostic {
        severity: match diagnostic.severity {
            config::Severity::Error => Severity::Error,
            config::Severity::Warning => Severity::Warning,
        },
        at: diagnostic.at,
        message: diagnostic.message,
        hint: diagnostic.hint,
    };
    list.into_iter().map(diagnostic).collect()
}

// A policy that can't be encoded, or that does not decode from what it was encoded to, is a bug of its serde form. The
// trap ends the call, and the proxy tries both before it accepts a configuration.
#[allow(clippy::expect_used)]
fn compile<P: Serialize>(policy: &P) -> Vec<u8> {
    postcard::to_allocvec(policy).expect("the policy is encoded")
}

#[allow(clippy::expect_used)]
fn restore<P: DeserializeOwned>(compiled: &[u8]) -> Held<P> {
    log_panics();
    Held(postcard::from_bytes(compiled).expect("the compiled plan is decoded"))
}

/// A trap says only that something was unreachable: the words of the panic go to the log before it.
fn log_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| panic::set_hook(Box::new(|panic| log::write(Level::Error, || panic.to_string()))));
}
