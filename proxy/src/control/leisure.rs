//! What takes long gives way to the threads that serve: planning and tables of a million lines, compiling, freeing what was
//! replaced. One thread does it, of the kernel's policy for such work (SCHED_IDLE): it gives its core away at the very moment
//! that a thread which serves wakes up. That is a rule of its own; with a nice value it depends on who had how much before.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use thread_priority::{
    NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy, set_thread_priority_and_policy, thread_native_id,
};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::snapshot::Snapshot;

/// How long work waits for the thread that gives way. Where it does not get so far, all cores are busy throughout, and then
/// a change, which may be what is to help, takes its share as others do.
const PATIENCE: Duration = Duration::from_millis(250);
/// So much processor time that thread must have had meanwhile before it begins: one that starves is woken up all the same, has
/// less than a hundredth of a busy core, and what it has begun nobody can take over.
const HAD_FIRST: Duration = Duration::from_millis(20);
/// How often what was replaced is looked at: whether requests that began with it are still under way. Nearly all end soon.
const LOOK_EVERY: Duration = Duration::from_millis(50);
const LOOKS_SOON: u32 = 40;
const LOOK_LATER_EVERY: Duration = Duration::from_secs(2);
/// Beyond so many replaced configurations, whoever has one last frees it.
const RETIRED_MAX: usize = 32;

pub(super) struct Leisure {
    had_first: Duration,
    orders: Sender<Order>,
    retired: Arc<AtomicUsize>,
}

enum Order {
    Do(Box<dyn FnOnce() + Send>),
    Free(Arc<Snapshot>),
}

impl Leisure {
    /// The thread ends with this value.
    pub(super) fn start() -> std::io::Result<Self> {
        Self::with(HAD_FIRST)
    }

    fn with(had_first: Duration) -> std::io::Result<Self> {
        let (orders, received) = channel();
        let retired = Arc::new(AtomicUsize::new(0));
        let counted = retired.clone();
        std::thread::Builder::new().name("leisure".into()).spawn(move || {
            give_way();
            attend(&received, &counted);
        })?;
        Ok(Self { had_first, orders, retired })
    }

    /// Does it to the end, also where nobody waits for it any more.
    pub(super) async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> std::io::Result<T> {
        let lost = |_| std::io::Error::other("it panicked, or the process ends");
        let (tell, mut answer) = oneshot::channel();
        let work = move || {
            // Nobody reads it where the caller is gone.
            let _ = tell.send(work());
        };
        let slot = Arc::new(Mutex::new(Some(work)));
        let theirs = slot.clone();
        let had_first = self.had_first;
        let begin = move || {
            burn(had_first);
            if let Some(work) = take(&theirs) {
                work();
            }
        };
        self.orders.send(Order::Do(Box::new(begin))).map_err(|_| std::io::Error::other("the process ends"))?;
        if let Ok(done) = timeout(PATIENCE, &mut answer).await {
            return done.map_err(lost);
        }
        if let Some(work) = take(&slot) {
            drop(tokio::task::spawn_blocking(work));
        }
        answer.await.map_err(lost)
    }

