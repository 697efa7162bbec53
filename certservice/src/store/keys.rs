//! Edge keys, and which bundle is sealed to which set of them.

use contract::journal::Detail;
use contract::{Bundle, Hostname};

use super::journal::{Told, tell};
use super::{Store, StoreError, again, from_sql, in_transaction, on, parse, to_sql, write};
use crate::keys::KeySet;

/// An edge key, authenticated by who wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRow {
    pub kid: String,
    pub pool: String,
    /// PEM.
    pub public_key: String,
    /// Unix seconds.
    pub added_at: u64,
    /// Unix seconds.
    pub retired_at: Option<u64>,
    /// Hexadecimal.
    pub mac: String,
}

/// A bundle as it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct SealedBundle {
    pub bundle: Bundle,
    pub set: KeySet,
    pub body: String,
}

/// Other entries in place of those that were read.
#[derive(Debug, Clone, PartialEq)]
pub struct Rekeyed {
    pub before: SealedBundle,
    pub bundle: Bundle,
    pub set: KeySet,
}

const ROWS: &str = "SELECT kid, pool, public_key, added_at, retired_at, mac FROM edge_keys ORDER BY added_at, kid";
const REPLACE_ROW: &str =
    "REPLACE INTO edge_keys (kid, pool, public_key, added_at, retired_at, mac) VALUES (?, ?, ?, ?, ?, ?)";
/// A row that is always there: who changes keys waits for who does.
const HOLD: &str = "UPDATE changes_head SET `cursor` = `cursor` WHERE id = 1";

pub(super) const KNOWN_SET: &str = "SELECT kids FROM key_sets WHERE id = ?";
pub(super) const NEW_SET: &str = "REPLACE INTO key_sets (id, kids) VALUES (?, ?)";
pub(super) const REPLACE_BUNDLE: &str = "REPLACE INTO bundles (domain, body, key_set) VALUES (?, ?, ?)";
const SETS: &str = "SELECT id, kids FROM key_sets";
/// Where bundles are apart, one that is not known to be served yet has no set.
const COUNTS: &str = "SELECT key_set, COUNT(*) FROM bundles WHERE key_set IS NOT NULL GROUP BY key_set";
const OF_SET: &str = "SELECT domain, body FROM bundles WHERE key_set = ? AND domain > ? ORDER BY domain LIMIT ?";
const ONE: &str = "SELECT bundles.body, key_sets.kids FROM bundles JOIN key_sets ON key_sets.id = bundles.key_set \
    WHERE bundles.domain = ?";
const HOLD_BUNDLE: &str = "UPDATE bundles SET key_set = key_set WHERE domain = ? AND key_set = ?";
const BODY: &str = "SELECT body FROM bundles WHERE domain = ? AND key_set = ?";
const CHANGE: &str = "UPDATE bundles SET body = ?, key_set = ? WHERE domain = ? AND key_set = ?";
const UNCOUNTED: &str = "SELECT domain, body FROM bundles WHERE key_set = 0 LIMIT ?";
const COUNT: &str = "UPDATE bundles SET key_set = ? WHERE domain = ? AND key_set = 0";

/// Makes a set of keys known, so that bundles can be counted by it.
macro_rules! know_set {
    ($transaction:ident, $set:expr) => {{
        use $crate::store::keys::{KNOWN_SET, NEW_SET};
        let known: Option<String> =
            sqlx::query_scalar(KNOWN_SET).bind($set.id()).fetch_optional(&mut *$transaction).await?;
        if known.is_none() {
            sqlx::query(NEW_SET).bind($set.id()).bind($set.text()).execute(&mut *$transaction).await?;
        }
        $set.id()
    }};
}
pub(super) use know_set;

/// Stores a bundle that CertService has sealed, or its place.
macro_rules! replace_bundle {
    ($transaction:ident, $name:expr, $body:expr, $set:expr) => {{
        let set = match $set {
            Some(set) => $crate::store::keys::know_set!($transaction, set),
            None => 0,
        };
        sqlx::query($crate::store::keys::REPLACE_BUNDLE)
            .bind($name)
            .bind($body)
            .bind(set)
            .execute(&mut *$transaction)
            .await?;
    }};
}
pub(super) use replace_bundle;

