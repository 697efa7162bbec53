//! Bodies that a shadow is shown beside the live binding: the same pieces in the same order. What came of them is compared
//! when the live one has its end, and nothing of it goes anywhere.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::differ::{self, Came};
use super::{Shadow, about};
use crate::wasm::binding::{Body, Passed};
use crate::wasm::count::Answers;
use crate::wasm::types::{Fault, RequestFacts, RequestView, ResponseView, Usage};

/// One body of the live binding that its shadow is asked about too.
#[must_use]
pub struct BodySample {
    shadow: Arc<Shadow>,
    called_before: u64,
    began: Instant,
}

/// A body under way before both. Where it is broken off, there is nothing to compare.
pub struct Beside {
    shadow: Arc<Shadow>,
    hook: &'static str,
    about: String,
    live: Side,
    beside: Side,
    /// The shadow's, until it passes, refuses or fails.
    body: Option<Body>,
    refused: Option<u16>,
    out: Outputs,
}

/// What the live binding made of the next bytes, in which time.
pub struct Live<'a> {
    pub body: Option<&'a Body>,
    pub passed: &'a Result<Passed, Fault>,
    pub took: Duration,
}

/// Of one of the two.
struct Side {
    course: &'static str,
    is_called: bool,
    took: Duration,
    used: Option<Usage>,
}

impl Shadow {
    /// To be asked before the live binding is.
    pub fn body_sample(self: &Arc<Self>) -> Option<BodySample> {
        let sample =
            || BodySample { shadow: self.clone(), called_before: Answers::called_here(), began: Instant::now() };
        self.is_asked().then(sample)
    }
}

impl BodySample {
    /// `live` is how the binding began, the rest what it was told. None where all is known already.
    pub fn begin(
        self,
        live: &Result<Option<Body>, Fault>,
        facts: &RequestFacts,
        request: &dyn RequestView,
        response: Option<&dyn ResponseView>,
        length: Option<u64>,
        may_change: bool,
    ) -> Option<Box<Beside>> {
        let Self { shadow, called_before, began } = self;
        let called = Answers::called_here();
        let side = Side::of(live, called > called_before, began.elapsed());
        let (hook, sees) = match response {
            Some(_) => ("response-body", shadow.hooks().response_body),
            None => ("request-body", shadow.hooks().request_body),
        };
        let began = Instant::now();
        let begun = match sees {
            true => shadow.binding.begin(facts, request, response, length, may_change),
            false => Ok(None),
        };
        if matches!(begun, Err(Fault::Unavailable(_))) {
            // There is no place for it.
            shadow.tally.not_compared();
            return None;
        }
        let beside = Side::of(&begun, Answers::called_here() > called, began.elapsed());
        let is_over = matches!((live, &begun), (Err(_), _) | (_, Err(_)) | (Ok(None), Ok(None)));
        let (body, shadow_ends) = begun.map_or_else(|fault| (None, Err(fault)), |body| (body, Ok(None)));
        let (about, out) = (about(request), Outputs::default());
        let both = Box::new(Beside { shadow, hook, about, live: side, beside, body, refused: None, out });
        if is_over {
            let live_ends = live.as_ref().map(|_| None).map_err(Fault::clone);
            both.over(live_ends, shadow_ends);
            return None;
        }
        Some(both)
    }
}

impl Beside {
    /// None: it is over, and compared.
    pub fn push(mut self: Box<Self>, bytes: &[u8], end: bool, live: Live<'_>) -> Option<Box<Self>> {
        self.live.took += live.took;
        self.live.used = live.body.map(Body::usage).or(self.live.used);
        let passed = self.shown(|body| body.push(bytes, end));
        match (live.passed, passed) {
            (Err(fault), passed) => self.over(Err(fault.clone()), passed.map(|_| None)),
            (Ok(Passed::Refused(status)), passed) => {
                let refused =
                    passed.map(|passed| if let Passed::Refused(status) = passed { Some(status) } else { None });
                let before = self.refused;
                self.over(Ok(Some(*status)), refused.map(|now| now.or(before)));
            }
            (Ok(_), Err(fault)) => self.over(Ok(None), Err(fault)),
            (Ok(live), Ok(passed)) => {
                self.out.push(out(live, bytes), out(&passed, bytes));
                if let Passed::Refused(status) = passed {
                    (self.refused, self.body) = (Some(status), None);
                }
                if !end {
                    return Some(self);
                }
                let refused = self.refused;
                self.over(Ok(None), Ok(refused));
            }
        }
        None
    }

