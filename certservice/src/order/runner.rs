//! Runs orders: some at once, the others in their turn. Thin: [`next`] decides, the store remembers, [`Hands`] act.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use contract::api::CertificateInfo;
use contract::{Bundle, Hostname};
use tokio::sync::Notify as Wake;
use tokio::task::{Id, JoinError, JoinSet};

use super::act::Hands;
use super::job::{Event, Job, Step, Task};
use super::machine::{Pace, next};
use crate::issue::Failure;
use crate::observe::Metrics;
use crate::store::{Store, StoreError, Stored};
use crate::{clock, renew};

/// The store is looked at this often even if nobody wakes the runner.
const LOOK_SECONDS_MAX: u64 = 5;
/// Longest time that one task may take.
const TASK_SECONDS_MAX: u64 = 180;

#[derive(Clone)]
pub struct Runner {
    store: Store,
    hands: Arc<Hands>,
    metrics: Arc<Metrics>,
    pace: Pace,
    concurrency: u32,
}

struct Running {
    tasks: JoinSet<()>,
    names: HashMap<Id, Hostname>,
}

impl Running {
    fn ended(&mut self, ended: Result<(Id, ()), JoinError>) {
        let id = match ended {
            Ok((id, ())) => id,
            Err(error) => {
                tracing::error!(%error, "working on an order ended badly");
                error.id()
            }
        };
        self.names.remove(&id);
    }
}

/// After an event was recorded.
pub enum Recorded {
    /// Do these, then record what came of it.
    Go(Box<Stored>, Vec<Task>),
    Over,
}

impl Runner {
    pub fn new(store: Store, hands: Hands, metrics: Arc<Metrics>, pace: Pace, concurrency: u32) -> Self {
        Self { store, hands: Arc::new(hands), metrics, pace, concurrency }
    }

    /// Works on orders until it is dropped. What it was at is picked up by the next one.
    pub async fn run(self, wake: Arc<Wake>) {
        let mut running = Running { tasks: JoinSet::new(), names: HashMap::new() };
        loop {
            let pause = match self.start_due(&mut running).await {
                Ok(pause) => pause,
                Err(error) => {
                    tracing::error!(%error, "looking for orders failed");
                    Duration::from_secs(LOOK_SECONDS_MAX)
                }
            };
            tokio::select! {
                () = wake.notified() => {}
                () = tokio::time::sleep(pause) => {}
                Some(ended) = running.tasks.join_next_with_id() => running.ended(ended),
            }
        }
    }

    /// Starts what is due and not running. Says how long to wait for more.
    async fn start_due(&self, running: &mut Running) -> Result<Duration, StoreError> {
        let now = clock::now();
        let free = usize::try_from(self.concurrency).unwrap_or(usize::MAX).saturating_sub(running.names.len());
        if free == 0 {
            return Ok(Duration::from_secs(LOOK_SECONDS_MAX));
        }
        // Those that run are due as well.
        let wanted = u32::try_from(free + running.names.len()).unwrap_or(u32::MAX);
        let mut due = self.store.due(now, wanted).await?;
        due.retain(|stored| !running.names.values().any(|name| *name == stored.job.domain));
        for stored in due.into_iter().take(free) {
            let domain = stored.job.domain.clone();
            let task = running.tasks.spawn(self.clone().work_or_rest(stored));
            running.names.insert(task.id(), domain);
        }
        let next = self.store.next_due_at().await?.unwrap_or(u64::MAX).saturating_sub(now);
        Ok(Duration::from_secs(next.clamp(1, LOOK_SECONDS_MAX)))
    }

    async fn work_or_rest(self, stored: Stored) {
        let domain = stored.job.domain.clone();
        if let Err(error) = self.work(stored).await {
            if self.store.domain(&domain).await.is_ok_and(|domain| domain.is_none()) {
                tracing::info!(%domain, "an order ended with its domain");
                self.hands.forget(&domain);
                return;
            }
            tracing::error!(%domain, %error, "an order could not be stored; it is taken up again");
            tokio::time::sleep(Duration::from_secs(LOOK_SECONDS_MAX)).await;
        }
    }

