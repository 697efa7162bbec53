//! A plugin with a configuration: what routes and listeners hold, and what a request calls.

mod about; // what a call is about
mod answers; // those that may be given again
mod bodies; // as they pass
mod calls; // on which instance, and whether at all
mod facts; // as guests are told
mod fields; // what of a message a plugin asks for
mod waiting; // requests that wait

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use self::about::About;
pub(super) use self::about::about_request;
use self::answers::{Hook, Said};
use self::bodies::messages;
#[cfg(test)]
pub(super) use self::bodies::under_way_here;
pub use self::bodies::{Body, Passed};
use self::facts::guest_facts;
use self::fields::{Field, wants};
pub use self::waiting::Asked;
use super::callout::Callouts;
use super::clock;
use super::component::Plugin;
use super::engine::Inner;
use super::guest::{connection, control, http};
use super::instance::{For, Instance};
use super::limits::Budget;
use super::memo::{Answer, Shapes};
use super::peer;
use super::planning::{Furnished, Named, Tables};
use super::rates::Rates;
use super::rules::Rules;
use super::shelf::Place;
use super::terms::{Role, Terms};
use super::trace;
use super::types::{
    Action, Class, Diagnostic, Edit, Expectation, Fault, Hooks, Outcome, RequestFacts, RequestView, ResponseView, Seen,
    Tenant, Usage,
};
use super::verify;
use super::waiting::Room;
use crate::tls::now;

/// Larger than what is accepted of edits, since lists and records take room of their own.
const OUTPUT_BYTES_MAX: usize = 4 * verify::OUTPUT_BYTES_MAX;

#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The plugin refuses the configuration.
    #[error("{}", refusal(.0))]
    Diagnostics(Vec<Diagnostic>),
    #[error(transparent)]
    Fault(#[from] Fault),
}

pub struct Binding {
    planned: Arc<Planned>,
    terms: Terms,
    place: Place,
    /// Of the instances that are for bodies.
    body_place: Place,
    /// What answers depend on that may be given again, by hook.
    shapes: [Shapes; 2],
    /// What the policy counts.
    rates: Arc<Rates>,
    asks_always: AtomicBool,
    /// Its calls that may wait.
    waiting: Room,
}

/// What the plugin made of its configuration: the same on all terms, and with datasets it is large.
struct Planned {
    host: Arc<Inner>,
    plugin: Arc<Plugin>,
    compiled: Vec<u8>,
    hooks: Hooks,
    wants: Vec<Field>,
    datasets: Vec<Named>,
    warnings: Vec<Diagnostic>,
    budget: Budget,
    /// Whom it may ask.
    callouts: Arc<Callouts>,
    /// When each of its rules decided last.
    rules: Rules,
}

impl Binding {
    pub(super) fn new(
        host: &Arc<Inner>,
        plugin: &Arc<Plugin>,
        config_json: &str,
        tables: &Tables,
        callouts: Callouts,
        terms: Terms,
    ) -> Result<Self, BindError> {
        let callouts = Arc::new(callouts);
        let (plan, Furnished { datasets, rules }) = match plugin.plan(host, config_json, tables, &callouts)? {
            (Ok(plan), furnished) => (plan, furnished),
            (Err(diagnostics), _) => return Err(BindError::Diagnostics(verify::refusal(diagnostics)?)),
        };
        verify::compiled(&plan.compiled)?;
        let mut planned = Planned {
            host: host.clone(),
            plugin: plugin.clone(),
            compiled: plan.compiled,
            hooks: hooks(plugin.class(), plan.hooks),
            wants: wants(plugin.class(), plan.wants, &datasets)?,
            datasets,
            warnings: verify::warnings(plan.warnings)?,
            budget: budget(host, plugin.class()),
            callouts,
            rules: Rules::new(rules, now()),
        };
        // A configuration that its own policies can't start with is refused now, not at the first request.
        planned.start(For::Heads, terms, Arc::new(Rates::new()))?;
        messages(&mut planned, terms)?;
        Ok(Self::on(Arc::new(planned), terms))
    }

