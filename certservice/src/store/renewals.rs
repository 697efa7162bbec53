//! When certificates are renewed.

use contract::Hostname;
use contract::api::CertificateInfo;

use super::domains::{HOLD, insert_job, is_duplicate};
use super::own::OWN;
use super::{Store, StoreError, again, from_sql, in_transaction, on, parse, to_sql, write, writing};
use crate::order::{Job, Lane, Stage};
use crate::renew::{Planned, Window, rests_until};

/// A certificate that is to be replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renewal {
    pub name: Hostname,
    /// Whose certificate it is.
    pub issuer: String,
    /// The domain's own order of preference.
    pub issuers: Vec<String>,
    pub profile: Option<String>,
    pub revision: u64,
    /// Unix seconds.
    pub not_after: u64,
    /// What the CA knows the certificate by (RFC 9773).
    pub ari_id: Option<String>,
}

/// When a certificate is replaced, or its owner is warned. Unix seconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Replacement {
    pub renew_at: Option<u64>,
    pub ari_id: Option<String>,
    /// When the CA is asked again for a better time.
    pub ask_at: Option<u64>,
    pub warn_at: Option<u64>,
    /// What the CA suggested last.
    pub window: Option<Window>,
}

/// A certificate of which the CA is asked when to replace it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suggested {
    pub name: Hostname,
    pub issuer: String,
    pub ari_id: String,
    /// Unix seconds; the chosen instant.
    pub renew_at: Option<u64>,
    /// No word of the CA replaces it sooner.
    pub rests_until: u64,
    /// It can't wait.
    pub urgent: bool,
    /// What the CA suggests; `None` where it did not say.
    pub window: Option<Window>,
}

const DUE: &str = "SELECT name, issuer, certificate, ari_id, issuers, profile FROM domains \
    WHERE issuer = ? AND renew_at <= ? AND NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.domain = domains.name) \
    ORDER BY renew_at LIMIT ?";
const URGENT: &str = "SELECT name, issuer, certificate, ari_id, issuers, profile FROM domains \
    WHERE urgent_at <= ? AND NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.domain = domains.name) \
    ORDER BY urgent_at LIMIT ?";
const OF_NAME: &str = "SELECT name, issuer, certificate, ari_id, issuers, profile FROM domains WHERE name = ?";
/// Whose certificate a domain shows, and which.
const SERVED: &str = "SELECT issuer, certificate FROM domains WHERE name = ?";
const REPLACEMENT: &str =
    "SELECT renew_at, ari_id, ari_at, warn_at, window_start, window_end FROM domains WHERE name = ?";
/// Lifetimes by the hour: few, though they differ by seconds.
const BY_DAY: &str = "SELECT issuer, renew_at - renew_at % 86400, \
    COALESCE(ends_at - began_at - (ends_at - began_at) % 3600, 0), COUNT(*) \
    FROM domains WHERE renew_at IS NOT NULL GROUP BY 1, 2, 3";
const IN_LINE: &str = "SELECT COUNT(*) FROM jobs WHERE issuer = ? AND stage IN (?, ?) AND lane = ?";
const LAST_TURN: &str = "SELECT taken_at FROM turns WHERE name = ?";
const FIRST_TURN: &str = "INSERT INTO turns (name, taken_at) VALUES (?, ?)";
const TAKE_TURN: &str = "UPDATE turns SET taken_at = ? WHERE name = ? AND taken_at = ?";
const WINDOWS_DUE: &str = "SELECT name, issuer, ari_id, renew_at, ari_at, certificate, began_at FROM domains WHERE ari_at <= ? ORDER BY ari_at LIMIT ?";
const ASK: &str = "UPDATE domains SET ari_at = ? WHERE name = ? AND ari_id = ? AND ari_at = ?";
const SAVE: &str = "UPDATE domains SET renew_at = ?, ari_at = ?, window_start = COALESCE(?, window_start), \
    window_end = COALESCE(?, window_end) WHERE name = ? AND ari_id = ?";
const SAVE_URGENT: &str = "UPDATE domains SET urgent_at = ? WHERE name = ? AND ari_id = ? AND urgent_at > ?";

type Row = (String, String, Option<String>, Option<String>, Option<String>, Option<String>);

