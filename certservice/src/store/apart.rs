//! Bundles, and the sealed keys of orders, in a database of their own: who reads the other one has no sealed key, and who
//! reads this one nothing else.
//!
//! No transaction spans both. What is sealed is written here first, where it never changes its place; then the other
//! database says that it is served, or that an order has it. So a crash between the two leaves one too many, never one too
//! few: [`follow`] takes out what the feed says is over, and sweeps what was never said.

mod copying;
mod follow;
mod orders;
mod pair;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub(super) use self::orders::without_keys;
use contract::Bundle;
use contract::bundle::sha256;
use serde::{Deserialize, Serialize};

use super::domains::is_duplicate;
use super::keys::know_set;
use super::{Pool, Store, StoreError, again, in_transaction, on, parse, to_sql, write, writing};
use crate::clock;
use crate::keys::KeySet;

const READ_SECONDS_MAX: u64 = 5;
/// More than who waits for SQLite's only writer.
const WRITE_SECONDS_MAX: u64 = 25;

/// `key_set` is that of the bundle that is served, and nothing until it is known to be; `sealed_to` what it will be then.
const PUT: &str = "INSERT INTO bundles (domain, revision, certificates, body, sealed_to, key_set, since) \
    VALUES (?, ?, ?, ?, ?, NULL, ?)";
const AGAIN: &str = "UPDATE bundles SET since = ? WHERE domain = ? AND revision = ? AND certificates = ?";
const GET: &str = "SELECT body FROM bundles WHERE domain = ? AND revision = ? AND certificates = ?";
const PROBE: &str = "SELECT seen FROM pair WHERE id = 1";
const PROBE_WRITING: &str = "UPDATE pair SET seen = seen WHERE id = 1";

#[derive(Clone)]
pub(super) struct Apart {
    pub(super) pool: Pool,
    down: Arc<AtomicBool>,
}

/// Where a bundle is: what stands in the other database in its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Place {
    pub revision: u64,
    /// SHA-256 of each certificate, hexadecimal, with `+` between.
    pub certificates: String,
}

impl Place {
    pub(super) fn of(bundle: &Bundle) -> Self {
        let digests = bundle.certificates().map(|(chain, _)| match chain.as_deref() {
            Ok([leaf, ..]) => hex(&sha256(leaf)),
            _ => String::new(),
        });
        Self { revision: bundle.revision, certificates: digests.collect::<Vec<_>>().join("+") }
    }

    /// Of the certificate that is shown.
    pub(super) fn shown(&self) -> &str {
        self.certificates.split('+').next().unwrap_or_default()
    }

    pub(super) fn read(name: &str, text: &str) -> Result<Self, StoreError> {
        parse("the place of the bundle", name, text)
    }

    pub(super) fn text(&self, name: &str) -> Result<String, StoreError> {
        write("the place of the bundle", name, self)
    }
}

impl Apart {
    pub(super) fn new(pool: Pool) -> Self {
        Self { pool, down: Arc::default() }
    }

    /// What it does within its time, and takes notice of whether it does.
    async fn within<T>(&self, seconds: u64, act: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        // Boxed: who awaits it is as small as where bundles are not apart.
        let done = tokio::time::timeout(Duration::from_secs(seconds), Box::pin(act)).await;
        let done = done.unwrap_or(Err(StoreError::Late(seconds)));
        if let Err(error @ (StoreError::Database(_) | StoreError::Late(_))) = &done
            && !self.down.swap(true, Ordering::Relaxed)
        {
            tracing::error!(%error, "the database of bundles is down: no order leaves before it answers");
        }
        done.map_err(of_bundles)
    }

    /// Before anybody is told of it. Again is no other: what is there has the same certificates and keys.
    pub(super) async fn put(&self, bundle: &Bundle, body: &str) -> Result<(), StoreError> {
        self.within(WRITE_SECONDS_MAX, async { again!(self.put_once(bundle, body)) }).await
    }

    async fn put_once(&self, bundle: &Bundle, body: &str) -> Result<(), StoreError> {
        let (name, set, now) = (bundle.domain.as_str(), KeySet::of(bundle), to_sql(clock::now()));
        let Place { revision, certificates } = &Place::of(bundle);
        in_transaction!(self, transaction => {
            let set = know_set!(transaction, set);
            let again = sqlx::query(AGAIN).bind(now).bind(name).bind(to_sql(*revision)).bind(certificates)
                .execute(&mut *transaction).await?.rows_affected();
            if again == 0 {
                let put = sqlx::query(PUT)
                    .bind(name).bind(to_sql(*revision)).bind(certificates).bind(body).bind(set).bind(now)
                    .execute(&mut *transaction).await;
                put.map(drop).or_else(|error| if is_duplicate(&error) { Ok(()) } else { Err(error) })?;
            }
        });
        Ok(())
    }

