//! Runs orders: some at once, the others in their turn. Thin: [`next`] decides, the store remembers, [`Hands`] act.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use contract::{Bundle, Hostname};
use tokio::sync::Notify as Wake;
use tokio::task::{Id, JoinError, JoinSet};

use super::act::Hands;
use super::gate::{BUNDLES_DOWN, Gate, Verdict};
use super::job::{Event, Held, Job, Stage, Step, Task};
use super::machine::{Pace, next};
use super::places::Places;
use super::prefer::{self, Choice};
use crate::budget::{Limit, Limits};
use crate::clock;
use crate::issue::{Facts, Failure};
use crate::observe::Metrics;
use crate::renew::{Planner, urgent_at};
use crate::store::{Next, Store, StoreError, Stored};

/// The store is looked at this often even if nobody wakes the runner.
const LOOK_SECONDS: u64 = 1;
/// After the store failed.
const REST_SECONDS: u64 = 5;
/// How long an order rests that could not be stored; doubled for each failure that it has had before.
const UNSTORED_SECONDS: u64 = 5;
const UNSTORED_DOUBLINGS: u32 = 8;
/// Longest time that one task may take.
const TASK_SECONDS_MAX: u64 = 180;
/// How long an order stays with an instance that says nothing any more, and how often it says something.
pub(super) const HOLD_SECONDS: u64 = 30;
const KEEP_SECONDS: u64 = 10;
/// Budgets that are full again are removed this often.
const FORGET_SECONDS: u64 = 3600;

/// How orders are run.
#[derive(Debug, Clone)]
pub struct Plan {
    pub pace: Pace,
    pub concurrency: u32,
    /// By issuer.
    pub limits: HashMap<String, Limits>,
    /// Orders that first visits may bring, of one tenant; `None` is no limit.
    pub first_visits: Option<Limit>,
    /// This instance, unlike any other on the store.
    pub holder: String,
}

#[derive(Clone)]
pub struct Runner {
    pub(super) store: Store,
    hands: Arc<Hands>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) gate: Arc<Gate>,
    pub(super) plan: Arc<Plan>,
    places: Arc<Mutex<Places>>,
    planner: Planner,
}

pub(super) struct Running {
    pub tasks: JoinSet<()>,
    pub names: HashMap<Id, Hostname>,
    /// Unix seconds; when those who came last were looked for, by stage.
    pub lasts_at: [u64; 4],
}

impl Running {
    /// Whose task that was.
    fn ended(&mut self, ended: Result<(Id, ()), JoinError>) -> Option<Hostname> {
        let id = match ended {
            Ok((id, ())) => id,
            Err(error) => {
                tracing::error!(%error, "working on an order ended badly");
                error.id()
            }
        };
        self.names.remove(&id)
    }
}

/// After an event was recorded.
pub enum Recorded {
    /// Do these, then record what came of it.
    Go(Box<Stored>, Vec<Task>),
    Over,
}

impl Runner {
    pub fn new(store: Store, hands: Hands, metrics: Arc<Metrics>, plan: Plan, planner: Planner) -> Self {
        let (hands, plan) = (Arc::new(hands), Arc::new(plan));
        let places = Arc::new(Mutex::new(Places::new(plan.concurrency)));
        Self { store, hands, metrics, gate: Arc::default(), plan, places, planner }
    }

    pub fn hands(&self) -> Arc<Hands> {
        self.hands.clone()
    }

