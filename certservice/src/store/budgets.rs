//! Numbers of the CAs' limits, and which issuers are closed for now: shared by all instances on the database.

use super::domains::is_duplicate;
use super::journal::{OURSELVES, Told, tell};
use super::{Store, StoreError, again, from_sql, in_transaction, on, to_sql, writing};
use crate::budget::{FullAt, Name, Shortage, Spend};
use crate::order::{PAUSE_SECONDS_MAX, Stage};

/// An issuer, as all instances see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerState {
    pub name: String,
    /// Unix seconds; no order leaves before.
    pub closed_until: u64,
    /// In a row, of the CA itself.
    pub failures: u64,
    pub code: String,
    pub says: String,
}

pub(super) const HOLD: &str = "UPDATE issuers SET failures = failures WHERE name = ?";
pub(super) const FULL_AT: &str = "SELECT full_at FROM budgets WHERE issuer = ? AND name = ? AND scope = ?";
pub(super) const WRITE: &str = "REPLACE INTO budgets (issuer, name, scope, full_at) VALUES (?, ?, ?, ?)";
const CLOSE: &str = "UPDATE issuers SET failures = failures + 1, closed_until = ?, code = ?, says = ? \
    WHERE name = ? AND (closed_until <= ? OR closed_until > ?)";
const FAILURES: &str = "SELECT failures FROM issuers WHERE name = ?";
const OPEN: &str = "UPDATE issuers SET failures = 0, closed_until = 0, code = '', says = '' WHERE name = ?";

/// Takes from an issuer's buckets inside of a transaction. The row of the issuer keeps others out until the commit.
macro_rules! spend {
    ($transaction:ident, $issuer:expr, $spends:expr, $now_ms:expr) => {{
        sqlx::query($crate::store::budgets::HOLD).bind($issuer).execute(&mut *$transaction).await?;
        let mut full_at = Vec::with_capacity($spends.len());
        for spend in $spends {
            let found: Option<i64> = sqlx::query_scalar($crate::store::budgets::FULL_AT)
                .bind($issuer)
                .bind(spend.name.as_str())
                .bind(&spend.scope)
                .fetch_optional(&mut *$transaction)
                .await?;
            full_at.push(found.map_or(0, from_sql));
        }
        let decided = $crate::budget::decide($spends, &full_at, $now_ms);
        if let Ok(after) = &decided {
            for ((spend, full_at), before) in $spends.iter().zip(after).zip(&full_at) {
                if full_at == before {
                    continue;
                }
                sqlx::query($crate::store::budgets::WRITE)
                    .bind($issuer)
                    .bind(spend.name.as_str())
                    .bind(&spend.scope)
                    .bind(to_sql(*full_at))
                    .execute(&mut *$transaction)
                    .await?;
            }
        }
        decided.map(|_| ())
    }};
}
pub(super) use spend;

impl Store {
    /// Makes issuers known that are in the boot file.
    pub async fn know_issuers(&self, names: &[String]) -> Result<(), StoreError> {
        let insert = "INSERT INTO issuers (name, closed_until, failures, code, says) VALUES (?, 0, 0, '', '')";
        for name in names {
            let done = writing!(self, pool => sqlx::query(insert).bind(name).execute(pool).await.map(drop)?);
            match done {
                Err(StoreError::Database(error)) if is_duplicate(&error) => {}
                done => done?,
            }
        }
        Ok(())
    }

    pub async fn issuers(&self) -> Result<Vec<IssuerState>, StoreError> {
        let query = "SELECT name, closed_until, failures, code, says FROM issuers ORDER BY name";
        let rows: Vec<(String, i64, i64, String, String)> =
            on!(self, pool => sqlx::query_as(query).fetch_all(pool).await?);
        let state = |(name, closed_until, failures, code, says)| IssuerState {
            name,
            closed_until: from_sql(closed_until),
            failures: from_sql(failures),
            code,
            says,
        };
        Ok(rows.into_iter().map(state).collect())
    }

