//! Fills CertService's store by SQL with domains that are like one that it has issued itself.

use std::ops::Range;
use std::path::Path;

use sqlx::{Connection, MySqlConnection, SqliteConnection};
use support::{Context, Result};

use crate::names;

/// Renewals of the first so many seconds are more than any look takes.
pub(super) const DUE_SECONDS: u64 = 90_000;
/// Renewals lie in so many seconds after the first day.
const SPREAD_SECONDS: u64 = 30 * 86_400;

pub(super) enum Database {
    Sqlite(SqliteConnection),
    Mysql(MySqlConnection),
}

/// Where both dialects differ: a number as a name, joined texts, and the numbers themselves.
struct Dialect {
    name: &'static str,
    tenant: &'static str,
    numbers: String,
}

impl Database {
    pub(super) async fn open(url: Option<&str>, file: &Path) -> Result<Self> {
        Ok(match url {
            Some(url) => Self::Mysql(MySqlConnection::connect(url).await.context("CertService's store")?),
            None => {
                let url = format!("sqlite://{}", file.display());
                Self::Sqlite(SqliteConnection::connect(&url).await.context("CertService's store")?)
            }
        })
    }

    /// Domains of these numbers, like `template`.
    pub(super) async fn fill(&mut self, numbers: Range<usize>, template: &str) -> Result<()> {
        let (first, last) = (numbers.start, numbers.end - 1);
        let dialect = match self {
            Self::Sqlite(_) => Dialect {
                name: "printf('shop%07d.example', n)",
                tenant: "'tenant' || (n % 100)",
                numbers: format!(
                    "WITH RECURSIVE numbers(n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM numbers WHERE n < {last})"
                ),
            },
            Self::Mysql(_) => Dialect {
                name: "CONCAT('shop', LPAD(n, 7, '0'), '.example')",
                tenant: "CONCAT('tenant', n % 100)",
                numbers: format!("WITH numbers AS (SELECT seq AS n FROM seq_{first}_to_{last})"),
            },
        };
        for statement in dialect.statements(last, template) {
            let done = match self {
                Self::Sqlite(connection) => {
                    sqlx::query(sqlx::AssertSqlSafe(statement)).execute(connection).await.map(drop)
                }
                Self::Mysql(connection) => {
                    sqlx::query(sqlx::AssertSqlSafe(statement)).execute(connection).await.map(drop)
                }
            };
            done.context("fill CertService's store")?;
        }
        Ok(())
    }
}

impl Dialect {
    fn statements(&self, last: usize, template: &str) -> Vec<String> {
        let Self { name, tenant, numbers } = self;
        let now = names::now();
        let renew_at = format!("{now} + 86400 + n * {SPREAD_SECONDS} / {}", last + 1);
        vec![
            format!(
                "INSERT INTO domains (name, tenant, issuer, state, code, says, who, created_at, certificate, steps, registered, \
                 renew_at, urgent_at, began_at, ends_at, ari_id, ari_at) {numbers} \
                 SELECT {name}, {tenant}, issuer, CASE WHEN n % 50 = 0 THEN 'action_needed' ELSE state END, code, says, who, \
                 created_at, certificate, steps, {name}, CAST({renew_at} AS {int}), CAST({renew_at} AS {int}) + 648000, {now}, \
                 CAST({renew_at} AS {int}) + 1296000, 'a.b', {now} + 36000 + n FROM numbers, domains WHERE name = '{template}'",
                int = self.integer()
            ),
            format!(
                "INSERT INTO bundles (domain, body) {numbers} SELECT {name}, body FROM numbers, bundles \
                 WHERE domain = '{template}' AND n % 10 = 0"
            ),
            format!(
                "INSERT INTO changes (`cursor`, domain, revision, gone) {numbers} SELECT n + 10, {name}, 1, FALSE FROM numbers"
            ),
            format!(
                "INSERT INTO jobs (domain, version, due_at, step, body, issuer, stage, lane, place, created_at) {numbers} \
                 SELECT {name}, 1, {now} + 86400, 'queued', '{{}}', 'internal', 2, n % 4, {now} + 86400, {now} FROM numbers \
                 WHERE n % 10 = 1"
            ),
            "UPDATE changes_head SET `cursor` = (SELECT MAX(`cursor`) FROM changes)".to_owned(),
        ]
    }

    fn integer(&self) -> &'static str {
        if self.numbers.contains("RECURSIVE") { "INTEGER" } else { "SIGNED" }
    }
}