    /// Nothing will be pushed. `live` is what came of that.
    pub fn let_go(mut self: Box<Self>, live: Result<(), Fault>) {
        let gone = match self.body.take() {
            Some(body) => body.let_go(),
            None => Ok(()),
        };
        self.over(live.map(|()| None), gone.map(|()| None));
    }

    fn shown(&mut self, push: impl FnOnce(&mut Body) -> Result<Passed, Fault>) -> Result<Passed, Fault> {
        let Some(body) = &mut self.body else { return Ok(Passed::AsItIs) };
        let began = Instant::now();
        let passed = push(body);
        self.beside.took += began.elapsed();
        self.beside.used = Some(body.usage());
        passed
    }

    /// With which status each has refused it, if it did.
    fn over(self, live: Result<Option<u16>, Fault>, beside: Result<Option<u16>, Fault>) {
        let tally = &self.shadow.tally;
        tally.live.add(self.live.cost());
        tally.shadow.add(self.beside.cost());
        let [live_bytes, bytes] = self.out.bytes;
        let live = live.map(|refused| Came { course: self.live.course, refused, bytes: live_bytes });
        let beside = beside.map(|refused| Came { course: self.beside.course, refused, bytes });
        let same = self.out.are_same();
        let differs = |live: &Came, shadow: &Came| differ::bodies(self.hook, live, shadow, same);
        self.shadow.tell(self.hook, &live, &beside, differs, || self.about.clone());
    }
}

fn out<'a>(passed: &'a Passed, bytes: &'a [u8]) -> &'a [u8] {
    match passed {
        Passed::AsItIs => bytes,
        Passed::Replaced(with) => with,
        Passed::Refused(_) => &[],
    }
}

impl Side {
    fn of(begun: &Result<Option<Body>, Fault>, is_called: bool, took: Duration) -> Self {
        let body = begun.as_ref().ok().and_then(Option::as_ref);
        let course = match body {
            None => "pass",
            Some(body) if body.changes() => "change",
            Some(_) => "watch",
        };
        Self { course, is_called, took, used: body.map(Body::usage) }
    }

    /// All of a body is one call.
    fn cost(&self) -> Option<(Duration, Option<Usage>)> {
        self.is_called.then_some((self.took, self.used))
    }
}

/// What went on from each. How it was cut does not matter.
#[derive(Default)]
struct Outputs {
    bytes: [u64; 2],
    /// Of both, from the first push on at which they were not the same.
    apart: Option<[Sha256; 2]>,
}

impl Outputs {
    fn push(&mut self, live: &[u8], shadow: &[u8]) {
        let both = [live, shadow];
        self.bytes.iter_mut().zip(both).for_each(|(sum, bytes)| *sum += bytes.len() as u64);
        if self.apart.is_some() || live != shadow {
            let apart = self.apart.get_or_insert_default();
            apart.iter_mut().zip(both).for_each(|(hash, bytes)| hash.update(bytes));
        }
    }

    fn are_same(&self) -> bool {
        self.apart.as_ref().is_none_or(|apart| {
            let [live, shadow] = apart.clone().map(Sha256::finalize);
            live == shadow
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_on_is_the_same_however_it_is_cut() {
        let same = |pushes: &[(&str, &str)]| {
            let mut out = Outputs::default();
            pushes.iter().for_each(|(live, shadow)| out.push(live.as_bytes(), shadow.as_bytes()));
            (out.are_same(), out.bytes, out.apart.is_some())
        };
        assert_eq!(same(&[]), (true, [0, 0], false));
        assert_eq!(same(&[("ab", "ab"), ("c", "c")]), (true, [3, 3], false), "which costs no digest");
        assert_eq!(same(&[("x", "x"), ("ab", ""), ("c", "abc")]), (true, [4, 4], true));
        assert_eq!(same(&[("ab", "ac"), ("d", "d")]), (false, [3, 3], true));
        assert_eq!(same(&[("ab", "ab"), ("c", "")]), (false, [3, 2], true));
    }
}
