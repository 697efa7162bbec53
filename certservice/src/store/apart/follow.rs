//! Follows the feed of changes, as edges do: a bundle that is served from here on takes the place of those before it, and
//! that of a domain which is gone goes. What nobody was ever told of goes when nobody can be about to tell.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{Apart, Place, WRITE_SECONDS_MAX};
use crate::clock;
use crate::store::{Store, StoreError, again, from_sql, in_transaction, on, to_sql, writing};

const LOOK_SECONDS: u64 = 1;
const SWEEP_SECONDS: u64 = 60;
/// Changes, or leftovers, that are looked at together.
const PAGE: i64 = 200;
/// From writing a bundle, or the key of an order, until nobody can be about to say so in the other database.
pub(in crate::store) const SETTLED_SECONDS: u64 = 3600;

const AFTER: &str = "SELECT c.`cursor`, c.domain, c.revision, c.gone, b.body FROM changes c \
    LEFT JOIN bundles b ON b.domain = c.domain WHERE c.`cursor` > ? ORDER BY c.`cursor` LIMIT ?";
pub(super) const SEEN: &str = "UPDATE pair SET seen = ? WHERE id = 1 AND seen < ?";
const SERVED: &str = "UPDATE bundles SET key_set = COALESCE(key_set, sealed_to) \
    WHERE domain = ? AND revision = ? AND certificates = ?";
const REPLACED: &str =
    "DELETE FROM bundles WHERE domain = ? AND revision <= ? AND NOT (revision = ? AND certificates = ?)";
const GONE: &str = "DELETE FROM bundles WHERE domain = ? AND revision <= ?";

const UNTOLD: &str = "SELECT domain, revision, certificates, since FROM bundles WHERE key_set IS NULL AND since < ? \
    ORDER BY domain LIMIT ?";
const LOOK_LATER: &str =
    "UPDATE bundles SET since = ? WHERE domain = ? AND revision = ? AND certificates = ? AND since = ?";
const REMOVE: &str = "DELETE FROM bundles WHERE domain = ? AND revision = ? AND certificates = ? AND since = ? \
    AND key_set IS NULL";
const ORDER: &str = "SELECT body FROM jobs WHERE domain = ?";
const OLD_KEYS: &str = "SELECT id, domain, since FROM sealed_keys WHERE since < ? ORDER BY since LIMIT ?";
const KEEP_KEY: &str = "UPDATE sealed_keys SET since = ? WHERE id = ? AND since = ?";
const REMOVE_KEY: &str = "DELETE FROM sealed_keys WHERE id = ? AND since = ?";

/// Cursor, domain, revision, whether it is gone, and the place of its bundle.
type Change = (i64, String, i64, bool, Option<String>);

impl Store {
    /// For as long as the process lives.
    pub async fn mind_bundles(self) {
        let Some(apart) = &self.apart else {
            return std::future::pending().await;
        };
        let mut look = interval(Duration::from_secs(LOOK_SECONDS));
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut swept = Instant::now();
        loop {
            look.tick().await;
            // It tells by itself that it is down.
            if apart.probe().await.is_err() {
                continue;
            }
            let mut done = self.follow_bundles().await.map(drop);
            if done.is_ok() && swept.elapsed() > Duration::from_secs(SWEEP_SECONDS) {
                done = self.sweep_bundles(clock::now()).await.map(drop);
                swept = Instant::now();
            }
            if let Err(error) = done {
                tracing::error!(%error, "what became of bundles can't be followed");
            }
        }
    }

    /// To the end of the feed: how many changes.
    pub async fn follow_bundles(&self) -> Result<u64, StoreError> {
        let Some(apart) = &self.apart else { return Ok(0) };
        let (_, mut seen) = apart.pair().await?;
        let mut followed = 0;
        loop {
            let changes: Vec<Change> =
                on!(self, pool => sqlx::query_as(AFTER).bind(to_sql(seen)).bind(PAGE).fetch_all(pool).await?);
            let Some((last, ..)) = changes.last() else { return Ok(followed) };
            seen = from_sql(*last);
            for name in apart.within(WRITE_SECONDS_MAX, async { again!(apart.follow(&changes)) }).await? {
                // Or it has been replaced since.
                if let Err(error @ StoreError::BundleLost(..)) = self.current_apart(apart, name).await {
                    tracing::error!(%error, "a bundle is lost");
                }
            }
            followed += changes.len() as u64;
        }
    }

