//! A few threads of their own for what costs a millisecond of CPU: opening sealed keys (RSA). They never hold up the
//! threads that serve requests, and what waits for them is bounded.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::observe::METRICS;

pub struct Pool {
    jobs: Sender<Job>,
    places: Arc<Semaphore>,
    queued_max: usize,
}

struct Job {
    work: Box<dyn FnOnce() + Send>,
    asked_at: Instant,
    /// Given back when the job is begun.
    place: OwnedSemaphorePermit,
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// A visitor: is turned away if too many wait.
    None,
    /// The edge itself: waits for a place in the queue too.
    Endless,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotRun {
    #[error("{0} sealed keys wait to be opened already")]
    Full(usize),
    #[error("the work panicked, or the process ends")]
    Lost,
}

impl Pool {
    /// `queued_max` may wait beside those that are worked on, one per thread.
    pub fn start(threads: usize, queued_max: usize) -> std::io::Result<Self> {
        let (jobs, queue) = channel::<Job>();
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..threads.max(1) {
            let queue = queue.clone();
            std::thread::Builder::new().name("open".into()).spawn(move || work_off(&queue))?;
        }
        Ok(Self { jobs, places: Arc::new(Semaphore::new(queued_max)), queued_max })
    }

    pub(super) async fn run<T: Send + 'static>(
        &self,
        patience: Patience,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, NotRun> {
        let place = match patience {
            Patience::None => self.places.clone().try_acquire_owned().map_err(|_| NotRun::Full(self.queued_max))?,
            Patience::Endless => self.places.clone().acquire_owned().await.map_err(|_| NotRun::Lost)?,
        };
        let (tell, answer) = oneshot::channel();
        let work = move || {
            // Nobody reads it where the load was given up.
            let _ = tell.send(work());
        };
        self.put(place, Box::new(work))?;
        answer.await.map_err(|_| NotRun::Lost)
    }

    fn put(&self, place: OwnedSemaphorePermit, work: Box<dyn FnOnce() + Send>) -> Result<(), NotRun> {
        METRICS.key_opens_queued.inc();
        self.jobs.send(Job { work, asked_at: Instant::now(), place }).map_err(|_| NotRun::Lost)
    }
}

/// Until the pool is dropped.
fn work_off(queue: &Mutex<Receiver<Job>>) {
    loop {
        // One thread waits for a job, the others for their turn to wait.
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { work, asked_at, place }) = next else { return };
        drop(place);
        METRICS.key_opens_queued.dec();
        METRICS.key_open_wait_seconds.observe(asked_at.elapsed().as_secs_f64());
        let begun_at = Instant::now();
        if catch_unwind(AssertUnwindSafe(work)).is_err() {
            tracing::error!("opening a sealed key panicked; the bundle counts as refused");
        }
        METRICS.key_open_seconds.observe(begun_at.elapsed().as_secs_f64());
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::mpsc::SyncSender;

    use super::*;

    /// Occupies a pool of one thread and as much of its queue as is wanted, until the sender is dropped.
    pub(in super::super) async fn occupy(pool: &Pool, queued: usize) -> SyncSender<()> {
        let (gate, held) = std::sync::mpsc::sync_channel::<()>(0);
        let (begun, has_begun) = oneshot::channel();
        let first = move || {
            let _ = begun.send(());
            let _ = held.recv();
        };
        pool.put(pool.places.clone().try_acquire_owned().unwrap(), Box::new(first)).unwrap();
        has_begun.await.unwrap();
        for _ in 0..queued {
            pool.put(pool.places.clone().try_acquire_owned().unwrap(), Box::new(|| ())).unwrap();
        }
        gate
    }

    #[tokio::test]
    async fn takes_as_many_as_may_wait_and_turns_the_next_one_away() {
        let pool = Pool::start(1, 3).unwrap();
        let gate = occupy(&pool, 2).await;
        let last = pool.run(Patience::None, || 1);
        let one_more = async { pool.run(Patience::None, || 2).await };
        let own = async { pool.run(Patience::Endless, || 3).await };
        let release = async {
            while pool.places.available_permits() > 0 {
                tokio::task::yield_now().await;
            }
            let turned_away = one_more.await;
            drop(gate);
            turned_away
        };
        let (last, own, turned_away) = tokio::join!(last, own, release);
        assert_eq!((last, own, turned_away), (Ok(1), Ok(3), Err(NotRun::Full(3))));
    }

    #[tokio::test]
    async fn a_panic_costs_its_own_job_only() {
        let pool = Pool::start(1, 1).unwrap();
        assert_eq!(pool.run::<()>(Patience::None, || panic!("as a test")).await, Err(NotRun::Lost));
        assert_eq!(pool.run(Patience::None, || 7).await, Ok(7));
    }

    #[tokio::test]
    async fn work_is_done_on_threads_of_the_pool() {
        let pool = Pool::start(2, 1).unwrap();
        let name = pool.run(Patience::None, || std::thread::current().name().map(str::to_owned)).await.unwrap();
        assert_eq!(name.as_deref(), Some("open"));
    }
}
