//! Certificates that somebody has brought along: no issuer orders or renews them, and their owners are warned of the end.

use contract::api::CertificateInfo;
use contract::{Bundle, Hostname};

use super::changes::{ANNOUNCE, next_cursor, next_revision};
use super::domains::{INSERT, NAMES, RELATED, TENANT, insert_job, word};
use super::jobs::{FORGET_ANSWERS, shown_as};
use super::journal::{OURSELVES, Told, tell};
use super::keys::replace_bundle;
use super::{Store, StoreError, again, from_sql, in_transaction, on, to_sql, write};
use crate::budget::registered_domain;
use crate::intake::related;
use crate::keys::KeySet;
use crate::order::{Job, Status};

/// What such a certificate has for an issuer; no other is called so.
pub const OWN: &str = "own";

/// A certificate that is to be served.
#[derive(Debug)]
pub struct Upload<'a> {
    pub tenant: &'a str,
    /// Its revision is the store's to give.
    pub bundle: &'a Bundle,
    pub shown: &'a CertificateInfo,
    pub status: &'a Status,
    /// Unix seconds; when its owner is to be warned.
    pub warn_at: Option<u64>,
    /// Of names of one registered domain; 0 is no bound.
    pub names_max: u64,
    pub actor: &'a str,
    pub now: u64,
}

#[derive(Debug)]
pub enum Uploaded {
    /// The cursor of the change that tells the edges.
    Served {
        cursor: u64,
        bundle: Box<Bundle>,
        new: bool,
    },
    /// The name is another tenant's.
    Taken,
    TooMany,
}

/// Somebody else brings certificates of the same name all the time.
const ATTEMPTS_MAX: u32 = 10;

const HOLD: &str = "UPDATE domains SET created_at = created_at WHERE name = ?";
const REMOVE_JOB: &str = "DELETE FROM jobs WHERE domain = ?";
const SERVE: &str = "UPDATE domains SET issuer = ?, state = ?, code = ?, says = ?, who = ?, steps = ?, passed_over = NULL, \
    next_check_at = NULL, certificate = ?, renew_at = NULL, urgent_at = NULL, began_at = ?, ends_at = ?, ari_id = NULL, \
    ari_at = NULL, warn_at = ?, window_start = NULL, window_end = NULL WHERE name = ?";
const ENDS: &str = "SELECT name, ends_at, warn_at FROM domains WHERE warn_at <= ? ORDER BY warn_at LIMIT ?";
const WARN: &str = "UPDATE domains SET state = ?, code = ?, says = ?, who = ?, steps = ?, warn_at = ? \
    WHERE name = ? AND warn_at = ? AND issuer = ?";
const GIVE_UP: &str = "UPDATE domains SET state = ?, code = ?, says = ?, who = ?, steps = ?, warn_at = NULL \
    WHERE name = ? AND issuer = ?";
const CODES: &str = "SELECT code, COUNT(*) FROM domains WHERE issuer = ? GROUP BY code";

/// Whether the name is a new one, or why it can't be this tenant's.
macro_rules! admit {
    ($transaction:ident, $upload:expr) => {{
        let Upload { tenant, bundle, names_max, .. } = $upload;
        let name = bundle.domain.as_str();
        let known: Option<String> = sqlx::query_scalar(TENANT).bind(name).fetch_optional(&mut *$transaction).await?;
        let (above, beside) = related(&bundle.domain);
        match known {
            Some(known) if known != *tenant => Err(Uploaded::Taken),
            Some(_) => Ok(false),
            None => {
                let taken: Option<String> = sqlx::query_scalar(RELATED)
                    .bind(above)
                    .bind(beside)
                    .bind(tenant)
                    .fetch_optional(&mut *$transaction)
                    .await?;
                let names: i64 = sqlx::query_scalar(NAMES)
                    .bind(registered_domain(&bundle.domain))
                    .bind(tenant)
                    .fetch_one(&mut *$transaction)
                    .await?;
                match taken {
                    Some(_) => Err(Uploaded::Taken),
                    None if *names_max > 0 && names >= to_sql(*names_max) => Err(Uploaded::TooMany),
                    None => Ok(true),
                }
            }
        }
    }};
}

