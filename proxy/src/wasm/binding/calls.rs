//! On which instance a call is made, and whether it is made at all.

use std::sync::Arc;

use super::{Binding, Planned};
use crate::wasm::breaker::{self, Verdict};
use crate::wasm::instance::{For, Instance, Start};
use crate::wasm::rates::Rates;
use crate::wasm::terms::{Isolation, Role, Terms};
use crate::wasm::types::{Fault, Tenant};
use crate::wasm::{count, dice};

impl Binding {
    /// `call` also checks what the guest returned: one whose answer is refused is as little trusted as one that failed.
    pub(super) fn with_instance<T>(
        &self,
        tenant: Tenant,
        now_ms: u64,
        call: impl FnOnce(&mut Instance) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let place = self.place.key();
        self.rests(place, tenant, now_ms)?;
        let answer = self.called(tenant, call);
        self.ended(place, tenant, now_ms, &answer);
        answer
    }

    /// A fault where the plugin has failed again and again, and is not to be called.
    pub(super) fn rests(&self, place: u64, tenant: Tenant, now_ms: u64) -> Result<(), Fault> {
        match self.breaks().then(|| breaker::asks(place, tenant, now_ms)) {
            Some(Verdict::Rest(ms)) => Err(Fault::Resting(ms)),
            _ => Ok(()),
        }
    }

    /// What a call came to.
    pub(super) fn ended<T>(&self, place: u64, tenant: Tenant, now_ms: u64, answer: &Result<T, Fault>) {
        if !self.breaks() {
            return;
        }
        match answer {
            Ok(_) => breaker::went_well(place, tenant, now_ms),
            Err(fault) => {
                if let Some(ms) = breaker::failed(place, tenant, now_ms, fault) {
                    let plugin = self.plugin().name();
                    tracing::error!(plugin, ms, "plugin fails again and again, it is left alone for a while: {fault}");
                }
            }
        }
    }

    /// A shadow has an end of its own to failing.
    fn breaks(&self) -> bool {
        self.terms.role == Role::Live && self.planned.host.settings.breaker
    }

    pub(super) fn called<T>(
        &self,
        tenant: Tenant,
        call: impl FnOnce(&mut Instance) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        count::called();
        let kept_max = self.planned.host.settings.instances_per_thread_max;
        match self.terms.isolation {
            Isolation::Shared => self.place.with(Tenant::default(), kept_max, || self.start(), call),
            Isolation::Tenant => self.place.with(tenant, kept_max, || self.start(), call),
            Isolation::Request => self.place.once(kept_max, || self.start(), call),
        }
    }

    pub(super) fn start(&self) -> Result<Instance, Fault> {
        self.planned.start(For::Heads, self.terms, self.rates.clone())
    }
}

impl Planned {
    pub(super) fn start(&self, what: For, terms: Terms, rates: Arc<Rates>) -> Result<Instance, Fault> {
        let Self { host, plugin, budget, compiled, callouts, .. } = self;
        let uses = match terms.isolation {
            Isolation::Tenant => dice::within(&host.settings.tenant_uses),
            _ => u32::MAX,
        };
        let start = Start { what, role: terms.role, uses, budget: *budget, compiled, rates, callouts };
        Instance::start(host, plugin, start)
    }
}