    /// One order, until it has to wait or is over.
    async fn work(&self, stored: Stored) -> Result<(), StoreError> {
        let mut recorded = self.record(stored, Event::Due).await?;
        while let Recorded::Go(stored, tasks) = recorded {
            let Some(event) = self.act(&stored.job, tasks).await else {
                return Ok(());
            };
            recorded = self.record(*stored, event).await?;
        }
        Ok(())
    }

    /// Decides what an event means and stores it. Nothing was done about it yet.
    pub async fn record(&self, stored: Stored, event: Event) -> Result<Recorded, StoreError> {
        let was = stored.job.clone();
        let (job, tasks) = next(was.clone(), event, clock::now(), &self.pace);
        if job == was {
            return Ok(Recorded::Go(Box::new(stored), tasks));
        }
        let change = match &job.step {
            Step::Issued { bundle, serial, issued_by } => {
                Some(self.finish(&stored, &job, bundle, serial, issued_by).await?)
            }
            Step::Stopped => self.store.stop(&stored, &job).await.map(|()| None)?,
            _ => {
                let saved = self.store.save(stored, job.clone()).await?;
                self.tell(&was, &job);
                return Ok(Recorded::Go(Box::new(saved), tasks));
            }
        };
        self.tell(&was, &job);
        self.hands.forget(&job.domain);
        self.act(&job, tasks).await;
        if let Some(cursor) = change {
            self.hands.notify.changes(cursor).await;
        }
        Ok(Recorded::Over)
    }

    /// Does the tasks in turn; the last one that answers gives the next event.
    pub async fn act(&self, job: &Job, tasks: Vec<Task>) -> Option<Event> {
        let mut event = None;
        for task in tasks {
            let limit = Duration::from_secs(TASK_SECONDS_MAX);
            let done = tokio::time::timeout(limit, self.hands.act(job, task)).await;
            let late = || Failure::unreachable(format!("a step took more than {TASK_SECONDS_MAX} s"), 0);
            event = done.unwrap_or_else(|_| Some(Event::Failed(late()))).or(event);
        }
        event
    }

    /// The cursor of the change that tells the edges.
    async fn finish(
        &self,
        stored: &Stored,
        job: &Job,
        bundle: &Bundle,
        serial: &str,
        issued_by: &str,
    ) -> Result<u64, StoreError> {
        let leaf = bundle.chain().ok().and_then(|chain| chain.into_iter().next()).unwrap_or_default();
        let shown = CertificateInfo {
            issued_by: issued_by.to_owned(),
            serial: serial.to_owned(),
            sha256: contract::bundle::sha256(&leaf).iter().map(|byte| format!("{byte:02x}")).collect(),
            not_before: bundle.not_before,
            not_after: bundle.not_after,
            revision: bundle.revision,
        };
        let renew_at = renew::renew_at(&job.domain, bundle.not_before, bundle.not_after);
        let change = self.store.finish(stored, job, bundle, &shown, renew_at).await?;
        let seconds = clock::now().saturating_sub(job.created_at);
        self.metrics.issuance_seconds.observe(seconds as f64);
        Ok(change)
    }

    fn tell(&self, was: &Job, job: &Job) {
        let (domain, issuer, step) = (&job.domain, &job.issuer, job.step.name());
        let says = &job.status.says;
        if job.failures > was.failures {
            let code = job.status.code.as_str();
            self.metrics.orders.with_label_values(&[code]).inc();
            let retry_seconds = job.due_at.saturating_sub(clock::now());
            tracing::warn!(%domain, issuer, step, code, says, retry_seconds, "an order failed");
        } else if matches!(job.step, Step::Issued { .. }) {
            self.metrics.orders.with_label_values(&["issued"]).inc();
            tracing::info!(%domain, issuer, revision = job.revision, "certificate issued");
        } else if was.step.name() != step {
            tracing::debug!(%domain, issuer, step, "order went on");
        }
    }
}
