//! Orders at work. Each write is one transaction: the order, what edges must find for it, and what its owner sees.

use contract::api::{CertificateInfo, Who};
use contract::journal::Detail;
use contract::{Bundle, Challenge, ChallengeKind, Hostname};

use super::budgets::spend;
use super::changes::{ANNOUNCE, ANNOUNCE_FAILING, next_cursor};
use super::domains::{TENANT, word};
use super::journal::{OURSELVES, Told, tell};
use super::keys::replace_bundle;
use super::{Store, StoreError, again, from_sql, in_transaction, on, parse, to_sql, write, writing};
use crate::budget::{Shortage, Spend};
use crate::keys::KeySet;
use crate::order::{Job, Lane, PAUSE_SECONDS_MAX, Stage, Status, Step};

/// An order as it was read; writing it fails if somebody else wrote it meanwhile.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    pub job: Job,
    pub(super) version: i64,
    pub(super) holder: String,
}

const KEEP: &str = "UPDATE jobs SET held_until = ? WHERE holder = ?";
const LEAVE: &str = "UPDATE jobs SET holder = '', held_until = 0 WHERE holder = ?";
const RELEASE: &str = "UPDATE jobs SET holder = '', held_until = 0 WHERE domain = ? AND version = ? AND holder = ?";
const PUT_OFF: &str = "UPDATE jobs SET place = ?, holder = '', held_until = 0 WHERE domain = ? AND holder = ?";
/// Of a clock that was wrong: no order waits, or is held, for so long.
const BELIEVE: &str = "UPDATE jobs SET place = CASE WHEN stage NOT IN (?, ?) AND place > ? THEN ? ELSE place END, held_until = 0, holder = '' \
    WHERE (stage NOT IN (?, ?) AND place > ?) OR held_until > ?";
const UPDATE: &str = "UPDATE jobs SET version = version + 1, due_at = ?, step = ?, body = ?, issuer = ?, stage = ?, place = ?, \
    others_at = ?, holder = ?, held_until = ?, lane = CASE WHEN ? THEN ? ELSE lane END \
    WHERE domain = ? AND version = ? AND holder = ?";
const REMOVE: &str = "DELETE FROM jobs WHERE domain = ? AND version = ? AND holder = ?";
pub(super) const SHOW: &str = "UPDATE domains SET state = ?, code = ?, says = ?, who = ?, steps = ?, passed_over = ?, next_check_at = ? WHERE name = ?";
/// Of a domain without a certificate: whom it is ordered from.
const GOES_TO: &str = "UPDATE domains SET issuer = ? WHERE name = ? AND certificate IS NULL";
const SHOW_CERTIFICATE: &str = "UPDATE domains SET issuer = ?, certificate = ?, renew_at = ?, urgent_at = ?, began_at = ?, ends_at = ?, \
    ari_id = ?, ari_at = ?, warn_at = NULL, window_start = NULL, window_end = NULL WHERE name = ?";
pub(super) const FORGET_ANSWERS: &str = "DELETE FROM challenges WHERE domain = ?";
const ANSWER: &str = "INSERT INTO challenges (domain, token, key_authorization, expires_at) VALUES (?, ?, ?, ?)";

impl Store {
    /// An order that could not be worked on, or not be stored: all that is written is when it is its turn again.
    pub async fn put_off(&self, domain: &str, holder: &str, until: u64) -> Result<(), StoreError> {
        writing!(self, pool => sqlx::query(PUT_OFF)
            .bind(to_sql(until)).bind(domain).bind(holder).execute(pool).await.map(drop)?)
    }

    /// Orders that a wrong clock has put off for longer than anything takes are due; how many.
    pub async fn believe_no_wrong_clock(&self, now: u64) -> Result<u64, StoreError> {
        self.believe_no_wrong_hold(now).await?;
        let ([one, other], latest) = (Stage::IN_LINE.map(|stage| stage as i64), to_sql(now + PAUSE_SECONDS_MAX));
        writing!(self, pool => sqlx::query(BELIEVE)
            .bind(one).bind(other).bind(latest).bind(to_sql(now)).bind(one).bind(other).bind(latest).bind(latest)
            .execute(pool).await?.rows_affected())
    }

    /// What stands for a domain's order while the CA looks.
    pub async fn job_answers(&self, domain: &Hostname) -> Result<Vec<Challenge>, StoreError> {
        let query = "SELECT body FROM jobs WHERE domain = ?";
        let body: Option<String> =
            on!(self, pool => sqlx::query_scalar(query).bind(domain.as_str()).fetch_optional(pool).await?);
        let job: Option<Job> = body.map(|body| parse("the order", domain.as_str(), &body)).transpose()?;
        Ok(job.map(|job| job.answers).unwrap_or_default())
    }

    /// Keeps what `holder` works on.
    pub async fn keep_holding(&self, holder: &str, until: u64) -> Result<(), StoreError> {
        writing!(self, pool => sqlx::query(KEEP).bind(to_sql(until)).bind(holder).execute(pool).await.map(drop)?)
    }