impl Store {
    /// Serves a certificate from here on; an order that is under way is given up. A new name is registered with it.
    pub async fn upload(&self, upload: &Upload<'_>) -> Result<Uploaded, StoreError> {
        if self.apart.is_none() {
            let served = again!(self.upload_once(upload, None))?;
            return served.ok_or_else(|| StoreError::Conflict(upload.bundle.domain.clone()));
        }
        for _ in 0..ATTEMPTS_MAX {
            let revision = match again!(self.admit_once(upload))? {
                Ok(revision) => revision,
                Err(refused) => return Ok(refused),
            };
            if let Some(done) = self.upload_as(upload, revision).await? {
                return Ok(done);
            }
        }
        Err(StoreError::Conflict(upload.bundle.domain.clone()))
    }

    /// The number that it is going to have, where bundles are apart: what is refused is not even put there.
    async fn admit_once(&self, upload: &Upload<'_>) -> Result<Result<u64, Uploaded>, StoreError> {
        let name = upload.bundle.domain.as_str();
        Ok(in_transaction!(self, transaction => match admit!(transaction, upload) {
            Ok(_) => Ok(next_revision!(transaction, name)),
            Err(refused) => Err(refused),
        }))
    }

    /// Puts it where bundles are apart, then has it served; `None` where it has to have another number by now. What was put
    /// stays either way: whoever brings the same at once has it in the same place, and may be served with it. If nobody is,
    /// it goes like all that nobody was told of.
    pub(super) async fn upload_as(&self, upload: &Upload<'_>, revision: u64) -> Result<Option<Uploaded>, StoreError> {
        let bundle = Bundle { revision, ..upload.bundle.clone() };
        let (place, _) = self.put_bundle(&bundle).await?;
        again!(self.upload_once(upload, Some((revision, &place))))
    }

    /// `put`: its revision and its place where bundles are apart; `None` where it has to have another by now.
    async fn upload_once(&self, upload: &Upload<'_>, put: Option<(u64, &str)>) -> Result<Option<Uploaded>, StoreError> {
        let Upload { tenant, bundle, status, actor, now, .. } = *upload;
        let name = bundle.domain.as_str();
        let (state, who) = (word(&status.state)?, word(&status.who)?);
        let steps = write("the steps", name, &status.steps)?;
        Ok(in_transaction!(self, transaction => {
            let cursor = next_cursor!(transaction);
            sqlx::query(HOLD).bind(name).execute(&mut *transaction).await?;
            let new = match admit!(transaction, upload) {
                Ok(new) => new,
                Err(refused) => return Ok(Some(refused)),
            };
            if new {
                sqlx::query(INSERT)
                    .bind(name).bind(tenant).bind(OWN).bind(&state).bind(&status.code).bind(&status.says).bind(&who)
                    .bind(&steps).bind(to_sql(now)).bind(None::<i64>).bind(registered_domain(&bundle.domain)).bind(None::<String>)
                    .bind(None::<String>).bind(None::<String>).bind(false)
                    .execute(&mut *transaction).await?;
            }
            let revision = next_revision!(transaction, name);
            let bundle = Bundle { revision, ..bundle.clone() };
            let shown = CertificateInfo { revision, ..upload.shown.clone() };
            let (body, keys) = match put {
                None => (write("the bundle", name, &bundle)?, Some(KeySet::of(&bundle))),
                Some((number, place)) if number == revision => (place.to_owned(), None),
                Some(_) => return Ok(None),
            };
            sqlx::query(REMOVE_JOB).bind(name).execute(&mut *transaction).await?;
            sqlx::query(FORGET_ANSWERS).bind(name).execute(&mut *transaction).await?;
            replace_bundle!(transaction, name, body, keys);
            sqlx::query(SERVE)
                .bind(OWN).bind(&state).bind(&status.code).bind(&status.says).bind(&who).bind(&steps)
                .bind(write("the certificate", name, &shown)?)
                .bind(to_sql(bundle.not_before)).bind(to_sql(bundle.not_after))
                .bind(upload.warn_at.map(to_sql)).bind(name)
                .execute(&mut *transaction).await?;
            sqlx::query(ANNOUNCE).bind(cursor).bind(name).bind(to_sql(revision)).execute(&mut *transaction).await?;
            let detail = [
                ("not_after".to_owned(), bundle.not_after.into()),
                ("revision".to_owned(), revision.into()),
                ("serial".to_owned(), shown.serial.clone().into()),
                ("sha256".to_owned(), shown.sha256.clone().into()),
            ].into();
            tell!(transaction, Told { actor, action: "certificate.uploaded", tenant, name, detail });
            Some(Uploaded::Served { cursor: from_sql(cursor), bundle: Box::new(bundle), new })
        }))
    }

