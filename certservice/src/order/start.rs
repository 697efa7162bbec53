//! Whose turn it is: what is due is started where it has a place.

use super::job::Stage;
use super::places::Work;
use super::runner::{HOLD_SECONDS, Runner, Running};
use crate::clock;
use crate::store::{End, IssuerState, Line, StoreError, Waiting};

/// Where a tenant has all that it may have, and perhaps a long line before all others, who came last is looked for as well:
/// so many of each lane, once a second. Who is in neither part comes nearer to the first.
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
        self.start(running, Work::Look, lines(&issuers, Stage::ToCheck), now).await
    }

    /// All of an open issuer; of one that takes nothing now, those that may go to another.
    fn in_line<'a>(&self, issuers: &'a [IssuerState], now: u64) -> Vec<Line<'a>> {
        let of_stage = |stage| {
            let counts = stage == Stage::InLine;
            let held = move |line: &Line<'_>| self.gate.held(line.issuer, counts, now).is_some();
            lines(issuers, stage).into_iter().map(move |line| Line { leaving: held(&line), ..line })
        };
        // Where there is one issuer only, nobody goes to another.
        Stage::IN_LINE.into_iter().flat_map(of_stage).filter(|line| !line.leaving || issuers.len() > 1).collect()
    }

    async fn start(&self, running: &mut Running, work: Work, lines: Vec<Line<'_>>, now: u64) -> Result<(), StoreError> {
        let free = running.places.free(work);
        if free == 0 {
            return Ok(());
        }
        let names = running.places.names();
        // What runs already stands in its line as well.
        let mut waiting = self.waiting(&lines, End::First, free + names.len(), now).await?;
        if running.places.are_crowded(work) && running.lasts_at != now {
            running.lasts_at = now;
            waiting.extend(self.waiting(&lines, End::Last, LASTS_MAX, now).await?);
        }
        waiting.retain(|one| !names.contains(&one.name));
        waiting.sort_by(|one, other| (one.place, &one.name).cmp(&(other.place, &other.name)));
        waiting.dedup_by(|one, other| one.name == other.name);
        let next = running.places.next(work, waiting);
        for stored in self.store.claim(next.clone(), &self.plan.holder, now + HOLD_SECONDS, now).await? {
            let domain = stored.job.domain.clone();
            if let Some(one) = next.iter().find(|one| one.name == domain.as_str()) {
                running.places.take(one, work);
            }
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
