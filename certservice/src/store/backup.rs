//! Every row of the database, out and in again, each in one transaction: what a backup is made of. The same on each
//! database, so that one's backup goes into another.

mod reading;

use contract::Bundle;
use contract::api::CertificateInfo;
use contract::bundle::sha256;
use futures_util::TryStreamExt;
use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, Row};

use self::reading::Reading;
use super::apart::Place;
use super::journal::{Told, tell};
use super::{Pool, Store, StoreError, from_sql, in_transaction, migrations, parse, to_sql};

/// In the order in which rows can be written: each after what it refers to.
pub const TABLES: [&str; 18] = [
    "domains",
    "changes",
    "changes_head",
    "edge_keys",
    "key_sets",
    "bundles",
    "jobs",
    "challenges",
    "ticket_keys",
    "budgets",
    "issuers",
    "turns",
    "lists",
    "list_parts",
    "list_errors",
    "webhooks",
    "journal_head",
    "journal",
];

/// Of one statement that writes.
const ROWS_MAX: usize = 100;
/// Well below what MySQL takes in one packet.
const BYTES_MAX: usize = 1024 * 1024;

/// A part of a backup. Rows belong to the table that was named last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Piece {
    Table { table: String, columns: Vec<String> },
    Row(Vec<Cell>),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Cell {
    Nothing,
    Number(i64),
    Text(String),
}

impl Cell {
    fn bytes(&self) -> usize {
        if let Self::Text(text) = self { text.len() } else { 8 }
    }
}

/// What came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restored {
    pub rows: u64,
    pub domains: u64,
    pub bundles: u64,
    /// Newest entry of the journal that was restored, and whose chain was checked.
    pub journal_seq: u64,
}

/// Takes pieces, or says why it can't.
pub(super) type Keep<'a> = dyn FnMut(Piece) -> Result<(), String> + Send + 'a;
/// Gives pieces until there are no more.
pub(super) type Source<'a> = dyn FnMut() -> Result<Option<Piece>, String> + Send + 'a;

const SQLITE_COLUMNS: &str = "SELECT name, type FROM pragma_table_info(?) ORDER BY cid";
const MYSQL_COLUMNS: &str = "SELECT CAST(column_name AS CHAR), CAST(data_type AS CHAR) FROM information_schema.columns \
    WHERE table_schema = DATABASE() AND table_name = ? ORDER BY ordinal_position";
const CHANGES_HEAD: &str = "SELECT COALESCE(MAX(`cursor`), 0) FROM changes";
const HELD: &str = "SELECT (SELECT COUNT(*) FROM domains), seq FROM journal_head WHERE id = 1";
const CERTIFIED: &str = "SELECT d.name, d.certificate, b.body FROM domains d LEFT JOIN bundles b ON b.domain = d.name \
    WHERE d.certificate IS NOT NULL";

macro_rules! copy_out {
    ($connection:ident, $beside:ident, $columns:expr, $keep:ident) => {
        for table in TABLES {
            let columns: Vec<(String, String)> =
                sqlx::query_as($columns).bind(table).fetch_all(&mut *$connection).await?;
            let names: Vec<String> = columns.iter().map(|(name, _)| name.clone()).collect();
            let query = format!("SELECT `{}` FROM {table} ORDER BY 1", names.join("`, `"));
            $keep(Piece::Table { table: table.to_owned(), columns: names }).map_err(StoreError::Backup)?;
            for row in $beside.rows(table).await? {
                $keep(Piece::Row(row)).map_err(StoreError::Backup)?;
            }
            let at = |name: &str| columns.iter().position(|(known, _)| known == name);
            let mut rows = sqlx::query(AssertSqlSafe(query)).fetch(&mut *$connection);
            while let Some(row) = rows.try_next().await? {
                let mut cells = Vec::with_capacity(columns.len());
                for (at, (_, kind)) in columns.iter().enumerate() {
                    cells.push(if kind.to_ascii_lowercase().contains("int") {
                        row.try_get::<Option<i64>, _>(at)?.map_or(Cell::Nothing, Cell::Number)
                    } else {
                        row.try_get::<Option<String>, _>(at)?.map_or(Cell::Nothing, Cell::Text)
                    });
                }
                $beside.complete(table, at, &mut cells).await?;
                $keep(Piece::Row(cells)).map_err(StoreError::Backup)?;
            }
        }
    };
}

/// Where bundles are apart, the other database may have gone on too far meanwhile: then from the beginning.
macro_rules! snapshots {
    ($store:ident, $begin:expr) => {
        loop {
            let mut snapshot = $begin;
            let head: i64 = sqlx::query_scalar(CHANGES_HEAD).fetch_one(&mut *snapshot).await?;
            if let Some(beside) = $store.snapshot_beside(from_sql(head)).await? {
                break (snapshot, beside);
            }
        }
    };
}

/// Rows of one table, all of the same columns.
macro_rules! insert {
    ($transaction:ident, $reading:ident, $rows:ident) => {
        if !$rows.is_empty() {
            let statement = $reading.insertion($rows.len());
            let mut query = sqlx::query(AssertSqlSafe(statement)).persistent(false);
            for cell in $rows.drain(..).flatten() {
                query = match cell {
                    Cell::Nothing => query.bind(None::<String>),
                    Cell::Number(number) => query.bind(number),
                    Cell::Text(text) => query.bind(text),
                };
            }
            query.execute(&mut *$transaction).await?;
        }
    };
}

impl Store {
    /// The schema's version, to which a backup belongs.
    pub fn schema() -> i64 {
        migrations::WHOLE.newest()
    }

