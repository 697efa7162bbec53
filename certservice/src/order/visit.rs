//! Orders that wait for a first visitor: until then no CA is asked for anything. Pure.

use contract::api::OrderWhen;

use super::job::{Job, Lane, Status, Step, Task};
use super::machine::{Pace, failed, fault_found};
use super::steps::steps;
use crate::precheck::Report;

/// What is shown of a domain that waits for its visitor.
pub const AWAITED: &str = "awaits_visit";
pub(super) const AWAITED_SAYS: &str = "the certificate is ordered when the first visitor comes";
/// Between two looks at a domain with which something is wrong, at most: nobody has come for it.
pub(super) const LOOK_SECONDS_MAX: u64 = 24 * 3600;
/// A visitor brings another look at a domain that was not ready, but not for each handshake. Nor does who asks for an order.
pub const LOOK_AGAIN_SECONDS: u64 = 20;

impl Job {
    /// The first order of a domain, as its owner wants it.
    #[must_use]
    pub fn when(self, when: OrderWhen) -> Self {
        match when {
            OrderWhen::Now => self,
            OrderWhen::FirstVisit => self.awaited(),
        }
    }

    /// An order that has not left is kept back until somebody comes.
    #[must_use]
    pub fn awaited(self) -> Self {
        let status = Status::working(AWAITED, AWAITED_SAYS);
        shown(Self { step: Step::Awaited, status, visited_at: None, refused: Vec::new(), others_at: None, ..self })
    }

    /// When the domain may be looked at again, whoever wants it.
    pub fn look_at(&self, now: u64) -> u64 {
        now.max(self.looked_at + LOOK_AGAIN_SECONDS)
    }

    /// It waits for nobody any more.
    #[must_use]
    pub fn begun(self, now: u64) -> Self {
        let status = Status::working("queued", "waiting for its turn");
        let due_at = self.look_at(now);
        shown(Self { step: Step::Queued, status, due_at, failures: 0, ..self })
    }

    /// Somebody has come for it.
    #[must_use]
    pub fn visited(self, now: u64) -> Self {
        Self { lane: Lane::Visitor, visited_at: Some(now), due_at: now, ..self.begun(now) }
    }

    /// A visitor came for it, but the look found that the domain is not ready.
    pub fn waits_again(&self, was: &Self) -> bool {
        self.step == Step::Awaited && was.step != Step::Awaited
    }
}

/// It rests where nothing is wrong; else its owner is told, and it is looked at again.
pub(super) fn looked_at(job: Job, report: &Report, now: u64, pace: &Pace) -> (Job, Vec<Task>) {
    let job = Job { checks: report.steps.clone(), ..job };
    match report.fault() {
        Some(fault) => failed(job, fault_found(fault), now, pace),
        None => {
            let status = Status::working(AWAITED, AWAITED_SAYS);
            (Job { step: Step::Parked, status, failures: 0, ..job }, vec![])
        }
    }
}

fn shown(mut job: Job) -> Job {
    job.status.steps = steps(&job);
    job
}
