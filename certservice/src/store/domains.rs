//! Domains: registered, and their orders asked for.

use std::hash::{BuildHasher, RandomState};

use contract::Hostname;
use contract::api::Domain;

use super::journal::{Told, tell};
use super::visits::hold_feed;
use super::{Store, StoreError, again, from_sql, in_transaction, on, to_sql, write};
use crate::budget::registered_domain;
use crate::order::Job;

#[derive(Debug, PartialEq)]
pub enum Registered {
    New(Domain),
    /// It was there; nothing was changed.
    Known(Domain),
    /// Another tenant has the wildcard that covers it, or what it covers.
    Taken,
    /// Its registered domain has as many names as it may.
    TooMany,
}

/// What became of one within a transaction.
pub(super) enum Registration {
    New,
    Known { tenant: String },
    Taken,
    TooMany,
}

pub(super) const INSERT: &str = "INSERT INTO domains \
    (name, tenant, issuer, state, code, says, who, steps, created_at, next_check_at, registered, list_id, issuers, \
    profile, on_visit) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
pub(super) const TENANT: &str = "SELECT tenant FROM domains WHERE name = ?";
pub(super) const NAMES: &str = "SELECT COUNT(*) FROM domains WHERE registered = ? AND tenant = ?";
pub(super) const RELATED: &str = "SELECT tenant FROM domains WHERE name IN (?, ?) AND tenant <> ? LIMIT 1";
pub(super) const JOIN_LIST: &str = "UPDATE domains SET list_id = ? WHERE name = ? AND tenant = ?";
const UNSORTED: &str = "SELECT name FROM domains WHERE registered = '' LIMIT ?";
const SORT: &str = "UPDATE domains SET registered = ? WHERE name = ?";
pub(super) const HOLD: &str = "UPDATE domains SET created_at = created_at WHERE name = ?";
pub(super) const INSERT_JOB: &str = "INSERT INTO jobs \
    (domain, version, due_at, step, body, issuer, stage, lane, place, created_at) \
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

/// An order, numbered above all that edges may have of its domain, whose row is held.
macro_rules! insert_job {
    ($transaction:ident, $job:ident) => {{
        let name = $job.domain.as_str();
        let revision = $crate::store::changes::next_revision!($transaction, name);
        let body = write("the order", name, &Job { revision, ..$job.clone() })?;
        sqlx::query($crate::store::domains::INSERT_JOB)
            .bind(name)
            .bind($crate::store::domains::first_version())
            .bind(to_sql($job.due_at))
            .bind($job.step.name())
            .bind(&body)
            .bind(&$job.issuer)
            .bind($job.stage() as i64)
            .bind($job.lane as i64)
            .bind(to_sql($job.place()))
            .bind(to_sql($job.created_at))
            .execute(&mut *$transaction)
            .await
    }};
}

pub(super) use insert_job;

