//! Domains as they are shown: one, or page by page.

use contract::Hostname;
use contract::api::{CertificateInfo, Domain, OrderWhen, State};
use sqlx::AssertSqlSafe;

use super::domains::word;
use super::{Store, StoreError, from_sql, on, parse, to_sql};

/// Which domains are wanted; nothing is all.
#[derive(Debug, Clone, Copy, Default)]
pub struct Filter<'a> {
    pub state: Option<State>,
    pub tenant: Option<&'a str>,
    /// Unix seconds; of their certificates.
    pub ends_before: Option<u64>,
}

type Text = Option<String>;
/// A row of `domains`, in the order of `columns`.
type Row =
    (String, String, String, String, String, String, String, i64, Option<i64>, Text, Text, Text, Text, Text, bool);

macro_rules! columns {
    () => {
        "name, tenant, issuer, state, code, says, who, created_at, next_check_at, certificate, steps, issuers, passed_over, \
         profile, on_visit"
    };
}
const BY_NAME: &str = concat!("SELECT ", columns!(), " FROM domains WHERE name = ?");

impl Store {
    pub async fn domain(&self, name: &Hostname) -> Result<Option<Domain>, StoreError> {
        let row: Option<Row> =
            on!(self, pool => sqlx::query_as(BY_NAME).bind(name.as_str()).fetch_optional(pool).await?);
        row.map(domain).transpose()
    }

    /// Those that come after a name, in order of name; of those that end before a time, after an end and a name.
    pub async fn domains(
        &self,
        filter: &Filter<'_>,
        (end, name): (u64, &str),
        limit: u32,
    ) -> Result<Vec<Domain>, StoreError> {
        let state = filter.state.as_ref().map(word).transpose()?;
        let rows: Vec<Row> = on!(self, pool => {
            let mut query = sqlx::query_as(AssertSqlSafe(page(filter)));
            if let Some(tenant) = filter.tenant {
                query = query.bind(tenant);
            }
            if let Some(before) = filter.ends_before {
                query = query.bind(to_sql(end)).bind(to_sql(before)).bind(to_sql(end));
            }
            query = query.bind(name);
            if let Some(state) = &state {
                query = query.bind(state);
            }
            query.bind(i64::from(limit)).fetch_all(pool).await?
        });
        rows.into_iter().map(domain).collect()
    }
}

/// Says nothing of what nobody asked for: so each is read from the index that has just those, in their order.
pub(super) fn page(filter: &Filter<'_>) -> String {
    let tenant = filter.tenant.map_or("", |_| "tenant = ? AND ");
    let (after, order) = match filter.ends_before {
        Some(_) => ("ends_at >= ? AND ends_at < ? AND (ends_at > ? OR name > ?)", "ends_at, name"),
        None => ("name > ?", "name"),
    };
    let state = match (filter.state, filter.ends_before) {
        (None, _) => "",
        (Some(_), None) => " AND state = ?",
        // With the sign SQLite takes no index by it, and sorts nothing.
        (Some(_), Some(_)) => " AND +state = ?",
    };
    format!("SELECT {} FROM domains WHERE {tenant}{after}{state} ORDER BY {order} LIMIT ?", columns!())
}

fn domain(row: Row) -> Result<Domain, StoreError> {
    let (
        name,
        tenant,
        issuer,
        state,
        code,
        says,
        who,
        created_at,
        next_check_at,
        certificate,
        steps,
        issuers,
        passed,
        profile,
        on_visit,
    ) = row;
    let damaged = |what| StoreError::Damaged("the domain", name.clone(), format!("{what} is not known"));
    let certificate = certificate.map(|body| parse::<CertificateInfo>("the certificate", &name, &body)).transpose()?;
    let steps = steps.map(|body| parse("the steps", &name, &body)).transpose()?;
    let issuers = issuers.map(|body| parse("the issuers", &name, &body)).transpose()?;
    let passed = passed.map(|body| parse("the issuers", &name, &body)).transpose()?;
    Ok(Domain {
        name: Hostname::parse_domain(&name).map_err(|_| damaged("its name"))?,
        tenant,
        issuer,
        issuers: issuers.unwrap_or_default(),
        profile,
        order: if on_visit { OrderWhen::FirstVisit } else { OrderWhen::Now },
        passed_over: passed.unwrap_or_default(),
        state: serde_json::from_value(state.into()).map_err(|_| damaged("its state"))?,
        code,
        says,
        who: serde_json::from_value(who.into()).map_err(|_| damaged("its culprit"))?,
        created_at: from_sql(created_at),
        next_check_at: next_check_at.map(from_sql),
        certificate,
        steps: steps.unwrap_or_default(),
        page: None,
    })
}
