//! Domains as their owners see them.

use std::hash::{BuildHasher, RandomState};

use contract::Hostname;
use contract::api::{CertificateInfo, Domain};

use super::changes::LAST_REVISION;
use super::{Store, StoreError, again, from_sql, in_transaction, on, parse, to_sql, write};
use crate::order::{Job, Status};

#[derive(Debug, PartialEq)]
pub enum Registered {
    New(Domain),
    /// It was there; nothing was changed.
    Known(Domain),
}

/// A row of `domains`, in the order of the queries below.
type Row = (String, String, String, String, String, String, String, i64, Option<i64>, Option<String>, Option<String>);

const BY_NAME: &str = "SELECT name, tenant, issuer, state, code, says, who, created_at, next_check_at, certificate, steps \
    FROM domains WHERE name = ?";
const PAGE: &str = "SELECT name, tenant, issuer, state, code, says, who, created_at, next_check_at, certificate, steps \
    FROM domains WHERE name > ? ORDER BY name LIMIT ?";
const TENANT_PAGE: &str = "SELECT name, tenant, issuer, state, code, says, who, created_at, next_check_at, certificate, steps \
    FROM domains WHERE tenant = ? AND name > ? ORDER BY name LIMIT ?";
const DUE_FOR_RENEWAL: &str = "SELECT name, tenant, issuer, state, code, says, who, created_at, next_check_at, certificate, steps \
    FROM domains WHERE renew_at <= ? AND NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.domain = domains.name) \
    ORDER BY renew_at LIMIT ?";
const INSERT: &str = "INSERT INTO domains \
    (name, tenant, issuer, state, code, says, who, steps, created_at, next_check_at) \
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
const HOLD: &str = "UPDATE domains SET created_at = created_at WHERE name = ?";
const INSERT_JOB: &str = "INSERT INTO jobs (domain, version, due_at, step, body) VALUES (?, ?, ?, ?, ?)";

/// An order, numbered above all that edges may have of its domain, whose row is held: nobody announces one meanwhile.
macro_rules! insert_job {
    ($transaction:ident, $job:ident) => {{
        let name = $job.domain.as_str();
        let last: Option<i64> = sqlx::query_scalar(LAST_REVISION).bind(name).fetch_optional(&mut *$transaction).await?;
        let body = write("the order", name, &Job { revision: from_sql(last.unwrap_or(0)) + 1, ..$job.clone() })?;
        sqlx::query(INSERT_JOB)
            .bind(name)
            .bind(first_version())
            .bind(to_sql($job.due_at))
            .bind($job.step.name())
            .bind(&body)
            .execute(&mut *$transaction)
            .await
    }};
}

impl Store {
    /// A domain and its first order, both or neither. The store numbers what orders bring.
    pub async fn register(&self, tenant: &str, job: &Job) -> Result<Registered, StoreError> {
        match again!(self.insert(tenant, job)) {
            Ok(()) => {}
            Err(StoreError::Database(error)) if is_duplicate(&error) => {
                let known = self.domain(&job.domain).await?;
                return Ok(Registered::Known(known.ok_or(sqlx::Error::RowNotFound)?));
            }
            Err(error) => return Err(error),
        }
        let new = self.domain(&job.domain).await?;
        Ok(Registered::New(new.ok_or(sqlx::Error::RowNotFound)?))
    }

    async fn insert(&self, tenant: &str, job: &Job) -> Result<(), StoreError> {
        let name = job.domain.as_str();
        let Status { state, code, says, who, steps } = &job.status;
        let (state, who, steps) = (word(state)?, word(who)?, write("the steps", name, steps)?);
        let (created_at, due_at) = (to_sql(job.created_at), to_sql(job.due_at));
        in_transaction!(self, transaction => {
            sqlx::query(INSERT)
                .bind(name).bind(tenant).bind(&job.issuer)
                .bind(&state).bind(code).bind(says).bind(&who).bind(&steps)
                .bind(created_at).bind(due_at)
                .execute(&mut *transaction).await?;
            insert_job!(transaction, job)?;
        });
        Ok(())
    }

    /// An order for a domain that is known; `false` if it has one already, or is gone.
    pub async fn enqueue(&self, job: &Job) -> Result<bool, StoreError> {
        again!(self.insert_order(job))
    }

    async fn insert_order(&self, job: &Job) -> Result<bool, StoreError> {
        in_transaction!(self, transaction => {
            let held = sqlx::query(HOLD).bind(job.domain.as_str()).execute(&mut *transaction).await?.rows_affected();
            if held == 0 {
                return Ok(false);
            }
            match insert_job!(transaction, job) {
                Ok(_) => {}
                Err(error) if is_duplicate(&error) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        });
        Ok(true)
    }

    pub async fn domain(&self, name: &Hostname) -> Result<Option<Domain>, StoreError> {
        let row: Option<Row> =
            on!(self, pool => sqlx::query_as(BY_NAME).bind(name.as_str()).fetch_optional(pool).await?);
        row.map(domain).transpose()
    }

    /// In order of name, those that come `after`, of one tenant or of all.
    pub async fn domains(&self, tenant: Option<&str>, after: &str, limit: u32) -> Result<Vec<Domain>, StoreError> {
        let rows: Vec<Row> = match tenant {
            Some(tenant) => on!(self, pool => sqlx::query_as(TENANT_PAGE)
                .bind(tenant).bind(after).bind(i64::from(limit)).fetch_all(pool).await?),
            None => on!(self, pool => sqlx::query_as(PAGE)
                .bind(after).bind(i64::from(limit)).fetch_all(pool).await?),
        };
        rows.into_iter().map(domain).collect()
    }

    /// Domains whose renewal time has come and that have no order yet, longest due first.
    pub async fn renewals(&self, now: u64, limit: u32) -> Result<Vec<Domain>, StoreError> {
        let rows: Vec<Row> = on!(self, pool => sqlx::query_as(DUE_FOR_RENEWAL)
            .bind(to_sql(now)).bind(i64::from(limit)).fetch_all(pool).await?);
        rows.into_iter().map(domain).collect()
    }
}

/// Unlike that of any other order: who still works on one that went with its domain can't take a later one for it.
fn first_version() -> i64 {
    to_sql(RandomState::new().hash_one("version") >> 2)
}

fn is_duplicate(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.is_unique_violation())
}

fn domain(row: Row) -> Result<Domain, StoreError> {
    let (name, tenant, issuer, state, code, says, who, created_at, next_check_at, certificate, steps) = row;
    let damaged = |what| StoreError::Damaged("the domain", name.clone(), format!("{what} is not known"));
    let certificate = certificate.map(|body| parse::<CertificateInfo>("the certificate", &name, &body)).transpose()?;
    let steps = steps.map(|body| parse("the steps", &name, &body)).transpose()?;
    Ok(Domain {
        name: Hostname::parse(&name).map_err(|_| damaged("its name"))?,
        tenant,
        issuer,
        state: serde_json::from_value(state.into()).map_err(|_| damaged("its state"))?,
        code,
        says,
        who: serde_json::from_value(who.into()).map_err(|_| damaged("its culprit"))?,
        created_at: from_sql(created_at),
        next_check_at: next_check_at.map(from_sql),
        certificate,
        steps: steps.unwrap_or_default(),
    })
}

/// The one word that an API enum is written as.
pub(super) fn word(value: &impl serde::Serialize) -> Result<String, StoreError> {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => Ok(word),
        _ => Err(StoreError::Damaged("a state", String::new(), "it is not a word".to_owned())),
    }
}
