//! Domains as their owners see them.

use std::hash::{BuildHasher, RandomState};

use contract::Hostname;
use contract::api::{CertificateInfo, Domain, State};

use super::changes::LAST_REVISION;
use super::{Store, StoreError, again, from_sql, in_transaction, on, parse, to_sql, write};
use crate::order::{Job, Status};

#[derive(Debug, PartialEq)]
pub enum Registered {
    New(Domain),
    /// It was there; nothing was changed.
    Known(Domain),
}

/// Which domains are wanted; nothing is all.
#[derive(Debug, Clone, Copy, Default)]
pub struct Filter<'a> {
    pub state: Option<State>,
    pub tenant: Option<&'a str>,
    /// Unix seconds; of their certificates.
    pub ends_before: Option<u64>,
}

/// A row of `domains`, in the order of the queries below.
type Row = (String, String, String, String, String, String, String, i64, Option<i64>, Option<String>, Option<String>);

const BY_NAME: &str = "SELECT name, tenant, issuer, state, code, says, who, created_at, next_check_at, certificate, steps \
    FROM domains WHERE name = ?";
const PAGE: &str = "SELECT name, tenant, issuer, state, code, says, who, created_at, next_check_at, certificate, steps \
    FROM domains WHERE name > ? ORDER BY name LIMIT ?";
const TENANT_PAGE: &str = "SELECT name, tenant, issuer, state, code, says, who, created_at, next_check_at, certificate, steps \
    FROM domains WHERE tenant = ? AND name > ? ORDER BY name LIMIT ?";
const STATE_PAGE: &str = "SELECT name, tenant, issuer, state, code, says, who, created_at, next_check_at, certificate, steps \
    FROM domains WHERE state = ? AND name > ? AND (? = '' OR tenant = ?) ORDER BY name LIMIT ?";
const END_PAGE: &str = "SELECT name, tenant, issuer, state, code, says, who, created_at, next_check_at, certificate, steps \
    FROM domains WHERE ends_at >= ? AND ends_at < ? AND (ends_at > ? OR name > ?) AND (? = '' OR tenant = ?) \
    AND (? = '' OR state = ?) ORDER BY ends_at, name LIMIT ?";
const INSERT: &str = "INSERT INTO domains \
    (name, tenant, issuer, state, code, says, who, steps, created_at, next_check_at) \
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
const HOLD: &str = "UPDATE domains SET created_at = created_at WHERE name = ?";
const INSERT_JOB: &str = "INSERT INTO jobs \
    (domain, version, due_at, step, body, issuer, stage, lane, place) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)";

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
            .bind(&$job.issuer)
            .bind($job.stage() as i64)
            .bind($job.lane as i64)
            .bind(to_sql($job.place()))
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

    /// Those that come after a name, in order of name; of those that end before a time, after an end and a name.
    pub async fn domains(
        &self,
        filter: &Filter<'_>,
        (end, name): (u64, &str),
        limit: u32,
    ) -> Result<Vec<Domain>, StoreError> {
        let limit = i64::from(limit);
        let state = filter.state.as_ref().map(word).transpose()?.unwrap_or_default();
        let tenant = filter.tenant.unwrap_or_default();
        let rows: Vec<Row> = match (filter.ends_before, filter.state, filter.tenant) {
            (Some(before), ..) => on!(self, pool => sqlx::query_as(END_PAGE)
                .bind(to_sql(end)).bind(to_sql(before)).bind(to_sql(end)).bind(name)
                .bind(tenant).bind(tenant).bind(&state).bind(&state).bind(limit).fetch_all(pool).await?),
            (None, Some(_), _) => on!(self, pool => sqlx::query_as(STATE_PAGE)
                .bind(&state).bind(name).bind(tenant).bind(tenant).bind(limit).fetch_all(pool).await?),
            (None, None, Some(tenant)) => on!(self, pool => sqlx::query_as(TENANT_PAGE)
                .bind(tenant).bind(name).bind(limit).fetch_all(pool).await?),
            (None, None, None) => on!(self, pool => sqlx::query_as(PAGE)
                .bind(name).bind(limit).fetch_all(pool).await?),
        };
        rows.into_iter().map(domain).collect()
    }
}

/// Unlike that of any other order: who still works on one that went with its domain can't take a later one for it.
fn first_version() -> i64 {
    to_sql(RandomState::new().hash_one("version") >> 2)
}

pub(super) fn is_duplicate(error: &sqlx::Error) -> bool {
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
