//! One instance of a plugin with one configuration in it.

use std::sync::Arc;

use wasmtime::component::ResourceAny;
use wasmtime::{PoolConcurrencyLimitError, Store, Trap, WasmBacktrace};

use super::callout::{Calling, Callouts};
use super::component::{Plugin, PolicyPre};
use super::engine::Inner;
use super::guest::{body, connection, http};
use super::limits::{self, Budget, DeadlineExceeded, State};
use super::rates::Rates;
use super::terms::Role;
use super::types::{self, Fault, Usage};
use super::verify::shown;
use super::waiting::{Functions, RequestArguments, ResponseArguments, at_once};

const FRAMES_MAX: usize = 16;
const FRAME_CHARS_MAX: usize = 120;

pub(super) struct Instance {
    store: Store<State>,
    policy: ResourceAny,
    guest: Guest,
    /// Calls until it is replaced.
    uses_left: u32,
}

enum Guest {
    Connection(connection::Connection),
    Http(http::Http),
    Body(body::Body),
    Waiting(Functions),
}

/// Which of its policies an instance is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum For {
    /// Connections, or heads.
    Heads,
    Bodies,
}

/// What an instance begins with.
pub(super) struct Start<'a> {
    pub what: For,
    pub role: Role,
    pub uses: u32,
    pub budget: Budget,
    pub compiled: &'a [u8],
    pub rates: Arc<Rates>,
    pub callouts: &'a Arc<Callouts>,
}

impl Instance {
    pub(super) fn start(host: &Inner, plugin: &Plugin, start: Start<'_>) -> Result<Self, Fault> {
        let Start { what, role, uses, budget, compiled, rates, callouts } = start;
        let name = match role {
            Role::Live => plugin.shared_name(),
            Role::Shadow => plugin.name_as_shadow(),
        };
        let mut store = limits::store(host, name, budget);
        store.data_mut().rates = Some(rates);
        let guest = match (&plugin.policy, plugin.body.as_ref().filter(|_| what == For::Bodies)) {
            (_, Some(pre)) => pre.instantiate(&mut store).map(Guest::Body),
            (PolicyPre::Connection(pre), None) => pre.instantiate(&mut store).map(Guest::Connection),
            (PolicyPre::Http(pre), None) => pre.instantiate(&mut store).map(Guest::Http),
            (PolicyPre::Waiting(pre), None) => {
                store.data_mut().callouts = Some(callouts.clone());
                let started = at_once(pre.start(&mut store, compiled))?;
                let (functions, policy) = started.map_err(|error| not_started(&store, &error))?;
                return Ok(Self { store, policy, guest: Guest::Waiting(functions), uses_left: uses });
            }
        };
        let guest = guest.map_err(|error| not_started(&store, &error))?;
        let policy = match &guest {
            Guest::Connection(guest) => {
                guest.latchkey_edge_connection().policy().call_constructor(&mut store, compiled)
            }
            Guest::Http(guest) => guest.latchkey_edge_http_policy().policy().call_constructor(&mut store, compiled),
            Guest::Body(guest) => guest.latchkey_edge_http_body().policy().call_constructor(&mut store, compiled),
            Guest::Waiting(_) => return Err(Fault::Unavailable("it has a policy already".to_owned())),
        };
        let policy = policy.map_err(|error| fault(&store, &error))?;
        Ok(Self { store, policy, guest, uses_left: uses })
    }

    /// Of a plugin that may wait; and what came of its callouts. Whoever drops this drops the instance too: a call that was
    /// broken off leaves it in an unknown state.
    pub(super) async fn call_waiting(
        &mut self,
        arguments: RequestArguments<'_>,
        calling: Calling,
    ) -> (Result<http::Verdict, Fault>, Option<Calling>) {
        let Guest::Waiting(functions) = &self.guest else {
            return (Err(Fault::Unavailable("this plugin does not wait".to_owned())), None);
        };
        self.uses_left = self.uses_left.saturating_sub(1);
        limits::start_call(&mut self.store);
        self.store.data_mut().calling = Some(Box::new(calling));
        let verdict = functions.on_request(&mut self.store, self.policy, arguments).await;
        let calling = self.store.data_mut().calling.take().map(|calling| *calling);
        (verdict.map_err(|error| fault(&self.store, &error)), calling)
    }

    /// Whether the plugin may wait or not: here it can't.
    pub(super) fn call_on_response(&mut self, arguments: ResponseArguments<'_>) -> Result<http::Changes, Fault> {
        let Guest::Waiting(functions) = &self.guest else {
            let (facts, host, path, status, wanted) = arguments;
            return self.call_http(|policy, store, this| {
                policy.call_on_response(store, this, facts, host, path, status, wanted)
            });
        };
        self.uses_left = self.uses_left.saturating_sub(1);
        limits::start_call(&mut self.store);
        let changes = at_once(functions.on_response(&mut self.store, self.policy, arguments))?;
        changes.map_err(|error| fault(&self.store, &error))
    }

