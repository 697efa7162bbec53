//! Lists of domains on their way in: their lines, until they are worked off, and what was wrong with which.

use std::hash::{BuildHasher, RandomState};

use contract::Hostname;
use contract::api::{DomainCount, DomainList, ListError};
use contract::journal::Detail;

use super::domains::{Registration, insert_job, insert_new, is_duplicate};
use super::journal::{Told, tell};
use super::visits::hold_feed;
use super::{Store, StoreError, again, from_sql, in_transaction, on, parse, to_sql, write, writing};
use crate::intake::{Format, Refusal, Wanted, says_taken};
use crate::order::Job;

/// Errors of one list that are kept.
const ERRORS_MAX: i64 = 10_000;

/// A list as it begins.
#[derive(Debug, Clone)]
pub struct NewList<'a> {
    /// The tenant that the caller is confined to; empty for none.
    pub own_tenant: &'a str,
    /// Who sends the same again gets the same list.
    pub key: Option<&'a str>,
    pub format: Format,
    /// For what lines leave out.
    pub others: &'a Wanted,
    /// Who sends it.
    pub actor: &'a str,
}

/// Lines of a list, the first of which has the number `first_line`.
#[derive(Debug, Clone)]
pub struct Part {
    pub list: String,
    pub first_line: u64,
    pub body: String,
    pub own_tenant: String,
    pub format: Format,
    pub others: Wanted,
    pub actor: String,
}

/// What a part came to.
#[derive(Debug, Clone, Default)]
pub struct PartDone {
    pub lines: u64,
    /// Line, tenant, first order.
    pub new: Vec<(u64, String, Job)>,
    pub refused: Vec<(u64, Refusal)>,
    pub names_max: u64,
}

const BEGIN: &str = "INSERT INTO lists \
    (id, own_tenant, idem_key, format, others, created_at, arrived, line_count, done, registered, known, refused, actor) \
    VALUES (?, ?, ?, ?, ?, ?, 0, 0, 0, 0, 0, 0, ?)";
const OF_KEY: &str = "SELECT id FROM lists WHERE idem_key = ?";
const ADD: &str = "INSERT INTO list_parts (list_id, first_line, body) VALUES (?, ?, ?)";
const ARRIVED: &str = "UPDATE lists SET arrived = 1, line_count = ? WHERE id = ?";
const REMOVE: &str = "DELETE FROM lists WHERE id = ?";
const REMOVE_BROKEN_OFF: &str = "DELETE FROM lists WHERE id = ? AND arrived = 0 AND created_at < ?";
const ARRIVES: &str = "UPDATE lists SET created_at = ? WHERE id = ? AND arrived = 0";
const FORGET: &str = "DELETE FROM lists WHERE created_at < ? OR (arrived = 0 AND created_at < ?)";
const NEXT: &str = "SELECT list_parts.list_id, first_line, body, own_tenant, format, others, actor FROM list_parts \
    JOIN lists ON lists.id = list_parts.list_id WHERE arrived = 1 ORDER BY done, created_at, list_id, first_line LIMIT 1";
const TAKE: &str = "DELETE FROM list_parts WHERE list_id = ? AND first_line = ?";
const COUNT: &str = "UPDATE lists SET done = done + ?, registered = registered + ?, known = known + ?, refused = refused + ? \
    WHERE id = ?";
const REFUSE: &str = "INSERT INTO list_errors (list_id, line, name, code, says) VALUES (?, ?, ?, ?, ?)";
const REFUSED: &str = "SELECT refused FROM lists WHERE id = ?";
const SHOW: &str = "SELECT created_at, arrived, line_count, done, registered, known, refused FROM lists \
    WHERE id = ? AND (? = '' OR own_tenant = ?)";
const STATES: &str = "SELECT state, code, COUNT(*) FROM domains WHERE list_id = ? GROUP BY state, code";
const ERRORS: &str =
    "SELECT line, name, code, says FROM list_errors WHERE list_id = ? AND line > ? ORDER BY line LIMIT ?";

