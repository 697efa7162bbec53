//! Bodies as they pass through a plugin. Each has an instance for itself while it is under way, so that what becomes of one
//! harms no other.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use wasmtime::component::ResourceAny;

use super::about::{About, about_request};
use super::{Binding, Planned, Rates, Terms};
use crate::tls::now;
use crate::wasm::count;
use crate::wasm::guest::body;
use crate::wasm::instance::{For, Instance};
use crate::wasm::terms::{Isolation, Role};
use crate::wasm::trace;
use crate::wasm::types::{Fault, RequestFacts, RequestView, ResponseView, Tenant, Usage};
use crate::wasm::verify;

/// Of what is pushed at once: what bounds a call's time bounds it for so many bytes.
const PIECE_BYTES_MAX: usize = 8 << 10;

/// A body under way.
pub struct Body {
    binding: Arc<Binding>,
    /// Whose it is, and whose instance it has.
    tenant: Tenant,
    kept_for: Tenant,
    /// Until its end, or a fault.
    at_work: Option<(Instance, ResourceAny)>,
    changes: bool,
    /// Nothing of it was held back or replaced.
    as_it_was: bool,
    used: Usage,
    _place: UnderWay,
}

/// What becomes of what was pushed.
#[derive(Debug, PartialEq, Eq)]
pub enum Passed {
    AsItIs,
    Replaced(Vec<u8>),
    Refused(u16),
}

/// Asks which bodies a configuration sees, where its plugin sees any.
pub(super) fn messages(planned: &mut Planned, terms: Terms) -> Result<(), Fault> {
    if planned.plugin.body.is_none() {
        return Ok(());
    }
    let mut instance = planned.start(For::Bodies, terms, Arc::new(Rates::new()))?;
    let messages = instance.call_body(|guest, store, policy| guest.policy().call_messages(store, policy))?;
    planned.hooks.request_body = messages.contains(body::Messages::REQUESTS);
    planned.hooks.response_body = messages.contains(body::Messages::RESPONSES);
    Ok(())
}

impl Binding {
    /// Tells the plugin of a message whose head is decided: an answer, or else the request. None: its body passes as it is,
    /// also where the plugin would change it and `may_change` is false.
    pub fn begin(
        self: &Arc<Self>,
        facts: &RequestFacts,
        request: &dyn RequestView,
        response: Option<&dyn ResponseView>,
        length: Option<u64>,
        may_change: bool,
    ) -> Result<Option<Body>, Fault> {
        let hook = if response.is_some() { "response-body" } else { "request-body" };
        let (key, tenant, now_ms) = (self.body_place.key(), facts.tenant, facts.now_ms);
        trace::call(
            self,
            hook,
            || about_request(request),
            || {
                self.rests(key, tenant, now_ms)?;
                let place = UnderWay::enter(self, tenant)?;
                let begun = self.begun(place, tenant, request, response, length, may_change);
                // One that is under way has its end before it.
                if !matches!(begun, Ok(Some(_))) {
                    self.ended(key, tenant, now_ms, &begun);
                }
                begun
            },
        )
    }

    fn begun(
        self: &Arc<Self>,
        place: UnderWay,
        tenant: Tenant,
        request: &dyn RequestView,
        response: Option<&dyn ResponseView>,
        length: Option<u64>,
        may_change: bool,
    ) -> Result<Option<Body>, Fault> {
        let kept_for = if self.terms.isolation == Isolation::Shared { Tenant::default() } else { tenant };
        let start = || self.planned.start(For::Bodies, self.terms, self.rates.clone());
        let kept_max = self.planned.host.settings.instances_per_thread_max;
        let mut instance = self.body_place.take(kept_for, kept_max, start)?;
        let own = |name| response.map_or_else(|| request.header(name), |response| response.header(name));
        let wanted = self.wanted(response.map_or(About::Request(request), |it| About::Response(request, it)));
        let head = body::Head {
            message: response.map_or(body::Message::Request, |response| body::Message::Response(response.status())),
            host: request.host(),
            path: request.path(),
            content_type: own("content-type"),
            content_encoding: own("content-encoding"),
            length,
            wanted: &wanted,
        };
        count::called();
        let course = instance.call_body(|guest, store, policy| guest.policy().call_begin(store, policy, head))?;
        let mut used = instance.usage();
        instance.used();
        let (guest, changes) = match course {
            body::Course::Pass => {
                self.keep(kept_for, instance);
                return Ok(None);
            }
            body::Course::Watch(guest) => (guest, false),
            body::Course::Change(guest) => (guest, true),
        };
        if changes && !may_change {
            instance.drop_body(guest)?;
            self.keep(kept_for, instance);
            return Ok(None);
        }
        used.memory_bytes = instance.usage().memory_bytes;
        let at_work = Some((instance, guest));
        let binding = self.clone();
        Ok(Some(Body { binding, tenant, kept_for, at_work, changes, as_it_was: true, used, _place: place }))
    }

    /// For the next body.
    fn keep(&self, tenant: Tenant, instance: Instance) {
        if self.terms.isolation != Isolation::Request {
            self.body_place.keep(tenant, instance, self.planned.host.settings.instances_per_thread_max);
        }
    }
}

impl Body {
    /// What goes out may be another body than what comes in.
    pub fn changes(&self) -> bool {
        self.changes
    }

