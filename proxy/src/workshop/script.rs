//! In the place of other servers: answers as a case writes them down, for plugins that ask.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::cases::{Case, Fails, Reply};
use crate::wasm::{Asking, Callee, CalloutReply, CalloutRequest, Callouts, Header, NoReply};

/// As long as a binding has by default.
const TIMEOUT: Duration = Duration::from_millis(500);

/// Of one trial: what is answered next, and what was asked.
#[derive(Default)]
pub(super) struct Script(Mutex<Pages>);

#[derive(Default)]
struct Pages {
    answers: VecDeque<Result<CalloutReply, NoReply>>,
    asked: Vec<String>,
}

/// One upstream of it.
struct Played {
    name: String,
    script: Arc<Script>,
}

impl Script {
    /// Grants these upstreams.
    pub(super) fn callouts(self: &Arc<Self>, names: &[String]) -> Callouts {
        let callee =
            |name: &String| -> Arc<dyn Callee> { Arc::new(Played { name: name.clone(), script: self.clone() }) };
        Callouts { to: names.iter().map(|name| (name.clone(), callee(name))).collect(), timeout: TIMEOUT }
    }

    pub(super) fn begin(&self, case: &Case) {
        *self.pages() = Pages { answers: case.answers.iter().map(reply).collect(), asked: Vec::new() };
    }

    /// `upstream METHOD path`, in their order.
    pub(super) fn asked(&self) -> Vec<String> {
        self.pages().asked.clone()
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Callee for Played {
    fn ask(self: Arc<Self>, request: CalloutRequest, _: Duration) -> Asking {
        let mut pages = self.script.pages();
        pages.asked.push(format!("{} {} {}", self.name, request.method, request.path));
        let answer = pages.answers.pop_front().unwrap_or(Err(NoReply::Unreachable));
        Box::pin(async { answer })
    }
}

fn reply(reply: &Reply) -> Result<CalloutReply, NoReply> {
    match reply.fails {
        Some(Fails::TimedOut) => return Err(NoReply::TimedOut),
        Some(Fails::Unreachable) => return Err(NoReply::Unreachable),
        Some(Fails::Broken) => return Err(NoReply::Broken),
        Some(Fails::TooLarge) => return Err(NoReply::TooLarge),
        None => {}
    }
    let header = |(name, value): (&String, &String)| Header {
        name: name.to_ascii_lowercase(),
        value: value.clone().into_bytes(),
    };
    let headers = reply.headers.0.iter().map(header).collect();
    Ok(CalloutReply { status: reply.status, headers, body: reply.body.clone().into_bytes() })
}