impl Store {
    /// The list, and whether it is new.
    pub async fn begin_list(&self, new: &NewList<'_>, now: u64) -> Result<(String, bool), StoreError> {
        // A caller's keys are its own.
        let key = new.key.map(|key| format!("{}/{key}", new.own_tenant));
        let id = format!("{:016x}", RandomState::new().hash_one(now));
        let others = write("the list", &id, new.others)?;
        let begun = again!(self.begin(&id, new, key.as_deref(), &others, now));
        match begun {
            Ok(()) => Ok((id, true)),
            Err(StoreError::Database(error)) if is_duplicate(&error) => {
                let known: String = on!(self, pool => sqlx::query_scalar(OF_KEY).bind(&key).fetch_one(pool).await?);
                Ok((known, false))
            }
            Err(error) => Err(error),
        }
    }

    async fn begin(
        &self,
        id: &str,
        new: &NewList<'_>,
        key: Option<&str>,
        others: &str,
        now: u64,
    ) -> Result<(), StoreError> {
        let NewList { own_tenant: tenant, format, actor, .. } = *new;
        in_transaction!(self, transaction => {
            sqlx::query(BEGIN)
                .bind(id).bind(tenant).bind(key).bind(format.as_str()).bind(others).bind(to_sql(now)).bind(actor)
                .execute(&mut *transaction).await?;
            tell!(transaction, Told { actor, action: "import.begun", tenant, name: id, detail: Detail::new() });
        });
        Ok(())
    }

    /// Its beginning moves on with it: a list that stays where it is was broken off.
    pub async fn add_part(&self, list: &str, first_line: u64, body: &str, now: u64) -> Result<(), StoreError> {
        writing!(self, pool => sqlx::query(ADD)
            .bind(list).bind(to_sql(first_line)).bind(body).execute(pool).await.map(drop)?)?;
        writing!(self, pool => sqlx::query(ARRIVES).bind(to_sql(now)).bind(list).execute(pool).await.map(drop)?)
    }

    /// Makes room for a list that begins anew: whether it is one that did not arrive whole, and does so no longer.
    pub async fn remove_broken_off(&self, list: &str, silent_since: u64) -> Result<bool, StoreError> {
        let rows = writing!(self, pool => sqlx::query(REMOVE_BROKEN_OFF)
            .bind(list).bind(to_sql(silent_since)).execute(pool).await?.rows_affected())?;
        Ok(rows == 1)
    }

    /// All lines are here: it may be worked off.
    pub async fn list_arrived(&self, list: &str, lines: u64) -> Result<(), StoreError> {
        writing!(self, pool => sqlx::query(ARRIVED).bind(to_sql(lines)).bind(list).execute(pool).await.map(drop)?)
    }

    pub async fn remove_list(&self, list: &str) -> Result<(), StoreError> {
        writing!(self, pool => sqlx::query(REMOVE).bind(list).execute(pool).await.map(drop)?)
    }

    /// Those made before a time, and those that had not arrived whole at another.
    pub async fn forget_lists(&self, before: u64, arriving_before: u64) -> Result<u64, StoreError> {
        writing!(self, pool => sqlx::query(FORGET)
            .bind(to_sql(before)).bind(to_sql(arriving_before)).execute(pool).await?.rows_affected())
    }

    pub async fn next_part(&self) -> Result<Option<Part>, StoreError> {
        let row: Option<(String, i64, String, String, String, String, String)> =
            on!(self, pool => sqlx::query_as(NEXT).fetch_optional(pool).await?);
        let Some((list, first_line, body, own_tenant, format, others, actor)) = row else { return Ok(None) };
        let others = parse("the list", &list, &others)?;
        let format = if format == Format::Csv.as_str() { Format::Csv } else { Format::Ndjson };
        Ok(Some(Part { list, first_line: from_sql(first_line), body, own_tenant, format, others, actor }))
    }

    /// Registers the domains of a part and takes it off the list, all in one; `false` if somebody else has.
    pub async fn finish_part(
        &self,
        part: &Part,
        done: &PartDone,
        too_many: impl Fn(&Hostname) -> Refusal,
    ) -> Result<bool, StoreError> {
        again!(self.finish_part_once(part, done, &too_many))
    }

