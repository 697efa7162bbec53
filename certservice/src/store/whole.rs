//! A connection to MySQL that is whole when it goes back to its pool.
//!
//! Whoever waits for an answer may leave: a client hangs up, time is up, the process stops. The library gives the connection
//! to the next one nevertheless, who would take the answer that still comes for his own, or the pool waits for it without
//! end. So a connection whose question was not seen through is closed, and the database takes back what it had begun.

use sqlx::pool::PoolConnection;
use sqlx::{MySql, MySqlConnection, MySqlPool};

use super::StoreError;

pub(super) struct Whole {
    connection: PoolConnection<MySql>,
    is_whole: bool,
}

impl Whole {
    pub(super) async fn take(pool: &MySqlPool) -> Result<Self, StoreError> {
        Ok(Self { connection: pool.acquire().await?, is_whole: false })
    }

    pub(super) fn connection(&mut self) -> &mut MySqlConnection {
        &mut self.connection
    }

    /// All that was asked has been answered, if only by an error of the database.
    pub(super) fn give_back<T>(mut self, answer: &Result<T, StoreError>) {
        let broken = |error: &sqlx::Error| matches!(error, sqlx::Error::Io(_) | sqlx::Error::Protocol(_));
        self.is_whole = !matches!(answer, Err(StoreError::Database(error)) if broken(error));
    }
}

impl Drop for Whole {
    fn drop(&mut self) {
        if !self.is_whole {
            self.connection.close_on_drop();
        }
    }
}
