//! What a domain wants of its certificates: of whom, and of which kind.

use contract::Hostname;

use super::domains::{TENANT, own};
use super::journal::{Told, tell};
use super::{Store, StoreError, again, from_sql, in_transaction, parse, to_sql, write};
use crate::order::{Job, Stage};

/// What is to be changed.
#[derive(Debug, Clone, Copy)]
pub enum Wish<'a> {
    /// In order of preference; empty: the boot file's.
    Issuers(&'a [String]),
    /// `None`: the issuer's own.
    Profile(Option<&'a str>),
}

const ISSUERS: &str = "UPDATE domains SET issuers = ? WHERE name = ?";
const PROFILE: &str = "UPDATE domains SET profile = ? WHERE name = ?";
const WAITS: &str = "SELECT body FROM jobs WHERE domain = ? AND stage <> ?";
/// Whoever has read the order before writes it no more.
const REWRITE: &str = "UPDATE jobs SET version = version + 1, body = ?, others_at = 0, \
    place = CASE WHEN stage = ? AND place > ? THEN ? ELSE place END WHERE domain = ?";

impl Store {
    /// An order that has not left yet takes it, and all later ones. `false` if there is no such domain.
    pub async fn wish(&self, name: &Hostname, wish: Wish<'_>, actor: &str) -> Result<bool, StoreError> {
        again!(self.wish_once(name, wish, actor))
    }

    async fn wish_once(&self, name: &Hostname, wish: Wish<'_>, actor: &str) -> Result<bool, StoreError> {
        let name = name.as_str();
        let (update, value) = match wish {
            Wish::Issuers(issuers) => (ISSUERS, own(name, issuers)?),
            Wish::Profile(profile) => (PROFILE, profile.map(str::to_owned)),
        };
        Ok(in_transaction!(self, transaction => {
            let done = sqlx::query(update).bind(value).bind(name).execute(&mut *transaction).await?;
            if done.rows_affected() == 0 {
                return Ok(false);
            }
            let tenant: String = sqlx::query_scalar(TENANT).bind(name).fetch_one(&mut *transaction).await?;
            let waits: Option<String> = sqlx::query_scalar(WAITS)
                .bind(name).bind(Stage::UnderWay as i64).fetch_optional(&mut *transaction).await?;
            if let Some(body) = waits {
                let mut job: Job = parse("the order", name, &body)?;
                job.refused.clear();
                match wish {
                    Wish::Issuers(issuers) => job.issuers = issuers.to_vec(),
                    Wish::Profile(profile) => job.profile = profile.map(str::to_owned),
                }
                let look_at = to_sql(job.look_at(0));
                sqlx::query(REWRITE)
                    .bind(write("the order", name, &job)?).bind(Stage::ToCheck as i64).bind(look_at).bind(look_at).bind(name)
                    .execute(&mut *transaction).await?;
            }
            let (action, key, value) = match wish {
                Wish::Issuers(issuers) => ("domain.issuers_changed", "issuers", issuers.into()),
                Wish::Profile(profile) => ("domain.profile_changed", "profile", profile.into()),
            };
            let detail = [(key.to_owned(), value)].into();
            tell!(transaction, Told { actor, action, tenant: &tenant, name, detail });
            true
        }))
    }
}
