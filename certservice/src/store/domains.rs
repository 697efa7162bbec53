//! Domains as their owners see them.

use std::hash::{BuildHasher, RandomState};

use contract::Hostname;
use contract::api::{CertificateInfo, Domain, OrderWhen, State};
use contract::journal::Detail;

use super::journal::{Told, tell};
use super::visits::{AWAITED_JOB, hold_feed, requeue};
use super::{Store, StoreError, again, from_sql, in_transaction, on, parse, to_sql, write};
use crate::budget::registered_domain;
use crate::order::{Job, Stage};

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

/// Which domains are wanted; nothing is all.
#[derive(Debug, Clone, Copy, Default)]
pub struct Filter<'a> {
    pub state: Option<State>,
    pub tenant: Option<&'a str>,
    /// Unix seconds; of their certificates.
    pub ends_before: Option<u64>,
}

/// A row of `domains`, in the order of the queries below.
type Text = Option<String>;
type Row =
    (String, String, String, String, String, String, String, i64, Option<i64>, Text, Text, Text, Text, Text, bool);

const BY_NAME: &str = "SELECT name, tenant, issuer, state, code, says, who, created_at, next_check_at, certificate, steps, \
    issuers, passed_over, profile, on_visit \
    FROM domains WHERE name = ?";
const PAGE: &str = "SELECT name, tenant, issuer, state, code, says, who, created_at, next_check_at, certificate, steps, \
    issuers, passed_over, profile, on_visit \
    FROM domains WHERE name > ? ORDER BY name LIMIT ?";
const TENANT_PAGE: &str = "SELECT name, tenant, issuer, state, code, says, who, created_at, next_check_at, certificate, steps, \
    issuers, passed_over, profile, on_visit \
    FROM domains WHERE tenant = ? AND name > ? ORDER BY name LIMIT ?";
const STATE_PAGE: &str = "SELECT name, tenant, issuer, state, code, says, who, created_at, next_check_at, certificate, steps, \
    issuers, passed_over, profile, on_visit \
    FROM domains WHERE state = ? AND name > ? AND (? = '' OR tenant = ?) ORDER BY name LIMIT ?";
const END_PAGE: &str = "SELECT name, tenant, issuer, state, code, says, who, created_at, next_check_at, certificate, steps, \
    issuers, passed_over, profile, on_visit \
    FROM domains WHERE ends_at >= ? AND ends_at < ? AND (ends_at > ? OR name > ?) AND (? = '' OR tenant = ?) \
    AND (? = '' OR state = ?) ORDER BY ends_at, name LIMIT ?";
pub(super) const INSERT: &str = "INSERT INTO domains \
    (name, tenant, issuer, state, code, says, who, steps, created_at, next_check_at, registered, list_id, issuers, \
    profile, on_visit) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
pub(super) const TENANT: &str = "SELECT tenant FROM domains WHERE name = ?";
pub(super) const NAMES: &str = "SELECT COUNT(*) FROM domains WHERE registered = ? AND tenant = ?";
pub(super) const RELATED: &str = "SELECT tenant FROM domains WHERE name IN (?, ?) AND tenant <> ? LIMIT 1";
pub(super) const JOIN_LIST: &str = "UPDATE domains SET list_id = ? WHERE name = ? AND tenant = ?";
const EXPEDITE: &str = "UPDATE jobs SET place = ? WHERE domain = ? AND stage = ?";
const HAS_JOB: &str = "SELECT version FROM jobs WHERE domain = ?";
const UNSORTED: &str = "SELECT name FROM domains WHERE registered = '' LIMIT ?";
const SORT: &str = "UPDATE domains SET registered = ? WHERE name = ?";
const HOLD: &str = "UPDATE domains SET created_at = created_at WHERE name = ?";
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
                            announce_name!($transaction, name);
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

    /// An order that somebody asks for: a new one, or the one that waits for another try is tried now; one that is under way or
    /// in line is left alone. `false` if there is no such domain.
    pub async fn order_now(
        &self,
        job: &Job,
        actor: &str,
        action: &'static str,
        detail: &Detail,
    ) -> Result<bool, StoreError> {
        again!(self.order_now_once(job, actor, action, detail))
    }

    async fn order_now_once(
        &self,
        job: &Job,
        actor: &str,
        action: &'static str,
        detail: &Detail,
    ) -> Result<bool, StoreError> {
        let name = job.domain.as_str();
        in_transaction!(self, transaction => {
            sqlx::query(HOLD).bind(name).execute(&mut *transaction).await?;
            let tenant: Option<String> = sqlx::query_scalar(TENANT).bind(name).fetch_optional(&mut *transaction).await?;
            let Some(tenant) = tenant else { return Ok(false) };
            let awaited: Option<String> =
                sqlx::query_scalar(AWAITED_JOB).bind(name).fetch_optional(&mut *transaction).await?;
            if let Some(body) = awaited {
                let awaited: Job = parse("the order", name, &body)?;
                requeue!(transaction, awaited.begun(job.created_at));
            }
            let hurried = sqlx::query(EXPEDITE)
                .bind(to_sql(job.due_at)).bind(name).bind(Stage::ToCheck as i64).execute(&mut *transaction).await?;
            let waits: Option<i64> =
                sqlx::query_scalar(HAS_JOB).bind(name).fetch_optional(&mut *transaction).await?;
            if hurried.rows_affected() == 0 && waits.is_none() {
                insert_job!(transaction, job)?;
            }
            tell!(transaction, Told { actor, action, tenant: &tenant, name, detail: detail.clone() });
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
pub(super) fn first_version() -> i64 {
    to_sql(RandomState::new().hash_one("version") >> 2)
}

pub(super) fn is_duplicate(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.is_unique_violation())
}

fn domain(row: Row) -> Result<Domain, StoreError> {
    let (
        name,
        tenant,
        issuer,
        state,
        code,
        says,
        who,
        created_at,
        next_check_at,
        certificate,
        steps,
        issuers,
        passed,
        profile,
        on_visit,
    ) = row;
    let damaged = |what| StoreError::Damaged("the domain", name.clone(), format!("{what} is not known"));
    let certificate = certificate.map(|body| parse::<CertificateInfo>("the certificate", &name, &body)).transpose()?;
    let steps = steps.map(|body| parse("the steps", &name, &body)).transpose()?;
    let issuers = issuers.map(|body| parse("the issuers", &name, &body)).transpose()?;
    let passed = passed.map(|body| parse("the issuers", &name, &body)).transpose()?;
    Ok(Domain {
        name: Hostname::parse_domain(&name).map_err(|_| damaged("its name"))?,
        tenant,
        issuer,
        issuers: issuers.unwrap_or_default(),
        profile,
        order: if on_visit { OrderWhen::FirstVisit } else { OrderWhen::Now },
        passed_over: passed.unwrap_or_default(),
        state: serde_json::from_value(state.into()).map_err(|_| damaged("its state"))?,
        code,
        says,
        who: serde_json::from_value(who.into()).map_err(|_| damaged("its culprit"))?,
        created_at: from_sql(created_at),
        next_check_at: next_check_at.map(from_sql),
        certificate,
        steps: steps.unwrap_or_default(),
        page: None,
    })
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
