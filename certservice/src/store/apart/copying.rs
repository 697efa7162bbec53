//! Backups: out of both databases as they are at one moment, and into both. A backup has all in one.

use contract::Bundle;
use sqlx::MySqlConnection;

use super::orders::{is_apart, sealed_keys, without_keys};
use super::{Apart, Place, WRITE_SECONDS_MAX, of_bundles};
use crate::clock;
use crate::order::Job;
use crate::store::backup::{Cell, SNAPSHOT};
use crate::store::{Pool, Store, StoreError, again, from_sql, in_transaction, parse, to_sql, write};

const SEEN: &str = "SELECT seen FROM pair WHERE id = 1";
const SETS: &str = "SELECT id, kids FROM key_sets ORDER BY id";
const BUNDLE: &str = "SELECT body, COALESCE(key_set, sealed_to) FROM bundles \
    WHERE domain = ? AND revision = ? AND certificates = ?";
const KEY: &str = "SELECT body FROM sealed_keys WHERE id = ?";
const CLEAR: [&str; 3] = ["DELETE FROM bundles", "DELETE FROM sealed_keys", "DELETE FROM key_sets"];
const PUT: &str = "INSERT INTO bundles (domain, revision, certificates, body, sealed_to, key_set, since) \
    VALUES (?, ?, ?, ?, ?, ?, ?)";
const PUT_SET: &str = "REPLACE INTO key_sets (id, kids) VALUES (?, ?)";

/// Of one transaction.
const ROWS_MAX: usize = 100;
/// An order whose body has this may have a key elsewhere.
const MAYBE_APART: &str = "\"apart:";

/// The database of bundles at one moment.
pub(in crate::store) enum Snapshot {
    Sqlite(sqlx::Transaction<'static, sqlx::Sqlite>),
    Mysql(Box<MySqlConnection>),
}

macro_rules! at_once {
    ($snapshot:expr, $connection:ident => $body:expr) => {
        match $snapshot {
            Snapshot::Sqlite(transaction) => {
                let $connection = &mut **transaction;
                $body
            }
            Snapshot::Mysql(connection) => {
                let $connection = &mut **connection;
                $body
            }
        }
    };
}

impl Store {
    /// What goes with a snapshot whose changes end with `head`; `None` where bundles that it needs may have gone since. It
    /// is taken after that one, so all that was served then was written here before.
    pub(in crate::store) async fn snapshot_beside(&self, head: u64) -> Result<Option<Beside>, StoreError> {
        let Some(apart) = &self.apart else { return Ok(Some(Beside(None))) };
        let (snapshot, seen) = apart.snapshot().await.map_err(of_bundles)?;
        Ok((seen <= head).then_some(Beside(Some(snapshot))))
    }

    pub(in crate::store) fn taking_apart(&self) -> TakingApart<'_> {
        TakingApart { store: self, rows: Vec::new() }
    }
}

/// What a row of a backup has from another place.
pub(in crate::store) struct Beside(Option<Snapshot>);

impl Beside {
    /// Of a table that is there, not here.
    pub(in crate::store) async fn rows(&mut self, table: &str) -> Result<Vec<Vec<Cell>>, StoreError> {
        let (Some(snapshot), "key_sets") = (&mut self.0, table) else { return Ok(Vec::new()) };
        let sets: Vec<(i64, String)> =
            at_once!(snapshot, connection => sqlx::query_as(SETS).fetch_all(connection).await).map_err(failed)?;
        Ok(sets.into_iter().map(|(id, kids)| vec![Cell::Number(id), Cell::Text(kids)]).collect())
    }

