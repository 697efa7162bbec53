//! Orders that somebody asks for, beside those that come by themselves.

use contract::journal::Detail;

use super::budgets::spend;
use super::domains::{HOLD, insert_job};
use super::journal::{Told, tell};
use super::own::OWN;
use super::visits::{hold_budget, requeue};
use super::{Store, StoreError, again, from_sql, in_transaction, to_sql, write};
use crate::budget::{Shortage, Spend};
use crate::order::{Job, Stage, Step};

const OWNED: &str = "SELECT tenant, issuer FROM domains WHERE name = ?";
const EXPEDITE: &str = "UPDATE jobs SET place = ? WHERE domain = ?";
const JOB: &str = "SELECT stage, place, body FROM jobs WHERE domain = ?";

/// Who asks for an order, and what it takes.
#[derive(Debug, Clone)]
pub struct Ask<'a> {
    pub actor: &'a str,
    pub action: &'static str,
    pub detail: &'a Detail,
    /// Of a tenant's budget.
    pub takes: Option<Spend>,
}

/// What that came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    Ordered,
    /// Its certificate was uploaded: no order replaces that.
    Own,
    /// There is no such domain.
    Unknown,
    Short(Shortage),
}

/// The order that is there where somebody asks for one.
enum There {
    Nothing,
    /// For a visitor.
    Waits(Box<Job>),
    /// It is tried later; it could be so then.
    Later(u64),
    Comes,
}

impl There {
    /// `found`: its stage, its place and its body.
    fn of(found: Option<(i64, i64, String)>, asked: &Job) -> Self {
        let Some((stage, place, body)) = found else { return Self::Nothing };
        if stage != Stage::ToCheck as i64 {
            return Self::Comes;
        }
        // One that can't be read is left alone for a while, and then told of.
        match serde_json::from_str::<Job>(&body) {
            Ok(job) if job.step == Step::Awaited => Self::Waits(Box::new(job)),
            Ok(job) if to_sql(job.look_at(asked.due_at)) < place => Self::Later(job.look_at(asked.due_at)),
            _ => Self::Comes,
        }
    }
}

impl Store {
    /// An order that somebody asks for: a new one, or the one that waits for another try is tried now; one that is under way or
    /// in line is left alone, and takes nothing.
    pub async fn order_now(&self, job: &Job, ask: &Ask<'_>) -> Result<Asked, StoreError> {
        again!(self.order_now_once(job, ask))
    }

    async fn order_now_once(&self, job: &Job, ask: &Ask<'_>) -> Result<Asked, StoreError> {
        let (name, Ask { actor, action, detail, takes }) = (job.domain.as_str(), ask);
        Ok(in_transaction!(self, transaction => {
            if let Some(spend) = takes {
                hold_budget!(transaction, spend.name, &spend.scope);
            }
            sqlx::query(HOLD).bind(name).execute(&mut *transaction).await?;
            let owned: Option<(String, String)> =
                sqlx::query_as(OWNED).bind(name).fetch_optional(&mut *transaction).await?;
            let tenant = match owned {
                None => return Ok(Asked::Unknown),
                Some((_, issuer)) if issuer == OWN => return Ok(Asked::Own),
                Some((tenant, _)) => tenant,
            };
            let there: Option<(i64, i64, String)> =
                sqlx::query_as(JOB).bind(name).fetch_optional(&mut *transaction).await?;
            let there = There::of(there, job);
            if let Some(spend) = takes
                && !matches!(there, There::Comes)
                && let Err(short) = spend!(transaction, "", std::slice::from_ref(spend), job.created_at * 1000)
            {
                return Ok(Asked::Short(short));
            }
            match there {
                There::Nothing => {
                    insert_job!(transaction, job)?;
                }
                There::Waits(waiting) => requeue!(transaction, waiting.begun(job.created_at)),
                There::Later(sooner) => {
                    sqlx::query(EXPEDITE).bind(to_sql(sooner)).bind(name).execute(&mut *transaction).await?;
                }
                There::Comes => {}
            }
            tell!(transaction, Told { actor, action, tenant: &tenant, name, detail: (*detail).clone() });
            Asked::Ordered
        }))
    }
}
