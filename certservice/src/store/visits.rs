//! Visitors of domains that have no certificate yet: they bring the order that waited for them, or hurry the one there is.

use contract::Hostname;
use contract::api::{Domain, OrderWhen, State};

use super::budgets::spend;
use super::changes::next_revision;
use super::domains::{TENANT, insert_job, word};
use super::journal::{OURSELVES, Told, tell};
use super::{Store, StoreError, again, from_sql, in_transaction, on, parse, to_sql, write, writing};
use crate::budget::{FullAt, How, Limit, Name, Shortage, Spend};
use crate::order::{Job, LOOK_AGAIN_SECONDS, Lane, POLL_SECONDS_MAX, Stage, Step};

/// What a visit came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Visited {
    /// Its order is under way, or is about to be: `begun` by this visit, or before.
    Coming { begun: bool },
    /// No order comes of it now.
    Waits,
    /// A wildcard's certificate is served for it.
    Covered(String),
    /// Its tenant has had so many orders for first visits.
    Short(Shortage),
}

const JOB: &str = "SELECT stage, step, lane, place, held_until FROM jobs WHERE domain = ?";
const HURRY: &str = "UPDATE jobs SET lane = ? WHERE domain = ? AND lane > ?";
const COVERS: &str =
    "SELECT name FROM domains WHERE name = ? AND tenant = ? AND certificate IS NOT NULL AND ends_at > ? LIMIT 1";
const HOLD: &str = "UPDATE domains SET created_at = created_at WHERE name = ?";
pub(super) const HOLD_BUDGET: &str =
    "UPDATE budgets SET full_at = full_at WHERE issuer = '' AND name = ? AND scope = ?";
pub(super) const NEW_BUDGET: &str = "INSERT INTO budgets (issuer, name, scope, full_at) VALUES ('', ?, ?, 0)";
/// Of one that waits for a visitor, or would if it were looked at: neither blocked nor with a certificate.
const WANTS_VISIT: &str = "SELECT tenant FROM domains WHERE name = ? AND tenant = ? AND on_visit = TRUE AND certificate IS NULL AND state <> ?";
const WITHOUT: &str = "SELECT tenant FROM domains WHERE name = ? AND certificate IS NULL AND state <> ?";
const ORDER_WHEN: &str = "UPDATE domains SET on_visit = ? WHERE name = ?";
const FREE_JOB: &str = "SELECT body, step FROM jobs WHERE domain = ? AND held_until <= ?";
const JOB_BODY: &str = "SELECT body FROM jobs WHERE domain = ?";
const HAS_JOB: &str = "SELECT version FROM jobs WHERE domain = ?";
pub(super) const HOLD_FEED: &str = "UPDATE changes_head SET `cursor` = `cursor` WHERE id = 1";
/// Whoever has read the order before writes it no more.
pub(super) const REQUEUE: &str = "UPDATE jobs SET version = version + 1, due_at = ?, step = ?, body = ?, stage = ?, lane = ?, \
    place = ?, created_at = ?, others_at = NULL, holder = '', held_until = 0 WHERE domain = ?";

/// For transactions that may tell edges of a name: the feed comes before all else that they hold.
macro_rules! hold_feed {
    ($transaction:ident, $jobs:expr) => {
        if $jobs.into_iter().any(|job| job.step == $crate::order::Step::Awaited) {
            sqlx::query($crate::store::visits::HOLD_FEED).execute(&mut *$transaction).await?;
        }
    };
}
/// Tells the edges that there is such a name, before it has a certificate: so they ask for it. They take none that is older
/// than what they are told.
macro_rules! announce_name {
    ($transaction:ident, $name:expr, $revision:expr) => {{
        let cursor = $crate::store::changes::next_cursor!($transaction);
        sqlx::query($crate::store::changes::ANNOUNCE)
            .bind(cursor)
            .bind($name)
            .bind(to_sql($revision))
            .execute(&mut *$transaction)
            .await?;
    }};
}
/// An order that has not left, as another one, and how that is shown.
macro_rules! requeue {
    ($transaction:ident, $job:expr) => {{
        let job: Job = $job;
        let name = job.domain.as_str();
        sqlx::query($crate::store::visits::REQUEUE)
            .bind(to_sql(job.due_at))
            .bind(job.step.name())
            .bind(write("the order", name, &job)?)
            .bind(job.stage() as i64)
            .bind(job.lane as i64)
            .bind(to_sql(job.place()))
            .bind(to_sql(job.visited_at.unwrap_or(job.created_at)))
            .bind(name)
            .execute(&mut *$transaction)
            .await?;
        $crate::store::visits::show!($transaction, job);
    }};
}
/// Keeps others from a tenant's budget until the commit, also where it has none yet: before anything is read.
macro_rules! hold_budget {
    ($transaction:ident, $name:expr, $tenant:expr) => {{
        use $crate::store::domains::is_duplicate;
        use $crate::store::visits::{HOLD_BUDGET, NEW_BUDGET};
        let (name, tenant): ($crate::budget::Name, &str) = ($name, $tenant);
        let hold = || sqlx::query(HOLD_BUDGET).bind(name.as_str()).bind(tenant);
        if hold().execute(&mut *$transaction).await?.rows_affected() == 0 {
            match sqlx::query(NEW_BUDGET).bind(name.as_str()).bind(tenant).execute(&mut *$transaction).await {
                Err(error) if is_duplicate(&error) => {
                    hold().execute(&mut *$transaction).await?;
                }
                done => {
                    done?;
                }
            }
        }
    }};
}
macro_rules! show {
    ($transaction:ident, $job:expr) => {{
        let name = $job.domain.as_str();
        let $crate::order::Status { state, code, says, who, steps } = &$job.status;
        sqlx::query($crate::store::jobs::SHOW)
            .bind($crate::store::domains::word(state)?)
            .bind(code)
            .bind(says)
            .bind($crate::store::domains::word(who)?)
            .bind(write("the steps", name, steps)?)
            .bind(write("the issuers", name, &$job.passed)?)
            .bind(to_sql($job.due_at))
            .bind(name)
            .execute(&mut *$transaction)
            .await?;
    }};
}
pub(super) use {announce_name, hold_budget, hold_feed, requeue, show};