    async fn finish_part_once(
        &self,
        part: &Part,
        done: &PartDone,
        too_many: &impl Fn(&Hostname) -> Refusal,
    ) -> Result<bool, StoreError> {
        let list = Some(part.list.as_str());
        Ok(in_transaction!(self, transaction => {
            let taken = sqlx::query(TAKE).bind(list).bind(to_sql(part.first_line))
                .execute(&mut *transaction).await?.rows_affected();
            if taken == 0 {
                return Ok(false);
            }
            hold_feed!(transaction, done.new.iter().map(|(.., job)| job));
            let (mut new, mut known) = (0, 0);
            let mut errors: Vec<(u64, &str, Refusal)> =
                done.refused.iter().map(|(line, refusal)| (*line, "", refusal.clone())).collect();
            for (line, tenant, job) in &done.new {
                match insert_new!(transaction, tenant, job, done.names_max, list, &part.actor) {
                    Registration::New => new += 1,
                    Registration::Known { tenant: theirs } if theirs == *tenant => known += 1,
                    Registration::Known { .. } => {
                        let says = format!("{} belongs to another tenant", job.domain);
                        errors.push((*line, job.domain.as_str(), Refusal { code: "domain_taken", says }));
                    }
                    Registration::Taken => {
                        let says = says_taken(&job.domain);
                        errors.push((*line, job.domain.as_str(), Refusal { code: "domain_taken", says }));
                    }
                    Registration::TooMany => errors.push((*line, job.domain.as_str(), too_many(&job.domain))),
                }
            }
            let before: i64 = sqlx::query_scalar(REFUSED).bind(list).fetch_one(&mut *transaction).await?;
            let room = usize::try_from(ERRORS_MAX - before).unwrap_or(0);
            for (line, name, refusal) in errors.iter().take(room) {
                sqlx::query(REFUSE).bind(list).bind(to_sql(*line)).bind(*name).bind(refusal.code).bind(&refusal.says)
                    .execute(&mut *transaction).await?;
            }
            sqlx::query(COUNT).bind(to_sql(done.lines)).bind(new).bind(known).bind(to_sql(errors.len() as u64)).bind(list)
                .execute(&mut *transaction).await?;
            true
        }))
    }

    /// How far a list is, with those of its errors that come after a line; a confined caller sees its own only.
    pub async fn list(
        &self,
        list: &str,
        own_tenant: &str,
        errors_after: u64,
        errors_max: u32,
    ) -> Result<Option<DomainList>, StoreError> {
        let row: Option<(i64, i64, i64, i64, i64, i64, i64)> = on!(self, pool => sqlx::query_as(SHOW)
            .bind(list).bind(own_tenant).bind(own_tenant).fetch_optional(pool).await?);
        let Some((created_at, arrived, lines, done, registered, known, refused)) = row else { return Ok(None) };
        let states: Vec<(String, String, i64)> =
            on!(self, pool => sqlx::query_as(STATES).bind(list).fetch_all(pool).await?);
        let errors: Vec<(i64, String, String, String)> = on!(self, pool => sqlx::query_as(ERRORS)
            .bind(list).bind(to_sql(errors_after)).bind(i64::from(errors_max)).fetch_all(pool).await?);
        let count = |(state, code, count): (String, String, i64)| {
            let damaged =
                |_| StoreError::Damaged("a domain of the list", list.to_owned(), "its state is not known".into());
            let state = serde_json::from_value(state.into()).map_err(damaged)?;
            Ok(DomainCount { state, code, count: from_sql(count) })
        };
        let error = |(line, name, code, says): (i64, String, String, String)| ListError {
            line: from_sql(line),
            name: Some(name).filter(|name| !name.is_empty()),
            code,
            says,
        };
        Ok(Some(DomainList {
            id: list.to_owned(),
            created_at: from_sql(created_at),
            over: arrived == 1 && done == lines,
            lines: from_sql(lines),
            done: from_sql(done),
            registered: from_sql(registered),
            known: from_sql(known),
            refused: from_sql(refused),
            domains: states.into_iter().map(count).collect::<Result<_, StoreError>>()?,
            errors: errors.into_iter().map(error).collect(),
        }))
    }
}