impl Store {
    /// Certificates of an issuer whose time has come and that have no order yet, longest due first.
    pub async fn renewals(&self, issuer: &str, now: u64, limit: u64) -> Result<Vec<Renewal>, StoreError> {
        let rows: Vec<Row> = on!(self, pool => sqlx::query_as(DUE)
            .bind(issuer).bind(to_sql(now)).bind(to_sql(limit)).fetch_all(pool).await?);
        Ok(readable(rows))
    }

    /// The same of those that can't wait, of all issuers.
    pub async fn urgent_renewals(&self, now: u64, limit: u64) -> Result<Vec<Renewal>, StoreError> {
        let rows: Vec<Row> = on!(self, pool => sqlx::query_as(URGENT)
            .bind(to_sql(now)).bind(to_sql(limit)).fetch_all(pool).await?);
        Ok(readable(rows))
    }

    /// Of one domain, whether or not it is time; `None` while it has no certificate.
    pub async fn renewal(&self, name: &Hostname) -> Result<Option<Renewal>, StoreError> {
        let row: Option<Row> =
            on!(self, pool => sqlx::query_as(OF_NAME).bind(name.as_str()).fetch_optional(pool).await?);
        row.map_or(Ok(None), renewal)
    }

    /// An order for a domain that shows a certificate of revision `served`, or 0: none. `false` if it shows another one by
    /// now, has an order already, or is gone.
    pub async fn enqueue(&self, job: &Job, served: u64) -> Result<bool, StoreError> {
        again!(self.insert_order(job, served))
    }