    /// Of one that is no more: others may go on at once. How many orders it had.
    pub async fn leave(&self, holder: &str) -> Result<u64, StoreError> {
        self.leave_webhooks(holder).await?;
        writing!(self, pool => sqlx::query(LEAVE).bind(holder).execute(pool).await?.rows_affected())
    }

    pub async fn release(&self, stored: &Stored) -> Result<(), StoreError> {
        let name = stored.job.domain.as_str();
        writing!(self, pool => sqlx::query(RELEASE).bind(name).bind(stored.version).bind(&stored.holder)
            .execute(pool).await.map(drop)?)
    }

    pub async fn jobs_by_step(&self) -> Result<Vec<(String, u64)>, StoreError> {
        let rows: Vec<(String, i64)> =
            on!(self, pool => sqlx::query_as("SELECT step, COUNT(*) FROM jobs GROUP BY step").fetch_all(pool).await?);
        Ok(rows.into_iter().map(|(step, count)| (step, from_sql(count))).collect())
    }

    /// The state of an order that goes on; held until then, or not any more.
    pub async fn save(&self, stored: Stored, job: Job, held_until: Option<u64>) -> Result<Stored, StoreError> {
        let body = self.order_text(&job, &stored.job).await?;
        let saved = again!(self.update(&stored, &job, &body, held_until, &[], 0))?;
        saved.map_err(|_| StoreError::Conflict(job.domain.clone()))?;
        Ok(Stored { version: stored.version + 1, job, holder: stored.holder })
    }

    /// The same, and what it takes from the CA's limits with it; nothing of both where one of them is short.
    pub async fn save_spending(
        &self,
        stored: &Stored,
        job: Job,
        held_until: u64,
        spends: &[Spend],
        now_ms: u64,
    ) -> Result<Result<Stored, Shortage>, StoreError> {
        let body = self.order_text(&job, &stored.job).await?;
        let saved = again!(self.update(stored, &job, &body, Some(held_until), spends, now_ms))?;
        Ok(saved.map(|()| Stored { version: stored.version + 1, job, holder: stored.holder.clone() }))
    }

    async fn update(
        &self,
        stored: &Stored,
        job: &Job,
        body: &str,
        held_until: Option<u64>,
        spends: &[Spend],
        now_ms: u64,
    ) -> Result<Result<(), Shortage>, StoreError> {
        let name = job.domain.as_str();
        let Status { state, code, says, who, steps } = &job.status;
        let (state, who, steps) = (word(state)?, word(who)?, write("the steps", name, steps)?);
        let passed = write("the issuers", name, &job.passed)?;
        let holder = held_until.map_or("", |_| stored.holder.as_str());
        let fails = job.failing_since.filter(|_| stored.job.failing_since.is_none());
        Ok(in_transaction!(self, transaction => {
            let cursor = if fails.is_some() { next_cursor!(transaction) } else { 0 };
            if !spends.is_empty() && let Err(shortage) = spend!(transaction, &job.issuer, spends, now_ms) {
                return Ok(Err(shortage));
            }
            sqlx::query(SHOW)
                .bind(&state).bind(code).bind(says).bind(&who).bind(&steps).bind(&passed).bind(to_sql(job.due_at))
                .bind(name).execute(&mut *transaction).await?;
            if job.issuer != stored.job.issuer {
                sqlx::query(GOES_TO).bind(&job.issuer).bind(name).execute(&mut *transaction).await?;
            }
            let written = sqlx::query(UPDATE)
                .bind(to_sql(job.due_at)).bind(job.step.name()).bind(body)
                .bind(&job.issuer).bind(job.stage() as i64).bind(to_sql(job.place()))
                .bind(job.others_at.map(to_sql)).bind(holder).bind(to_sql(held_until.unwrap_or(0)))
                // Nobody has come for it: it is looked at after all others.
                .bind(job.step == Step::Awaited).bind(Lane::Bulk as i64)
                .bind(name).bind(stored.version).bind(&stored.holder)
                .execute(&mut *transaction).await?.rows_affected();
            check(written, &job.domain)?;
            sqlx::query(FORGET_ANSWERS).bind(name).execute(&mut *transaction).await?;
            for answer in job.answers.iter().filter(|answer| answer.kind != ChallengeKind::Dns01) {
                sqlx::query(ANSWER)
                    .bind(name).bind(&answer.token).bind(&answer.key_authorization).bind(to_sql(answer.expires_at))
                    .execute(&mut *transaction).await?;
            }
            if let Some(since) = fails {
                sqlx::query(ANNOUNCE_FAILING).bind(cursor).bind(to_sql(since)).bind(name)
                    .execute(&mut *transaction).await?;
            }
            if let Some(detail) = turn(&stored.job.status, &job.status) {
                let tenant: String = sqlx::query_scalar(TENANT).bind(name).fetch_one(&mut *transaction).await?;
                tell!(transaction, Told { actor: OURSELVES, action: "domain.state", tenant: &tenant, name, detail });
            }
            Ok(())
        }))
    }

