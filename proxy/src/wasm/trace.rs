//! A line for each call of a plugin, for authors: `latchkey plugin run` shows them. Costs one comparison where nobody
//! looks.

use std::rc::Rc;
use std::time::Instant;

use super::binding::{Binding, Body};
use super::count::Answers;
use super::types::{Action, Edit, Expectation, Fault, Outcome};
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
    if !tracing::enabled!(target: "latchkey::calls", tracing::Level::TRACE) {
        return call();
    }
    let (calls, began) = (Answers::called_here(), Instant::now());
    let answer = call();
    let micros = began.elapsed().as_nanos() as f64 / 1000.0;
    let plugin = binding.plugin().name();
    let about = shown(&about(), ABOUT_CHARS_MAX);
    let says = match &answer {
        Ok(answer) => shown(&answer.told(), SAYS_CHARS_MAX),
        Err(fault) => format!("FAULT: {fault}"),
    };
    let cost = match binding.usage() {
        _ if Answers::called_here() == calls => "no call was needed".to_owned(),
        Some(used) => format!("{} instructions, {} KiB", used.instructions, used.memory_bytes >> 10),
        None => "instance dropped".to_owned(),
    };
    tracing::trace!(target: "latchkey::calls", "{plugin} {hook} {about} → {says} ({micros:.1} µs, {cost})");
    answer
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