    async fn insert_order(&self, job: &Job, served: u64) -> Result<bool, StoreError> {
        let name = job.domain.as_str();
        Ok(in_transaction!(self, transaction => {
            sqlx::query(HOLD).bind(name).execute(&mut *transaction).await?;
            let row: Option<(String, Option<String>)> =
                sqlx::query_as(SERVED).bind(name).fetch_optional(&mut *transaction).await?;
            let Some((issuer, shown)) = row else { return Ok(false) };
            let shown: Option<CertificateInfo> =
                shown.map(|shown| parse("the certificate", name, &shown)).transpose()?;
            if issuer == OWN || shown.map_or(0, |shown| shown.revision) != served {
                return Ok(false);
            }
            match insert_job!(transaction, job) {
                Ok(_) => {}
                Err(error) if is_duplicate(&error) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
            true
        }))
    }

    pub async fn replacement(&self, name: &Hostname) -> Result<Replacement, StoreError> {
        type Row = (Option<i64>, Option<String>, Option<i64>, Option<i64>, Option<i64>, Option<i64>);
        let row: Option<Row> =
            on!(self, pool => sqlx::query_as(REPLACEMENT).bind(name.as_str()).fetch_optional(pool).await?);
        Ok(row.map_or_else(Replacement::default, |(renew_at, ari_id, ask_at, warn_at, start, end)| Replacement {
            renew_at: renew_at.map(from_sql),
            ari_id,
            ask_at: ask_at.map(from_sql),
            warn_at: warn_at.map(from_sql),
            window: start.zip(end).map(|(start, end)| Window { start: from_sql(start), end: from_sql(end) }),
        }))
    }

    /// How many are planned for which day, by issuer.
    pub async fn renewals_by_day(&self) -> Result<Vec<(String, Planned)>, StoreError> {
        let rows: Vec<(String, i64, i64, i64)> = on!(self, pool => sqlx::query_as(BY_DAY).fetch_all(pool).await?);
        let planned = |(issuer, start, lifetime, count)| {
            let lifetime_seconds = from_sql(lifetime);
            (issuer, Planned { day: from_sql(start) / 86_400, lifetime_seconds, count: from_sql(count) })
        };
        Ok(rows.into_iter().map(planned).collect())
    }

    /// Renewals that have an order and wait for their issuer.
    pub async fn renewals_in_line(&self, issuer: &str) -> Result<u64, StoreError> {
        let [one, other] = Stage::IN_LINE.map(|stage| stage as i64);
        let count: i64 = on!(self, pool => sqlx::query_scalar(IN_LINE)
            .bind(issuer).bind(one).bind(other).bind(Lane::Renewal as i64).fetch_one(pool).await?);
        Ok(from_sql(count))
    }

    /// What only one instance does, once in so many seconds: when it was done last, to the one whose turn it is.
    pub async fn take_turn(&self, name: &str, now: u64, seconds: u64) -> Result<Option<u64>, StoreError> {
        let last: Option<i64> = on!(self, pool => sqlx::query_scalar(LAST_TURN).bind(name).fetch_optional(pool).await?);
        let Some(last) = last else {
            let first = writing!(self, pool => sqlx::query(FIRST_TURN).bind(name).bind(to_sql(now)).execute(pool).await.map(drop)?);
            return match first {
                Ok(()) => Ok(Some(now)),
                Err(StoreError::Database(error)) if is_duplicate(&error) => Ok(None),
                Err(error) => Err(error),
            };
        };
        // A time that is to come was written by a clock that has been put right since.
        if (from_sql(last)..from_sql(last) + seconds).contains(&now) {
            return Ok(None);
        }
        let taken = writing!(self, pool => sqlx::query(TAKE_TURN)
            .bind(to_sql(now)).bind(name).bind(last).execute(pool).await?.rows_affected())?;
        Ok((taken == 1).then(|| from_sql(last).min(now)))
    }

    /// Certificates of which the CA is to be asked again. Nobody else gets them before `until`.
    pub async fn windows_due(&self, now: u64, until: u64, limit: u32) -> Result<Vec<Suggested>, StoreError> {
        type Row = (String, String, String, Option<i64>, i64, Option<String>, Option<i64>);
        let rows: Vec<Row> = on!(self, pool => sqlx::query_as(WINDOWS_DUE)
            .bind(to_sql(now)).bind(i64::from(limit)).fetch_all(pool).await?);
        let mut due = Vec::new();
        for (name, issuer, ari_id, renew_at, ari_at, certificate, began_at) in rows {
            let taken = writing!(self, pool => sqlx::query(ASK)
                .bind(to_sql(until)).bind(&name).bind(&ari_id).bind(ari_at).execute(pool).await?.rows_affected())?;
            if taken == 1 {
                let damaged = |_| StoreError::Damaged("the domain", name.clone(), "its name is not known".to_owned());
                let name = Hostname::parse_domain(&name).map_err(damaged)?;
                let certificate =
                    certificate.map(|body| parse::<CertificateInfo>("the certificate", name.as_str(), &body));
                let revision = certificate.transpose()?.map_or(0, |certificate| certificate.revision);
                let rests_until = rests_until(revision, began_at.map_or(0, from_sql));
                let renew_at = renew_at.map(from_sql);
                due.push(Suggested { name, issuer, ari_id, renew_at, rests_until, urgent: false, window: None });
            }
        }
        Ok(due)
    }

    /// The instant chosen for a certificate, unless it was replaced meanwhile.
    pub async fn save_window(&self, suggested: &Suggested, ask_at: u64, now: u64) -> Result<(), StoreError> {
        let Suggested { name, ari_id, renew_at, urgent, window, .. } = suggested;
        let (name, renew_at) = (name.as_str(), renew_at.map(to_sql));
        let (start, end) = window.map(|window| (to_sql(window.start), to_sql(window.end))).unzip();
        writing!(self, pool => sqlx::query(SAVE)
            .bind(renew_at).bind(to_sql(ask_at)).bind(start).bind(end).bind(name).bind(ari_id).execute(pool).await.map(drop)?)?;
        if *urgent {
            writing!(self, pool => sqlx::query(SAVE_URGENT)
                .bind(to_sql(now)).bind(name).bind(ari_id).bind(to_sql(now)).execute(pool).await.map(drop)?)?;
        }
        Ok(())
    }
}

/// One that can't be read must not keep the others.
fn readable(rows: Vec<Row>) -> Vec<Renewal> {
    let told = |error: &StoreError| tracing::error!(%error, "a certificate can't be renewed");
    rows.into_iter().filter_map(|row| renewal(row).inspect_err(told).ok().flatten()).collect()
}

fn renewal((name, issuer, certificate, ari_id, issuers, profile): Row) -> Result<Option<Renewal>, StoreError> {
    let damaged = |_| StoreError::Damaged("the domain", name.clone(), "its name is not known".to_owned());
    let host = Hostname::parse_domain(&name).map_err(damaged)?;
    let Some(certificate) = certificate else { return Ok(None) };
    let CertificateInfo { revision, not_after, .. } = parse("the certificate", &name, &certificate)?;
    let issuers = issuers.map(|body| parse("the issuers", &name, &body)).transpose()?.unwrap_or_default();
    Ok(Some(Renewal { name: host, issuer, issuers, profile, revision, not_after, ari_id }))
}
