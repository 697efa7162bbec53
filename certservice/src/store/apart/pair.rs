//! Whether the two databases belong together: both have the name of their pair, and neither is older than the other.

use std::hash::{BuildHasher, RandomState};

use super::Apart;
use crate::store::domains::is_duplicate;
use crate::store::{Store, StoreError, from_sql, on, to_sql, writing};

const OURS: &str = "SELECT pair FROM bundle_store WHERE id = 1";
const NAME_OURS: &str = "INSERT INTO bundle_store (id, pair) VALUES (1, ?)";
const THEIRS: &str = "SELECT pair, seen FROM pair WHERE id = 1";
const NAME_THEIRS: &str = "UPDATE pair SET pair = ? WHERE id = 1 AND pair = ''";
const NEWEST: &str = "SELECT c.domain FROM changes c JOIN bundles b ON b.domain = c.domain \
    WHERE c.gone = FALSE ORDER BY c.`cursor` DESC LIMIT ?";
/// A bundle in the place of its place; those begin as [`Place`] is written.
const OWN: &str = "SELECT domain FROM bundles WHERE body NOT LIKE '{\"revision\":%' LIMIT 1";

/// So many of the newest bundles are looked for: where more than one of them is missing, it is not that one was lost.
const LOOKED_FOR: i64 = 3;

const TOGETHER: &str = "bring both back as they were at one moment, or `latchkey-certservice restore` a backup into two empty \
    databases";

impl Store {
    /// Refuses to begin with two databases that are none, or with one half of two.
    pub(in crate::store) async fn pair_up(&self) -> Result<(), StoreError> {
        let ours: Option<String> = on!(self, pool => sqlx::query_scalar(OURS).fetch_optional(pool).await?);
        let Some(apart) = &self.apart else {
            let Some(pair) = ours else { return Ok(()) };
            return Err(StoreError::Apart(format!(
                "the bundles of this database are in another one (pair {pair}), and the boot file does not name it: set \
                 `store.bundles`; to have all in one, back up with it and restore into an empty database without it"
            )));
        };
        let (theirs, seen) = apart.pair().await?;
        if !theirs.is_empty() && ours.as_ref() != Some(&theirs) {
            let ours = ours.map_or("none".to_owned(), |pair| format!("pair {pair}"));
            return Err(StoreError::Apart(format!(
                "the databases at `store.url` and `store.bundles` do not belong together: the one is of {ours}, the other of \
                 pair {theirs}; name those of one pair, or {TOGETHER}"
            )));
        }
        if ours.is_none() {
            self.refuse_own_bundles().await?;
        }
        self.refuse_another_time(apart, seen).await?;
        if theirs.is_empty() { self.name_pair(apart, ours).await } else { Ok(()) }
    }

    async fn refuse_own_bundles(&self) -> Result<(), StoreError> {
        let name: Option<String> = on!(self, pool => sqlx::query_scalar(OWN).fetch_optional(pool).await?);
        name.map_or(Ok(()), |name| {
            Err(StoreError::Apart(format!(
                "the database at `store.url` holds bundles itself, such as that of {name}: leave `store.bundles` out, \
                 `latchkey-certservice backup`, then `restore` with it into two empty databases"
            )))
        })
    }

    async fn refuse_another_time(&self, apart: &Apart, seen: u64) -> Result<(), StoreError> {
        let head = self.changes_head().await?;
        if head < seen {
            return Err(StoreError::Apart(format!(
                "the database at `store.url` is older than that of its bundles: its changes end with {head}, and {seen} was \
                 there; {TOGETHER}"
            )));
        }
        let newest: Vec<String> = on!(self, pool => sqlx::query_scalar(NEWEST).bind(LOOKED_FOR).fetch_all(pool).await?);
        let mut lost = Vec::new();
        for name in &newest {
            // Or it is replaced while we look.
            match self.current_apart(apart, name).await {
                Ok(_) => {}
                Err(StoreError::BundleLost(name, revision)) => lost.push((name, revision)),
                Err(error) => return Err(error),
            }
        }
        match lost.as_slice() {
            [] => Ok(()),
            [(name, revision)] if newest.len() > 1 => {
                let error = StoreError::BundleLost(name.clone(), *revision);
                tracing::error!(%error, "a bundle is lost");
                Ok(())
            }
            [(name, revision), ..] => Err(StoreError::Apart(format!(
                "the database at `store.bundles` is older than the rest, or another: it has no revision {revision} of {name}; \
                 {TOGETHER}"
            ))),
        }
    }

    /// Here first: a crash leaves a name whose other half is found without one, and takes it.
    async fn name_pair(&self, apart: &Apart, ours: Option<String>) -> Result<(), StoreError> {
        if ours.is_none() {
            let name = format!("{:016x}", RandomState::new().hash_one("pair"));
            let named = writing!(self, pool => sqlx::query(NAME_OURS).bind(&name).execute(pool).await.map(drop)?);
            match named {
                // Another instance was faster.
                Err(StoreError::Database(error)) if is_duplicate(&error) => {}
                named => named?,
            }
        }
        let ours: String = on!(self, pool => sqlx::query_scalar(OURS).fetch_one(pool).await?);
        writing!(apart, pool => sqlx::query(NAME_THEIRS).bind(&ours).execute(pool).await.map(drop)?)?;
        let (theirs, _) = apart.pair().await?;
        if theirs == ours {
            return Ok(());
        }
        Err(StoreError::Apart(format!("`store.bundles` has become another's, pair {theirs}, in this moment")))
    }

    /// What is there is another's, or what a restore has left that was broken off: then it may go.
    pub(in crate::store) async fn refuse_another_pair(&self, apart: &Apart) -> Result<(), StoreError> {
        let (theirs, _) = apart.pair().await?;
        // Before version 17 there is no such table.
        let ours: Option<String> = match theirs.as_str() {
            "" => return Ok(()),
            _ => on!(self, pool => sqlx::query_scalar(OURS).fetch_optional(pool).await).unwrap_or_default(),
        };
        if ours.as_ref() == Some(&theirs) {
            return Ok(());
        }
        Err(StoreError::Apart(format!(
            "the database at `store.bundles` belongs to another CertService, pair {theirs}; a backup goes into empty ones"
        )))
    }
}

impl Apart {
    pub(super) async fn pair(&self) -> Result<(String, u64), StoreError> {
        let read = async {
            let (pair, seen): (String, i64) = on!(self, pool => sqlx::query_as(THEIRS).fetch_one(pool).await?);
            Ok((pair, from_sql(seen)))
        };
        self.within(super::READ_SECONDS_MAX, read).await
    }

    /// That all up to a change is done, without doing it.
    pub(in crate::store) async fn skip_to(&self, cursor: u64) -> Result<(), StoreError> {
        writing!(self, pool => sqlx::query(super::follow::SEEN)
            .bind(to_sql(cursor)).bind(to_sql(cursor)).execute(pool).await.map(drop)?)
    }
}
