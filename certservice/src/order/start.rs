//! Whose turn it is: what is due is started where it has a place.

use std::collections::HashSet;

use super::job::Stage;
use super::places::{Places, Work};
use super::runner::{HOLD_SECONDS, Runner, Running};
use crate::clock;
use crate::store::{End, IssuerState, Line, StoreError, Waiting};

/// Where a tenant has all that it may have while others wait, and perhaps a long line before them, who came last is looked
/// for as well: so many of each lane, once a second. Who is in neither part comes nearer to the first.
const LASTS_MAX: usize = 64;

impl Runner {
    /// Starts what is due and not running: first what the CA knows of, then who is next in line, then looks.
    pub(super) async fn start_due(&self, running: &mut Running) -> Result<(), StoreError> {
        let now = clock::now();
        let issuers = self.store.issuers().await?;
        self.gate.refresh(&issuers, now);
        self.start(running, Work::Order, lines(&issuers, Stage::UnderWay), now).await?;
        // Those in line have only to leave.
        if self.store.bundles_down() != Some(true) {
            let in_line = self.in_line(&issuers, now);
            self.start(running, Work::Order, in_line, now).await?;
        }
        self.with_places(Places::line_is_served);
        self.start(running, Work::Look, lines(&issuers, Stage::ToCheck), now).await
    }

    /// All of an open issuer; of one that takes nothing now, those that may go to another or do not know it yet.
    fn in_line<'a>(&self, issuers: &'a [IssuerState], now: u64) -> Vec<Line<'a>> {
        let of_stage = |stage| {
            let counts = stage == Stage::InLine;
            let held = move |line: &Line<'_>| self.gate.held(line.issuer, counts, now).is_some();
            lines(issuers, stage).into_iter().map(move |line| Line { leaving: held(&line), ..line })
        };
        Stage::IN_LINE.into_iter().flat_map(of_stage).collect()
    }

    async fn start(&self, running: &mut Running, work: Work, lines: Vec<Line<'_>>, now: u64) -> Result<(), StoreError> {
        let (free, names, crowded) =
            self.with_places(|places| (places.free(work), places.names(), places.are_crowded(work)));
        let Some(line) = lines.first().filter(|_| free > 0) else { return Ok(()) };
        let lasts_at = &mut running.lasts_at[line.stage as usize];
        // What runs already stands in its line as well.
        let mut waiting = self.waiting(&lines, End::First, free + names.len(), now).await?;
        if crowded && *lasts_at != now {
            *lasts_at = now;
            waiting.extend(self.waiting(&lines, End::Last, LASTS_MAX, now).await?);
        }
        waiting.retain(|one| !names.contains(&one.name));
        waiting.sort_by(|one, other| (one.place, &one.name).cmp(&(other.place, &other.name)));
        waiting.dedup_by(|one, other| one.name == other.name);
        // A look that ends meanwhile must not have the same place.
        let next = self.with_places(|places| {
            let next = places.next(work, waiting);
            next.iter().for_each(|one| places.take(one, work));
            next
        });
        let claimed = self.store.claim(next.clone(), &self.plan.holder, now + HOLD_SECONDS, now).await;
        let has: HashSet<&str> = claimed.iter().flatten().map(|stored| stored.job.domain.as_str()).collect();
        let others = next.iter().map(|one| one.name.as_str()).filter(|name| !has.contains(name));
        self.with_places(|places| others.for_each(|name| places.leave(name)));
        for stored in claimed? {
            let domain = stored.job.domain.clone();
            let task = running.tasks.spawn(self.clone().work_or_rest(stored));
            running.names.insert(task.id(), domain);
        }
        Ok(())
    }

    async fn waiting(&self, lines: &[Line<'_>], end: End, most: usize, now: u64) -> Result<Vec<Waiting>, StoreError> {
        let mut waiting = Vec::new();
        for line in lines {
            waiting.extend(self.store.waiting(Line { end, ..*line }, &self.plan.holder, now, most).await?);
        }
        Ok(waiting)
    }
}

fn lines(issuers: &[IssuerState], stage: Stage) -> Vec<Line<'_>> {
    issuers.iter().map(|issuer| Line { issuer: &issuer.name, stage, leaving: false, end: End::First }).collect()
}