    /// Back to the issuers: an order begins, and what was brought along is served until it brings another one. `false` if there is
    /// no such certificate.
    pub async fn give_up_own(&self, job: &Job, actor: &str) -> Result<bool, StoreError> {
        again!(self.give_up_own_once(job, actor))
    }

    async fn give_up_own_once(&self, job: &Job, actor: &str) -> Result<bool, StoreError> {
        let name = job.domain.as_str();
        let Status { state, code, says, who, steps } = &job.status;
        let (state, who, steps) = (word(state)?, word(who)?, write("the steps", name, steps)?);
        Ok(in_transaction!(self, transaction => {
            let given_up = sqlx::query(GIVE_UP)
                .bind(&state).bind(code).bind(says).bind(&who).bind(&steps).bind(name).bind(OWN)
                .execute(&mut *transaction).await?.rows_affected();
            if given_up == 0 {
                return Ok(false);
            }
            sqlx::query(REMOVE_JOB).bind(name).execute(&mut *transaction).await?;
            insert_job!(transaction, job)?;
            let tenant: String = sqlx::query_scalar(TENANT).bind(name).fetch_one(&mut *transaction).await?;
            let told = Told { actor, action: "certificate.given_up", tenant: &tenant, name, detail: Default::default() };
            tell!(transaction, told);
            true
        }))
    }

    /// Those whose owners are to be warned: name, end, and the time that was set for it.
    pub async fn own_ending(&self, now: u64, limit: u32) -> Result<Vec<(Hostname, u64, u64)>, StoreError> {
        let rows: Vec<(String, i64, i64)> = on!(self, pool => sqlx::query_as(ENDS)
            .bind(to_sql(now)).bind(i64::from(limit)).fetch_all(pool).await?);
        let ending = |(name, ends_at, warn_at): (String, i64, i64)| {
            let damaged = |_| StoreError::Damaged("the domain", name.clone(), "its name is not known".to_owned());
            Ok((Hostname::parse_domain(&name).map_err(damaged)?, from_sql(ends_at), from_sql(warn_at)))
        };
        rows.into_iter().map(ending).collect()
    }

    /// Warns once; the next warning comes at `next`.
    pub async fn warn_own(
        &self,
        name: &Hostname,
        warn_at: u64,
        status: &Status,
        next: Option<u64>,
    ) -> Result<(), StoreError> {
        again!(self.warn_own_once(name.as_str(), warn_at, status, next))
    }

    async fn warn_own_once(
        &self,
        name: &str,
        warn_at: u64,
        status: &Status,
        next: Option<u64>,
    ) -> Result<(), StoreError> {
        let Status { state, code, says, who, steps } = status;
        let (state, who, steps) = (word(state)?, word(who)?, write("the steps", name, steps)?);
        in_transaction!(self, transaction => {
            let warned = sqlx::query(WARN)
                .bind(&state).bind(code).bind(says).bind(&who).bind(&steps).bind(next.map(to_sql))
                .bind(name).bind(to_sql(warn_at)).bind(OWN)
                .execute(&mut *transaction).await?.rows_affected();
            if warned == 1 {
                let tenant: String = sqlx::query_scalar(TENANT).bind(name).fetch_one(&mut *transaction).await?;
                let (actor, action, detail) = (OURSELVES, "domain.state", shown_as(status));
                tell!(transaction, Told { actor, action, tenant: &tenant, name, detail });
            }
        });
        Ok(())
    }

    /// How many there are, by code.
    pub async fn own_by_code(&self) -> Result<Vec<(String, u64)>, StoreError> {
        let rows: Vec<(String, i64)> = on!(self, pool => sqlx::query_as(CODES).bind(OWN).fetch_all(pool).await?);
        Ok(rows.into_iter().map(|(code, count)| (code, from_sql(count))).collect())
    }
}
