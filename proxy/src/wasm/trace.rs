//! A line for each call of a plugin, for authors: `latchkey plugin run` shows them. Costs one comparison where nobody
//! looks.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::binding::{Asked, Binding, Body, about_request};
use super::count::Answers;
use super::types::{Action, Edit, Expectation, Fault, Outcome, RequestView};
use super::verify::shown;

/// Of what a visitor sent.
const ABOUT_CHARS_MAX: usize = 200;
const SAYS_CHARS_MAX: usize = 300;

/// Runs a call, and tells of it where somebody wants to know.
pub(super) fn call<T: Told>(
    binding: &Binding,
    hook: &str,
    about: impl FnOnce() -> String,
    call: impl FnOnce() -> Result<T, Fault>,
) -> Result<T, Fault> {
    let Some(Begun { calls, at }) = begin() else { return call() };
    let answer = call();
    let took = at.elapsed();
    let called = Answers::called_here() != calls;
    tell(binding, hook, &about(), &answer, took, called, "");
    answer
}

/// A call that somebody wants to know of.
pub(super) struct Begun {
    calls: u64,
    at: Instant,
}

pub(super) fn begin() -> Option<Begun> {
    let wanted = tracing::enabled!(target: "latchkey::calls", tracing::Level::TRACE);
    wanted.then(|| Begun { calls: Answers::called_here(), at: Instant::now() })
}

impl Begun {
    /// Time that was waited is told apart. Meanwhile others may have called: then it is told as if there had been a call.
    pub(super) fn waited(self, binding: &Binding, request: &dyn RequestView, asked: &Asked) {
        let (waited, called) = (asked.waited(), Answers::called_here() != self.calls);
        let made = asked
            .callouts
            .iter()
            .map(|made| format!("callout {} after {:.1} ms, ", made.result, made.took.as_secs_f64() * 1000.0));
        let took = self.at.elapsed().saturating_sub(waited);
        tell(binding, "request", &about_request(request), &asked.answer, took, called, &made.collect::<String>());
    }
}

fn tell<T: Told>(
    binding: &Binding,
    hook: &str,
    about: &str,
    answer: &Result<T, Fault>,
    took: Duration,
    called: bool,
    callouts: &str,
) {
    let micros = took.as_nanos() as f64 / 1000.0;
    let plugin = binding.plugin().name();
    let about = shown(about, ABOUT_CHARS_MAX);
    let says = match answer {
        Ok(answer) => shown(&answer.told(), SAYS_CHARS_MAX),
        Err(fault) => format!("FAULT: {fault}"),
    };
    let cost = match binding.usage() {
        _ if !called => "no call was needed".to_owned(),
        Some(used) => format!("{} instructions, {} KiB", used.instructions, used.memory_bytes >> 10),
        None => "instance dropped".to_owned(),
    };
    tracing::trace!(target: "latchkey::calls", "{plugin} {hook} {about} → {says} ({callouts}{micros:.1} µs, {cost})");
}

/// An answer, for people.
pub(super) trait Told {
    fn told(&self) -> String;
}

impl Told for Action {
    fn told(&self) -> String {
        match self {
            Self::Next => "next".to_owned(),
            Self::Edit(edits) => format!("edit: {}", list(edits)),
            Self::Redirect { status, location, .. } => format!("redirect {status} {location}"),
            Self::Respond { status, body, .. } => format!("respond {status}, {} bytes", body.len()),
            Self::Deny(status) => format!("deny {status}"),
        }
    }
}

impl Told for Rc<[Edit]> {
    fn told(&self) -> String {
        if self.is_empty() { "next".to_owned() } else { list(self) }
    }
}

impl Told for Expectation {
    fn told(&self) -> String {
        format!("{self:?}").to_lowercase()
    }
}

impl Told for Option<Body> {
    fn told(&self) -> String {
        match self {
            None => "pass".to_owned(),
            Some(body) if body.changes() => "change".to_owned(),
            Some(_) => "watch".to_owned(),
        }
    }
}

impl Told for Outcome {
    fn told(&self) -> String {
        match self {
            Self::Admit(client) => format!("admit {client}"),
            Self::Reset => "reset".to_owned(),
        }
    }
}

fn list(edits: &[Edit]) -> String {
    edits.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
