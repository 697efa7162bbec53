//! Opens the database and brings its schema up to date.

use std::fs::OpenOptions;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use sqlx::mysql::{MySqlConnectOptions, MySqlPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions, MySqlPool};

use super::apart::{Apart, of_bundles};
use super::{BUSY_SECONDS_MAX, Pool, Sqlite, Store, StoreError, again, migrations};
use crate::config::{Places, StoreUrl};

const CONNECTIONS_MAX: u32 = 8;
/// How long a query waits for a free connection.
const WAIT_SECONDS_MAX: u64 = 10;
/// After this the server ends a session that says nothing, and with it the transaction and its locks: of a host that has
/// vanished. The pool closes idle connections before.
const SILENT_SECONDS_MAX: u64 = 60;
const IDLE_SECONDS_MAX: u64 = 45;
/// How long SQLite looks for its lock before we begin again. It looks ever more seldom, and one process would starve beside
/// another that writes all the time.
const LOCK_MS_MAX: u64 = 100;

impl Store {
    pub async fn open(places: &Places) -> Result<Self, StoreError> {
        let store = Self::open_at(places, migrations::WHOLE.newest()).await?;
        store.pair_up().await?;
        store.sort_names().await?;
        Ok(store)
    }

    /// With the schema of an earlier version.
    pub(crate) async fn open_at(places: &Places, version: i64) -> Result<Self, StoreError> {
        let pool = connect(&places.store).await?;
        if migrations::BUNDLES.is_in(&pool).await? {
            let says = "`store.url` names a database of bundles, which holds nothing else; it is for `store.bundles`";
            return Err(StoreError::Apart(says.to_owned()));
        }
        again!(migrations::run(&pool, &migrations::WHOLE, version))?;
        let apart = match &places.bundles {
            Some(url) => Some(open_bundles(url).await.map_err(of_bundles)?),
            None => None,
        };
        Ok(Self { pool, apart })
    }
}

async fn open_bundles(url: &StoreUrl) -> Result<Apart, StoreError> {
    let pool = connect(url).await?;
    if migrations::WHOLE.is_in(&pool).await? {
        let says = "`store.bundles` names the database of a CertService; bundles want one that holds nothing else";
        return Err(StoreError::Apart(says.to_owned()));
    }
    again!(migrations::run(&pool, &migrations::BUNDLES, migrations::BUNDLES.newest()))?;
    Ok(Apart::new(pool))
}

async fn connect(url: &StoreUrl) -> Result<Pool, StoreError> {
    Ok(match url {
        StoreUrl::Sqlite(path) => Pool::Sqlite(again!(sqlite(path))?),
        StoreUrl::Mysql(url) => Pool::Mysql(mysql(url.reveal()).await?),
    })
}

async fn sqlite(path: &Path) -> Result<Sqlite, StoreError> {
    // SQLite gives its other files the mode of this one.
    let failed =
        |error: std::io::Error| StoreError::File(path.display().to_string(), format!("can't be opened: {error}"));
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path).map_err(failed)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    drop(file);
    let options = SqliteConnectOptions::new()
        .filename(path)
        .foreign_keys(true)
        .journal_mode(SqliteJournalMode::Wal)
        // What is stored before an act must survive a power cut, too.
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(Duration::from_millis(LOCK_MS_MAX))
        .disable_statement_logging();
    let wait = Duration::from_secs(BUSY_SECONDS_MAX);
    let writes = SqlitePoolOptions::new().max_connections(1).acquire_timeout(wait);
    let reads = SqlitePoolOptions::new().max_connections(CONNECTIONS_MAX).acquire_timeout(wait);
    let writes = writes.connect_with(options.clone()).await?;
    Ok(Sqlite { writes, reads: reads.connect_with(options).await? })
}

async fn mysql(url: &str) -> Result<MySqlPool, StoreError> {
    // Its error would quote the URL, and with it the password.
    let options = MySqlConnectOptions::from_str(url)
        .map_err(|_| sqlx::Error::Configuration("the mysql URL is malformed".into()))?
        .disable_statement_logging();
    // The default level locks gaps between keys, and orders of neighbouring names would dead-lock.
    let pool = MySqlPoolOptions::new().max_connections(CONNECTIONS_MAX).after_connect(|connection, _| {
        let level = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED";
        let silent = format!("SET SESSION wait_timeout = {SILENT_SECONDS_MAX}");
        Box::pin(async move {
            sqlx::query(level).execute(&mut *connection).await?;
            sqlx::query(AssertSqlSafe(silent)).execute(connection).await.map(|_| ())
        })
    });
    let pool = pool.idle_timeout(Duration::from_secs(IDLE_SECONDS_MAX));
    Ok(pool.acquire_timeout(Duration::from_secs(WAIT_SECONDS_MAX)).connect_with(options).await?)
}
