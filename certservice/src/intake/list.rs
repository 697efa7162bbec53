//! Works lists off: some lines at a time, with all that comes of them in one transaction. What dies half-way goes on where
//! it stopped.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify as Wake;

use super::{Line, Rules};
use crate::clock;
use crate::store::{Part, PartDone, Store, StoreError};

/// Looked at this often even if nobody wakes it: another instance may have taken a list and died.
const LOOK_SECONDS: u64 = 5;
/// Lists are forgotten after this; their domains stay.
const KEEP_SECONDS: u64 = 30 * 86_400;
/// A list that has not arrived whole by then never will.
const ARRIVE_SECONDS_MAX: u64 = 3600;

/// `listed` wakes it; it wakes `wake`.
pub async fn run(store: Store, rules: Rules, listed: Arc<Wake>, wake: Arc<Wake>) {
    let mut look = tokio::time::interval(Duration::from_secs(LOOK_SECONDS));
    loop {
        tokio::select! {
            _ = look.tick() => {}
            () = listed.notified() => {}
        }
        if let Err(error) = work_off(&store, &rules, &wake).await {
            tracing::error!(%error, "a list of domains could not be worked off; it goes on");
        }
    }
}

async fn work_off(store: &Store, rules: &Rules, wake: &Wake) -> Result<(), StoreError> {
    let now = clock::now();
    store.forget_lists(now.saturating_sub(KEEP_SECONDS), now.saturating_sub(ARRIVE_SECONDS_MAX)).await?;
    while let Some(part) = store.next_part().await? {
        let done = done(&part, rules, clock::now());
        if store.finish_part(&part, &done, |name| rules.too_many(name)).await? {
            wake.notify_one();
        }
    }
    Ok(())
}

/// What the lines of a part come to. Pure.
fn done(part: &Part, rules: &Rules, now: u64) -> PartDone {
    let mut done = PartDone { names_max: rules.names_max, ..PartDone::default() };
    let own = Some(part.own_tenant.as_str()).filter(|tenant| !tenant.is_empty());
    for (number, text) in (part.first_line..).zip(part.body.split('\n')) {
        done.lines += 1;
        match part.format.read(text, number, rules, own, &part.others) {
            Line::Empty => {}
            Line::Refused(refusal) => done.refused.push((number, refusal)),
            Line::Entry(entry) => {
                let jobs = entry.jobs(true, now);
                done.new.extend(jobs.into_iter().map(|job| (number, entry.tenant.clone(), job)));
            }
        }
    }
    done
}