    /// It can go on without the plugin: nobody would miss or see anything.
    pub fn is_as_it_was(&self) -> bool {
        self.as_it_was
    }

    /// Of all calls so far.
    pub fn usage(&self) -> Usage {
        self.used
    }

    /// Nothing will be pushed, as where only the head of an answer was asked for.
    pub fn let_go(mut self) -> Result<(), Fault> {
        let Some((mut instance, guest)) = self.at_work.take() else { return Ok(()) };
        let dropped = instance.drop_body(guest);
        self.binding.ended(self.binding.body_place.key(), self.tenant, now() * 1000, &dropped);
        if dropped.is_ok() {
            self.binding.keep(self.kept_for, instance);
        }
        dropped
    }

    /// The next bytes; `end`: nothing comes after them. After a fault nothing can be pushed.
    pub fn push(&mut self, bytes: &[u8], end: bool) -> Result<Passed, Fault> {
        // Taken out: what fails is not used again.
        let Some((mut instance, guest)) = self.at_work.take() else {
            return Err(Fault::Unavailable("the body has ended".to_owned()));
        };
        let mut passed = self.pieces(&mut instance, guest, bytes, end);
        let over = end || matches!(passed, Ok(Passed::Refused(_)));
        if over && let Err(fault) = passed.as_ref().map_err(Fault::clone).and_then(|_| instance.drop_body(guest)) {
            passed = Err(fault);
        }
        if over || passed.is_err() {
            self.binding.ended(self.binding.body_place.key(), self.tenant, now() * 1000, &passed);
        }
        match &passed {
            Ok(_) if over => self.binding.keep(self.kept_for, instance),
            Ok(_) => self.at_work = Some((instance, guest)),
            Err(_) => {}
        }
        passed
    }

    fn pieces(
        &mut self,
        instance: &mut Instance,
        guest: ResourceAny,
        bytes: &[u8],
        end: bool,
    ) -> Result<Passed, Fault> {
        // What went on before the first piece that was replaced, and since.
        let mut replaced: Option<Vec<u8>> = None;
        let mut at = 0;
        loop {
            let piece = &bytes[at..bytes.len().min(at + PIECE_BYTES_MAX)];
            let last = at + piece.len() == bytes.len();
            if piece.is_empty() && !end {
                break;
            }
            match self.piece(instance, guest, piece, last && end)? {
                body::Passage::Pass => replaced.iter_mut().for_each(|out| out.extend_from_slice(piece)),
                body::Passage::Replace(with) => {
                    self.as_it_was = false;
                    replaced.get_or_insert_with(|| bytes[..at].to_vec()).extend_from_slice(&with);
                }
                body::Passage::Refuse(status) => return Ok(Passed::Refused(status)),
            }
            at += piece.len();
            if last {
                break;
            }
        }
        Ok(replaced.map_or(Passed::AsItIs, Passed::Replaced))
    }

    fn piece(
        &mut self,
        instance: &mut Instance,
        guest: ResourceAny,
        piece: &[u8],
        end: bool,
    ) -> Result<body::Passage, Fault> {
        count::called();
        let passage = instance.call_body(|guests, store, _| guests.body().call_push(store, guest, piece, end))?;
        let used = instance.usage();
        self.used.instructions += used.instructions;
        self.used.memory_bytes = used.memory_bytes;
        verify::passage(passage, self.changes)
    }
}

/// Of a binding and a tenant.
type Key = (u64, Tenant);

/// Of a thread: all, and those of each.
type Places = (usize, HashMap<Key, usize>);

thread_local! {
    /// Of live bindings, and of shadows: these take no place from those.
    static UNDER_WAY: RefCell<[Places; 2]> = RefCell::default();
}

/// Counts as one of its thread's bodies until it is dropped, which is on the same thread.
struct UnderWay(Role, Key);

impl UnderWay {
    fn enter(binding: &Binding, tenant: Tenant) -> Result<Self, Fault> {
        let (settings, role) = (&binding.planned.host.settings, binding.terms.role);
        let (all_max, tenant_max) = match role {
            Role::Live => (settings.bodies_per_thread_max, settings.bodies_per_tenant_max),
            Role::Shadow => (settings.shadow_bodies_per_thread_max(), settings.bodies_per_tenant_max),
        };
        let key = (binding.body_place.key(), tenant);
        UNDER_WAY.with_borrow_mut(|places| {
            let (all, of) = &mut places[role as usize];
            let own = of.get(&key).copied().unwrap_or_default();
            if *all >= all_max || own >= tenant_max {
                let says = format!(
                    "{all} bodies are under way on this thread (at most {all_max}), {own} of them of this domain (at most {tenant_max})"
                );
                return Err(Fault::Unavailable(says));
            }
            *all += 1;
            of.insert(key, own + 1);
            Ok(Self(role, key))
        })
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let Self(role, key) = *self;
        UNDER_WAY.with_borrow_mut(|places| {
            let (all, of) = &mut places[role as usize];
            *all = all.saturating_sub(1);
            match of.get_mut(&key) {
                Some(own) if *own > 1 => *own -= 1,
                _ => drop(of.remove(&key)),
            }
        });
    }
}

/// How many bodies this thread has under way, in live bindings and in shadows.
#[cfg(test)]
pub(in crate::wasm) fn under_way_here() -> [usize; 2] {
    UNDER_WAY.with_borrow(|places| places.each_ref().map(|(all, _)| *all))
}