    /// The end of an order that was refused for good, or of one that waits for a visitor.
    pub async fn stop(&self, stored: &Stored, job: &Job) -> Result<(), StoreError> {
        again!(self.end(stored, job, None)).map(drop)
    }

    /// The end of an order that brought a certificate, which is served and shown from here on: the cursor of the change
    /// that tells the edges.
    pub async fn finish(
        &self,
        stored: &Stored,
        job: &Job,
        bundle: &Bundle,
        shown: &CertificateInfo,
        next: &Next,
    ) -> Result<u64, StoreError> {
        let name = job.domain.as_str();
        let (body, keys) = self.put_bundle(bundle).await?;
        let issued = Issued {
            revision: to_sql(bundle.revision),
            bundle: body,
            keys,
            shown: write("the certificate", name, shown)?,
            began_at: to_sql(bundle.not_before),
            ends_at: to_sql(bundle.not_after),
            told: [
                ("issuer".to_owned(), bundle.issuer.clone().into()),
                ("not_after".to_owned(), bundle.not_after.into()),
                ("revision".to_owned(), bundle.revision.into()),
                ("serial".to_owned(), shown.serial.clone().into()),
                ("sha256".to_owned(), shown.sha256.clone().into()),
            ]
            .into(),
            next,
        };
        again!(self.end(stored, job, Some(&issued))).map(from_sql)
    }

    async fn end(&self, stored: &Stored, job: &Job, issued: Option<&Issued<'_>>) -> Result<i64, StoreError> {
        let name = job.domain.as_str();
        let Status { state, code, says, who, steps } = &job.status;
        let (state, who, steps) = (word(state)?, word(who)?, write("the steps", name, steps)?);
        let passed = write("the issuers", name, &job.passed)?;
        Ok(in_transaction!(self, transaction => {
            let cursor = if issued.is_some() { next_cursor!(transaction) } else { 0 };
            sqlx::query(SHOW)
                .bind(&state).bind(code).bind(says).bind(&who).bind(&steps).bind(&passed).bind(None::<i64>)
                .bind(name).execute(&mut *transaction).await?;
            let written = sqlx::query(REMOVE).bind(name).bind(stored.version).bind(&stored.holder)
                .execute(&mut *transaction).await?.rows_affected();
            check(written, &job.domain)?;
            sqlx::query(FORGET_ANSWERS).bind(name).execute(&mut *transaction).await?;
            if let Some(Issued { revision, bundle, keys, shown, began_at, ends_at, next, .. }) = issued {
                replace_bundle!(transaction, name, bundle, keys);
                sqlx::query(SHOW_CERTIFICATE)
                    .bind(&job.issuer).bind(shown).bind(to_sql(next.renew_at)).bind(to_sql(next.urgent_at))
                    .bind(began_at).bind(ends_at)
                    .bind(&next.ari_id).bind(next.ask_at.map(to_sql)).bind(name)
                    .execute(&mut *transaction).await?;
                sqlx::query(ANNOUNCE).bind(cursor).bind(name).bind(revision).execute(&mut *transaction).await?;
            }
            let tenant: String = sqlx::query_scalar(TENANT).bind(name).fetch_one(&mut *transaction).await?;
            let action = if issued.is_some() { "certificate.issued" } else { "domain.state" };
            let detail = issued.map(|issued| issued.told.clone()).or_else(|| turn(&stored.job.status, &job.status));
            if let Some(detail) = detail {
                tell!(transaction, Told { actor: OURSELVES, action, tenant: &tenant, name, detail });
            }
            cursor
        }))
    }
}

/// What an order brought, as it is written.
struct Issued<'a> {
    revision: i64,
    bundle: String,
    /// Those that it is sealed to, where it is counted here.
    keys: Option<KeySet>,
    shown: String,
    began_at: i64,
    ends_at: i64,
    told: Detail,
    next: &'a Next,
}

/// When a certificate is replaced. Unix seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Next {
    pub renew_at: u64,
    /// From then on it can't wait.
    pub urgent_at: u64,
    /// What the CA knows it by (RFC 9773).
    pub ari_id: Option<String>,
    /// When the CA is asked for a better time.
    pub ask_at: Option<u64>,
}

pub(super) fn shown_as(status: &Status) -> Detail {
    let Status { state, code, says, who, .. } = status;
    let value = |part: serde_json::Result<serde_json::Value>| part.unwrap_or_default();
    [
        ("code".to_owned(), code.clone().into()),
        ("says".to_owned(), says.clone().into()),
        ("state".to_owned(), value(serde_json::to_value(state))),
        ("who".to_owned(), value(serde_json::to_value(who))),
    ]
    .into()
}

/// What is told of a status that follows another: that it is another state, or another thing that somebody must do, also
/// while a certificate is still served.
fn turn(before: &Status, after: &Status) -> Option<Detail> {
    let acts = !matches!(after.who, Who::Nobody | Who::CertificateAuthority) && before.code != after.code;
    (before.state != after.state || acts).then(|| shown_as(after))
}

fn check(written: u64, domain: &Hostname) -> Result<(), StoreError> {
    if written == 1 { Ok(()) } else { Err(StoreError::Conflict(domain.clone())) }
}