    fn on(planned: Arc<Planned>, terms: Terms) -> Self {
        Self {
            planned,
            terms,
            place: Place::new(),
            body_place: Place::new(),
            shapes: Default::default(),
            rates: Arc::new(Rates::new()),
            // A shadow is there to be looked at, call by call.
            asks_always: AtomicBool::new(terms.role == Role::Shadow),
            waiting: Room::default(),
        }
    }

    /// The same configuration on other terms, without planning it again: with instances and answers of its own.
    #[must_use]
    pub fn on_terms(&self, terms: Terms) -> Self {
        Self::on(self.planned.clone(), terms)
    }

    pub fn terms(&self) -> Terms {
        self.terms
    }

    pub fn plugin(&self) -> &Arc<Plugin> {
        &self.planned.plugin
    }

    /// Which calls to make. A connection plugin has none of these.
    pub fn hooks(&self) -> Hooks {
        self.planned.hooks
    }

    /// What the plugin accepted with a remark.
    pub fn warnings(&self) -> &[Diagnostic] {
        &self.planned.warnings
    }

    pub fn on_request(&self, facts: &RequestFacts, request: &dyn RequestView) -> Result<Action, Fault> {
        if self.waits() {
            return self.on_request_at_once(facts, request);
        }
        trace::call(self, "request", || about_request(request), || self.action(facts, request))
    }

    fn action(&self, facts: &RequestFacts, request: &dyn RequestView) -> Result<Action, Fault> {
        let wanted = match self.settled(facts, request) {
            Ok(action) => return Ok(action),
            Err(wanted) => wanted,
        };
        let said = self.with_instance(facts.tenant, facts.now_ms, |instance| {
            let verdict = instance.call_http(|policy, store, this| {
                let (host, path, query) = (request.host(), request.path(), request.query());
                policy.call_on_request(store, this, guest_facts(facts), host, path, query, &wanted)
            })?;
            Said::checked(verdict)
        })?;
        Ok(self.told(facts, request, said))
    }

    pub fn on_response(
        &self,
        facts: &RequestFacts,
        request: &dyn RequestView,
        response: &dyn ResponseView,
    ) -> Result<Rc<[Edit]>, Fault> {
        let about = || format!("{} {}", response.status(), about_request(request));
        trace::call(self, "response", about, || self.edits(facts, request, response))
    }

    fn edits(
        &self,
        facts: &RequestFacts,
        request: &dyn RequestView,
        response: &dyn ResponseView,
    ) -> Result<Rc<[Edit]>, Fault> {
        let about = About::Response(request, response);
        if let Some(Answer::Edits(edits)) = self.remembered(Hook::Response, facts, about) {
            return Ok(edits);
        }
        let (edits, memo) = self
            .with_instance(facts.tenant, facts.now_ms, |instance| self.changes(instance, facts, request, response))?;
        let edits: Rc<[Edit]> = edits.into();
        self.remember(Hook::Response, facts, about, memo, || Answer::Edits(edits.clone()));
        Ok(edits)
    }

    /// The same, whatever was answered before, and whether or not the plugin is left alone now: for questions about other
    /// times than now, which say nothing of how it serves.
    pub fn ask_on_response(
        &self,
        facts: &RequestFacts,
        request: &dyn RequestView,
        response: &dyn ResponseView,
    ) -> Result<Vec<Edit>, Fault> {
        Ok(self.called(facts.tenant, |instance| self.changes(instance, facts, request, response))?.0)
    }

    fn changes(
        &self,
        instance: &mut Instance,
        facts: &RequestFacts,
        request: &dyn RequestView,
        response: &dyn ResponseView,
    ) -> Result<(Vec<Edit>, Option<http::Memo>), Fault> {
        let wanted = self.wanted(About::Response(request, response));
        let (host, path, status) = (request.host(), request.path(), response.status());
        let http::Changes { edits, memo } =
            instance.call_on_response((guest_facts(facts), host, path, status, &wanted))?;
        Ok((verify::edits(edits)?, memo))
    }

    /// How the first bytes from this peer are to be read.
    pub fn expect(&self, listener: &str, dialled: SocketAddr) -> Result<Expectation, Fault> {
        trace::call(self, "expect", || format!("{dialled} on {listener}"), || self.expectation(listener, dialled))
    }

