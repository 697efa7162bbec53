//! What bounds a guest: time, memory, and how much it says. One [`State`] per instance.

use std::sync::Arc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use wasmtime::{ResourceLimiter, Store, StoreContextMut, UpdateDeadline};

use super::callout::{Calling, Callouts};
use super::clock::{Clock, TICK};
use super::engine::Inner;
use super::planning::Planning;
use super::rates::Rates;
use super::types::Usage;

/// Most bytes of log messages that one call may write, so that a plugin can't flood the log.
pub(super) const LOG_BYTES_MAX: usize = 2048;

const TABLE_ELEMENTS_MAX: usize = 10_000;

/// What one call may use.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    pub start_instructions: u64,
    pub start_time: Duration,
    pub call_instructions: u64,
    pub call_time: Duration,
    pub memory_bytes: usize,
    /// By how much it may grow in one call: the system takes its time to give memory, which no instruction counts.
    pub growth_bytes: usize,
    /// Most that the host copies out of the guest.
    pub output_bytes: usize,
}

/// The host's side of one instance.
pub(super) struct State {
    pub plugin: Arc<str>,
    pub log_bytes_left: usize,
    /// While `plan` runs: what it may read and make.
    pub planning: Option<Box<Planning>>,
    /// While it serves: what its binding counts.
    pub rates: Option<Arc<Rates>>,
    /// What its binding is granted; none for a plugin that can't ask.
    pub callouts: Option<Arc<Callouts>>,
    /// While it may ask.
    pub calling: Option<Box<Calling>>,
    clock: Clock,
    budget: Budget,
    memory_bytes: usize,
    growth_left: usize,
    memory_refused: bool,
    /// What is under way may take so much.
    time: Duration,
    /// Processor time of this thread when the call had lasted for half of its time.
    halfway: Option<Duration>,
}

/// The guest used up its time. An error of our own, to tell it from other traps.
#[derive(Debug, thiserror::Error)]
#[error("deadline exceeded")]
pub(super) struct DeadlineExceeded;

pub(super) fn store(host: &Inner, plugin: Arc<str>, budget: Budget) -> Store<State> {
    let clock = host.clock.clone();
    let state = State {
        plugin,
        log_bytes_left: 0,
        planning: None,
        rates: None,
        callouts: None,
        calling: None,
        clock,
        budget,
        memory_bytes: 0,
        // A start may take all of it.
        growth_left: budget.memory_bytes,
        memory_refused: false,
        time: budget.start_time,
        halfway: None,
    };
    let mut store = Store::new(&host.engine, state);
    store.limiter(|state| state);
    store.epoch_deadline_callback(on_epoch);
    store.set_hostcall_fuel(budget.output_bytes);
    renew(&mut store, budget.start_instructions, budget.start_time);
    store
}

/// Renews what is counted per call.
pub(super) fn start_call(store: &mut Store<State>) {
    let Budget { call_instructions, call_time, .. } = store.data().budget;
    renew(store, call_instructions, call_time);
    let state = store.data_mut();
    state.growth_left = state.budget.growth_bytes;
}

/// Without it the guest is stopped at once.
fn renew(store: &mut Store<State>, instructions: u64, time: Duration) {
    // An error would mean an engine that does not count; then the guest has none left, and is stopped.
    let _ = store.set_fuel(instructions);
    store.set_epoch_deadline(ticks(time / 2));
    let state = store.data_mut();
    state.clock.call_begins();
    (state.time, state.halfway) = (time, None);
    state.memory_refused = false;
    state.log_bytes_left = LOG_BYTES_MAX;
}

/// The guest goes on after it has waited. What the thread did meanwhile is not its time: that is counted anew, while its
/// instructions go on being counted.
pub(super) fn resume(store: &mut StoreContextMut<'_, State>) {
    let half = ticks(store.data().time / 2);
    store.set_epoch_deadline(half);
    let state = store.data_mut();
    state.clock.call_begins();
    state.halfway = None;
}

/// Of the call that was last, and of the instance.
pub(super) fn usage(store: &Store<State>) -> Usage {
    let State { budget, memory_bytes, .. } = store.data();
    let left = store.get_fuel().unwrap_or_default();
    Usage { instructions: budget.call_instructions.saturating_sub(left), memory_bytes: *memory_bytes }
}

impl State {
    /// The guest died of, or will soon die of, its memory limit.
    pub(super) fn memory_refused(&self) -> bool {
        self.memory_refused
    }

    /// Half of the memory is in use: a guest that leaks is replaced before it fails.
    pub(super) fn memory_runs_out(&self) -> bool {
        self.memory_bytes > self.budget.memory_bytes / 2
    }
}

/// Instructions are what normally ends a guest: their count is the same on a busy machine. Time is for the few that take
/// much longer than others. The first half of it is counted by the clock on the wall, which costs a call nothing. Who is still running then
/// has the second half counted in processor time, so that a guest is not blamed when the machine gave the thread's
/// time to somebody else.
fn on_epoch(mut store: StoreContextMut<'_, State>) -> wasmtime::Result<UpdateDeadline> {
    let used = thread_time();
    let state = store.data_mut();
    match state.halfway {
        None => state.halfway = Some(used),
        Some(halfway) if used.saturating_sub(halfway) >= state.time / 2 => return Err(DeadlineExceeded.into()),
        Some(_) => {}
    }
    Ok(UpdateDeadline::Continue(1))
}

fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.try_into().unwrap_or(0))
}

fn ticks(time: Duration) -> u64 {
    let ticks = time.as_nanos().div_ceil(TICK.as_nanos());
    u64::try_from(ticks).unwrap_or(u64::MAX).max(1)
}

impl ResourceLimiter for State {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let growth = desired.saturating_sub(current);
        let total = self.memory_bytes.saturating_add(growth);
        if total > self.budget.memory_bytes || growth > self.growth_left {
            self.memory_refused = true;
            return Ok(false);
        }
        self.memory_bytes = total;
        self.growth_left -= growth;
        Ok(true)
    }

    fn table_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS_MAX)
    }
}
