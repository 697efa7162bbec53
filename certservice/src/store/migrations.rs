//! The schema, version by version. A step is written once per dialect and never edited after a release.

use sqlx::Connection;
use sqlx::mysql::MySqlDatabaseError;

use super::{Pool, Sqlite, StoreError};

struct Migration {
    version: i64,
    sqlite: &'static str,
    mysql: &'static str,
}

const MIGRATIONS: [Migration; 16] = [
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
    Migration {
        version: 3,
        sqlite: include_str!("migrations/0003.sqlite.sql"),
        mysql: include_str!("migrations/0003.mysql.sql"),
    },
    Migration {
        version: 4,
        sqlite: include_str!("migrations/0004.sqlite.sql"),
        mysql: include_str!("migrations/0004.mysql.sql"),
    },
    Migration {
        version: 5,
        sqlite: include_str!("migrations/0005.sqlite.sql"),
        mysql: include_str!("migrations/0005.mysql.sql"),
    },
    Migration {
        version: 6,
        sqlite: include_str!("migrations/0006.sqlite.sql"),
        mysql: include_str!("migrations/0006.mysql.sql"),
    },
    Migration {
        version: 7,
        sqlite: include_str!("migrations/0007.sqlite.sql"),
        mysql: include_str!("migrations/0007.mysql.sql"),
    },
    Migration {
        version: 8,
        sqlite: include_str!("migrations/0008.sqlite.sql"),
        mysql: include_str!("migrations/0008.mysql.sql"),
    },
    Migration {
        version: 9,
        sqlite: include_str!("migrations/0009.sqlite.sql"),
        mysql: include_str!("migrations/0009.mysql.sql"),
    },
    Migration {
        version: 10,
        sqlite: include_str!("migrations/0010.sqlite.sql"),
        mysql: include_str!("migrations/0010.mysql.sql"),
    },
    Migration {
        version: 11,
        sqlite: include_str!("migrations/0011.sqlite.sql"),
        mysql: include_str!("migrations/0011.mysql.sql"),
    },
    Migration {
        version: 12,
        sqlite: include_str!("migrations/0012.sqlite.sql"),
        mysql: include_str!("migrations/0012.mysql.sql"),
    },
    Migration {
        version: 13,
        sqlite: include_str!("migrations/0013.sqlite.sql"),
        mysql: include_str!("migrations/0013.mysql.sql"),
    },
    Migration {
        version: 14,
        sqlite: include_str!("migrations/0014.sqlite.sql"),
        mysql: include_str!("migrations/0014.mysql.sql"),
    },
    Migration {
        version: 15,
        sqlite: include_str!("migrations/0015.sqlite.sql"),
        mysql: include_str!("migrations/0015.mysql.sql"),
    },
    Migration {
        version: 16,
        sqlite: include_str!("migrations/0016.sqlite.sql"),
        mysql: include_str!("migrations/0016.mysql.sql"),
    },
];

pub(super) const NEWEST: i64 = MIGRATIONS[MIGRATIONS.len() - 1].version;

const VERSIONS: &str = "CREATE TABLE IF NOT EXISTS schema_versions (version BIGINT NOT NULL PRIMARY KEY)";
const CURRENT: &str = "SELECT COALESCE(MAX(version), 0) FROM schema_versions";
const RECORD: &str = "INSERT INTO schema_versions (version) VALUES (?)";

/// Up to a version, which is the newest but in tests of what was before.
pub(super) async fn run(pool: &Pool, newest: i64) -> Result<(), StoreError> {
    match pool {
        Pool::Sqlite(Sqlite { writes, .. }) => {
            let mut transaction = writes.begin_with("BEGIN IMMEDIATE").await?;
            sqlx::query(VERSIONS).execute(&mut *transaction).await?;
            let current = sqlx::query_scalar(CURRENT).fetch_one(&mut *transaction).await?;
            for migration in after(current, newest)? {
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
            for migration in after(current, newest)? {
                for statement in statements(migration.mysql) {
                    match sqlx::query(statement).execute(&mut connection).await {
                        Ok(_) => {}
                        Err(error) if is_done(&error) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                sqlx::query(RECORD).bind(migration.version).execute(&mut connection).await?;
            }
            // The lock goes with the connection.
            Ok(connection.close().await?)
        }
    }
}

/// A column or an index that is there already, or gone: the step was interrupted before it was recorded.
fn is_done(error: &sqlx::Error) -> bool {
    const DUPLICATE_COLUMN: u16 = 1060;
    const DUPLICATE_INDEX: u16 = 1061;
    const NO_INDEX: u16 = 1091;
    let error = error.as_database_error().and_then(|error| error.try_downcast_ref::<MySqlDatabaseError>());
    error.is_some_and(|error| matches!(error.number(), DUPLICATE_COLUMN | DUPLICATE_INDEX | NO_INDEX))
}

fn after(current: i64, newest: i64) -> Result<impl Iterator<Item = &'static Migration>, StoreError> {
    if current > newest {
        return Err(StoreError::TooNew(current, newest));
    }
    Ok(MIGRATIONS.iter().filter(move |m| m.version > current && m.version <= newest))
}

fn statements(sql: &'static str) -> impl Iterator<Item = &'static str> {
    sql.split(";\n").map(str::trim).filter(|statement| !statement.is_empty())
}
