//! What came of an order, for the budgets, the metrics and the log.

use contract::api::PassedOver;

use super::job::{Job, Step};
use super::runner::Runner;
use crate::budget::Spend;
use crate::clock;

impl Runner {
    /// Keeps the model of the CA's limits true to what came of an order. A crash here costs exactness, not orders: the CA
    /// has the last word.
    pub(super) async fn settle(&self, was: &Job, job: &Job) {
        let Some(limits) = self.plan.limits.get(&was.issuer) else { return };
        let mut spends: Vec<Spend> = Vec::new();
        if matches!(job.step, Step::Issued { .. }) {
            spends.extend(limits.succeeded(&job.domain));
        }
        // What comes before a second order has brought a certificate.
        if was.spent && !job.spent && job.first.is_none() {
            spends.extend(limits.not_issued(&job.domain, was.kind()));
        }
        let looked = matches!(
            was.step,
            Step::Ordered { .. } | Step::Presenting { .. } | Step::Answering { .. } | Step::Validating { .. }
        );
        if looked && job.failures > was.failures && matches!(failed_with(was, job), "challenge_failed" | "caa_forbids")
        {
            spends.extend(limits.failed(&job.domain));
        }
        if let Err(error) = self.store.settle(&was.issuer, &spends, clock::now() * 1000).await {
            tracing::error!(domain = %job.domain, %error, "what an order cost could not be stored");
        }
    }

    /// A visitor's look that found a domain not ready costs its tenant nothing.
    pub(super) async fn give_back_visit(&self, was: &Job, job: &Job) {
        let Some(limit) = self.plan.first_visits else { return };
        if was.failures > 0 || was.spent || was.visited_at.is_none() || !job.waits_again(was) {
            return;
        }
        if let Err(error) = self.store.give_back_visit(&job.domain, limit, clock::now() * 1000).await {
            tracing::error!(domain = %job.domain, %error, "what a visit has not cost could not be stored");
        }
    }

    pub(super) fn tell(&self, was: &Job, job: &Job) {
        let (domain, issuer, step) = (&job.domain, &job.issuer, job.step.name());
        let says = &job.status.says;
        if job.failures > was.failures {
            let code = failed_with(was, job);
            self.metrics.orders.with_label_values(&[was.issuer.as_str(), code]).inc();
            let retry_seconds = job.due_at.saturating_sub(clock::now());
            tracing::warn!(%domain, issuer, step, code, says, retry_seconds, "an order failed");
            if was.visited_at.is_some() && was.step != Step::Awaited {
                self.metrics.first_visits.with_label_values(&["failed"]).inc();
            }
        } else if matches!(job.step, Step::Issued { .. }) {
            self.metrics.orders.with_label_values(&[issuer.as_str(), "issued"]).inc();
            tracing::info!(%domain, issuer, revision = job.revision, "certificate issued");
            if let Some(at) = job.visited_at {
                self.metrics.first_visits.with_label_values(&["issued"]).inc();
                self.metrics.first_visit_seconds.observe(clock::now().saturating_sub(at) as f64);
            }
        } else if was.issuer == job.issuer && was.step.name() != step {
            tracing::debug!(%domain, issuer, step, "order went on");
        }
        if was.issuer != job.issuer {
            let passed = passed(was, job);
            let (code, says) = passed.map_or(("preferred", ""), |passed| (&*passed.code, &*passed.says));
            self.metrics.passed_over.with_label_values(&[was.issuer.as_str(), code]).inc();
            tracing::info!(%domain, was = was.issuer, issuer, code, says, "an order goes to another issuer");
        }
    }
}

/// Why an order did not stay with its issuer.
fn passed<'a>(was: &Job, job: &'a Job) -> Option<&'a PassedOver> {
    job.passed.iter().find(|passed| passed.issuer == was.issuer)
}

/// What was wrong, also of an order that has gone to another issuer for it.
fn failed_with<'a>(was: &Job, job: &'a Job) -> &'a str {
    let passed = (was.issuer != job.issuer).then(|| passed(was, job)).flatten();
    passed.map_or(job.status.code.as_str(), |passed| passed.code.as_str())
}