impl Store {
    /// Somebody has come for a domain without a certificate, and waits. `first` is the order of one that has none. A crowd
    /// before one name writes once.
    pub async fn visit(
        &self,
        domain: &Domain,
        first: &Job,
        limit: Option<Limit>,
        now: u64,
    ) -> Result<Visited, StoreError> {
        let name = domain.name.as_str();
        let job: Option<(i64, String, i64, i64, i64)> =
            on!(self, pool => sqlx::query_as(JOB).bind(name).fetch_optional(pool).await?);
        let coming = match job {
            Some((stage, step, lane, place, held_until)) if step != Step::Awaited.name() => {
                if lane > Lane::Visitor as i64 {
                    let lane = Lane::Visitor as i64;
                    writing!(self, pool => sqlx::query(HURRY)
                        .bind(lane).bind(name).bind(lane).execute(pool).await.map(drop)?)?;
                }
                let polls = if stage == Stage::UnderWay as i64 { POLL_SECONDS_MAX } else { 0 };
                let goes_on = place <= to_sql(now + polls) || held_until > to_sql(now);
                // Where nothing but a place is wanted it may come while the visitor waits.
                let wants_place = step == Step::Looked { checked_at: 0 }.name();
                Some(goes_on && (wants_place || Stage::IN_LINE.iter().all(|line| stage != *line as i64)))
            }
            // It is being looked at: the next visit knows what came of that.
            Some((.., held_until)) => (held_until > to_sql(now)).then_some(true),
            None => None,
        };
        match coming {
            Some(true) => return Ok(Visited::Coming { begun: false }),
            Some(false) => return Ok(Visited::Waits),
            None if domain.order == OrderWhen::Now || domain.state == State::Blocked => return Ok(Visited::Waits),
            None => {}
        }
        if let Some(wildcard) = self.covered_by(&domain.name, &domain.tenant, now).await? {
            return Ok(Visited::Covered(wildcard));
        }
        // Most of a flood ends here, and has written nothing.
        if let Some(short) = self.first_visits_short(&domain.tenant, limit, now).await? {
            return Ok(Visited::Short(short));
        }
        again!(self.visit_once(&domain.tenant, first, limit, now))
    }

    async fn visit_once(
        &self,
        tenant: &str,
        first: &Job,
        limit: Option<Limit>,
        now: u64,
    ) -> Result<Visited, StoreError> {
        let name = first.domain.as_str();
        let blocked = word(&State::Blocked)?;
        Ok(in_transaction!(self, transaction => {
            if limit.is_some() {
                hold_budget!(transaction, Name::FirstVisits, tenant);
            }
            sqlx::query(HOLD).bind(name).execute(&mut *transaction).await?;
            let wants: Option<String> = sqlx::query_scalar(WANTS_VISIT)
                .bind(name).bind(tenant).bind(&blocked).fetch_optional(&mut *transaction).await?;
            if wants.is_none() {
                return Ok(Visited::Waits);
            }
            let there: Option<i64> = sqlx::query_scalar(HAS_JOB).bind(name).fetch_optional(&mut *transaction).await?;
            let free: Option<(String, String)> =
                sqlx::query_as(FREE_JOB).bind(name).bind(to_sql(now)).fetch_optional(&mut *transaction).await?;
            let awaited: Option<Job> = match (there, free) {
                (Some(_), Some((body, step))) if step == Step::Awaited.name() => {
                    let job: Job = parse("the order", name, &body)?;
                    if job.visited_at.is_some_and(|at| now < at + LOOK_AGAIN_SECONDS) {
                        return Ok(Visited::Waits);
                    }
                    Some(job)
                }
                // Somebody else was faster.
                (Some(_), _) => return Ok(Visited::Coming { begun: false }),
                (None, _) => None,
            };
            if let Some(limit) = limit {
                let spends = &[Spend::first_visit(tenant, limit, How::Take)];
                if let Err(short) = spend!(transaction, "", spends, now * 1000) {
                    return Ok(Visited::Short(short));
                }
            }
            match awaited {
                Some(job) => requeue!(transaction, job.visited(now)),
                None => {
                    insert_job!(transaction, first)?;
                    show!(transaction, first);
                }
            }
            let (action, detail) = ("domain.first_visit", Default::default());
            tell!(transaction, Told { actor: OURSELVES, action, tenant, name, detail });
            Visited::Coming { begun: true }
        }))
    }

