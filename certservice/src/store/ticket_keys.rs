//! The sealed keys of session tickets: one row, replaced whole by whoever knows the revision that it replaces.

use contract::TicketKeys;

use super::journal::{OURSELVES, Told, tell};
use super::{Store, StoreError, again, from_sql, in_transaction, on, parse, to_sql, write};

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
        again!(self.replace_once(before, new))
    }

    async fn replace_once(&self, before: u64, new: &TicketKeys) -> Result<bool, StoreError> {
        let body = write(WHAT, OF, new)?;
        Ok(in_transaction!(self, transaction => {
            let replaced = sqlx::query(REPLACE)
                .bind(to_sql(new.revision)).bind(&body).bind(to_sql(before))
                .execute(&mut *transaction).await?.rows_affected();
            if replaced == 1 {
                let detail = [("keys".to_owned(), new.keys.len().into()), ("revision".to_owned(), new.revision.into())].into();
                tell!(transaction, Told { actor: OURSELVES, action: "ticket_keys.turned", tenant: "", name: "", detail });
            }
            replaced == 1
        }))
    }
}
