//! What will end when, and what waits: numbers for people and for alerts.

use contract::Hostname;
use contract::api::EndingCertificate;

use super::{Store, StoreError, from_sql, on, to_sql};

/// Orders of one lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    pub lane: i64,
    pub count: u64,
    /// Unix seconds; when the oldest was made.
    pub oldest_at: u64,
}

const ENDED: &str = "SELECT COUNT(*) FROM domains WHERE ends_at <= ?";
const ENDING: &str = "SELECT COUNT(*) FROM domains WHERE ends_at > ? AND ends_at <= ?";
const FIRST: &str =
    "SELECT name, ends_at FROM domains WHERE ends_at > ? AND ends_at <= ? ORDER BY ends_at, name LIMIT ?";
const SOONEST: &str = "SELECT MIN(ends_at) FROM domains WHERE ends_at > ?";
const QUEUES: &str = "SELECT lane, COUNT(*), MIN(created_at) FROM jobs GROUP BY lane";
const STATES: &str = "SELECT state, COUNT(*) FROM domains GROUP BY state";
/// Ten times what is left, against the lifetime.
const LEFT: &str = "SELECT \
    COUNT(CASE WHEN 10 * (ends_at - ?) <= 0 THEN 1 END), \
    COUNT(CASE WHEN 10 * (ends_at - ?) <= 1 * (ends_at - began_at) THEN 1 END), \
    COUNT(CASE WHEN 10 * (ends_at - ?) <= 2 * (ends_at - began_at) THEN 1 END), \
    COUNT(CASE WHEN 10 * (ends_at - ?) <= 3 * (ends_at - began_at) THEN 1 END), \
    COUNT(CASE WHEN 10 * (ends_at - ?) <= 5 * (ends_at - began_at) THEN 1 END), \
    COUNT(ends_at) FROM domains";

/// Upper bounds of what is left of a lifetime, as the numbers of [`Store::lifetimes`] have them.
pub const LEFT_BOUNDS: [&str; 6] = ["0", "0.1", "0.2", "0.3", "0.5", "+Inf"];

impl Store {
    pub async fn ended(&self, now: u64) -> Result<u64, StoreError> {
        let count: i64 = on!(self, pool => sqlx::query_scalar(ENDED).bind(to_sql(now)).fetch_one(pool).await?);
        Ok(from_sql(count))
    }

    pub async fn soonest_end(&self, now: u64) -> Result<Option<u64>, StoreError> {
        let end: Option<i64> = on!(self, pool => sqlx::query_scalar(SOONEST).bind(to_sql(now)).fetch_one(pool).await?);
        Ok(end.map(from_sql))
    }

    /// How many certificates end after `now` and until `then`, and the first of them.
    pub async fn ending(&self, now: u64, then: u64, limit: u32) -> Result<(u64, Vec<EndingCertificate>), StoreError> {
        let (now, then) = (to_sql(now), to_sql(then));
        let count: i64 = on!(self, pool => sqlx::query_scalar(ENDING).bind(now).bind(then).fetch_one(pool).await?);
        let rows: Vec<(String, i64)> = on!(self, pool => sqlx::query_as(FIRST)
            .bind(now).bind(then).bind(i64::from(limit)).fetch_all(pool).await?);
        let first = rows.into_iter().map(|(name, ends_at)| {
            let damaged = |_| StoreError::Damaged("the domain", name.clone(), "its name is not known".to_owned());
            Ok(EndingCertificate { name: Hostname::parse_domain(&name).map_err(damaged)?, ends_at: from_sql(ends_at) })
        });
        Ok((from_sql(count), first.collect::<Result<_, StoreError>>()?))
    }

    pub async fn queues(&self) -> Result<Vec<Queue>, StoreError> {
        let rows: Vec<(i64, i64, i64)> = on!(self, pool => sqlx::query_as(QUEUES).fetch_all(pool).await?);
        let queue = |(lane, count, oldest): (i64, i64, i64)| Queue {
            lane,
            count: from_sql(count),
            oldest_at: from_sql(oldest),
        };
        Ok(rows.into_iter().map(queue).collect())
    }

    pub async fn domains_by_state(&self) -> Result<Vec<(String, u64)>, StoreError> {
        let rows: Vec<(String, i64)> = on!(self, pool => sqlx::query_as(STATES).fetch_all(pool).await?);
        Ok(rows.into_iter().map(|(state, count)| (state, from_sql(count))).collect())
    }

    /// Certificates by what is left of their lifetime: as many as each of [`LEFT_BOUNDS`] holds at most.
    pub async fn lifetimes(&self, now: u64) -> Result<[u64; 6], StoreError> {
        let now = to_sql(now);
        let counts: (i64, i64, i64, i64, i64, i64) = on!(self, pool => sqlx::query_as(LEFT)
            .bind(now).bind(now).bind(now).bind(now).bind(now).fetch_one(pool).await?);
        let (ended, tenth, fifth, three, half, all) = counts;
        Ok([ended, tenth, fifth, three, half, all].map(from_sql))
    }
}
