//! The sealed keys of orders that are under way: an order in the other database has the digest of each in its place.

use std::iter;

use contract::Bundle;
use contract::bundle::sha256;
use contract::sealed::Sealed;

use super::{Apart, READ_SECONDS_MAX, WRITE_SECONDS_MAX, hex};
use crate::clock;
use crate::order::{Job, Step};
use crate::store::domains::is_duplicate;
use crate::store::{Store, StoreError, again, in_transaction, on, parse, to_sql, write};

const PUT: &str = "INSERT INTO sealed_keys (id, domain, body, since) VALUES (?, ?, ?, ?)";
const AGAIN: &str = "UPDATE sealed_keys SET since = ? WHERE id = ?";
const GET: &str = "SELECT body FROM sealed_keys WHERE id = ?";

/// Before the digest, where a JWE has its header.
const APART: &str = "apart:";
const WHAT: &str = "the sealed key";

impl Store {
    /// An order as it is written, when its keys are where they belong. `before`: as it was read or written last.
    pub(in crate::store) async fn order_text(&self, job: &Job, before: &Job) -> Result<String, StoreError> {
        let name = job.domain.as_str();
        let Some(apart) = &self.apart else {
            return write("the order", name, job);
        };
        let (mut job, mut before) = (job.clone(), before.clone());
        let known: Vec<_> = sealed_keys(&mut before).map(|key| key.clone()).collect();
        for key in sealed_keys(&mut job) {
            if is_apart(key).is_none() {
                let text = write(WHAT, name, key)?;
                let id = hex(&sha256(text.as_bytes()));
                if !known.contains(key) {
                    apart.put_key(&id, name, &text).await?;
                }
                *key = stands_in(&id);
            }
        }
        write("the order", name, &job)
    }

    /// The keys of an order that was read; `false` where one is lost.
    pub(in crate::store) async fn fill_in(&self, job: &mut Job) -> Result<bool, StoreError> {
        let Some(apart) = &self.apart else { return Ok(true) };
        let name = job.domain.to_string();
        for key in sealed_keys(job) {
            if let Some(id) = is_apart(key) {
                match apart.get_key(id).await? {
                    Some(text) => *key = parse(WHAT, &name, &text)?,
                    None => return Ok(false),
                }
            }
        }
        Ok(true)
    }
}

impl Apart {
    pub(super) async fn put_key(&self, id: &str, name: &str, text: &str) -> Result<(), StoreError> {
        self.within(WRITE_SECONDS_MAX, async { again!(self.put_key_once(id, name, text)) }).await
    }

    async fn put_key_once(&self, id: &str, name: &str, text: &str) -> Result<(), StoreError> {
        let now = to_sql(clock::now());
        in_transaction!(self, transaction => {
            let again = sqlx::query(AGAIN).bind(now).bind(id).execute(&mut *transaction).await?.rows_affected();
            if again == 0 {
                let put = sqlx::query(PUT).bind(id).bind(name).bind(text).bind(now).execute(&mut *transaction).await;
                put.map(drop).or_else(|error| if is_duplicate(&error) { Ok(()) } else { Err(error) })?;
            }
        });
        Ok(())
    }

    async fn get_key(&self, id: &str) -> Result<Option<String>, StoreError> {
        let read = async { Ok(on!(self, pool => sqlx::query_scalar(GET).bind(id).fetch_optional(pool).await?)) };
        self.within(READ_SECONDS_MAX, read).await
    }
}

pub(super) fn sealed_keys(job: &mut Job) -> impl Iterator<Item = &mut Sealed> {
    let of_step = match &mut job.step {
        Step::Keyed { key, .. } | Step::Finalizing { key, .. } => Some(&mut key.sealed),
        _ => None,
    };
    let of_first = job.first.iter_mut().flat_map(|first| {
        let Bundle { key, rsa, .. } = &mut first.bundle;
        iter::once(key).chain(rsa.iter_mut().map(|second| &mut second.key))
    });
    of_step.into_iter().chain(of_first)
}

fn stands_in(id: &str) -> Sealed {
    let empty = String::new;
    let protected = format!("{APART}{id}");
    Sealed { protected, recipients: Vec::new(), aad: empty(), iv: empty(), ciphertext: empty(), tag: empty() }
}

/// Its digest, where it is not here. A header in base64url has no colon.
pub(super) fn is_apart(key: &Sealed) -> Option<&str> {
    key.protected.strip_prefix(APART)
}

/// Begins anew: what it had is lost.
pub(in crate::store) fn without_keys(job: Job) -> Job {
    Job { step: Step::Queued, spent: false, first: None, ..job }
}