    /// Puts a bundle in the place of its place, and keys into an order.
    pub(in crate::store) async fn complete(
        &mut self,
        table: &str,
        at: impl Fn(&str) -> Option<usize>,
        row: &mut [Cell],
    ) -> Result<(), StoreError> {
        let Some(snapshot) = &mut self.0 else { return Ok(()) };
        let (Some(name), Some(body)) = (at("domain"), at("body")) else { return Ok(()) };
        let (Cell::Text(name), Cell::Text(text)) = (row[name].clone(), row[body].clone()) else { return Ok(()) };
        match (table, at("key_set")) {
            ("bundles", Some(set)) => {
                let place = Place::read(&name, &text)?;
                let found = snapshot.bundle(&name, &place).await.map_err(of_bundles)?;
                let (text, key_set) = found.ok_or(StoreError::BundleLost(name, place.revision))?;
                (row[body], row[set]) = (Cell::Text(text), Cell::Number(key_set));
            }
            ("jobs", _) if text.contains(MAYBE_APART) => {
                let job = snapshot.with_keys(parse("the order", &name, &text)?).await.map_err(of_bundles)?;
                row[body] = Cell::Text(write("the order", &name, &job)?);
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
impl Beside {
    /// How long MySQL lets it say nothing.
    pub(in crate::store) async fn silent_seconds_max(&mut self) -> Option<i64> {
        let Some(Snapshot::Mysql(connection)) = &mut self.0 else { return None };
        sqlx::query_scalar("SELECT CAST(@@SESSION.wait_timeout AS SIGNED)").fetch_one(&mut **connection).await.ok()
    }
}

impl Snapshot {
    async fn bundle(&mut self, name: &str, place: &Place) -> Result<Option<(String, i64)>, StoreError> {
        let revision = to_sql(place.revision);
        Ok(at_once!(self, connection => sqlx::query_as(BUNDLE)
            .bind(name).bind(revision).bind(&place.certificates).fetch_optional(connection).await?))
    }

    /// One that has lost a key begins anew.
    async fn with_keys(&mut self, mut job: Job) -> Result<Job, StoreError> {
        let name = job.domain.to_string();
        let mut lost = false;
        for key in sealed_keys(&mut job) {
            let Some(id) = is_apart(key) else { continue };
            let found: Option<String> =
                at_once!(self, connection => sqlx::query_scalar(KEY).bind(id).fetch_optional(connection).await?);
            match found {
                Some(text) => *key = parse("the sealed key", &name, &text)?,
                None => lost = true,
            }
        }
        Ok(if lost { without_keys(job) } else { job })
    }
}

impl Apart {
    async fn snapshot(&self) -> Result<(Snapshot, u64), StoreError> {
        let mut snapshot = match &self.pool {
            Pool::Sqlite(sqlite) => Snapshot::Sqlite(sqlite.reads.begin().await?),
            Pool::Mysql(pool) => {
                let mut connection = pool.acquire().await?.detach();
                for statement in SNAPSHOT {
                    sqlx::raw_sql(statement).execute(&mut connection).await?;
                }
                Snapshot::Mysql(Box::new(connection))
            }
        };
        // SQLite's begins with what is read first.
        let seen: i64 = at_once!(&mut snapshot, connection => sqlx::query_scalar(SEEN).fetch_one(connection).await?);
        Ok((snapshot, from_sql(seen)))
    }

    /// What a restore has left that was broken off.
    pub(in crate::store) async fn clear(&self) -> Result<(), StoreError> {
        let clear = async {
            in_transaction!(self, transaction => {
                for statement in CLEAR {
                    sqlx::query(statement).execute(&mut *transaction).await?;
                }
            });
            Ok(())
        };
        clear.await.map_err(of_bundles)
    }

    async fn put_all(&self, rows: &[Row]) -> Result<(), StoreError> {
        let now = to_sql(clock::now());
        in_transaction!(self, transaction => {
            for Row { name, place, body, key_set } in rows {
                sqlx::query(PUT)
                    .bind(name).bind(to_sql(place.revision)).bind(&place.certificates).bind(body)
                    .bind(key_set).bind(key_set).bind(now)
                    .execute(&mut *transaction).await?;
            }
        });
        Ok(())
    }

    async fn put_set(&self, id: i64, kids: &str) -> Result<(), StoreError> {
        let put = async {
            in_transaction!(self, transaction => {
                sqlx::query(PUT_SET).bind(id).bind(kids).execute(&mut *transaction).await?;
            });
            Ok(())
        };
        put.await.map_err(of_bundles)
    }
}

struct Row {
    name: String,
    place: Place,
    body: String,
    key_set: i64,
}

/// Rows of a backup on their way into both databases.
pub(in crate::store) struct TakingApart<'a> {
    store: &'a Store,
    rows: Vec<Row>,
}

impl TakingApart<'_> {
    /// What of a row goes with the rest.
    pub(in crate::store) async fn take(
        &mut self,
        table: &str,
        at: impl Fn(&str) -> Option<usize>,
        mut row: Vec<Cell>,
    ) -> Result<Option<Vec<Cell>>, StoreError> {
        let Some(apart) = &self.store.apart else { return Ok(Some(row)) };
        match (table, at("domain"), at("body"), at("key_set")) {
            ("bundles", Some(name), Some(body), set) => {
                let (Cell::Text(name), Cell::Text(text)) = (&row[name], &row[body]) else { return Ok(Some(row)) };
                let key_set = match set.map(|at| &row[at]) {
                    Some(Cell::Number(key_set)) => *key_set,
                    _ => 0,
                };
                let bundle: Bundle = parse("the bundle", name, text)?;
                bundle.chain().map_err(|error| StoreError::Damaged("the bundle", name.clone(), error.to_string()))?;
                if bundle.domain.as_str() != name {
                    let says = format!("it is one of {}", bundle.domain);
                    return Err(StoreError::Damaged("the bundle", name.clone(), says));
                }
                let place = Place::of(&bundle);
                let here = place.text(name)?;
                self.rows.push(Row { name: name.clone(), place, body: text.clone(), key_set });
                row[body] = Cell::Text(here);
                set.into_iter().for_each(|set| row[set] = Cell::Number(0));
                if self.rows.len() == ROWS_MAX {
                    self.flush().await?;
                }
                Ok(Some(row))
            }
            ("jobs", Some(name), Some(body), _) => {
                let (Cell::Text(name), Cell::Text(text)) = (&row[name], &row[body]) else { return Ok(Some(row)) };
                let job: Job = parse("the order", name, text)?;
                let text = self.store.order_text(&job, &without_keys(job.clone())).await?;
                row[body] = Cell::Text(text);
                Ok(Some(row))
            }
            ("key_sets", ..) => {
                if let [Cell::Number(id), Cell::Text(kids)] = row.as_slice() {
                    apart.put_set(*id, kids).await?;
                }
                Ok(None)
            }
            _ => Ok(Some(row)),
        }
    }

    pub(in crate::store) async fn flush(&mut self) -> Result<(), StoreError> {
        if let (Some(apart), false) = (&self.store.apart, self.rows.is_empty()) {
            let put = async { again!(apart.put_all(&self.rows)) };
            apart.within(WRITE_SECONDS_MAX, put).await?;
            self.rows.clear();
        }
        Ok(())
    }
}

fn failed(error: sqlx::Error) -> StoreError {
    of_bundles(error.into())
}
