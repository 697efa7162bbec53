//! The journal, written in the transaction of the change that it tells. Its head is one row, taken last by whoever writes:
//! entries become visible in their order, and who has read up to one never misses an earlier one.

use contract::journal::{Detail, Entry, Head, Page};

use super::budgets::spend;
use super::visits::hold_budget;
use super::{Store, StoreError, again, from_sql, in_transaction, on, parse, to_sql};
use crate::budget::{Shortage, Spend};

/// A webhook that nobody has worked on for so long is gone.
const WEBHOOK_GONE_SECONDS: u64 = 86_400;

/// A change, as it is told.
#[derive(Debug, Clone)]
pub struct Told<'a> {
    pub actor: &'a str,
    pub action: &'static str,
    /// Empty where it is nobody's.
    pub tenant: &'a str,
    pub name: &'a str,
    pub detail: Detail,
}

/// Who works on orders.
pub const OURSELVES: &str = "certservice";

pub(super) const NEXT: &str = "UPDATE journal_head SET seq = seq + 1 WHERE id = 1";
pub(super) const HEAD: &str = "SELECT seq, hash FROM journal_head WHERE id = 1";
pub(super) const HASH: &str = "UPDATE journal_head SET hash = ? WHERE id = 1";
pub(super) const APPEND: &str = "INSERT INTO journal (seq, written_at, actor, action, tenant, name, detail, hash) \
    VALUES (?, ?, ?, ?, ?, ?, ?, ?)";
const BASE: &str = "SELECT base_seq, base_hash FROM journal_head WHERE id = 1";
const HASH_OF: &str = "SELECT hash FROM journal WHERE seq = ?";
/// Of those that somebody has worked on lately: others are no longer in a boot file.
const NOT_TOLD: &str = "SELECT name FROM webhooks WHERE seq < ? AND held_until > ? ORDER BY name LIMIT 1";
const REMOVE: &str = "DELETE FROM journal WHERE seq <= ?";
/// Never back: another archive may have gone further while this one waited for its entries.
const REBASE: &str = "UPDATE journal_head SET base_seq = ?, base_hash = ? WHERE id = 1 AND base_seq < ?";
const PAGE: &str = "SELECT seq, written_at, actor, action, tenant, name, detail, hash FROM journal \
    WHERE seq > ? ORDER BY seq LIMIT ?";
const OF_TENANT: &str = "SELECT seq, written_at, actor, action, tenant, name, detail, hash FROM journal \
    WHERE tenant = ? AND seq > ? ORDER BY seq LIMIT ?";

/// Appends what a transaction changes: its last statements, so that the head is held for as short as can be.
macro_rules! tell {
    ($transaction:ident, $told:expr) => {{
        use $crate::store::journal::{APPEND, HASH, HEAD, NEXT};
        let $crate::store::journal::Told { actor, action, tenant, name, detail } = $told;
        sqlx::query(NEXT).execute(&mut *$transaction).await?;
        let (seq, before): (i64, String) = sqlx::query_as(HEAD).fetch_one(&mut *$transaction).await?;
        let mut entry = contract::journal::Entry {
            seq: from_sql(seq),
            at: $crate::clock::now(),
            actor: actor.to_owned(),
            action: action.to_owned(),
            tenant: tenant.to_owned(),
            name: name.to_owned(),
            detail,
            hash: String::new(),
        };
        entry.hash = entry.hash_after(&before);
        let detail = $crate::store::write("an entry of the journal", name, &entry.detail)?;
        sqlx::query(HASH).bind(&entry.hash).execute(&mut *$transaction).await?;
        sqlx::query(APPEND)
            .bind(seq)
            .bind(to_sql(entry.at))
            .bind(actor)
            .bind(action)
            .bind(tenant)
            .bind(name)
            .bind(detail)
            .bind(&entry.hash)
            .execute(&mut *$transaction)
            .await?;
    }};
}
pub(super) use tell;

type Row = (i64, i64, String, String, String, String, String, String);

impl Store {
    /// What changes nothing here: what somebody is about to do elsewhere.
    pub async fn tell(&self, told: &Told<'_>) -> Result<(), StoreError> {
        again!(self.tell_once(told))
    }

    async fn tell_once(&self, told: &Told<'_>) -> Result<(), StoreError> {
        in_transaction!(self, transaction => tell!(transaction, told.clone()));
        Ok(())
    }

