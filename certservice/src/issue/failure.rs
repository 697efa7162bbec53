//! Why an order did not go on, who can change that, and when it is worth another try.

use std::borrow::Cow;

use contract::api::{State, Who, for_a_person};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Stable; also the metric's label, so the set is small and closed.
    pub code: Cow<'static, str>,
    /// For a person; the CA's own words where it refused.
    pub says: String,
    pub state: State,
    pub who: Who,
    pub then: Then,
    /// The CA itself is in trouble, or wants no orders of this account: the others wait, too.
    pub closes: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// The same step again, not before so many seconds.
    Retry { after: u64 },
    /// At once, without naming the certificate that it replaces.
    NotReplacing,
    /// The order is dead: a new one, after the usual delay.
    NewOrder,
    /// Not again until an operator asks for it.
    Stop,
}

impl Failure {
    pub fn new(
        code: impl Into<Cow<'static, str>>,
        says: impl Into<String>,
        state: State,
        who: Who,
        then: Then,
    ) -> Self {
        Self { code: code.into(), says: for_a_person(&says.into()), state, who, then, closes: false }
    }

    /// Something in CertService itself.
    pub fn ours(says: impl Into<String>, then: Then) -> Self {
        Self::new("internal_error", says, State::Working, Who::Operator, then)
    }

    /// The CA is not to be reached, or does not answer as it should.
    pub fn unreachable(says: impl Into<String>, after: u64) -> Self {
        let then = Then::Retry { after };
        let failure = Self::new("ca_unavailable", says, State::Working, Who::CertificateAuthority, then);
        Self { closes: true, ..failure }
    }
}
