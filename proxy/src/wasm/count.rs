//! Where answers came from. Each thread counts for itself, so that counting takes neither a lock nor another core's memory.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Of all threads together, since the process began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Answers {
    /// By a call of the plugin.
    pub called: u64,
    /// Given again, without a call.
    pub remembered: u64,
    /// No dataset had anything, so there was nothing to ask.
    pub passed: u64,
}

#[derive(Default)]
struct Counters {
    called: AtomicU64,
    remembered: AtomicU64,
    passed: AtomicU64,
}

/// One for each thread that ever asked a plugin; those are few and stay.
static ALL: Mutex<Vec<Arc<Counters>>> = Mutex::new(Vec::new());

thread_local! {
    static HERE: Arc<Counters> = {
        let counters = Arc::<Counters>::default();
        ALL.lock().unwrap_or_else(PoisonError::into_inner).push(counters.clone());
        counters
    };
}

impl Answers {
    pub fn total() -> Self {
        let all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().fold(Self::default(), |sum, counters| Self {
            called: sum.called + counters.called.load(Ordering::Relaxed),
            remembered: sum.remembered + counters.remembered.load(Ordering::Relaxed),
            passed: sum.passed + counters.passed.load(Ordering::Relaxed),
        })
    }

    /// How many calls this thread has made. What one question has changed tells where its answer came from.
    pub(super) fn called_here() -> u64 {
        HERE.with(|counters| counters.called.load(Ordering::Relaxed))
    }
}

pub(super) fn called() {
    HERE.with(|counters| up(&counters.called));
}

pub(super) fn remembered() {
    HERE.with(|counters| up(&counters.remembered));
}

pub(super) fn passed() {
    HERE.with(|counters| up(&counters.passed));
}

/// Only this thread writes it.
fn up(counter: &AtomicU64) {
    counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}
