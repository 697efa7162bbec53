//! What becomes of a promise while the site's certificate is not well: it does not grow, or it shrinks to what the
//! certificate can keep.

use latchkey_sdk::config::Object;
use latchkey_sdk::http::{Certificate, Unwell};
use serde::{Deserialize, Serialize};

const KEYS: [&str; 3] = ["renewal_failing", "ending", "handshake_errors"];

/// No shorter promise is worth the name, and a browser that comes back later still takes it back by then.
const AGE_LEAST: u64 = 300;
/// What is left of a certificate is reckoned by the hour: the header changes that often, not with each second.
const GRAIN: u64 = 3600;

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
enum Answer {
    /// As if nothing were wrong.
    Ignore,
    /// No stage begins that had not begun when it went wrong.
    Hold,
    /// And no promise outlasts the certificate.
    StepBack,
}

/// What is done about each of the ways in which a certificate can be unwell.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Health {
    renewal_failing: Answer,
    ending: Answer,
    handshake_errors: Answer,
}

/// How far the promises of a site go now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Reach {
    /// Unix seconds: stages that begin later have not begun for the site.
    pub(crate) until: u64,
    /// Seconds.
    pub(crate) age_most: Option<u64>,
    /// Seconds, until it is another one.
    pub(crate) changes_in: u64,
}

impl Health {
    pub(crate) fn read(config: &Object<'_>) -> Option<Self> {
        let default = Self { renewal_failing: Answer::Hold, ending: Answer::StepBack, handshake_errors: Answer::Hold };
        let Some(value) = config.get("unhealthy") else { return Some(default) };
        let table = value.object(&KEYS)?;
        let words = [("ignore", Answer::Ignore), ("hold", Answer::Hold), ("step_back", Answer::StepBack)];
        let renewal_failing = table.optional("renewal_failing", default.renewal_failing, |v| v.one_of(&words));
        let ending = table.optional("ending", default.ending, |v| v.one_of(&words));
        // Anyone can make handshakes fail: who does must not be able to take a promise away.
        let handshake_errors = table.optional("handshake_errors", default.handshake_errors, |v| v.one_of(&words[..2]));
        Some(Self { renewal_failing: renewal_failing?, ending: ending?, handshake_errors: handshake_errors? })
    }

    /// Nothing where there is no certificate to promise anything by.
    pub(crate) fn reach(&self, certificate: Certificate, now: u64) -> Option<Reach> {
        let (answer, Unwell { since_ms, ends_ms }) = match certificate {
            Certificate::None => return None,
            Certificate::Healthy => return Some(Reach::full(now)),
            Certificate::RenewalFailing(unwell) => (self.renewal_failing, unwell),
            Certificate::Ending(unwell) => (self.ending, unwell),
            Certificate::HandshakeErrors(unwell) => (self.handshake_errors, unwell),
        };
        let held = Reach { until: now.min(since_ms / 1000), ..Reach::full(now) };
        Some(match answer {
            Answer::Ignore => Reach::full(now),
            Answer::Hold => held,
            Answer::StepBack => {
                let left = (ends_ms / 1000).saturating_sub(now);
                let age = (left - left % GRAIN).max(AGE_LEAST);
                Reach { age_most: Some(age), changes_in: (left % GRAIN).max(1), ..held }
            }
        })
    }
}

impl Reach {
    /// Of a site that is well.
    pub(crate) fn full(now: u64) -> Self {
        Self { until: now, age_most: None, changes_in: u64::MAX }
    }
}