    /// No order leaves to it before `until`. One closing at a time counts as a failure, however many orders saw it.
    pub async fn close_issuer(
        &self,
        name: &str,
        until: u64,
        code: &str,
        says: &str,
        now: u64,
    ) -> Result<(), StoreError> {
        again!(self.close_once(name, until, code, says, now))
    }

    async fn close_once(&self, name: &str, until: u64, code: &str, says: &str, now: u64) -> Result<(), StoreError> {
        in_transaction!(self, transaction => {
            sqlx::query(HOLD).bind(name).execute(&mut *transaction).await?;
            let before: Option<i64> = sqlx::query_scalar(FAILURES).bind(name).fetch_optional(&mut *transaction).await?;
            let closed = sqlx::query(CLOSE).bind(to_sql(until)).bind(code).bind(says).bind(name).bind(to_sql(now))
                .bind(to_sql(now + PAUSE_SECONDS_MAX)).execute(&mut *transaction).await?.rows_affected();
            // One that stays closed is told of once.
            if closed == 1 && before == Some(0) {
                let detail = [
                    ("code".to_owned(), code.into()), ("says".to_owned(), says.into()), ("until".to_owned(), until.into()),
                ].into();
                tell!(transaction, Told { actor: OURSELVES, action: "issuer.closed", tenant: "", name, detail });
            }
        });
        Ok(())
    }

    /// It was seen to work.
    pub async fn open_issuer(&self, name: &str) -> Result<(), StoreError> {
        again!(self.open_once(name))
    }

    async fn open_once(&self, name: &str) -> Result<(), StoreError> {
        in_transaction!(self, transaction => {
            sqlx::query(HOLD).bind(name).execute(&mut *transaction).await?;
            let before: Option<i64> = sqlx::query_scalar(FAILURES).bind(name).fetch_optional(&mut *transaction).await?;
            if before.is_some_and(|failures| failures > 0) {
                sqlx::query(OPEN).bind(name).execute(&mut *transaction).await?;
                let detail = [("closings".to_owned(), before.into())].into();
                tell!(transaction, Told { actor: OURSELVES, action: "issuer.opened", tenant: "", name, detail });
            }
        });
        Ok(())
    }

    /// Changes buckets whatever they hold: what a CA has counted, or has not.
    pub async fn settle(&self, issuer: &str, spends: &[Spend], now_ms: u64) -> Result<(), StoreError> {
        if spends.is_empty() {
            return Ok(());
        }
        again!(self.settle_once(issuer, spends, now_ms))
    }

    async fn settle_once(&self, issuer: &str, spends: &[Spend], now_ms: u64) -> Result<(), StoreError> {
        let _: Result<(), Shortage> = in_transaction!(self, transaction => spend!(transaction, issuer, spends, now_ms));
        Ok(())
    }

    pub async fn full_at(&self, issuer: &str, name: Name, scope: &str) -> Result<FullAt, StoreError> {
        let found: Option<i64> = on!(self, pool => sqlx::query_scalar(FULL_AT)
            .bind(issuer).bind(name.as_str()).bind(scope).fetch_optional(pool).await?);
        Ok(found.map_or(0, from_sql))
    }

    /// Orders that wait for their turn.
    pub async fn in_line(&self, issuer: &str) -> Result<u64, StoreError> {
        let query = "SELECT COUNT(*) FROM jobs WHERE issuer = ? AND stage IN (?, ?)";
        let [one, other] = Stage::IN_LINE.map(|stage| stage as i64);
        let count: i64 = on!(self, pool => sqlx::query_scalar(query).bind(issuer).bind(one).bind(other)
            .fetch_one(pool).await?);
        Ok(from_sql(count))
    }

    /// Buckets that are full are as good as none.
    pub async fn forget_full_budgets(&self, now_ms: u64) -> Result<u64, StoreError> {
        let remove = "DELETE FROM budgets WHERE full_at < ?";
        writing!(self, pool => sqlx::query(remove).bind(to_sql(now_ms)).execute(pool).await?.rows_affected())
    }
}