    pub(super) fn call_connection<T>(
        &mut self,
        call: impl FnOnce(connection::GuestPolicy<'_>, &mut Store<State>, ResourceAny) -> wasmtime::Result<T>,
    ) -> Result<T, Fault> {
        let Guest::Connection(guest) = &self.guest else {
            return Err(Fault::Unavailable("an http plugin is not asked about connections".to_owned()));
        };
        self.uses_left = self.uses_left.saturating_sub(1);
        limits::start_call(&mut self.store);
        call(guest.latchkey_edge_connection().policy(), &mut self.store, self.policy)
            .map_err(|error| fault(&self.store, &error))
    }

    pub(super) fn call_http<T>(
        &mut self,
        call: impl FnOnce(http::GuestPolicy<'_>, &mut Store<State>, ResourceAny) -> wasmtime::Result<T>,
    ) -> Result<T, Fault> {
        let Guest::Http(guest) = &self.guest else {
            return Err(Fault::Unavailable("a connection plugin is not asked about requests".to_owned()));
        };
        self.uses_left = self.uses_left.saturating_sub(1);
        limits::start_call(&mut self.store);
        call(guest.latchkey_edge_http_policy().policy(), &mut self.store, self.policy)
            .map_err(|error| fault(&self.store, &error))
    }

    pub(super) fn call_body<T>(
        &mut self,
        call: impl FnOnce(&body::Guest, &mut Store<State>, ResourceAny) -> wasmtime::Result<T>,
    ) -> Result<T, Fault> {
        let Guest::Body(guest) = &self.guest else {
            return Err(Fault::Unavailable("this instance is not for bodies".to_owned()));
        };
        limits::start_call(&mut self.store);
        call(guest.latchkey_edge_http_body(), &mut self.store, self.policy).map_err(|error| fault(&self.store, &error))
    }

    /// Its destructor runs in the guest.
    pub(super) fn drop_body(&mut self, body: ResourceAny) -> Result<(), Fault> {
        limits::start_call(&mut self.store);
        body.resource_drop(&mut self.store).map_err(|error| fault(&self.store, &error))
    }

    /// One more of the uses that it has.
    pub(super) fn used(&mut self) {
        self.uses_left = self.uses_left.saturating_sub(1);
    }

    pub(super) fn usage(&self) -> Usage {
        limits::usage(&self.store)
    }

    pub(super) fn may_be_kept(&self) -> bool {
        self.uses_left > 0 && !self.store.data().memory_runs_out()
    }
}

fn not_started(store: &Store<State>, error: &wasmtime::Error) -> Fault {
    if error.is::<PoolConcurrencyLimitError>() {
        return Fault::Unavailable("all instances of the pool are in use".to_owned());
    }
    match fault(store, error) {
        Fault::Output(text) => Fault::Unavailable(text),
        other => other,
    }
}

/// The guest's functions, innermost first: what is the same for two crashes of one cause, so no addresses and no hashes of
/// the compiler.
fn stack(error: &wasmtime::Error) -> Vec<String> {
    let Some(trace) = error.downcast_ref::<WasmBacktrace>() else { return Vec::new() };
    // One line a frame: `    0:   0x1234 - module!function::h0123456789abcdef`
    let text = trace.to_string();
    let names = text.lines().filter_map(|line| line.split_once('!').map(|(_, name)| name));
    names.take(FRAMES_MAX).map(|name| shown(&without_hash(name), FRAME_CHARS_MAX)).collect()
}

/// `std[a543996e6e7dbf1e]::panicking` and `std::panicking::h0123456789abcdef` are `std::panicking`.
fn without_hash(name: &str) -> String {
    let is_hash = |text: &str| text.len() >= 14 && text.len() <= 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
    let name = match name.rsplit_once("::h") {
        Some((path, hash)) if is_hash(hash) => path,
        _ => name,
    };
    let mut parts = name.split('[');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_once(']') {
            Some((hash, rest)) if is_hash(hash) => out.push_str(rest),
            _ => {
                out.push('[');
                out.push_str(part);
            }
        }
    }
    out
}

/// What wasmtime reports, in our terms. A trap has a cause that we know better; an error that is not a trap is a value
/// that the guest returned and that could not be read.
pub(super) fn fault(store: &Store<State>, error: &wasmtime::Error) -> Fault {
    if error.is::<DeadlineExceeded>() {
        return Fault::Deadline;
    }
    if store.data().memory_refused() {
        return Fault::Memory;
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel) => Fault::Deadline,
        Some(trap) => Fault::Trap(types::Trap { says: trap.to_string(), stack: stack(error) }),
        None => Fault::Output(shown(&error.root_cause().to_string(), 512)),
    }
}