    fn expectation(&self, listener: &str, dialled: SocketAddr) -> Result<Expectation, Fault> {
        let wanted = self.owned(About::Connection { peer: dialled.ip(), client: None });
        let expectation = self.with_instance(Tenant::default(), clock::monotonic_ms(), |instance| {
            instance.call_connection(|policy, store, this| {
                policy.call_expect(store, this, listener, peer::endpoint(dialled), &wanted)
            })
        })?;
        Ok(match expectation {
            connection::Expectation::Forbid => Expectation::Forbid,
            connection::Expectation::Allow => Expectation::Allow,
            connection::Expectation::Require => Expectation::Require,
            connection::Expectation::RequireChecksum => Expectation::RequireChecksum,
        })
    }

    /// What becomes of the connection, once what was expected has been seen.
    pub fn judge(&self, listener: &str, peer: SocketAddr, seen: Seen<'_>) -> Result<Outcome, Fault> {
        let header = || seen.map_or_else(|| "no header".to_owned(), |header| format!("a {:?} header", header.version));
        trace::call(
            self,
            "judge",
            || format!("{peer} on {listener} with {}", header()),
            || self.outcome(listener, peer, seen),
        )
    }

    fn outcome(&self, listener: &str, peer: SocketAddr, seen: Seen<'_>) -> Result<Outcome, Fault> {
        let client = seen.and_then(|header| header.source).unwrap_or(peer);
        let wanted = self.owned(About::Connection { peer: peer.ip(), client: Some(client.ip()) });
        self.with_instance(Tenant::default(), clock::monotonic_ms(), |instance| {
            let outcome = instance.call_connection(|policy, store, this| {
                policy.call_judge(store, this, listener, peer::endpoint(peer), &peer::seen(seen), &wanted)
            })?;
            verify::outcome(outcome, peer, seen)
        })
    }

    /// Of the last call on this thread, if it was one of this binding.
    pub fn usage(&self) -> Option<Usage> {
        self.place.usage()
    }

    /// Starts an instance and drops it: what the first call on a thread takes more than others.
    pub fn start_once(&self) -> Result<(), Fault> {
        self.start().map(drop)
    }

    /// Of all datasets and rules, which no instance holds.
    pub fn dataset_bytes(&self) -> usize {
        self.planned.datasets.iter().map(|(_, dataset)| dataset.bytes()).sum::<usize>() + self.planned.rules.bytes()
    }

    /// When each of its rules decided last.
    pub fn rules(&self) -> &Rules {
        &self.planned.rules
    }

    /// For tools: what was counted counts no more.
    pub fn forget_rates(&self) {
        self.rates.forget();
    }

    fn decided(&self, rule: Option<u32>, facts: &RequestFacts) {
        // What a shadow says is applied to nobody.
        if let (Some(rule), Role::Live) = (rule, self.terms.role) {
            self.planned.rules.used(rule, facts.now_ms / 1000);
        }
    }

    pub fn dataset_entries(&self) -> usize {
        self.planned.datasets.iter().map(|(_, dataset)| dataset.len()).sum()
    }

    /// Of the compiled plan, which every instance holds.
    pub fn compiled_bytes(&self) -> usize {
        self.planned.compiled.len()
    }
}

fn budget(host: &Inner, class: Class) -> Budget {
    let settings = &host.settings;
    Budget {
        start_instructions: settings.start_instructions,
        start_time: settings.start_time,
        call_instructions: match class {
            Class::Connection => settings.connection_instructions,
            Class::Http => settings.http_instructions,
        },
        call_time: settings.call_time,
        memory_bytes: settings.memory_bytes_max,
        growth_bytes: settings.growth_bytes_max,
        output_bytes: OUTPUT_BYTES_MAX,
    }
}

fn hooks(class: Class, hooks: control::Hooks) -> Hooks {
    let wanted = |hook| class == Class::Http && hooks.contains(hook);
    Hooks {
        request: wanted(control::Hooks::REQUEST),
        response: wanted(control::Hooks::RESPONSE),
        found_only: wanted(control::Hooks::FOUND_ONLY),
        ..Hooks::default()
    }
}

fn refusal(diagnostics: &[Diagnostic]) -> String {
    let lines: Vec<_> = diagnostics.iter().map(|d| format!("{}: {}", d.at, d.message)).collect();
    lines.join("; ")
}
