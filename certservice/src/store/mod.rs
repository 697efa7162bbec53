//! The database: SQLite beside the service, or MySQL/MariaDB. Must never see a plaintext key; contains no policy.

mod apart;
mod ask;
mod backup;
mod budgets;
mod changes;
mod claims;
mod domains;
mod forecast;
mod jobs;
mod journal;
mod keys;
mod lists;
mod migrations;
mod open;
mod own;
mod renewals;
mod shown;
mod ticket_keys;
mod visits;
mod webhooks;
mod whole;
mod wishes;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use contract::{Bundle, Challenge, ChallengeKind, Hostname};
use sqlx::sqlite::SqliteError;
use sqlx::{MySqlPool, SqlitePool};

use self::apart::Apart;
pub use self::ask::{Ask, Asked};
pub use self::backup::{Cell, Piece, Restored, TABLES};
pub use self::budgets::IssuerState;
pub use self::changes::OffBoarded;
pub use self::claims::{End, Line, Waiting};
pub use self::domains::Registered;
pub use self::forecast::{LEFT_BOUNDS, Queue};
pub use self::jobs::{Next, Stored};
pub use self::journal::{OURSELVES, Removal, Told};
pub use self::keys::{KeyRow, Rekeyed, SealedBundle};
pub use self::lists::{NewList, Part, PartDone};
pub use self::own::{OWN, Upload, Uploaded};
pub use self::renewals::{Renewal, Replacement, Suggested};
pub use self::shown::Filter;
pub use self::visits::Visited;
pub use self::wishes::Wish;

/// Cheap to clone.
#[derive(Clone)]
pub struct Store {
    pool: Pool,
    /// Where bundles are, if they are apart from the rest.
    apart: Option<Apart>,
}

#[derive(Clone)]
enum Pool {
    Sqlite(Sqlite),
    Mysql(MySqlPool),
}

/// It has one writer at a time: those of this process queue up for one connection, each in its turn.
#[derive(Clone)]
struct Sqlite {
    reads: SqlitePool,
    writes: SqlitePool,
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the database did not answer as expected: {0}")]
    Database(#[from] sqlx::Error),
    #[error("the database file {0} {1}")]
    File(String, String),
    #[error("the database has schema version {0}; this CertService knows versions up to {1}")]
    TooNew(i64, i64),
    #[error(
        "another CertService has held the lock `latchkey_schema` of the database server for {0} s, and may be changing the \
         schema: start this one when it is done, or end its session"
    )]
    SchemaLocked(u64),
    #[error("{0} of {1} in the database is damaged: {2}")]
    Damaged(&'static str, String, String),
    #[error(
        "the order of {0} was changed by somebody else meanwhile; is a second CertService running on this database?"
    )]
    Conflict(Hostname),
    #[error("{0}")]
    Backup(String),
    /// Of the two databases, where bundles are apart: they do not belong together.
    #[error("{0}")]
    Apart(String),
    #[error("the database of bundles: {0}")]
    Bundles(Box<StoreError>),
    #[error("no answer within {0} s")]
    Late(u64),
    #[error(
        "revision {1} of the bundle of {0} is not in the database of bundles: bring both databases back as they were at one \
         moment, or renew the domain"
    )]
    BundleLost(String, u64),
}

/// Reads from whichever database it is: the dialects agree on all that stands in these rooms.
macro_rules! on {
    ($store:expr, $on:ident => $body:expr) => {
        match &$store.pool {
            $crate::store::Pool::Sqlite($crate::store::Sqlite { reads: $on, .. }) => $body,
            $crate::store::Pool::Mysql(pool) => $crate::store::on_mysql!(pool, $on => $body)?,
        }
    };
}
/// The same for one statement that writes.
macro_rules! writing {
    ($store:expr, $on:ident => $body:expr) => {
        $crate::store::again!(async {
            match &$store.pool {
                $crate::store::Pool::Sqlite($crate::store::Sqlite { writes: $on, .. }) => {
                    Ok::<_, $crate::store::StoreError>($body)
                }
                $crate::store::Pool::Mysql(pool) => $crate::store::on_mysql!(pool, $on => $body),
            }
        })
    };
}
/// The same in a transaction that has the right to write from its start: SQLite can't upgrade one that has read. Wants to
/// be begun again where the database says so.
macro_rules! in_transaction {
    ($store:expr, $transaction:ident => $body:expr) => {
        match &$store.pool {
            $crate::store::Pool::Sqlite(sqlite) => {
                let mut $transaction = sqlite.writes.begin_with("BEGIN IMMEDIATE").await?;
                let done = $body;
                $transaction.commit().await?;
                done
            }
            $crate::store::Pool::Mysql(pool) => $crate::store::on_mysql!(pool, connection => {
                let mut $transaction = sqlx::Connection::begin(connection).await?;
                let done = $body;
                $transaction.commit().await?;
                done
            })?,
        }
    };
}
macro_rules! on_mysql {
    ($pool:expr, $on:ident => $body:expr) => {{
        let mut whole = $crate::store::whole::Whole::take($pool).await?;
        let $on = whole.connection();
        let answer = async { Ok::<_, $crate::store::StoreError>($body) }.await;
        whole.give_back(&answer);
        answer
    }};
}
/// Begins again what MySQL gave up so that another could go on, and what came before SQLite's only writer was done.
macro_rules! again {
    ($attempt:expr) => {{
        let mut patience = $crate::store::Patience::default();
        loop {
            match $attempt.await {
                Err(error) if patience.lasts(&error) => {}
                done => break done,
            }
        }
    }};
}
use {again, in_transaction, on, on_mysql, writing};

