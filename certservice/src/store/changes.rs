//! The feed: what became of which domain. A change is written in the transaction of the bundle that it announces.
//!
//! Whoever writes one takes the next cursor from the only row of `changes_head`, and with it that row's lock, until the
//! commit: cursors become visible in their order, whichever process writes them, and who has read up to one never
//! misses a lower one. SQLite has one writer at a time anyway.
//!
//! Every transaction takes the head first, if it needs it, then the row of its domain, then the others: so they queue
//! up; the journal's head comes last. InnoDB still finds a dead-lock where a name is registered in the moment of its going, and one begins again.

use contract::api::{Change, ChangePage};
use contract::journal::Detail;
use contract::{Challenge, ChallengeKind, Hostname};

use super::journal::{Told, tell};
use super::{Store, StoreError, again, from_sql, in_transaction, on, to_sql};

/// What went with a domain.
#[derive(Debug, PartialEq)]
pub struct OffBoarded {
    /// Of the change that tells the edges; `None` where no edge was ever told of the domain.
    pub cursor: Option<u64>,
    /// Answers that stood for its order.
    pub answers: Vec<Challenge>,
}

/// The cursor of the change that a transaction will write: its first statement.
macro_rules! next_cursor {
    ($transaction:ident) => {{
        sqlx::query($crate::store::changes::ADVANCE).execute(&mut *$transaction).await?;
        let cursor: i64 = sqlx::query_scalar($crate::store::changes::ADVANCED).fetch_one(&mut *$transaction).await?;
        cursor
    }};
}
pub(super) use next_cursor;

/// The revision of the next certificate of a domain, whose row is held: nobody announces one meanwhile.
macro_rules! next_revision {
    ($transaction:ident, $name:expr) => {{
        use $crate::store::changes::{LAST_REVISION, REVISION_FLOOR};
        let last: Option<i64> =
            sqlx::query_scalar(LAST_REVISION).bind($name).fetch_optional(&mut *$transaction).await?;
        let floor: i64 = sqlx::query_scalar(REVISION_FLOOR).fetch_one(&mut *$transaction).await?;
        $crate::store::from_sql(last.unwrap_or(0).max(floor)) + 1
    }};
}
pub(super) use next_revision;

pub(super) const ADVANCE: &str = "UPDATE changes_head SET `cursor` = `cursor` + 1 WHERE id = 1";
pub(super) const ADVANCED: &str = "SELECT `cursor` FROM changes_head WHERE id = 1";
pub(super) const ANNOUNCE: &str = "REPLACE INTO changes (`cursor`, domain, revision, gone) VALUES (?, ?, ?, FALSE)";
/// Until the next certificate is announced.
pub(super) const ANNOUNCE_FAILING: &str =
    "UPDATE changes SET `cursor` = ?, failing_since = ? WHERE domain = ? AND gone = FALSE AND failing_since IS NULL";
/// The highest that edges may have, also of a domain that is gone: they never go back to a lower one.
pub(super) const LAST_REVISION: &str = "SELECT revision FROM changes WHERE domain = ?";
/// The same of a store that was restored: what edges have seen of it since the backup was made.
pub(super) const REVISION_FLOOR: &str = "SELECT revision_floor FROM changes_head WHERE id = 1";

pub(super) const PAGE: &str =
    "SELECT `cursor`, domain, revision, gone, failing_since FROM changes WHERE `cursor` > ? ORDER BY `cursor` LIMIT ?";
const SERVED: &str = "SELECT revision FROM changes WHERE domain = ? AND gone = FALSE";
const HEAD: &str = "SELECT COALESCE(MAX(`cursor`), 0) FROM changes";
const HOLD_OF_TENANT: &str = "UPDATE domains SET created_at = created_at WHERE name = ? AND tenant = ?";
const REMOVE_DOMAIN: &str = "DELETE FROM domains WHERE name = ?";
const ANSWERS: &str = "SELECT token, key_authorization, expires_at FROM challenges WHERE domain = ?";
const GONE: &str = "UPDATE changes SET `cursor` = ?, gone = TRUE, failing_since = NULL WHERE domain = ?";

