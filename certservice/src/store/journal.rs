//! The journal, written in the transaction of the change that it tells. Its head is one row, taken last by whoever writes:
//! entries become visible in their order, and who has read up to one never misses an earlier one.

use contract::journal::{Detail, Entry, Head, Page};

use super::{Store, StoreError, again, from_sql, in_transaction, on, parse, to_sql};

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
        let entries = self.journal(None, seq, limit).await?;
        let (seq, hash): (i64, String) = on!(self, pool => sqlx::query_as(HEAD).fetch_one(pool).await?);
        Ok(Page { entries, head: Head { seq: from_sql(seq), hash } })
    }
}