    /// Reads a backup and keeps nothing of it: whether its tables and its journal are whole. What is wrong with the source
    /// itself is said first.
    pub fn read_through(source: &mut Source<'_>) -> Result<Restored, String> {
        let mut reading = Ok(Reading::default());
        while let Some(piece) = source()? {
            reading = reading.and_then(|mut reading| {
                match piece {
                    Piece::Table { table, columns } => reading.begin(&table, columns)?,
                    Piece::Row(row) => drop(reading.admit(row)?),
                }
                Ok(reading)
            });
        }
        reading.and_then(Reading::end)
    }

    /// All rows as they were at one moment, while others go on writing.
    pub async fn copy_out(&self, keep: &mut Keep<'_>) -> Result<(), StoreError> {
        match &self.pool {
            Pool::Sqlite(sqlite) => {
                let (mut transaction, mut beside) = snapshots!(self, sqlite.reads.begin().await?);
                copy_out!(transaction, beside, SQLITE_COLUMNS, keep);
                transaction.rollback().await?;
            }
            Pool::Mysql(pool) => {
                let (mut connection, mut beside) = snapshots!(self, {
                    // Its isolation is not that of the others.
                    let mut connection = Box::new(pool.acquire().await?.detach());
                    for statement in SNAPSHOT {
                        sqlx::raw_sql(statement).execute(&mut *connection).await?;
                    }
                    connection
                });
                copy_out!(connection, beside, MYSQL_COLUMNS, keep);
            }
        }
        Ok(())
    }

    /// Puts a backup into a database that holds nothing, all of it or nothing. It must be whole: the journal's chain, and each
    /// certificate with its key. What edges have seen since the backup was made stays apart from what comes now: cursors and
    /// revisions go on far above those of then.
    pub async fn copy_in(&self, source: &mut Source<'_>, taken_at: u64) -> Result<Restored, StoreError> {
        if let Some(apart) = &self.apart {
            self.refuse_another_pair(apart).await?;
        }
        let restored = in_transaction!(self, transaction => {
            let (domains, seq): (i64, i64) = sqlx::query_as(HELD).fetch_one(&mut *transaction).await?;
            if domains > 0 || seq > 0 {
                return Err(StoreError::Backup(format!(
                    "the database holds {domains} domains and {seq} entries of a journal; a backup goes into an empty one"
                )));
            }
            if let Some(apart) = &self.apart {
                apart.clear().await?;
            }
            let mut apart = self.taking_apart();
            for table in TABLES {
                let statement = format!("DELETE FROM {table}");
                sqlx::query(AssertSqlSafe(statement)).execute(&mut *transaction).await?;
            }
            let (mut reading, mut rows, mut bytes) = (Reading::default(), Vec::new(), 0);
            while let Some(piece) = source().map_err(StoreError::Backup)? {
                match piece {
                    Piece::Table { table, columns } => {
                        insert!(transaction, reading, rows);
                        bytes = 0;
                        reading.begin(&table, columns).map_err(StoreError::Backup)?;
                    }
                    Piece::Row(row) => {
                        let row = reading.admit(row).map_err(StoreError::Backup)?;
                        let Some(row) = apart.take(reading.table(), |name| reading.at(name), row).await? else { continue };
                        bytes += row.iter().map(Cell::bytes).sum::<usize>();
                        rows.push(row);
                        if rows.len() == ROWS_MAX || bytes > BYTES_MAX {
                            insert!(transaction, reading, rows);
                            bytes = 0;
                        }
                    }
                }
            }
            insert!(transaction, reading, rows);
            apart.flush().await?;
            let mut restored = reading.end().map_err(StoreError::Backup)?;
            {
                let mut certified = sqlx::query_as::<_, (String, String, Option<String>)>(CERTIFIED).fetch(&mut *transaction);
                while let Some((name, shown, body)) = certified.try_next().await? {
                    self.check_bundle(&name, &shown, body)?;
                    restored.bundles += 1;
                }
            }
            let detail = [
                ("backup_taken_at".to_owned(), taken_at.into()), ("domains".to_owned(), restored.domains.into()),
                ("journal_seq".to_owned(), restored.journal_seq.into()),
            ].into();
            tell!(transaction, Told { actor: "local", action: "store.restored", tenant: "", name: "", detail });
            restored
        });
        if let Some(apart) = &self.apart {
            // All that is served stands there as such.
            apart.skip_to(self.changes_head().await?).await?;
        }
        Ok(restored)
    }

    /// The certificate that a domain shows is the one whose key is here, or where bundles are.
    fn check_bundle(&self, name: &str, shown: &str, body: Option<String>) -> Result<(), StoreError> {
        let damaged = |says: &str| StoreError::Damaged("the bundle", name.to_owned(), says.to_owned());
        let shown: CertificateInfo = parse("the certificate", name, shown)?;
        let body = body.ok_or_else(|| damaged("there is none, but a certificate is shown"))?;
        let (domain, digest) = if self.apart.is_some() {
            (name.to_owned(), Place::read(name, &body)?.shown().to_owned())
        } else {
            let bundle: Bundle = parse("the bundle", name, &body)?;
            let chain = bundle.chain().map_err(|error| damaged(&error.to_string()))?;
            (bundle.domain.to_string(), sha256(&chain[0]).iter().map(|byte| format!("{byte:02x}")).collect())
        };
        if domain != name || digest != shown.sha256 {
            return Err(damaged(&format!("its certificate is {digest}, but {} is shown", shown.sha256)));
        }
        Ok(())
    }
}

/// A snapshot says nothing for as long as the other database is read, or what was read is written: it is not one of a host
/// that has vanished. So long as the server allows by itself.
pub(super) const SNAPSHOT: [&str; 3] = [
    "SET SESSION wait_timeout = 28800",
    "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
    "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
];