impl Store {
    pub async fn edge_keys(&self) -> Result<Vec<KeyRow>, StoreError> {
        type Row = (String, String, String, i64, Option<i64>, String);
        let rows: Vec<Row> = on!(self, pool => sqlx::query_as(ROWS).fetch_all(pool).await?);
        Ok(rows.into_iter().map(key_row).collect())
    }

    /// Writes a key, if all are still as they were seen; `false` where somebody has changed them.
    pub async fn change_edge_key(
        &self,
        seen: &[KeyRow],
        row: &KeyRow,
        actor: &str,
        action: &'static str,
        detail: Detail,
    ) -> Result<bool, StoreError> {
        again!(self.change_edge_key_once(seen, row, actor, action, &detail))
    }

    async fn change_edge_key_once(
        &self,
        seen: &[KeyRow],
        row: &KeyRow,
        actor: &str,
        action: &'static str,
        detail: &Detail,
    ) -> Result<bool, StoreError> {
        Ok(in_transaction!(self, transaction => {
            sqlx::query(HOLD).execute(&mut *transaction).await?;
            let now: Vec<(String, String, String, i64, Option<i64>, String)> =
                sqlx::query_as(ROWS).fetch_all(&mut *transaction).await?;
            if !now.into_iter().map(key_row).eq(seen.iter().cloned()) {
                return Ok(false);
            }
            sqlx::query(REPLACE_ROW)
                .bind(&row.kid).bind(&row.pool).bind(&row.public_key).bind(to_sql(row.added_at))
                .bind(row.retired_at.map(to_sql)).bind(&row.mac)
                .execute(&mut *transaction).await?;
            tell!(transaction, Told { actor, action, tenant: "", name: &row.kid, detail: detail.clone() });
            true
        }))
    }

    pub async fn key_sets(&self) -> Result<Vec<KeySet>, StoreError> {
        let rows: Vec<(i64, String)> = on!(self.vault(), pool => sqlx::query_as(SETS).fetch_all(pool).await)
            .map_err(|error| self.of_vault(error))?;
        Ok(rows.into_iter().map(|(_, kids)| KeySet::parse(&kids)).collect())
    }

    /// How many bundles are sealed to which keys, and how many are not counted yet. Reads an index only.
    pub async fn bundles_by_key_set(&self) -> Result<(Vec<(KeySet, u64)>, u64), StoreError> {
        let failed = |error: sqlx::Error| self.of_vault(error);
        let counts: Vec<(i64, i64)> =
            on!(self.vault(), pool => sqlx::query_as(COUNTS).fetch_all(pool).await).map_err(failed)?;
        let sets: Vec<(i64, String)> =
            on!(self.vault(), pool => sqlx::query_as(SETS).fetch_all(pool).await).map_err(failed)?;
        let (mut counted, mut uncounted) = (Vec::new(), 0);
        for (id, count) in counts {
            match sets.iter().find(|(known, _)| *known == id) {
                Some((_, kids)) => counted.push((KeySet::parse(kids), from_sql(count))),
                None => uncounted += from_sql(count),
            }
        }
        Ok((counted, uncounted))
    }