impl Store {
    /// What changed after `since`, oldest first.
    pub async fn changes(&self, since: u64, limit: u32) -> Result<ChangePage, StoreError> {
        let mut rows: Vec<(i64, String, i64, bool, Option<i64>)> = on!(self, pool => sqlx::query_as(PAGE)
            .bind(to_sql(since)).bind(i64::from(limit) + 1).fetch_all(pool).await?);
        let more = rows.len() > limit as usize;
        rows.truncate(limit as usize);
        let change = |(cursor, domain, revision, gone, failing): (i64, String, i64, bool, Option<i64>)| {
            let damaged = |_| StoreError::Damaged("a change", domain.clone(), "its domain is no host name".to_owned());
            Ok(Change {
                cursor: from_sql(cursor),
                domain: Hostname::parse_domain(&domain).map_err(damaged)?,
                revision: (!gone).then_some(from_sql(revision)),
                renewal_failing_since: failing.map(from_sql),
            })
        };
        let changes = rows.into_iter().map(change).collect::<Result<Vec<_>, StoreError>>()?;
        let cursor = match changes.last() {
            Some(last) => last.cursor,
            // Lower than `since` only in a database that was put back to an earlier day: so the edge learns of it.
            None => since.min(self.changes_head().await?),
        };
        Ok(ChangePage { changes, cursor, more })
    }

    /// The cursor of the newest change.
    pub async fn changes_head(&self) -> Result<u64, StoreError> {
        let head: i64 = on!(self, pool => sqlx::query_scalar(HEAD).fetch_one(pool).await?);
        Ok(from_sql(head))
    }

    /// The revision that edges are to serve.
    pub async fn served_revision(&self, domain: &Hostname) -> Result<Option<u64>, StoreError> {
        let revision: Option<i64> =
            on!(self, pool => sqlx::query_scalar(SERVED).bind(domain.as_str()).fetch_optional(pool).await?);
        Ok(revision.map(from_sql))
    }

    /// Removes a domain of a tenant with its order, bundle and answers, and tells the edges; `None` if there is none.
    pub async fn off_board(
        &self,
        name: &Hostname,
        tenant: &str,
        actor: &str,
    ) -> Result<Option<OffBoarded>, StoreError> {
        again!(self.remove(name, tenant, actor))
    }

    async fn remove(&self, name: &Hostname, tenant: &str, actor: &str) -> Result<Option<OffBoarded>, StoreError> {
        Ok(in_transaction!(self, transaction => {
            let cursor = next_cursor!(transaction);
            let held = sqlx::query(HOLD_OF_TENANT).bind(name.as_str()).bind(tenant)
                .execute(&mut *transaction).await?.rows_affected();
            if held == 0 {
                return Ok(None);
            }
            let answers: Vec<(String, String, i64)> = sqlx::query_as(ANSWERS).bind(name.as_str()).fetch_all(&mut *transaction).await?;
            // Order, bundle and answers go by their foreign keys.
            sqlx::query(REMOVE_DOMAIN).bind(name.as_str()).execute(&mut *transaction).await?;
            let told = sqlx::query(GONE).bind(cursor).bind(name.as_str())
                .execute(&mut *transaction).await?.rows_affected();
            let removed = Told { actor, action: "domain.removed", tenant, name: name.as_str(), detail: Detail::new() };
            tell!(transaction, removed);
            let answer = |(token, key_authorization, expires_at)| Challenge {
                domain: name.clone(),
                token,
                kind: ChallengeKind::Http01,
                key_authorization,
                expires_at: from_sql(expires_at),
            };
            let cursor = (told > 0).then(|| from_sql(cursor));
            Some(OffBoarded { cursor, answers: answers.into_iter().map(answer).collect() })
        }))
    }
}
