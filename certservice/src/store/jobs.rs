//! Orders at work. Each write is one transaction: the order, what edges must find for it, and what its owner sees.

use contract::api::CertificateInfo;
use contract::{Bundle, Challenge, Hostname};

use super::changes::{ANNOUNCE, next_cursor};
use super::domains::word;
use super::{Store, StoreError, again, from_sql, in_transaction, on, parse, to_sql, write};
use crate::order::{Job, Status};

/// An order as it was read; writing it fails if somebody else wrote it meanwhile.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    pub job: Job,
    version: i64,
}

const DUE: &str = "SELECT domain, version, body FROM jobs WHERE due_at <= ? ORDER BY due_at, domain LIMIT ?";
const UPDATE: &str =
    "UPDATE jobs SET version = version + 1, due_at = ?, step = ?, body = ? WHERE domain = ? AND version = ?";
const REMOVE: &str = "DELETE FROM jobs WHERE domain = ? AND version = ?";
const SHOW: &str =
    "UPDATE domains SET state = ?, code = ?, says = ?, who = ?, steps = ?, next_check_at = ? WHERE name = ?";
const SHOW_CERTIFICATE: &str = "UPDATE domains SET certificate = ?, renew_at = ? WHERE name = ?";
const REPLACE_BUNDLE: &str = "REPLACE INTO bundles (domain, body) VALUES (?, ?)";
const FORGET_ANSWERS: &str = "DELETE FROM challenges WHERE domain = ?";
const ANSWER: &str = "INSERT INTO challenges (domain, token, key_authorization, expires_at) VALUES (?, ?, ?, ?)";

impl Store {
    /// Orders whose time has come, longest due first.
    pub async fn due(&self, now: u64, limit: u32) -> Result<Vec<Stored>, StoreError> {
        let rows: Vec<(String, i64, String)> =
            on!(self, pool => sqlx::query_as(DUE).bind(to_sql(now)).bind(i64::from(limit)).fetch_all(pool).await?);
        let stored = |(domain, version, body): (String, i64, String)| {
            Ok(Stored { job: parse("the order", &domain, &body)?, version })
        };
        rows.into_iter().map(stored).collect()
    }

    /// What stands for a domain's order while the CA looks.
    pub async fn job_answers(&self, domain: &Hostname) -> Result<Vec<Challenge>, StoreError> {
        let query = "SELECT body FROM jobs WHERE domain = ?";
        let body: Option<String> =
            on!(self, pool => sqlx::query_scalar(query).bind(domain.as_str()).fetch_optional(pool).await?);
        let job: Option<Job> = body.map(|body| parse("the order", domain.as_str(), &body)).transpose()?;
        Ok(job.map(|job| job.answers).unwrap_or_default())
    }

    /// When the next order has to be looked at.
    pub async fn next_due_at(&self) -> Result<Option<u64>, StoreError> {
        let due: Option<i64> =
            on!(self, pool => sqlx::query_scalar("SELECT MIN(due_at) FROM jobs").fetch_one(pool).await?);
        Ok(due.map(from_sql))
    }

    pub async fn jobs_by_step(&self) -> Result<Vec<(String, u64)>, StoreError> {
        let rows: Vec<(String, i64)> =
            on!(self, pool => sqlx::query_as("SELECT step, COUNT(*) FROM jobs GROUP BY step").fetch_all(pool).await?);
        Ok(rows.into_iter().map(|(step, count)| (step, from_sql(count))).collect())
    }

    /// The state of an order that goes on.
    pub async fn save(&self, stored: Stored, job: Job) -> Result<Stored, StoreError> {
        again!(self.update(&stored, &job))?;
        Ok(Stored { version: stored.version + 1, job })
    }

    async fn update(&self, stored: &Stored, job: &Job) -> Result<(), StoreError> {
        let name = job.domain.as_str();
        let body = write("the order", name, job)?;
        let Status { state, code, says, who, steps } = &job.status;
        let (state, who, steps) = (word(state)?, word(who)?, write("the steps", name, steps)?);
        in_transaction!(self, transaction => {
            sqlx::query(SHOW)
                .bind(&state).bind(code).bind(says).bind(&who).bind(&steps).bind(to_sql(job.due_at)).bind(name)
                .execute(&mut *transaction).await?;
            let written = sqlx::query(UPDATE)
                .bind(to_sql(job.due_at)).bind(job.step.name()).bind(&body).bind(name).bind(stored.version)
                .execute(&mut *transaction).await?.rows_affected();
            check(written, &job.domain)?;
            sqlx::query(FORGET_ANSWERS).bind(name).execute(&mut *transaction).await?;
            for answer in &job.answers {
                sqlx::query(ANSWER)
                    .bind(name).bind(&answer.token).bind(&answer.key_authorization).bind(to_sql(answer.expires_at))
                    .execute(&mut *transaction).await?;
            }
        });
        Ok(())
    }

    /// The end of an order that was refused for good.
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
        renew_at: u64,
    ) -> Result<u64, StoreError> {
        let name = job.domain.as_str();
        let issued = Issued {
            revision: to_sql(bundle.revision),
            bundle: write("the bundle", name, bundle)?,
            shown: write("the certificate", name, shown)?,
            renew_at: to_sql(renew_at),
        };
        again!(self.end(stored, job, Some(&issued))).map(from_sql)
    }

    async fn end(&self, stored: &Stored, job: &Job, issued: Option<&Issued>) -> Result<i64, StoreError> {
        let name = job.domain.as_str();
        let Status { state, code, says, who, steps } = &job.status;
        let (state, who, steps) = (word(state)?, word(who)?, write("the steps", name, steps)?);
        Ok(in_transaction!(self, transaction => {
            let cursor = if issued.is_some() { next_cursor!(transaction) } else { 0 };
            sqlx::query(SHOW)
                .bind(&state).bind(code).bind(says).bind(&who).bind(&steps).bind(None::<i64>).bind(name)
                .execute(&mut *transaction).await?;
            let written = sqlx::query(REMOVE).bind(name).bind(stored.version)
                .execute(&mut *transaction).await?.rows_affected();
            check(written, &job.domain)?;
            sqlx::query(FORGET_ANSWERS).bind(name).execute(&mut *transaction).await?;
            if let Some(Issued { revision, bundle, shown, renew_at }) = issued {
                sqlx::query(REPLACE_BUNDLE).bind(name).bind(bundle).execute(&mut *transaction).await?;
                sqlx::query(SHOW_CERTIFICATE).bind(shown).bind(renew_at).bind(name)
                    .execute(&mut *transaction).await?;
                sqlx::query(ANNOUNCE).bind(cursor).bind(name).bind(revision).execute(&mut *transaction).await?;
            }
            cursor
        }))
    }
}

/// What an order brought, as it is written.
struct Issued {
    revision: i64,
    bundle: String,
    shown: String,
    renew_at: i64,
}

fn check(written: u64, domain: &Hostname) -> Result<(), StoreError> {
    if written == 1 { Ok(()) } else { Err(StoreError::Conflict(domain.clone())) }
}
