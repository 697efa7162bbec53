//! Follows CertService's feed of changes: what was replaced or off-boarded leaves this edge within one poll, or at once
//! when Redis passes the hint on; which names exist at all is known without asking for each.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use contract::api::{CHANGES_MAX, Change, ChangePage};
use futures_util::StreamExt;
use futures_util::stream;
use tokio::sync::Notify;

use crate::files::write_atomically;
use crate::observe::{METRICS, disk_failed};
use crate::supply::{Supply, SupplyError};
use crate::tls::{Known, Misses, Renewals, Table};

/// Certificates fetched anew at once, after a page of changes.
const REFRESHES: usize = 32;
/// After a broken connection to Redis' channel.
const HINTS_PAUSE: Duration = Duration::from_secs(2);

pub struct News {
    pub supply: Arc<Supply>,
    pub table: Arc<Table>,
    pub misses: Arc<Misses>,
    pub known: Arc<Known>,
    /// This edge's key ID: how CertService tells how far each edge is.
    pub edge: String,
    pub poll: Duration,
    /// Where the cursor of the last applied change is kept.
    pub cursor_file: PathBuf,
    /// Where the list of names is kept.
    pub known_file: PathBuf,
    pub renewals: &'static Renewals,
    /// Where those that fail are kept.
    pub renewals_file: PathBuf,
}

impl News {
    /// For as long as the process lives.
    pub async fn follow(self) {
        let hint = Arc::new(Notify::new());
        let (supply, told) = (self.supply.clone(), hint.clone());
        tokio::spawn(async move {
            loop {
                supply.hints(&|| told.notify_one()).await;
                tokio::time::sleep(HINTS_PAUSE).await;
            }
        });
        let mut cursor = self.saved_cursor();
        // The list of before the restart, if the changes since then can be told from those that were applied.
        let mut listed_at = self.known.listed_at().filter(|_| cursor > 0);
        let mut list_due = listed_at.is_none() || !self.recall_renewals();
        let mut reachable = true;
        loop {
            let followed =
                if list_due { self.list(&mut cursor).await } else { self.catch_up(&mut cursor, listed_at).await };
            let was_reachable = std::mem::replace(&mut reachable, followed.is_ok());
            match followed {
                Ok(due) => {
                    list_due = due;
                    listed_at = None;
                }
                Err(error) if was_reachable => {
                    tracing::warn!("changes can't be read, what is known stays in force: {error}")
                }
                Err(_) => {}
            }
            METRICS.changes_cursor.set(i64::try_from(cursor).unwrap_or(i64::MAX));
            tokio::select! {
                () = tokio::time::sleep(self.poll) => {}
                () = hint.notified() => {}
            }
        }
    }

    /// Reads the whole feed: every name that exists. What is newer than `cursor` is applied on the way.
    async fn list(&self, cursor: &mut u64) -> Result<bool, SupplyError> {
        // A new edge serves nothing that could be out of date. Where only the cursor was lost, what was off-boarded may
        // be on disk.
        let new = *cursor == 0;
        let mut listing = self.known.listing();
        let mut failing = Vec::new();
        let mut at = 0;
        loop {
            let page = self.page(at).await?;
            for change in page.changes.iter().filter(|change| change.revision.is_some()) {
                self.known.list(&mut listing, change.domain.as_str());
                failing.extend(change.renewal_failing_since.map(|since| (change.domain.clone(), since)));
            }
            let applied = *cursor;
            let due = |change: &&Change| change.cursor > applied && !(new && change.revision.is_some());
            self.apply(page.changes.iter().filter(due)).await;
            at = page.cursor;
            if !page.more {
                break;
            }
        }
        self.known.replace(listing, at);
        self.renewals.replace(failing);
        self.keep_list();
        self.keep_renewals();
        self.advance(cursor, at);
        tracing::info!(names = self.known.size().0, cursor = at, "names listed");
        Ok(false)
    }

    /// Reads what came after `cursor`, or after `listed_at` if the list of names is older. True if that has to be read
    /// anew.
    async fn catch_up(&self, cursor: &mut u64, listed_at: Option<u64>) -> Result<bool, SupplyError> {
        let mut at = listed_at.map_or(*cursor, |listed_at| listed_at.min(*cursor));
        loop {
            let page = self.page(at).await?;
            if page.cursor < at {
                // CertService's database was restored from an earlier day: its cursors are not ours.
                tracing::warn!(ours = at, theirs = page.cursor, "the feed of changes went back; names are listed anew");
                *cursor = page.cursor;
                return Ok(true);
            }
            let new = page.changes.iter().filter(|change| change.revision.is_some());
            let listed = page.changes.is_empty() || self.known.add(new.map(|change| change.domain.as_str()));
            let applied = *cursor;
            if self.renewals.hear(page.changes.iter().map(|change| (&change.domain, change.renewal_failing_since))) {
                self.keep_renewals();
            }
            self.apply(page.changes.iter().filter(|change| change.cursor > applied)).await;
            at = page.cursor;
            self.advance(cursor, applied.max(at));
            if !listed || !page.more {
                return Ok(!listed);
            }
        }
    }

    async fn page(&self, since: u64) -> Result<ChangePage, SupplyError> {
        self.supply.changes(since, CHANGES_MAX, &self.edge).await
    }

    async fn apply<'a>(&self, changes: impl Iterator<Item = &'a Change>) {
        let mut outdated = Vec::new();
        for change in changes {
            METRICS.changes_applied.inc();
            let Some(new) = change.revision else {
                self.table.withdraw(&change.domain);
                self.supply.forget(&change.domain);
                tracing::info!(name = %change.domain, "off-boarded: no longer served");
                continue;
            };
            self.table.require(&change.domain, new);
            let held = self.table.revision(&change.domain);
            if held.is_some_and(|held| held >= new) {
                continue;
            }
            // What is on disk stays there until the new one is: it is all there is while CertService is down.
            self.supply.outdate(&change.domain);
            if held.is_some() {
                outdated.push((change.domain.clone(), new));
            }
        }
        let refresh = |(name, revision)| async move { self.misses.renew(&name, revision).await };
        stream::iter(outdated).map(refresh).buffer_unordered(REFRESHES).collect::<()>().await;
    }

    fn saved_cursor(&self) -> u64 {
        let saved = std::fs::read_to_string(&self.cursor_file).ok();
        saved.and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    }

    fn keep_list(&self) {
        let written = self.known.to_bytes().map_or(Ok(()), |bytes| write_atomically(&self.known_file, &bytes));
        if let Err(error) = written {
            disk_failed("the list of names can't be kept", "a restart has none until it is read anew", &error);
        }
    }

    fn keep_renewals(&self) {
        if let Err(error) = write_atomically(&self.renewals_file, self.renewals.to_text().as_bytes()) {
            disk_failed("which renewals fail can't be kept", "a restart takes those for well", &error);
        }
    }

    /// Those of before the restart; false where there is nothing that can be read.
    fn recall_renewals(&self) -> bool {
        let kept = std::fs::read_to_string(&self.renewals_file).ok();
        let Some(kept) = kept.and_then(|text| Renewals::from_text(&text)) else { return false };
        self.renewals.replace(kept);
        true
    }

    fn advance(&self, cursor: &mut u64, to: u64) {
        if *cursor == to {
            return;
        }
        *cursor = to;
        if let Err(error) = write_atomically(&self.cursor_file, to.to_string().as_bytes()) {
            disk_failed("the cursor of changes can't be kept", "a restart applies some of them again", &error);
        }
    }
}

#[cfg(test)]
#[path = "news_tests.rs"]
mod tests;