    /// The same where that takes of a tenant's budget: where it is short nothing is told.
    pub async fn tell_taking(
        &self,
        told: &Told<'_>,
        takes: &Spend,
        now: u64,
    ) -> Result<Result<(), Shortage>, StoreError> {
        again!(self.tell_taking_once(told, takes, now))
    }

    async fn tell_taking_once(
        &self,
        told: &Told<'_>,
        takes: &Spend,
        now: u64,
    ) -> Result<Result<(), Shortage>, StoreError> {
        Ok(in_transaction!(self, transaction => {
            hold_budget!(transaction, takes.name, &takes.scope);
            if let Err(short) = spend!(transaction, "", std::slice::from_ref(takes), now * 1000) {
                return Ok(Err(short));
            }
            tell!(transaction, told.clone());
            Ok(())
        }))
    }

    /// Entries after `seq`, of one tenant or of all.
    pub async fn journal(&self, tenant: Option<&str>, seq: u64, limit: u32) -> Result<Vec<Entry>, StoreError> {
        let (seq, limit) = (to_sql(seq), i64::from(limit));
        let rows: Vec<Row> = match tenant {
            None => on!(self, pool => sqlx::query_as(PAGE).bind(seq).bind(limit).fetch_all(pool).await?),
            Some(tenant) => on!(self, pool => sqlx::query_as(OF_TENANT)
                .bind(tenant).bind(seq).bind(limit).fetch_all(pool).await?),
        };
        let entry = |(seq, at, actor, action, tenant, name, detail, hash): Row| {
            let detail = parse("an entry of the journal", &name, &detail)?;
            Ok(Entry { seq: from_sql(seq), at: from_sql(at), actor, action, tenant, name, detail, hash })
        };
        rows.into_iter().map(entry).collect()
    }

    pub async fn journal_page(&self, seq: u64, limit: u32) -> Result<Page, StoreError> {
        // Before the entries: what is archived meanwhile is not missed.
        let (base, base_hash): (i64, String) = on!(self, pool => sqlx::query_as(BASE).fetch_one(pool).await?);
        let entries = self.journal(None, seq, limit).await?;
        let base = Head { seq: from_sql(base), hash: base_hash };
        Ok(Page { entries, head: self.journal_head().await?, base })
    }

    pub async fn journal_head(&self) -> Result<Head, StoreError> {
        let (seq, hash): (i64, String) = on!(self, pool => sqlx::query_as(HEAD).fetch_one(pool).await?);
        Ok(Head { seq: from_sql(seq), hash })
    }

    /// Removes all entries up to one that an archive ends with; the journal goes on from its hash.
    pub async fn archive_journal(&self, until: &Head, actor: &str) -> Result<Removal, StoreError> {
        again!(self.archive_once(until, actor))
    }

    async fn archive_once(&self, until: &Head, actor: &str) -> Result<Removal, StoreError> {
        let seq = to_sql(until.seq);
        Ok(in_transaction!(self, transaction => {
            let hash: Option<String> = sqlx::query_scalar(HASH_OF).bind(seq).fetch_optional(&mut *transaction).await?;
            if hash.as_ref() != Some(&until.hash) {
                return Ok(Removal::Unknown);
            }
            let lately = to_sql(crate::clock::now().saturating_sub(WEBHOOK_GONE_SECONDS));
            let waits: Option<String> =
                sqlx::query_scalar(NOT_TOLD).bind(seq).bind(lately).fetch_optional(&mut *transaction).await?;
            if let Some(webhook) = waits {
                return Ok(Removal::Awaited(webhook));
            }
            let removed = sqlx::query(REMOVE).bind(seq).execute(&mut *transaction).await?.rows_affected();
            let rebased = sqlx::query(REBASE).bind(seq).bind(&until.hash).bind(seq).execute(&mut *transaction).await?;
            if rebased.rows_affected() == 0 {
                return Ok(Removal::Unknown);
            }
            let detail = [
                ("hash".to_owned(), until.hash.clone().into()), ("removed".to_owned(), removed.into()),
                ("seq".to_owned(), until.seq.into()),
            ].into();
            tell!(transaction, Told { actor, action: "journal.archived", tenant: "", name: "", detail });
            Removal::Done(removed)
        }))
    }
}

/// What became of entries that are in an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removal {
    Done(u64),
    /// There is no such entry, or no longer, or it is not what the archive has.
    Unknown,
    /// This webhook has not been told of them all.
    Awaited(String),
}
