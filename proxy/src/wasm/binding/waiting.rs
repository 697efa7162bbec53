//! Requests that wait: the same questions, asked of a plugin that may ask other servers before it answers.

use std::time::Duration;

use super::Binding;
use super::answers::Said;
use super::facts::guest_facts;
use crate::wasm::callout::{Answering, Calling, Callout, Heard, Questions};
use crate::wasm::count;
use crate::wasm::terms::{Isolation, Role};
use crate::wasm::trace;
use crate::wasm::types::{Action, Fault, RequestFacts, RequestView, Tenant};
use crate::wasm::waiting::{Room, UnderWay, Wanted, at_once};

/// What a request was told, and the callouts that this took.
#[derive(Debug)]
pub struct Asked {
    pub answer: Result<Action, Fault>,
    pub callouts: Vec<Callout>,
    /// What servers said, where it was to be kept and a call was made.
    pub(in crate::wasm) heard: Option<Heard>,
}

/// What a call came to.
struct Over {
    said: Result<Said, Fault>,
    callouts: Vec<Callout>,
    heard: Option<Heard>,
}

impl Asked {
    pub fn waited(&self) -> Duration {
        self.callouts.iter().map(|callout| callout.took).sum()
    }
}

impl From<Result<Action, Fault>> for Asked {
    fn from(answer: Result<Action, Fault>) -> Self {
        Self { answer, callouts: Vec::new(), heard: None }
    }
}

impl Binding {
    /// Whether requests may have to wait: then [`Self::on_request_waiting`] is to be asked.
    pub fn waits(&self) -> bool {
        self.plugin().waits()
    }

    /// To be polled on one thread. Dropping it breaks the call off: its instance and its callout go with it. `sampled`: what
    /// servers say is kept for a shadow.
    pub async fn on_request_waiting(&self, facts: &RequestFacts, request: &dyn RequestView, sampled: bool) -> Asked {
        let begun = trace::begin();
        let asked = match self.settled(facts, request) {
            Ok(action) => Ok(action).into(),
            Err(wanted) => self.asked(facts, request, &wanted, sampled).await,
        };
        if let Some(begun) = begun {
            begun.waited(self, request, &asked);
        }
        asked
    }

    /// What waits for nobody, as where all its callees answer at once.
    pub(super) fn on_request_at_once(&self, facts: &RequestFacts, request: &dyn RequestView) -> Result<Action, Fault> {
        at_once(self.on_request_waiting(facts, request, false))?.answer
    }

    /// Of a shadow: what it says when it is told what the live call heard, and whether it asks the same.
    pub(in crate::wasm) fn on_request_heard(
        &self,
        facts: &RequestFacts,
        request: &dyn RequestView,
        heard: Heard,
    ) -> (Result<Action, Fault>, Questions) {
        if !self.waits() {
            return (self.on_request(facts, request), heard.questions());
        }
        let wanted = match self.settled(facts, request) {
            Ok(action) => return (Ok(action), heard.questions()),
            Err(wanted) => wanted,
        };
        match at_once(self.called_waiting(facts, request, &wanted, Answering::Heard(heard))) {
            Ok(Over { said, heard, .. }) => {
                let answer = said.map(|said| self.told(facts, request, said));
                (answer, heard.map_or(Questions::Same, Heard::questions))
            }
            Err(fault) => (Err(fault), Questions::Same),
        }
    }

    async fn asked(&self, facts: &RequestFacts, request: &dyn RequestView, wanted: Wanted<'_>, sampled: bool) -> Asked {
        // Given back when the call is over, or broken off.
        let _under_way = match self.rests(self.place.key(), facts.tenant, facts.now_ms).and_then(|()| self.enter()) {
            Ok(under_way) => under_way,
            // That there is no room says nothing of the plugin.
            Err(fault) => return Err(fault).into(),
        };
        let answering = if sampled { Answering::Kept(Heard::default()) } else { Answering::Servers };
        let Over { said, callouts, heard } = self.called_waiting(facts, request, wanted, answering).await;
        self.ended(self.place.key(), facts.tenant, facts.now_ms, &said);
        Asked { answer: said.map(|said| self.told(facts, request, said)), callouts, heard }
    }

    async fn called_waiting(
        &self,
        facts: &RequestFacts,
        request: &dyn RequestView,
        wanted: Wanted<'_>,
        answering: Answering,
    ) -> Over {
        count::called();
        let answering = match (self.terms.role, answering) {
            // Whoever calls it: what a shadow does is seen by nobody.
            (Role::Shadow, Answering::Servers | Answering::Kept(_)) => Answering::Heard(Heard::default()),
            (_, answering) => answering,
        };
        let tenant = match self.terms.isolation {
            Isolation::Tenant => facts.tenant,
            _ => Tenant::default(),
        };
        let (once, kept_max) =
            (self.terms.isolation == Isolation::Request, self.planned.host.settings.instances_per_thread_max);
        let started = if once { self.start() } else { self.place.take(tenant, kept_max, || self.start()) };
        let mut instance = match started {
            Ok(instance) => instance,
            Err(fault) => return Over { said: Err(fault), callouts: Vec::new(), heard: answering.heard() },
        };
        let calling = Calling::begin(request.method(), request.client(), self.planned.callouts.timeout, answering);
        let arguments = (guest_facts(facts), request.host(), request.path(), request.query(), wanted);
        let (verdict, calling) = instance.call_waiting(arguments, calling).await;
        self.place.note(&instance);
        // One whose answer is refused is as little trusted as one that failed.
        let said = verdict.and_then(Said::checked);
        if said.is_ok() && !once {
            self.place.keep(tenant, instance, kept_max);
        }
        let (callouts, heard) = calling.map_or_else(Default::default, Calling::over);
        Over { said, callouts, heard }
    }

    fn enter(&self) -> Result<UnderWay, Fault> {
        Room::enter(&self.planned.host, &self.waiting)
    }

    #[cfg(test)]
    pub(in crate::wasm) fn under_way(&self) -> u32 {
        self.waiting.taken()
    }
}