/// A domain and its first order, where it is new and its registered domain has room. Several at once may go a few
/// beyond that: it is a bound against fan-out, not a price.
macro_rules! insert_new {
    ($transaction:ident, $tenant:expr, $job:expr, $names_max:expr, $list:expr, $actor:expr) => {{
        use $crate::order::Step;
        use $crate::store::domains::{
            INSERT, JOIN_LIST, NAMES, RELATED, Registration, TENANT, is_duplicate, own, word,
        };
        use $crate::store::visits::announce_name;
        let (tenant, job, list): (&str, &Job, Option<&str>) = ($tenant, $job, $list);
        let name = job.domain.as_str();
        let registered = $crate::budget::registered_domain(&job.domain);
        let known: Option<String> = sqlx::query_scalar(TENANT).bind(name).fetch_optional(&mut *$transaction).await?;
        let names: i64 = match ($names_max, &known) {
            (1.., None) => {
                sqlx::query_scalar(NAMES).bind(registered).bind(tenant).fetch_one(&mut *$transaction).await?
            }
            _ => -1,
        };
        // Whoever holds a wildcard has pointed all names below it here: their challenges would reach us for anybody.
        let (above, beside) = $crate::intake::related(&job.domain);
        let taken: Option<String> = match &known {
            Some(_) => None,
            None => {
                let related = sqlx::query_scalar(RELATED).bind(above).bind(beside).bind(tenant);
                related.fetch_optional(&mut *$transaction).await?
            }
        };
        match known {
            Some(known) => {
                if list.is_some() {
                    let join = sqlx::query(JOIN_LIST).bind(list).bind(name).bind(tenant);
                    join.execute(&mut *$transaction).await?;
                }
                Registration::Known { tenant: known }
            }
            None if taken.is_some() => Registration::Taken,
            None if names >= to_sql($names_max) => Registration::TooMany,
            None => {
                let $crate::order::Status { state, code, says, who, steps } = &job.status;
                let (state, who, steps) = (word(state)?, word(who)?, write("the steps", name, steps)?);
                let inserted = sqlx::query(INSERT)
                    .bind(name)
                    .bind(tenant)
                    .bind(&job.issuer)
                    .bind(&state)
                    .bind(code)
                    .bind(says)
                    .bind(&who)
                    .bind(&steps)
                    .bind(to_sql(job.created_at))
                    .bind(to_sql(job.due_at))
                    .bind(registered)
                    .bind(list)
                    .bind(own(name, &job.issuers)?)
                    .bind(&job.profile)
                    .bind(job.step == Step::Awaited)
                    .execute(&mut *$transaction)
                    .await;
                match inserted {
                    Ok(_) => {
                        insert_job!($transaction, job)?;
                        if job.step == Step::Awaited {
                            let revision = $crate::store::changes::next_revision!($transaction, name);
                            announce_name!($transaction, name, revision);
                        }
                        let detail = [("issuer".to_owned(), job.issuer.clone().into())].into();
                        tell!($transaction, Told { actor: $actor, action: "domain.registered", tenant, name, detail });
                        Registration::New
                    }
                    // Somebody else was faster, and is done.
                    Err(error) if is_duplicate(&error) => {
                        let tenant = sqlx::query_scalar(TENANT).bind(name).fetch_one(&mut *$transaction).await?;
                        Registration::Known { tenant }
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }};
}
pub(super) use insert_new;

/// Names that are sorted to their registered domains at once.
const SORT_BATCH: i64 = 1000;

impl Store {
    /// Of domains that were registered before there were bounds: to which registered domain they belong.
    pub(super) async fn sort_names(&self) -> Result<(), StoreError> {
        loop {
            let names: Vec<String> =
                on!(self, pool => sqlx::query_scalar(UNSORTED).bind(SORT_BATCH).fetch_all(pool).await?);
            if names.is_empty() {
                return Ok(());
            }
            again!(self.sort(&names))?;
        }
    }

    async fn sort(&self, names: &[String]) -> Result<(), StoreError> {
        in_transaction!(self, transaction => {
            for name in names {
                let registered = Hostname::parse_domain(name).map(|name| registered_domain(&name).to_owned());
                let registered = registered.unwrap_or_else(|_| name.clone());
                sqlx::query(SORT).bind(registered).bind(name).execute(&mut *transaction).await?;
            }
        });
        Ok(())
    }

    /// A domain and its first order, both or neither. The store numbers what orders bring. With `names_max` 0 there is no
    /// bound.
    pub async fn register(
        &self,
        tenant: &str,
        job: &Job,
        names_max: u64,
        actor: &str,
    ) -> Result<Registered, StoreError> {
        let done = again!(self.insert(tenant, job, names_max, actor))?;
        let domain = async || self.domain(&job.domain).await?.ok_or(StoreError::from(sqlx::Error::RowNotFound));
        Ok(match done {
            Registration::New => Registered::New(domain().await?),
            Registration::Known { .. } => Registered::Known(domain().await?),
            Registration::Taken => Registered::Taken,
            Registration::TooMany => Registered::TooMany,
        })
    }

    async fn insert(&self, tenant: &str, job: &Job, names_max: u64, actor: &str) -> Result<Registration, StoreError> {
        Ok(in_transaction!(self, transaction => {
            hold_feed!(transaction, [job]);
            insert_new!(transaction, tenant, job, names_max, None, actor)
        }))
    }
}

/// Unlike that of any other order: who still works on one that went with its domain can't take a later one for it.
pub(super) fn first_version() -> i64 {
    to_sql(RandomState::new().hash_one("version") >> 2)
}

pub(super) fn is_duplicate(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.is_unique_violation())
}

/// A domain's own order of preference, as it is stored: nothing where it has none.
pub(super) fn own(name: &str, issuers: &[String]) -> Result<Option<String>, StoreError> {
    if issuers.is_empty() { Ok(None) } else { write("the issuers", name, &issuers).map(Some) }
}

/// The one word that an API enum is written as.
pub(super) fn word(value: &impl serde::Serialize) -> Result<String, StoreError> {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => Ok(word),
        _ => Err(StoreError::Damaged("a state", String::new(), "it is not a word".to_owned())),
    }
}
