//! How far each webhook has followed the journal.

use contract::api::WebhookState;

use super::domains::is_duplicate;
use super::{Store, StoreError, from_sql, on, to_sql, writing};
use crate::webhooks::RETRY_SECONDS_MAX;

/// What is put off, or held, for longer was written by a clock that was wrong. The clocks of instances may differ a little.
const LATEST_SECONDS: u64 = 2 * RETRY_SECONDS_MAX;

const KNOW: &str = "INSERT INTO webhooks (name, seq, failures, due_at, says, holder, held_until) \
    SELECT ?, seq, 0, 0, '', '', 0 FROM journal_head WHERE id = 1";
const ALL: &str = "SELECT name, seq, failures, due_at, says FROM webhooks ORDER BY name";
const HOLD: &str = "UPDATE webhooks SET holder = ?, held_until = ? \
    WHERE name = ? AND (due_at <= ? OR due_at > ?) AND (held_until <= ? OR held_until > ? OR holder = ?)";
const BELIEVE: &str = "UPDATE webhooks SET held_until = ? WHERE held_until > ?";
const LEAVE: &str = "UPDATE webhooks SET holder = '', held_until = 0 WHERE holder = ?";
const SEQ: &str = "SELECT seq, failures FROM webhooks WHERE name = ? AND holder = ?";
const TOOK: &str = "UPDATE webhooks SET seq = ?, failures = 0, due_at = 0, says = '' WHERE name = ? AND holder = ?";
const FAILED: &str = "UPDATE webhooks SET failures = failures + 1, due_at = ?, says = ? WHERE name = ? AND holder = ?";

impl Store {
    /// Makes a webhook known; it begins with what comes from now on.
    pub async fn know_webhook(&self, name: &str) -> Result<(), StoreError> {
        let known = writing!(self, pool => sqlx::query(KNOW).bind(name).execute(pool).await.map(drop)?);
        match known {
            Err(StoreError::Database(error)) if is_duplicate(&error) => Ok(()),
            known => known,
        }
    }

    pub async fn webhooks(&self) -> Result<Vec<WebhookState>, StoreError> {
        let rows: Vec<(String, i64, i64, i64, String)> = on!(self, pool => sqlx::query_as(ALL).fetch_all(pool).await?);
        let state = |(name, seq, failures, due_at, says)| WebhookState {
            name,
            seq: from_sql(seq),
            failures: from_sql(failures),
            due_at: from_sql(due_at),
            says,
        };
        Ok(rows.into_iter().map(state).collect())
    }

    /// Takes a webhook whose time has come: the last entry that it has, and its failures in a row.
    pub async fn hold_webhook(
        &self,
        name: &str,
        holder: &str,
        until: u64,
        now: u64,
    ) -> Result<Option<(u64, u64)>, StoreError> {
        let (now, latest) = (to_sql(now), to_sql(now + LATEST_SECONDS));
        let held = writing!(self, pool => sqlx::query(HOLD)
            .bind(holder).bind(to_sql(until)).bind(name).bind(now).bind(latest).bind(now).bind(latest).bind(holder)
            .execute(pool).await?.rows_affected())?;
        if held == 0 {
            return Ok(None);
        }
        let row: Option<(i64, i64)> =
            on!(self, pool => sqlx::query_as(SEQ).bind(name).bind(holder).fetch_optional(pool).await?);
        Ok(row.map(|(seq, failures)| (from_sql(seq), from_sql(failures))))
    }

    /// One that a wrong clock has held for longer than anybody does was worked on now at the latest: who has removed it is
    /// waited for no longer than a day.
    pub(super) async fn believe_no_wrong_hold(&self, now: u64) -> Result<(), StoreError> {
        writing!(self, pool => sqlx::query(BELIEVE)
            .bind(to_sql(now)).bind(to_sql(now + LATEST_SECONDS)).execute(pool).await.map(drop)?)
    }

    pub(super) async fn leave_webhooks(&self, holder: &str) -> Result<(), StoreError> {
        writing!(self, pool => sqlx::query(LEAVE).bind(holder).execute(pool).await.map(drop)?)
    }

    pub async fn webhook_took(&self, name: &str, holder: &str, seq: u64) -> Result<(), StoreError> {
        writing!(self, pool => sqlx::query(TOOK)
            .bind(to_sql(seq)).bind(name).bind(holder).execute(pool).await.map(drop)?)
    }

    pub async fn webhook_failed(&self, name: &str, holder: &str, due_at: u64, says: &str) -> Result<(), StoreError> {
        writing!(self, pool => sqlx::query(FAILED)
            .bind(to_sql(due_at)).bind(says).bind(name).bind(holder).execute(pool).await.map(drop)?)
    }
}