const DEADLOCKS_MAX: u32 = 10;
/// A database that does not answer holds no stop up.
const CLOSE_SECONDS_MAX: u64 = 10;
/// Other processes may write to the same SQLite file.
const BUSY_SECONDS_MAX: u64 = 20;

#[derive(Default)]
struct Patience {
    deadlocks: u32,
    busy_since: Option<Instant>,
}

impl Patience {
    fn lasts(&mut self, error: &StoreError) -> bool {
        let StoreError::Database(error) = error else { return false };
        let Some(error) = error.as_database_error() else { return false };
        let code = error.code().unwrap_or_default();
        if error.try_downcast_ref::<SqliteError>().is_some() {
            // The low byte is the code, whatever the reason is.
            let busy = code.parse().is_ok_and(|code: u32| code & 0xff == SQLITE_BUSY);
            let since = self.busy_since.get_or_insert_with(Instant::now);
            return busy && since.elapsed() < Duration::from_secs(BUSY_SECONDS_MAX);
        }
        self.deadlocks += 1;
        code == "40001" && self.deadlocks < DEADLOCKS_MAX
    }
}

const SQLITE_BUSY: u32 = 5;

impl Store {
    /// Whether the database answers.
    pub async fn ready(&self) -> Result<(), StoreError> {
        let _: i64 = on!(self, pool => sqlx::query_scalar("SELECT 1").fetch_one(pool).await?);
        Ok(())
    }

    /// The one that is served now.
    pub async fn bundle(&self, domain: &Hostname) -> Result<Option<Bundle>, StoreError> {
        let body = match &self.apart {
            None => self.current(domain.as_str()).await?,
            Some(apart) => self.current_apart(apart, domain.as_str()).await?,
        };
        body.map(|body| parse("the bundle", domain.as_str(), &body)).transpose()
    }

    /// Its body, or its place where bundles are apart.
    async fn current(&self, domain: &str) -> Result<Option<String>, StoreError> {
        let query = "SELECT body FROM bundles WHERE domain = ?";
        Ok(on!(self, pool => sqlx::query_scalar(query).bind(domain).fetch_optional(pool).await?))
    }

    pub async fn challenge(&self, domain: &Hostname, token: &str) -> Result<Option<Challenge>, StoreError> {
        let query = "SELECT key_authorization, expires_at FROM challenges WHERE domain = ? AND token = ?";
        let row: Option<(String, i64)> = on!(self, pool =>
            sqlx::query_as(query).bind(domain.as_str()).bind(token).fetch_optional(pool).await?);
        Ok(row.map(|(key_authorization, expires_at)| Challenge {
            domain: domain.clone(),
            token: token.to_owned(),
            kind: ChallengeKind::Http01,
            key_authorization,
            expires_at: from_sql(expires_at),
        }))
    }

    pub async fn close(&self) {
        let close = async {
            self.pool.close().await;
            if let Some(apart) = &self.apart {
                apart.pool.close().await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(CLOSE_SECONDS_MAX), close).await.is_err() {
            tracing::warn!("the database does not say good-bye; what it had begun for this process it will take back");
        }
    }
}

impl Pool {
    async fn close(&self) {
        match self {
            Self::Sqlite(Sqlite { reads, writes }) => {
                writes.close().await;
                reads.close().await;
            }
            Self::Mysql(pool) => pool.close().await,
        }
    }
}

fn parse<T: serde::de::DeserializeOwned>(what: &'static str, domain: &str, body: &str) -> Result<T, StoreError> {
    serde_json::from_str(body).map_err(|error| StoreError::Damaged(what, domain.to_owned(), error.to_string()))
}

fn write<T: serde::Serialize>(what: &'static str, domain: &str, value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Damaged(what, domain.to_owned(), error.to_string()))
}

/// Both databases have signed 64-bit integers only.
fn to_sql(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn from_sql(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
