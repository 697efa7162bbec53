//! The sealed keys of session tickets: one row, replaced whole by whoever knows the revision that it replaces.

use contract::TicketKeys;

use super::{Store, StoreError, on, parse, to_sql, write, writing};

const READ: &str = "SELECT body FROM ticket_keys WHERE id = 1 AND revision > 0";
const REPLACE: &str = "UPDATE ticket_keys SET revision = ?, body = ? WHERE id = 1 AND revision = ?";

const WHAT: &str = "the document";
const OF: &str = "session ticket keys";

impl Store {
    pub async fn ticket_keys(&self) -> Result<Option<TicketKeys>, StoreError> {
        let body: Option<String> = on!(self, pool => sqlx::query_scalar(READ).fetch_optional(pool).await?);
        body.map(|body| parse(WHAT, OF, &body)).transpose()
    }

    /// False if somebody else replaced them meanwhile. `before` is 0 where there are none.
    pub async fn replace_ticket_keys(&self, before: u64, new: &TicketKeys) -> Result<bool, StoreError> {
        let body = write(WHAT, OF, new)?;
        let replaced = writing!(self, pool => sqlx::query(REPLACE)
            .bind(to_sql(new.revision)).bind(&body).bind(to_sql(before)).execute(pool).await?.rows_affected())?;
        Ok(replaced == 1)
    }
}
