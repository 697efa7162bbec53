//! A shadow: a binding that stands beside a live one, is asked about a share of its calls, and changes nothing. What the
//! two say is compared, and what they take.

mod bodies; // as they pass both
mod differ; // what is different between two answers
mod tally; // counts, bounded

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use contract::admin::ShadowReport;

pub use self::bodies::{Beside, BodySample, Live};
use self::differ::{Difference, edits};
use self::tally::Tally;
use super::binding::{Asked, Binding};
use super::callout::Questions;
use super::count::Answers;
use super::dice;
use super::types::{Action, Edit, Expectation, Fault, Hooks, Outcome, RequestFacts, RequestView, ResponseView, Seen};

/// After so many failed calls a shadow is not asked any more: what it would do is known, and each costs the worker time.
const FAULTS_MAX: u64 = 1000;

pub struct Shadow {
    /// As the configuration calls its plugin.
    name: String,
    binding: Arc<Binding>,
    /// Of 2^32 calls.
    share: u64,
    tally: Tally,
}

/// One call of the live binding that its shadow is asked about too.
#[must_use]
pub struct Sample<'a> {
    shadow: &'a Shadow,
    live: &'a Binding,
    called_before: u64,
    began: Instant,
}

impl Shadow {
    /// `binding` is one on the terms of a shadow. `percent` of the live one's calls, 0 to 100.
    pub fn new(name: &str, binding: Arc<Binding>, percent: f64, now: u64) -> Self {
        let share = (percent.clamp(0.0, 100.0) / 100.0 * (1_u64 << 32) as f64) as u64;
        Self { name: name.to_owned(), binding, share, tally: Tally::new(now) }
    }

    pub fn hooks(&self) -> Hooks {
        self.binding.hooks()
    }

    /// To be asked before the live binding is, so that its time is known.
    pub fn sample<'a>(&'a self, live: &'a Binding) -> Option<Sample<'a>> {
        let sample = || Sample { shadow: self, live, called_before: Answers::called_here(), began: Instant::now() };
        self.is_asked().then(sample)
    }

    fn is_asked(&self) -> bool {
        u64::from(dice::throw()) < self.share && self.tally.faults() < FAULTS_MAX
    }

    /// Counts what it takes.
    fn ask<T>(&self, ask: impl FnOnce(&Binding) -> T) -> T {
        let (began, called) = (Instant::now(), Answers::called_here());
        let answer = ask(&self.binding);
        let took = began.elapsed();
        self.tally.shadow.add((Answers::called_here() > called).then(|| (took, self.binding.usage())));
        answer
    }

    /// Compares, and counts.
    fn tell<T>(
        &self,
        hook: &str,
        live: &Result<T, Fault>,
        answer: &Result<T, Fault>,
        differs: impl FnOnce(&T, &T) -> Option<Difference>,
        about: impl FnOnce() -> String,
    ) {
        let Self { name, binding, tally, .. } = self;
        if let Err(fault) = live {
            tally.live_failed(fault);
        }
        if let Err(fault) = answer {
            tally.shadow_failed(name, binding.plugin(), hook, fault);
        }
        let difference = match (live, answer) {
            (Ok(live), Ok(shadow)) => differs(live, shadow),
            (live, shadow) => differ::failures(live.as_ref().err(), shadow.as_ref().err()),
        };
        match difference {
            None => tally.same(),
            Some(difference) => tally.different(difference, about),
        }
    }

    pub fn report(&self) -> ShadowReport {
        let stopped = self.tally.faults() >= FAULTS_MAX;
        ShadowReport {
            plugin: self.name.clone(),
            version: self.binding.plugin().version().to_owned(),
            digest: self.binding.plugin().digest().to_string(),
            stopped: stopped.then(|| format!("{FAULTS_MAX} of its calls have failed; it is not asked any more")),
            ..self.tally.report(&self.name)
        }
    }
}

impl Sample<'_> {
    pub fn request(self, live: &Result<Action, Fault>, facts: &RequestFacts, request: &dyn RequestView) {
        let ask = |shadow: &Binding| match shadow.hooks().request {
            true => shadow.on_request(facts, request),
            false => Ok(Action::Next),
        };
        self.compare("request", live, ask, differ::actions, || about(request));
    }

    /// The same of a plugin that asks other servers, when its answer is there. The shadow is told what `live` heard, and waits
    /// for nobody.
    pub fn waited(self, live: &mut Asked, facts: &RequestFacts, request: &dyn RequestView) {
        let tally = &self.shadow.tally;
        let took = self.began.elapsed().saturating_sub(live.waited());
        tally.live.add(live.heard.as_ref().map(|_| (took, self.live.usage())));
        // Nobody knows what servers would say now where an answer is given again, or no call could be made.
        let unheard = live.heard.is_none() && (live.answer.is_err() || self.live.remembers());
        let heard = live.heard.take().unwrap_or_default();
        let (answer, questions) = self.shadow.ask(|shadow| match shadow.hooks().request {
            true => shadow.on_request_heard(facts, request, heard),
            false => (Ok(Action::Next), heard.questions()),
        });
        match questions {
            Questions::Other { .. } if unheard => tally.not_compared(),
            Questions::Other { live: asked, shadow } => {
                tally.different(differ::asks_else(&asked, &shadow), || about(request))
            }
            questions => {
                let differs = |live: &Action, shadow: &Action| {
                    differ::actions(live, shadow).or_else(|| differ::asks_fewer(&questions))
                };
                self.shadow.tell("request", &live.answer, &answer, differs, || about(request));
            }
        }
    }

    pub fn response(
        self,
        live: &Result<Rc<[Edit]>, Fault>,
        facts: &RequestFacts,
        request: &dyn RequestView,
        response: &dyn ResponseView,
    ) {
        let ask = |shadow: &Binding| match shadow.hooks().response {
            true => shadow.on_response(facts, request, response),
            false => Ok(Rc::default()),
        };
        self.compare("response", live, ask, |live, shadow| edits(live, shadow), || about(request));
    }

    pub fn expect(self, live: &Result<Expectation, Fault>, listener: &str, dialled: SocketAddr) {
        let ask = |shadow: &Binding| shadow.expect(listener, dialled);
        self.compare("connection", live, ask, differ::expectations, || dialled.ip().to_string());
    }

    pub fn judge(self, live: &Result<Outcome, Fault>, listener: &str, peer: SocketAddr, seen: Seen<'_>) {
        let ask = |shadow: &Binding| shadow.judge(listener, peer, seen);
        self.compare("connection", live, ask, differ::outcomes, || peer.ip().to_string());
    }

    fn compare<T>(
        self,
        hook: &str,
        live: &Result<T, Fault>,
        ask: impl FnOnce(&Binding) -> Result<T, Fault>,
        differs: impl FnOnce(&T, &T) -> Option<Difference>,
        about: impl FnOnce() -> String,
    ) {
        let took = self.began.elapsed();
        let called = Answers::called_here() > self.called_before;
        self.shadow.tally.live.add(called.then(|| (took, self.live.usage())));
        let answer = self.shadow.ask(ask);
        self.shadow.tell(hook, live, &answer, differs, about);
    }
}

fn about(request: &dyn RequestView) -> String {
    format!("{}{}", request.host(), request.path())
}