    /// The wildcard whose certificate is served for a name that has none.
    pub async fn covered_by(&self, name: &Hostname, tenant: &str, now: u64) -> Result<Option<String>, StoreError> {
        let Some(wildcard) = name.wildcard() else { return Ok(None) };
        Ok(on!(self, pool => sqlx::query_scalar(COVERS)
            .bind(wildcard.as_str()).bind(tenant).bind(to_sql(now)).fetch_optional(pool).await?))
    }

    /// Why no first visit brings an order to a tenant's domains now.
    pub async fn first_visits_short(
        &self,
        tenant: &str,
        limit: Option<Limit>,
        now: u64,
    ) -> Result<Option<Shortage>, StoreError> {
        let Some(limit) = limit else { return Ok(None) };
        let full_at = self.first_visits_full_at(tenant).await?;
        let spends = [Spend::first_visit(tenant, limit, How::Need)];
        Ok(crate::budget::decide(&spends, &[full_at], now * 1000).err())
    }

    pub async fn first_visits_full_at(&self, tenant: &str) -> Result<FullAt, StoreError> {
        self.full_at("", Name::FirstVisits, tenant).await
    }

    /// One that was taken for a visitor and not used.
    pub async fn give_back_visit(&self, name: &Hostname, limit: Limit, now_ms: u64) -> Result<(), StoreError> {
        let tenant: Option<String> =
            on!(self, pool => sqlx::query_scalar(TENANT).bind(name.as_str()).fetch_optional(pool).await?);
        let Some(tenant) = tenant else { return Ok(()) };
        again!(self.give_back_visit_once(&tenant, limit, now_ms))
    }

    async fn give_back_visit_once(&self, tenant: &str, limit: Limit, now_ms: u64) -> Result<(), StoreError> {
        in_transaction!(self, transaction => {
            hold_budget!(transaction, Name::FirstVisits, tenant);
            let spends = &[Spend::first_visit(tenant, limit, How::GiveBack)];
            let _: Result<(), Shortage> = spend!(transaction, "", spends, now_ms);
        });
        Ok(())
    }

    /// Whether the first order of a domain waits for a visitor from now on; `first` is that order. `false` if there is no such
    /// domain. What has left for a CA goes on.
    pub async fn order_when(
        &self,
        name: &Hostname,
        when: OrderWhen,
        first: &Job,
        actor: &str,
    ) -> Result<bool, StoreError> {
        again!(self.order_when_once(name.as_str(), when, first, actor))
    }

    async fn order_when_once(&self, name: &str, when: OrderWhen, first: &Job, actor: &str) -> Result<bool, StoreError> {
        let (on_visit, now) = (when == OrderWhen::FirstVisit, first.created_at);
        let blocked = word(&State::Blocked)?;
        Ok(in_transaction!(self, transaction => {
            sqlx::query(HOLD_FEED).execute(&mut *transaction).await?;
            let done = sqlx::query(ORDER_WHEN).bind(on_visit).bind(name).execute(&mut *transaction).await?;
            let tenant: Option<String> = sqlx::query_scalar(TENANT).bind(name).fetch_optional(&mut *transaction).await?;
            let Some(tenant) = tenant.filter(|_| done.rows_affected() > 0) else { return Ok(false) };
            let without: Option<String> =
                sqlx::query_scalar(WITHOUT).bind(name).bind(&blocked).fetch_optional(&mut *transaction).await?;
            if without.is_some() {
                let body: Option<String> =
                    sqlx::query_scalar(JOB_BODY).bind(name).fetch_optional(&mut *transaction).await?;
                let job: Option<Job> = body.map(|body| parse("the order", name, &body)).transpose()?;
                let next = next_revision!(transaction, name);
                let revision = match job {
                    Some(job) if job.stage() == Stage::UnderWay => job.revision,
                    Some(job) => {
                        let job = Job { revision: job.revision.max(next - 1), ..job };
                        let revision = job.revision;
                        match job.step {
                            _ if on_visit => {
                                let due_at = job.look_at(now);
                                requeue!(transaction, Job { due_at, ..job.awaited() });
                            }
                            Step::Awaited => requeue!(transaction, job.begun(now)),
                            _ => {}
                        }
                        revision
                    }
                    None => {
                        insert_job!(transaction, first)?;
                        show!(transaction, first);
                        next
                    }
                };
                // What edges are told is what the order brings, and never less than before.
                if on_visit && revision + 1 >= next {
                    announce_name!(transaction, name, revision);
                }
            }
            let detail = [("order".to_owned(), word(&when)?.into())].into();
            tell!(transaction, Told { actor, action: "domain.order_changed", tenant: &tenant, name, detail });
            true
        }))
    }
}
