//! The schema, version by version. A step is written once per dialect and never edited after a release.

use sqlx::Connection;

use super::{Pool, StoreError};

struct Migration {
    version: i64,
    sqlite: &'static str,
    mysql: &'static str,
}

const MIGRATIONS: [Migration; 2] = [
    Migration {
        version: 1,
        sqlite: include_str!("migrations/0001.sqlite.sql"),
        mysql: include_str!("migrations/0001.mysql.sql"),
    },
    Migration {
        version: 2,
        sqlite: include_str!("migrations/0002.sqlite.sql"),
        mysql: include_str!("migrations/0002.mysql.sql"),
    },
];

const VERSIONS: &str = "CREATE TABLE IF NOT EXISTS schema_versions (version BIGINT NOT NULL PRIMARY KEY)";
const CURRENT: &str = "SELECT COALESCE(MAX(version), 0) FROM schema_versions";
const RECORD: &str = "INSERT INTO schema_versions (version) VALUES (?)";

pub(super) async fn run(pool: &Pool) -> Result<(), StoreError> {
    match pool {
        Pool::Sqlite(pool) => {
            let mut transaction = pool.begin_with("BEGIN IMMEDIATE").await?;
            sqlx::query(VERSIONS).execute(&mut *transaction).await?;
            let current = sqlx::query_scalar(CURRENT).fetch_one(&mut *transaction).await?;
            for migration in after(current)? {
                for statement in statements(migration.sqlite) {
                    sqlx::query(statement).execute(&mut *transaction).await?;
                }
                sqlx::query(RECORD).bind(migration.version).execute(&mut *transaction).await?;
            }
            Ok(transaction.commit().await?)
        }
        Pool::Mysql(pool) => {
            // Its DDL commits by itself: a lock instead of a transaction, and statements that can run again.
            let mut connection = pool.acquire().await?.detach();
            sqlx::query("SELECT GET_LOCK('latchkey_schema', 60)").execute(&mut connection).await?;
            sqlx::query(VERSIONS).execute(&mut connection).await?;
            let current = sqlx::query_scalar(CURRENT).fetch_one(&mut connection).await?;
            for migration in after(current)? {
                for statement in statements(migration.mysql) {
                    sqlx::query(statement).execute(&mut connection).await?;
                }
                sqlx::query(RECORD).bind(migration.version).execute(&mut connection).await?;
            }
            // The lock goes with the connection.
            Ok(connection.close().await?)
        }
    }
}

fn after(current: i64) -> Result<impl Iterator<Item = &'static Migration>, StoreError> {
    let newest = MIGRATIONS.iter().map(|m| m.version).max().unwrap_or(0);
    if current > newest {
        return Err(StoreError::TooNew(current, newest));
    }
    Ok(MIGRATIONS.iter().filter(move |m| m.version > current))
}

fn statements(sql: &'static str) -> impl Iterator<Item = &'static str> {
    sql.split(";\n").map(str::trim).filter(|statement| !statement.is_empty())
}