    /// Bundles that are sealed to exactly these keys, by name.
    pub async fn bundles_of_set(
        &self,
        set: &KeySet,
        after: &str,
        limit: usize,
    ) -> Result<Vec<SealedBundle>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows: Vec<(String, String)> = on!(self.vault(), pool => sqlx::query_as(OF_SET)
            .bind(set.id()).bind(after).bind(limit).fetch_all(pool).await)
        .map_err(|error| self.of_vault(error))?;
        let sealed = |(domain, body): (String, String)| {
            Ok(SealedBundle { bundle: parse("the bundle", &domain, &body)?, set: set.clone(), body })
        };
        rows.into_iter().map(sealed).collect()
    }

    /// `None` also for one that is not counted yet.
    pub async fn sealed_bundle(&self, domain: &Hostname) -> Result<Option<SealedBundle>, StoreError> {
        let row: Option<(String, String)> =
            on!(self.vault(), pool => sqlx::query_as(ONE).bind(domain.as_str()).fetch_optional(pool).await)
                .map_err(|error| self.of_vault(error))?;
        let sealed = |(body, kids): (String, String)| {
            Ok(SealedBundle { bundle: parse("the bundle", domain.as_str(), &body)?, set: KeySet::parse(&kids), body })
        };
        row.map(sealed).transpose()
    }

    /// Replaces entries of bundles that are still as they were read: which were.
    pub async fn rekey(
        &self,
        changes: &[Rekeyed],
        actor: &str,
        action: &'static str,
        kid: &str,
    ) -> Result<Vec<bool>, StoreError> {
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        again!(self.rekey_once(changes, actor, action, kid)).map_err(|error| self.of_vault(error))
    }

    async fn rekey_once(
        &self,
        changes: &[Rekeyed],
        actor: &str,
        action: &'static str,
        kid: &str,
    ) -> Result<Vec<bool>, StoreError> {
        Ok(in_transaction!(self.vault(), transaction => {
            let mut written = Vec::with_capacity(changes.len());
            for Rekeyed { before, bundle, set } in changes {
                let name = bundle.domain.as_str();
                let held = sqlx::query(HOLD_BUNDLE).bind(name).bind(before.set.id()).execute(&mut *transaction).await?;
                let body: Option<String> = match held.rows_affected() {
                    0 => None,
                    _ => sqlx::query_scalar(BODY).bind(name).bind(before.set.id()).fetch_optional(&mut *transaction).await?,
                };
                let same = body.is_some_and(|body| body == before.body);
                if same {
                    let set = know_set!(transaction, set);
                    let body = if *bundle == before.bundle { before.body.clone() } else { write("the bundle", name, bundle)? };
                    sqlx::query(CHANGE).bind(body).bind(set).bind(name).bind(before.set.id())
                        .execute(&mut *transaction).await?;
                }
                written.push(same);
            }
            let names: Vec<_> = changes.iter().zip(&written).filter(|(_, written)| **written)
                .map(|(change, _)| change.bundle.domain.as_str()).collect();
            if let (Some(first), Some(last)) = (names.first(), names.last()) {
                let detail = [
                    ("bundles".to_owned(), names.len().into()),
                    ("first".to_owned(), (*first).into()),
                    ("last".to_owned(), (*last).into()),
                ].into();
                let told = Told { actor, action, tenant: "", name: kid, detail };
                // Told before it is done, where one transaction can't do both.
                match self.apart {
                    Some(_) => self.tell(&told).await?,
                    None => tell!(transaction, told),
                }
            }
            written
        }))
    }

    /// Counts bundles that a CertService has written that did not count them: how many.
    pub async fn count_bundles(&self, limit: usize) -> Result<usize, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows: Vec<(String, String)> =
            on!(self.vault(), pool => sqlx::query_as(UNCOUNTED).bind(limit).fetch_all(pool).await)
                .map_err(|error| self.of_vault(error))?;
        let counted = rows.len();
        if counted > 0 {
            again!(self.count_these(&rows)).map_err(|error| self.of_vault(error))?;
        }
        Ok(counted)
    }

    async fn count_these(&self, rows: &[(String, String)]) -> Result<(), StoreError> {
        in_transaction!(self.vault(), transaction => {
            for (domain, body) in rows {
                let set = KeySet::of(&parse("the bundle", domain, body)?);
                let set = know_set!(transaction, set);
                sqlx::query(COUNT).bind(set).bind(domain).execute(&mut *transaction).await?;
            }
        });
        Ok(())
    }
}

fn key_row(
    (kid, pool, public_key, added_at, retired_at, mac): (String, String, String, i64, Option<i64>, String),
) -> KeyRow {
    let (added_at, retired_at) = (from_sql(added_at), retired_at.map(from_sql));
    KeyRow { kid, pool, public_key, added_at, retired_at, mac }
}
