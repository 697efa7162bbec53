//! The clock of deadlines, beside the count of instructions: a thread that advances the engine's epoch while guests run, and sleeps while none does.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use wasmtime::EngineWeak;

/// How often deadlines are looked at. Nearly every guest that runs away is stopped by its count of instructions first.
pub(super) const TICK: Duration = Duration::from_millis(1);

/// How long it takes at most until the thread sees that the engine is gone.
const SLEEP_MAX: Duration = Duration::from_secs(10);

/// Since the first look, for what happens before a request has a time.
pub(super) fn monotonic_ms() -> u64 {
    static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(BEGAN.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Cheap to clone. The thread ends when the engine is gone.
#[derive(Clone)]
pub(super) struct Clock {
    flags: Arc<Flags>,
    thread: Thread,
}

/// Both change seldom, so that a call only reads what its core has at hand.
#[derive(Default)]
struct Flags {
    /// A call began since the thread last looked.
    called: AtomicBool,
    asleep: AtomicBool,
}

impl Clock {
    /// `call_max` is the longest that a call may last: after a look that saw no new call for so long, none runs.
    pub(super) fn start(engine: EngineWeak, call_max: Duration) -> Result<Self, std::io::Error> {
        let flags = Arc::new(Flags::default());
        let shared = Arc::clone(&flags);
        let look_after = u32::try_from(call_max.as_nanos().div_ceil(TICK.as_nanos())).unwrap_or(u32::MAX);
        let thread = thread::Builder::new().name("wasm-deadlines".to_owned());
        let handle = thread.spawn(move || {
            while tick(&engine, look_after) {
                shared.sleep_while_quiet();
            }
        })?;
        Ok(Self { flags, thread: handle.thread().clone() })
    }

    /// To be said before a guest is called.
    pub(super) fn call_begins(&self) {
        // The call first says that it is there and then looks whether the thread sleeps; the thread first says that it
        // sleeps and then looks for calls. In one order for all (SeqCst) at least one of them sees the other.
        if !self.flags.called.load(Ordering::SeqCst) {
            self.flags.called.store(true, Ordering::SeqCst);
        }
        if self.flags.asleep.load(Ordering::SeqCst) {
            self.thread.unpark();
        }
    }

    #[cfg(test)]
    pub(super) fn sleeps(&self) -> bool {
        self.flags.asleep.load(Ordering::SeqCst)
    }
}

/// Advances the epoch for a while. Says whether anybody holds the engine still.
fn tick(engine: &EngineWeak, times: u32) -> bool {
    for _ in 0..times {
        let Some(engine) = engine.upgrade() else { return false };
        engine.increment_epoch();
        drop(engine);
        thread::sleep(TICK);
    }
    true
}

impl Flags {
    fn sleep_while_quiet(&self) {
        // A call that saw the flag up before this lowers it has its whole time counted before the next look.
        if self.called.swap(false, Ordering::SeqCst) {
            return;
        }
        self.asleep.store(true, Ordering::SeqCst);
        if !self.called.load(Ordering::SeqCst) {
            thread::park_timeout(SLEEP_MAX);
        }
        self.asleep.store(false, Ordering::SeqCst);
    }
}