    pub(super) fn with_places<T>(&self, act: impl FnOnce(&mut Places) -> T) -> T {
        act(&mut self.places.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Works on orders until it is dropped. What it was at is picked up by the next one.
    pub async fn run(self, wake: Arc<Wake>) {
        let mut running = Running { tasks: JoinSet::new(), names: HashMap::new(), lasts_at: [0; 4] };
        let mut forget = tokio::time::interval(Duration::from_secs(FORGET_SECONDS));
        let mut keep = tokio::time::interval(Duration::from_secs(KEEP_SECONDS));
        loop {
            let pause = match self.start_due(&mut running).await {
                Ok(()) => Duration::from_secs(LOOK_SECONDS),
                Err(error) => {
                    tracing::error!(%error, "looking for orders failed");
                    Duration::from_secs(REST_SECONDS)
                }
            };
            tokio::select! {
                _ = forget.tick() => self.forget_full_budgets().await,
                () = wake.notified() => {}
                () = tokio::time::sleep(pause) => {}
                _ = keep.tick() => self.keep_holding().await,
                Some(ended) = running.tasks.join_next_with_id() => {
                    if let Some(name) = running.ended(ended) {
                        self.with_places(|places| places.leave(name.as_str()));
                    }
                }
            }
        }
    }

    async fn forget_full_budgets(&self) {
        let now = clock::now();
        let forgotten = self.store.forget_full_budgets(now * 1000).await;
        match forgotten.and(self.store.believe_no_wrong_clock(now).await) {
            Ok(0) => {}
            Ok(orders) => {
                tracing::warn!(orders, "a wrong clock had put orders off for more than a week; they are due now")
            }
            Err(error) => {
                tracing::error!(%error, "full budgets, and what a wrong clock has put off, can't be looked for")
            }
        }
    }

    async fn keep_holding(&self) {
        let now = clock::now();
        self.hands.forget_old(now);
        let until = now + HOLD_SECONDS;
        if let Err(error) = self.store.keep_holding(&self.plan.holder, until).await {
            tracing::error!(%error, "orders under way can't be kept; another instance may take them up");
        }
    }

    pub(super) async fn work_or_rest(self, stored: Stored) {
        let (domain, failures) = (stored.job.domain.clone(), stored.job.failures);
        if let Err(error) = self.work(stored).await {
            if self.store.domain(&domain).await.is_ok_and(|domain| domain.is_none()) {
                tracing::info!(%domain, "an order ended with its domain");
                self.hands.forget(&domain);
                return;
            }
            tracing::error!(%domain, %error, "an order could not be stored; it is taken up again");
            // What is wrong may be in this one only: others have their turn meanwhile.
            let until = clock::now() + (UNSTORED_SECONDS << failures.min(UNSTORED_DOUBLINGS));
            if self.store.put_off(domain.as_str(), &self.plan.holder, until).await.is_err() {
                tokio::time::sleep(Duration::from_secs(REST_SECONDS)).await;
            }
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
        let now = clock::now();
        let was = stored.job.clone();
        self.heed(&was.issuer, &event, now).await?;
        let waits = matches!(event, Event::Due) && was.stage() != Stage::UnderWay;
        let begun = if waits { self.to_preferred(was.clone(), now) } else { was.clone() };
        let (mut job, mut tasks) = next(begun, event, now, &self.plan.pace);
        if matches!(job.step, Step::Ordering) && !matches!(was.step, Step::Ordering) {
            match self.leave(&stored, &job, now).await? {
                Ok(saved) => return Ok(Recorded::Go(Box::new(saved), tasks)),
                Err(stays) => (job, tasks) = self.stays(Job { step: was.step.clone(), ..job }, stays, now),
            }
        }
        if job == was {
            if tasks.is_empty() {
                self.store.release(&stored).await?;
            }
            return Ok(Recorded::Go(Box::new(stored), tasks));
        }
        let change = match &job.step {
            Step::Issued { bundle, facts } => Some(self.finish(&stored, &job, bundle, facts, now).await?),
            Step::Stopped | Step::Parked => self.store.stop(&stored, &job).await.map(|()| None)?,
            _ => {
                let held_until = (!tasks.is_empty()).then_some(now + HOLD_SECONDS);
                let saved = self.store.save(stored, job.clone(), held_until).await?;
                self.settle(&was, &job).await;
                self.give_back_visit(&was, &job).await;
                self.tell(&was, &job);
                return Ok(Recorded::Go(Box::new(saved), tasks));
            }
        };
        self.settle(&was, &job).await;
        self.tell(&was, &job);
        self.hands.forget(&job.domain);
        self.act(&job, tasks).await;
        if let Some(cursor) = change {
            self.hands.notify.changes(cursor).await;
        }
        Ok(Recorded::Over)
    }

    /// Why an issuer takes this order not now.
    fn held_at(&self, issuer: &str, job: &Job, now: u64) -> Option<Held> {
        self.gate.held(issuer, job.counts_for_account(issuer), now)
    }

    /// To the first issuer that takes the order now, if that is another one.
    fn to_preferred(&self, job: Job, now: u64) -> Job {
        match prefer::choose(&job, &self.plan.pace, now, |issuer| self.held_at(issuer, &job, now)) {
            Some(choice) if choice.issuer != job.issuer => prefer::moved(job, Choice { until: None, ..choice }, now),
            Some(choice) => Job { passed: choice.passed, ..job },
            None => job,
        }
    }

    /// It can't leave: where its issuer does not take it now another does, or it waits.
    fn stays(&self, mut job: Job, why: Event, now: u64) -> (Job, Vec<Task>) {
        let held = match why {
            Event::Held(held) if held.code != BUNDLES_DOWN => held,
            why => return next(job, why, now, &self.plan.pace),
        };
        if !held.whole {
            prefer::short(&mut job, &held);
        }
        let issuer = job.issuer.clone();
        let job = self.to_preferred(job, now);
        if job.issuer != issuer {
            return (job, vec![Task::Check]);
        }
        let others_at = prefer::others_at(&job, &self.plan.pace, now, |issuer| self.held_at(issuer, &job, now));
        next(Job { others_at, ..job }, Event::Held(held), now, &self.plan.pace)
    }

    /// An order that is about to go to the CA: what it takes from the CA's limits is stored with it, or it stays.
    async fn leave(&self, stored: &Stored, job: &Job, now: u64) -> Result<Result<Stored, Event>, StoreError> {
        let keyless = (self.store.bundles_down() == Some(true)).then(|| Held::by_bundles(now + REST_SECONDS));
        if let Some(held) = keyless.or_else(|| self.held_at(&job.issuer, job, now)) {
            return Ok(Err(Event::Held(held)));
        }
        // What comes from the line has a place already.
        let is_look = matches!(stored.job.step, Step::Queued);
        if is_look && !self.with_places(|places| places.promote(job.domain.as_str())) {
            return Ok(Err(Event::Crowded));
        }
        let limits = self.plan.limits.get(&job.issuer).copied().unwrap_or_default();
        let spends = if job.spent { Vec::new() } else { limits.order(&job.domain, job.kind()) };
        let (leaving, until) = (Job { spent: true, ..job.clone() }, now + HOLD_SECONDS);
        let saved = self.store.save_spending(stored, leaving, until, &spends, now * 1000).await?;
        Ok(saved.map_err(|shortage| {
            self.gate.short(&job.issuer, &shortage);
            Event::Held(Held::from(&shortage))
        }))
    }

    /// Tells all instances where the CA itself is in trouble, or is so no longer.
    async fn heed(&self, issuer: &str, event: &Event, now: u64) -> Result<(), StoreError> {
        match self.gate.saw(issuer, event, now) {
            Verdict::Nothing => Ok(()),
            Verdict::Open => self.store.open_issuer(issuer).await,
            Verdict::Close { until, code, says } => {
                let pause_seconds = until.saturating_sub(now);
                tracing::warn!(issuer, code, says, pause_seconds, "no order leaves to this issuer for a while");
                self.store.close_issuer(issuer, until, &code, &says, now).await
            }
        }
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
        facts: &Facts,
        now: u64,
    ) -> Result<u64, StoreError> {
        let shown = facts.shown(bundle);
        let planned = self.planner.plan(&job.issuer, &job.domain, bundle.not_before, bundle.not_after, now);
        let next = Next {
            renew_at: planned,
            urgent_at: urgent_at(bundle.not_before, bundle.not_after),
            ari_id: facts.ari_id.clone(),
            ask_at: facts.ari_id.as_ref().map(|_| now),
        };
        let change = self.store.finish(stored, job, bundle, &shown, &next).await?;
        let seconds = now.saturating_sub(job.created_at);
        self.metrics.issuance_seconds.observe(seconds as f64);
        Ok(change)
    }
}
