//! Who waits for what, and who takes it to work on.

use super::apart::without_keys;
use super::{Store, StoreError, Stored, again, in_transaction, on, parse, to_sql};
use crate::order::{Job, Lane, Stage};

/// Orders of an issuer that wait for the same.
#[derive(Debug, Clone, Copy)]
pub struct Line<'a> {
    pub issuer: &'a str,
    pub stage: Stage,
    /// Only those that may go from its line to another issuer's.
    pub leaving: bool,
    pub end: End,
}

/// From which end of it they are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Who goes first; of those that may leave it, who could do so first.
    First,
    /// Who has come last.
    Last,
}

/// An order that somebody could work on.
#[derive(Debug, Clone, Default)]
pub struct Waiting {
    pub name: String,
    pub lane: Lane,
    /// Who has a lower one goes first.
    pub place: i64,
    pub tenant: String,
    version: i64,
}

/// How long an order rests that can't be read.
const UNREADABLE_SECONDS: u64 = 3600;
/// The same where its key can't be read.
const KEYLESS_SECONDS: u64 = 5;

/// `place` of who waits for a time, `others_at` of who may go to another issuer: bounded by it, and in its order.
macro_rules! waiting {
    ($by:literal, $direction:literal) => {
        concat!(
            "SELECT domain, place, version, (SELECT tenant FROM domains WHERE domains.name = jobs.domain) FROM jobs \
            WHERE issuer = ? AND stage = ? AND lane = ? AND ",
            $by,
            " <= ? AND (held_until <= ? OR holder = ?) \
            ORDER BY ",
            $by,
            $direction,
            ", domain",
            $direction,
            " LIMIT ?"
        )
    };
}

pub(super) const FIRST: &str = waiting!("place", "");
pub(super) const LAST: &str = waiting!("place", " DESC");
pub(super) const FIRST_TO_LEAVE: &str = waiting!("others_at", "");
pub(super) const LAST_TO_LEAVE: &str = waiting!("others_at", " DESC");
const BODY: &str = "SELECT body FROM jobs WHERE domain = ?";
const HOLD: &str = "UPDATE jobs SET holder = ?, held_until = ? \
    WHERE domain = ? AND version = ? AND (held_until <= ? OR holder = ?)";

impl Store {
    /// Who waits in a line: of each lane up to `limit`.
    pub async fn waiting(
        &self,
        line: Line<'_>,
        holder: &str,
        now: u64,
        limit: usize,
    ) -> Result<Vec<Waiting>, StoreError> {
        let query = match (line.end, line.leaving) {
            (End::First, false) => FIRST,
            (End::Last, false) => LAST,
            (End::First, true) => FIRST_TO_LEAVE,
            (End::Last, true) => LAST_TO_LEAVE,
        };
        // In line nobody waits for a time, only for a turn.
        let at_most = if Stage::IN_LINE.contains(&line.stage) && !line.leaving { i64::MAX } else { to_sql(now) };
        let mut waiting = Vec::new();
        for lane in Lane::ALL {
            let rows: Vec<(String, i64, i64, Option<String>)> = on!(self, pool => sqlx::query_as(query)
                .bind(line.issuer).bind(line.stage as i64).bind(lane as i64).bind(at_most).bind(to_sql(now)).bind(holder)
                .bind(i64::try_from(limit).unwrap_or(i64::MAX))
                .fetch_all(pool).await?);
            waiting.extend(rows.into_iter().map(|(name, place, version, tenant)| Waiting {
                name,
                lane,
                place,
                tenant: tenant.unwrap_or_default(),
                version,
            }));
        }
        Ok(waiting)
    }

    /// Takes those that nobody else has taken first. No other may work on them until `until`, which is moved on while the work
    /// goes on.
    pub async fn claim(
        &self,
        waiting: Vec<Waiting>,
        holder: &str,
        until: u64,
        now: u64,
    ) -> Result<Vec<Stored>, StoreError> {
        if waiting.is_empty() {
            return Ok(Vec::new());
        }
        let held = again!(self.hold(&waiting, holder, until, now))?;
        let mut claimed = Vec::with_capacity(waiting.len());
        for (Waiting { name, version, .. }, body) in waiting.into_iter().zip(held) {
            let Some(body) = body else { continue };
            match parse("the order", &name, &body) {
                Ok(job) => claimed.extend(self.whole(job, version, holder, now).await?),
                // One that can't be read must not keep the others.
                Err(error) => {
                    tracing::error!(%error, "an order is left alone for {UNREADABLE_SECONDS} s");
                    self.put_off(&name, holder, now + UNREADABLE_SECONDS).await?;
                }
            }
        }
        Ok(claimed)
    }

    /// An order with its keys, which may be elsewhere; `None` where they can't be had now.
    async fn whole(&self, mut job: Job, version: i64, holder: &str, now: u64) -> Result<Option<Stored>, StoreError> {
        match self.fill_in(&mut job).await {
            Ok(true) => {}
            Ok(false) => {
                tracing::error!(domain = %job.domain, "the key of an order is lost; the order begins anew");
                job = without_keys(job);
            }
            Err(error) => {
                tracing::error!(domain = %job.domain, %error, "the key of an order can't be read; it waits");
                self.put_off(job.domain.as_str(), holder, now + KEYLESS_SECONDS).await?;
                return Ok(None);
            }
        }
        Ok(Some(Stored { job, version, holder: holder.to_owned() }))
    }

    /// The bodies of those that nobody else took first.
    async fn hold(
        &self,
        waiting: &[Waiting],
        holder: &str,
        until: u64,
        now: u64,
    ) -> Result<Vec<Option<String>>, StoreError> {
        Ok(in_transaction!(self, transaction => {
            let mut held = Vec::with_capacity(waiting.len());
            for Waiting { name, version, .. } in waiting {
                let rows = sqlx::query(HOLD)
                    .bind(holder).bind(to_sql(until)).bind(name).bind(version).bind(to_sql(now)).bind(holder)
                    .execute(&mut *transaction).await?.rows_affected();
                held.push(match rows {
                    1 => Some(sqlx::query_scalar(BODY).bind(name).fetch_one(&mut *transaction).await?),
                    _ => None,
                });
            }
            held
        }))
    }
}