    /// How much was left over that nobody was told of.
    pub async fn sweep_bundles(&self, now: u64) -> Result<u64, StoreError> {
        let Some(apart) = &self.apart else { return Ok(0) };
        let before = to_sql(now.saturating_sub(SETTLED_SECONDS));
        Ok(self.sweep_untold(apart, now, before).await? + self.sweep_keys(apart, now, before).await?)
    }

    async fn sweep_untold(&self, apart: &Apart, now: u64, before: i64) -> Result<u64, StoreError> {
        let mut swept = 0;
        loop {
            let rows: Vec<(String, i64, String, i64)> =
                on!(apart, pool => sqlx::query_as(UNTOLD).bind(before).bind(PAGE).fetch_all(pool).await)
                    .map_err(|error| self.of_vault(error))?;
            if rows.is_empty() {
                return Ok(swept);
            }
            for (name, revision, certificates, since) in rows {
                // An order that has ended before we look at what is served can't tell of it any more.
                let ordered = self.order_of(&name).await?.is_some();
                let place = Place { revision: from_sql(revision), certificates };
                let current = self.current(&name).await?.map(|text| Place::read(&name, &text)).transpose()?;
                let keeps = ordered || current.as_ref() == Some(&place);
                let certificates = &place.certificates;
                let query = if keeps { LOOK_LATER } else { REMOVE };
                let changed = writing!(apart, pool => {
                    let mut query = sqlx::query(query);
                    if keeps {
                        query = query.bind(to_sql(now));
                    }
                    query.bind(&name).bind(revision).bind(certificates).bind(since).execute(pool).await?.rows_affected()
                });
                let removed = changed.map_err(|error| self.of_vault(error))?;
                swept += if keeps { 0 } else { removed };
            }
        }
    }

    async fn sweep_keys(&self, apart: &Apart, now: u64, before: i64) -> Result<u64, StoreError> {
        let mut swept = 0;
        loop {
            let rows: Vec<(String, String, i64)> =
                on!(apart, pool => sqlx::query_as(OLD_KEYS).bind(before).bind(PAGE).fetch_all(pool).await)
                    .map_err(|error| self.of_vault(error))?;
            if rows.is_empty() {
                return Ok(swept);
            }
            for (id, name, since) in rows {
                let keeps = self.order_of(&name).await?.is_some_and(|order| order.contains(&id));
                let changed = writing!(apart, pool => match keeps {
                    true => sqlx::query(KEEP_KEY).bind(to_sql(now)).bind(&id).bind(since).execute(pool).await?,
                    false => sqlx::query(REMOVE_KEY).bind(&id).bind(since).execute(pool).await?,
                }.rows_affected());
                let removed = changed.map_err(|error| self.of_vault(error))?;
                swept += if keeps { 0 } else { removed };
            }
        }
    }

    async fn order_of(&self, name: &str) -> Result<Option<String>, StoreError> {
        Ok(on!(self, pool => sqlx::query_scalar(ORDER).bind(name).fetch_optional(pool).await?))
    }
}

impl Apart {
    /// The names whose bundles are not there.
    async fn follow<'a>(&self, changes: &'a [Change]) -> Result<Vec<&'a str>, StoreError> {
        let Some((last, ..)) = changes.last() else { return Ok(Vec::new()) };
        let mut lost = Vec::new();
        in_transaction!(self, transaction => {
            // Its lock has others that follow wait.
            sqlx::query(SEEN).bind(last).bind(last).execute(&mut *transaction).await?;
            for (_, name, revision, gone, text) in changes {
                let place = match (gone, text) {
                    (false, Some(text)) => Place::read(name, text)?,
                    // Off-boarded since the change that stood here, which is not the last one then.
                    _ => {
                        if *gone {
                            sqlx::query(GONE).bind(name).bind(revision).execute(&mut *transaction).await?;
                        }
                        continue;
                    }
                };
                let revision = to_sql(place.revision);
                let found = sqlx::query(SERVED).bind(name).bind(revision).bind(&place.certificates)
                    .execute(&mut *transaction).await?.rows_affected();
                if found == 0 {
                    lost.push(name.as_str());
                    continue;
                }
                sqlx::query(REPLACED).bind(name).bind(revision).bind(revision).bind(&place.certificates)
                    .execute(&mut *transaction).await?;
            }
        });
        Ok(lost)
    }
}
