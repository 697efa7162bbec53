//! The schemas, version by version: of the database, and of one that has the bundles only. A step is written once per
//! dialect and never edited after a release.

use sqlx::mysql::MySqlDatabaseError;
use sqlx::{AssertSqlSafe, Connection, MySqlConnection};

use super::{Pool, Sqlite, StoreError, from_sql, to_sql};

/// How long another CertService may be at it.
const LOCK_SECONDS_MAX: u64 = 60;

struct Migration {
    version: i64,
    sqlite: &'static str,
    mysql: &'static str,
}

macro_rules! step {
    ($version:literal, $file:literal) => {
        Migration {
            version: $version,
            sqlite: include_str!(concat!("migrations/", $file, ".sqlite.sql")),
            mysql: include_str!(concat!("migrations/", $file, ".mysql.sql")),
        }
    };
}

pub(super) struct Schema {
    /// The table that says which steps were made; who has it has this schema.
    versions: &'static str,
    steps: &'static [Migration],
}

pub(super) const WHOLE: Schema = Schema {
    versions: "schema_versions",
    steps: &[
        step!(1, "0001"),
        step!(2, "0002"),
        step!(3, "0003"),
        step!(4, "0004"),
        step!(5, "0005"),
        step!(6, "0006"),
        step!(7, "0007"),
        step!(8, "0008"),
        step!(9, "0009"),
        step!(10, "0010"),
        step!(11, "0011"),
        step!(12, "0012"),
        step!(13, "0013"),
        step!(14, "0014"),
        step!(15, "0015"),
        step!(16, "0016"),
        step!(17, "0017"),
        step!(18, "0018"),
        step!(19, "0019"),
    ],
};

/// Of bundles that are apart from the rest.
pub(super) const BUNDLES: Schema = Schema { versions: "bundle_schema_versions", steps: &[step!(1, "bundles/0001")] };

impl Schema {
    pub(super) const fn newest(&self) -> i64 {
        self.steps[self.steps.len() - 1].version
    }

    fn after(&self, current: i64, newest: i64) -> Result<impl Iterator<Item = &Migration>, StoreError> {
        if current > newest {
            return Err(StoreError::TooNew(current, newest));
        }
        Ok(self.steps.iter().filter(move |step| step.version > current && step.version <= newest))
    }

    fn create(&self) -> AssertSqlSafe<String> {
        AssertSqlSafe(format!("CREATE TABLE IF NOT EXISTS {} (version BIGINT NOT NULL PRIMARY KEY)", self.versions))
    }

    fn current(&self) -> AssertSqlSafe<String> {
        AssertSqlSafe(format!("SELECT COALESCE(MAX(version), 0) FROM {}", self.versions))
    }

    fn record(&self) -> AssertSqlSafe<String> {
        AssertSqlSafe(format!("INSERT INTO {} (version) VALUES (?)", self.versions))
    }

    /// Whether a database has it already.
    pub(super) async fn is_in(&self, pool: &Pool) -> Result<bool, StoreError> {
        let found: i64 = match pool {
            Pool::Sqlite(Sqlite { reads, .. }) => {
                let query = "SELECT COUNT(*) FROM sqlite_schema WHERE type = 'table' AND name = ?";
                sqlx::query_scalar(query).bind(self.versions).fetch_one(reads).await?
            }
            Pool::Mysql(pool) => {
                let query = "SELECT COUNT(*) FROM information_schema.tables \
                    WHERE table_schema = DATABASE() AND table_name = ?";
                sqlx::query_scalar(query).bind(self.versions).fetch_one(pool).await?
            }
        };
        Ok(from_sql(found) > 0)
    }
}

/// Up to a version, which is the newest but in tests of what was before.
pub(super) async fn run(pool: &Pool, schema: &Schema, newest: i64) -> Result<(), StoreError> {
    match pool {
        Pool::Sqlite(Sqlite { writes, .. }) => {
            let mut transaction = writes.begin_with("BEGIN IMMEDIATE").await?;
            sqlx::query(schema.create()).execute(&mut *transaction).await?;
            let current = sqlx::query_scalar(schema.current()).fetch_one(&mut *transaction).await?;
            for migration in schema.after(current, newest)? {
                for statement in statements(migration.sqlite) {
                    sqlx::query(statement).execute(&mut *transaction).await?;
                }
                sqlx::query(schema.record()).bind(migration.version).execute(&mut *transaction).await?;
            }
            Ok(transaction.commit().await?)
        }
        Pool::Mysql(pool) => {
            // Its DDL commits by itself: a lock instead of a transaction, and statements that can run again.
            let mut connection = pool.acquire().await?.detach();
            lock(&mut connection, LOCK_SECONDS_MAX).await?;
            sqlx::query(schema.create()).execute(&mut connection).await?;
            let current = sqlx::query_scalar(schema.current()).fetch_one(&mut connection).await?;
            for migration in schema.after(current, newest)? {
                for statement in statements(migration.mysql) {
                    match sqlx::query(statement).execute(&mut connection).await {
                        Ok(_) => {}
                        Err(error) if is_done(&error) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                sqlx::query(schema.record()).bind(migration.version).execute(&mut connection).await?;
            }
            // The lock goes with the connection.
            Ok(connection.close().await?)
        }
    }
}

/// Until the connection ends: nobody else changes the schema meanwhile.
pub(super) async fn lock(connection: &mut MySqlConnection, seconds: u64) -> Result<(), StoreError> {
    let query = "SELECT GET_LOCK('latchkey_schema', ?)";
    let got: Option<i64> = sqlx::query_scalar(query).bind(to_sql(seconds)).fetch_one(connection).await?;
    if got == Some(1) { Ok(()) } else { Err(StoreError::SchemaLocked(seconds)) }
}

/// A column or an index that is there already, or gone: the step was interrupted before it was recorded.
fn is_done(error: &sqlx::Error) -> bool {
    const DUPLICATE_COLUMN: u16 = 1060;
    const DUPLICATE_INDEX: u16 = 1061;
    const NO_INDEX: u16 = 1091;
    let error = error.as_database_error().and_then(|error| error.try_downcast_ref::<MySqlDatabaseError>());
    error.is_some_and(|error| matches!(error.number(), DUPLICATE_COLUMN | DUPLICATE_INDEX | NO_INDEX))
}

fn statements(sql: &'static str) -> impl Iterator<Item = &'static str> {
    sql.split(";\n").map(str::trim).filter(|statement| !statement.is_empty())
}