    pub(super) async fn get(&self, name: &str, place: &Place) -> Result<Option<String>, StoreError> {
        let read = async {
            Ok(on!(self, pool => sqlx::query_scalar(GET)
                .bind(name).bind(to_sql(place.revision)).bind(&place.certificates).fetch_optional(pool).await?))
        };
        self.within(READ_SECONDS_MAX, read).await
    }

    /// Whether it answers, and takes writes again where it did not.
    async fn probe(&self) -> Result<(), StoreError> {
        let probe = async {
            if self.down.load(Ordering::Relaxed) {
                return writing!(self, pool => sqlx::query(PROBE_WRITING).execute(pool).await.map(drop)?);
            }
            let _: i64 = on!(self, pool => sqlx::query_scalar(PROBE).fetch_one(pool).await?);
            Ok(())
        };
        self.within(READ_SECONDS_MAX, probe).await?;
        if self.down.swap(false, Ordering::Relaxed) {
            tracing::info!("the database of bundles is back");
        }
        Ok(())
    }
}

/// The database that has bundles and the sets of keys that they are sealed to, in which the queries of [`super::keys`] hold.
pub(super) struct Vault<'a> {
    pub(super) pool: &'a Pool,
}

impl Store {
    pub(super) fn vault(&self) -> Vault<'_> {
        Vault { pool: self.apart.as_ref().map_or(&self.pool, |apart| &apart.pool) }
    }

    /// What failed there.
    pub(super) fn of_vault(&self, error: impl Into<StoreError>) -> StoreError {
        if self.apart.is_some() { of_bundles(error.into()) } else { error.into() }
    }

    /// Whether the database of bundles answers, where they are apart; `None` where they are not.
    pub async fn bundles_ready(&self) -> Option<Result<(), StoreError>> {
        match &self.apart {
            Some(apart) => Some(apart.probe().await),
            None => None,
        }
    }

    /// The same of a write.
    pub async fn write_to_bundles(&self) -> Option<Result<(), StoreError>> {
        let apart = self.apart.as_ref()?;
        let write = async { writing!(apart, pool => sqlx::query(PROBE_WRITING).execute(pool).await.map(drop)?) };
        Some(apart.within(READ_SECONDS_MAX, write).await)
    }

    /// As it was when somebody used it last; `None` where bundles are not apart.
    pub fn bundles_down(&self) -> Option<bool> {
        self.apart.as_ref().map(|apart| apart.down.load(Ordering::Relaxed))
    }

    pub(super) async fn current_apart(&self, apart: &Apart, name: &str) -> Result<Option<String>, StoreError> {
        let mut current = self.current(name).await?;
        while let Some(text) = current {
            let place = Place::read(name, &text)?;
            if let Some(body) = apart.get(name, &place).await? {
                return Ok(Some(body));
            }
            // Replaced, and taken out, while we looked; or lost.
            current = self.current(name).await?;
            if current.as_ref() == Some(&text) {
                return Err(StoreError::BundleLost(name.to_owned(), place.revision));
            }
        }
        Ok(None)
    }

    /// What stands with the rest in a bundle's place: the bundle, or where it is now that it is put there; and the keys by
    /// which it is counted.
    pub(super) async fn put_bundle(&self, bundle: &Bundle) -> Result<(String, Option<KeySet>), StoreError> {
        let name = bundle.domain.as_str();
        let body = write("the bundle", name, bundle)?;
        match &self.apart {
            None => Ok((body, Some(KeySet::of(bundle)))),
            Some(apart) => {
                apart.put(bundle, &body).await?;
                Ok((Place::of(bundle).text(name)?, None))
            }
        }
    }
}

pub(super) fn of_bundles(error: StoreError) -> StoreError {
    match error {
        StoreError::Database(_)
        | StoreError::Late(_)
        | StoreError::File(..)
        | StoreError::TooNew(..)
        | StoreError::SchemaLocked(_) => StoreError::Bundles(Box::new(error)),
        error => error,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