    /// When no request has it any more: it may hold hundreds of megabytes, and who drops it last frees them.
    pub(super) fn free(&self, replaced: Arc<Snapshot>) {
        if self.retired.fetch_add(1, Ordering::Relaxed) >= RETIRED_MAX
            || self.orders.send(Order::Free(replaced)).is_err()
        {
            self.retired.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn take<T>(slot: &Mutex<Option<T>>) -> Option<T> {
    slot.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Of this thread's processor time.
fn burn(time: Duration) {
    let had = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or(Duration::MAX);
    let enough = had().saturating_add(time);
    while had() < enough {
        std::hint::spin_loop();
    }
}

/// Without it all works as before, but beside a change requests wait for some milliseconds now and then.
fn give_way() {
    let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
    if let Err(error) = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, idle) {
        tracing::warn!(
            ?error,
            "work in the background has the priority of what serves: this system does not let it have a lower one"
        );
    }
}

/// Until nobody can order anything any more.
fn attend(orders: &Receiver<Order>, retired: &AtomicUsize) {
    let mut replaced: Vec<Replaced> = Vec::new();
    let mut looks = 0;
    loop {
        let order = match replaced.is_empty() {
            true => orders.recv().map_err(|_| RecvTimeoutError::Disconnected),
            false => orders.recv_timeout(if looks < LOOKS_SOON { LOOK_EVERY } else { LOOK_LATER_EVERY }),
        };
        match order {
            // What it came to, its caller learns.
            Ok(Order::Do(work)) => drop(catch_unwind(AssertUnwindSafe(work))),
            Ok(Order::Free(snapshot)) => {
                replaced.push(Replaced { snapshot, unused: false });
                looks = 0;
            }
            Err(RecvTimeoutError::Timeout) => {
                looks += 1;
                let before = replaced.len();
                replaced.retain_mut(|replaced| !replaced.may_be_freed());
                retired.fetch_sub(before - replaced.len(), Ordering::Relaxed);
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

struct Replaced {
    snapshot: Arc<Snapshot>,
    /// Already at the look before.
    unused: bool,
}

impl Replaced {
    /// At the second look: a request lets go of the snapshot and of what it took from it one after the other.
    fn may_be_freed(&mut self) -> bool {
        let was = std::mem::replace(&mut self.unused, Arc::strong_count(&self.snapshot) == 1);
        was && self.unused
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Weak;

    use thread_priority::thread_schedule_policy;

    use super::*;

    #[tokio::test]
    async fn work_is_done_on_a_thread_that_gives_way() {
        let leisure = Leisure::start().unwrap();
        let (tell, told) = oneshot::channel();
        let work = move || drop(tell.send(thread_schedule_policy()));
        assert!(leisure.orders.send(Order::Do(Box::new(work))).is_ok());
        assert_eq!(told.await.unwrap().unwrap(), ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle));
        assert!(leisure.run(|| panic!("on purpose")).await.is_err());
        assert_eq!(leisure.run(|| 7).await.unwrap(), 7, "one that panics takes nothing else down");
    }

    #[tokio::test]
    async fn a_change_does_not_wait_for_long_where_the_thread_gets_nowhere() {
        let leisure = Leisure::start().unwrap();
        let (end, ended) = channel::<()>();
        let busy = leisure.run(move || ended.recv());
        let (_, at_once) = tokio::join!(timeout(Duration::from_millis(1), busy), async {
            tokio::task::yield_now().await;
            leisure.run(|| std::thread::current().name().map(str::to_owned)).await.unwrap()
        });
        assert_ne!(at_once.as_deref(), Some("leisure"));
        drop(end);
    }

    #[tokio::test]
    async fn a_thread_that_starves_begins_nothing() {
        let leisure = Leisure::with(2 * PATIENCE).unwrap();
        let by = leisure.run(|| std::thread::current().name().map(str::to_owned)).await.unwrap();
        assert_ne!(by.as_deref(), Some("leisure"), "within this time it can't have had as much");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn names_are_looked_up_by_threads_of_the_usual_priority() {
        let leisure = Leisure::start().unwrap();
        let runtime = tokio::runtime::Handle::current();
        let settings = serde_json::json!({"url": "http://localhost:1"}).to_string();
        let settings = contract::document::Document::json(&settings).unwrap().read().unwrap();
        let upstream = crate::upstream::Upstream::new("a", settings).unwrap();
        leisure.run(move || runtime.block_on(upstream.resolve()).is_ok()).await.unwrap();
        let policy = tokio::task::spawn_blocking(thread_schedule_policy).await.unwrap();
        assert_eq!(policy.unwrap(), ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Other));
    }

    #[tokio::test]
    async fn what_was_replaced_is_freed_there_once_no_request_has_it() {
        let leisure = Leisure::start().unwrap();
        let snapshot = Arc::new(Snapshot::empty());
        let (of_a_request, left) = (snapshot.clone(), Arc::downgrade(&snapshot));
        leisure.free(snapshot);
        tokio::time::sleep(4 * LOOK_EVERY).await;
        assert_eq!(Weak::strong_count(&left), 2, "a request has it");
        drop(of_a_request);
        while Weak::strong_count(&left) > 0 {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        for _ in 0..10 * RETIRED_MAX {
            leisure.free(Arc::new(Snapshot::empty()));
        }
        assert!(leisure.retired.load(Ordering::Relaxed) <= RETIRED_MAX, "what waits to be freed is bounded");
    }
}
