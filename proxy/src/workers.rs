//! The threads that serve. Each has a runtime of its own: a connection, its requests and the upstream connections that
//! they use stay on one thread, so nothing is stolen, woken across threads or fought for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio::sync::watch;

/// Ends the threads, and whatever they still run, when it is dropped.
pub(crate) struct Workers {
    pub(crate) list: Vec<Worker>,
    _running: watch::Sender<()>,
}

#[derive(Clone)]
pub struct Worker {
    runtime: Handle,
    /// Connections that it has open.
    open: Arc<AtomicUsize>,
}

/// Counts as one of its worker's connections until it is dropped.
pub(crate) struct AtWork(Arc<AtomicUsize>);

impl Workers {
    pub(crate) fn start(threads: usize) -> std::io::Result<Self> {
        let (running, ended) = watch::channel(());
        let list = (0..threads).map(|number| Worker::start(number, ended.clone())).collect::<Result<_, _>>()?;
        Ok(Self { list, _running: running })
    }
}

impl Worker {
    fn start(number: usize, mut ended: watch::Receiver<()>) -> std::io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        thread::Builder::new().name(format!("serve-{number}")).spawn(move || {
            // Nothing is ever sent: it returns when the sender is gone.
            let _ = runtime.block_on(ended.changed());
            runtime.shutdown_background();
        })?;
        Ok(Self { runtime: handle, open: Arc::default() })
    }

    pub(crate) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    pub(crate) fn enter(&self) -> AtWork {
        self.open.fetch_add(1, Ordering::Relaxed);
        AtWork(self.open.clone())
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_worker_is_a_thread_and_ends_with_the_workers() {
        let workers = Workers::start(3).unwrap();
        let name = || thread::current().name().map(str::to_owned);
        let (tell, told) = std::sync::mpsc::channel();
        for worker in &workers.list {
            let tell = tell.clone();
            worker.runtime().spawn(async move { tell.send(name()) });
        }
        let mut names: Vec<_> = told.iter().take(3).flatten().collect();
        names.sort();
        assert_eq!(names, ["serve-0", "serve-1", "serve-2"]);

        let (kept, ends) = std::sync::mpsc::channel::<()>();
        workers.list[0].runtime().spawn(async move {
            let _kept = kept;
            std::future::pending::<()>().await;
        });
        drop(workers);
        assert!(ends.recv().is_err(), "what a worker runs ends with it");
    }

    #[test]
    fn connections_are_counted_until_they_end() {
        let workers = Workers::start(1).unwrap();
        let worker = &workers.list[0];
        let (one, two) = (worker.enter(), worker.enter());
        assert_eq!(worker.open(), 2);
        drop((one, two));
        assert_eq!(worker.open(), 0);
    }
}
