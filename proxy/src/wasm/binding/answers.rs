//! Answers of a binding that may be given again: which questions are the same.

use std::sync::atomic::Ordering;

use super::Binding;
use super::about::About;
use crate::wasm::count;
use crate::wasm::guest::http;
use crate::wasm::memo::{self, Answer, Key, Parts, Shapes};
use crate::wasm::terms::Isolation;
use crate::wasm::types::{Action, Fault, RequestFacts, RequestView};
use crate::wasm::verify;

#[derive(Debug, Clone, Copy)]
pub(super) enum Hook {
    Request,
    Response,
}

/// A verdict that has been checked.
pub(super) struct Said {
    action: Action,
    memo: Option<http::Memo>,
    rule: Option<u32>,
}

impl Said {
    pub(super) fn checked(http::Verdict { action, memo, rule }: http::Verdict) -> Result<Self, Fault> {
        Ok(Self { action: verify::action(action)?, memo, rule })
    }
}

impl Binding {
    /// What needs no call; else the fields that the plugin wants to see.
    pub(super) fn settled<'a>(
        &'a self,
        facts: &RequestFacts,
        request: &'a dyn RequestView,
    ) -> Result<Action, Vec<Option<&'a [u8]>>> {
        let about = About::Request(request);
        let found = self.hooks().found_only.then(|| self.wanted(about));
        if found.as_ref().is_some_and(|wanted| !self.found_something(wanted)) {
            count::passed();
            return Ok(Action::Next);
        }
        if let Some(Answer::Action(action, rule)) = self.remembered(Hook::Request, facts, about) {
            self.decided(rule, facts);
            return Ok(action);
        }
        Err(found.unwrap_or_else(|| self.wanted(about)))
    }

    /// Remembered where it may be.
    pub(super) fn told(&self, facts: &RequestFacts, request: &dyn RequestView, said: Said) -> Action {
        let Said { action, memo, rule } = said;
        self.decided(rule, facts);
        self.remember(Hook::Request, facts, About::Request(request), memo, || Answer::Action(action.clone(), rule));
        action
    }

    /// For tools that look at the calls themselves: no answer is given a second time.
    pub fn ask_always(&self, always: bool) {
        self.asks_always.store(always, Ordering::Relaxed);
    }

    /// Whether an answer was allowed to be given again.
    pub fn remembers(&self) -> bool {
        self.shapes.iter().any(|shapes| shapes.known().next().is_some())
    }

    fn asks_each_time(&self) -> bool {
        self.asks_always.load(Ordering::Relaxed) || self.terms.isolation == Isolation::Request
    }

    fn shapes(&self, hook: Hook) -> &Shapes {
        let [request, response] = &self.shapes;
        match hook {
            Hook::Request => request,
            Hook::Response => response,
        }
    }

    pub(super) fn remembered(&self, hook: Hook, facts: &RequestFacts, about: About<'_>) -> Option<Answer> {
        if self.asks_each_time() {
            return None;
        }
        let mut shapes = self.shapes(hook).known();
        memo::with_key(|key| {
            shapes.find_map(|shape| {
                self.question(key, hook, shape, facts, about);
                memo::look(key, facts.now_ms)
            })
        })
        .inspect(|_| count::remembered())
    }

    pub(super) fn remember(
        &self,
        hook: Hook,
        facts: &RequestFacts,
        about: About<'_>,
        memo: Option<http::Memo>,
        answer: impl FnOnce() -> Answer,
    ) {
        let Some(http::Memo { on, for_ms }) = memo else { return };
        let shape = parts(on);
        if self.asks_each_time() || !self.shapes(hook).learn(shape) {
            return;
        }
        memo::with_key(|key| {
            self.question(key, hook, shape, facts, about);
            memo::keep(key, facts.now_ms, for_ms, &answer());
        });
    }

    fn question(&self, key: &mut Key, hook: Hook, shape: Parts, facts: &RequestFacts, about: About<'_>) {
        let (request, response) = match about {
            About::Request(request) => (Some(request), None),
            About::Response(request, response) => (Some(request), Some(response)),
            About::Connection { .. } => (None, None),
        };
        let scalars = u8::from(facts.https) | u8::from(facts.ip_host) << 1;
        key.begin(self.place.key(), hook as u8, shape, scalars);
        if self.terms.isolation == Isolation::Tenant {
            key.tenant(facts.tenant);
        }
        key.standing(facts.standing);
        if shape.has(Parts::BUCKET) {
            key.number(facts.rollout_bucket);
        }
        if shape.has(Parts::STATUS) {
            key.number(response.map_or(0, |response| response.status()));
        }
        if shape.has(Parts::HOST) {
            key.text(request.map(|request| request.host().as_bytes()));
        }
        if shape.has(Parts::PATH) {
            key.text(request.map(|request| request.path().as_bytes()));
        }
        if shape.has(Parts::QUERY) {
            key.text(request.and_then(|request| request.query()).map(str::as_bytes));
        }
        if shape.has(Parts::WANTED) {
            self.wanted(about).into_iter().for_each(|value| key.text(value));
        }
    }
}

fn parts(on: http::Depends) -> Parts {
    let bits = [
        (http::Depends::HOST, Parts::HOST),
        (http::Depends::PATH, Parts::PATH),
        (http::Depends::QUERY, Parts::QUERY),
        (http::Depends::BUCKET, Parts::BUCKET),
        (http::Depends::STATUS, Parts::STATUS),
        (http::Depends::WANTED, Parts::WANTED),
    ];
    let bits = bits.into_iter().filter(|(flag, _)| on.contains(*flag)).fold(0, |bits, (_, part)| bits | part);
    Parts::new(bits)
}
