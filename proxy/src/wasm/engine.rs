//! The engine that all plugins share: one pool of instances, one clock for deadlines.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use wasmtime::component::{HasSelf, Linker};
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use super::binding::{BindError, Binding};
use super::callout::{self, Callouts};
use super::clock::Clock;
use super::compile::CompileLimits;
use super::compiled::Apart;
use super::component::{LoadError, Plugin};
use super::guest;
use super::limits::{Budget, State};
use super::planning::Tables;
use super::terms::Terms;
use super::waiting::Room;

/// A guest's time is processor time: on a busy machine its call lasts longer.
const CALL_TIMES_MAX: u32 = 4;
/// Beside the threads' shelves: instances that live for one `describe` or `plan`.
const POOL_INSTANCES_SPARE: usize = 16;
/// Of the places for bodies, shadows have one more for each so many.
const SHADOW_BODIES_SHARE: usize = 8;
/// Freed memory that stays mapped for the next instance; beyond it pages go back to the system.
const KEEP_RESIDENT_BYTES: usize = 256 << 10;
/// Without a pool: what a memory is followed by, to catch small overruns.
const MEMORY_GUARD_BYTES: u64 = 64 << 10;
/// A component of our worlds has one module of its own and the few that adapt it to the component model.
const CORE_INSTANCES_PER_COMPONENT_MAX: u32 = 8;
const TABLES_PER_COMPONENT_MAX: u32 = 4;
/// What `plan` may take more for each byte of the tables that it is granted.
const INSTRUCTIONS_PER_TABLE_BYTE: u64 = 1000;
const TIME_PER_TABLE_BYTE: Duration = Duration::from_nanos(200);

#[derive(Debug, Clone)]
pub struct Settings {
    /// Threads that will call plugins at once. Sizes the pool.
    pub threads: usize,
    /// Most instances that one thread has at once: the one that it calls, and those that it keeps for its next calls. The
    /// least recently used one makes room. Fewer where there are so many threads that the pool would not do for all.
    pub instances_per_thread_max: usize,
    /// Most bodies that one thread has under way in plugins; each has an instance for itself. Fewer as above.
    pub bodies_per_thread_max: usize,
    /// Of these, most that are of one binding and registered domain.
    pub bodies_per_tenant_max: usize,
    /// Instances of all threads: a larger pool only takes address space that small machines and containers don't give.
    pub instances_max: usize,
    /// Most calls that may wait at once, for each thread; half of them of one binding.
    pub waiting_per_thread_max: u32,
    /// After how many calls an instance that one tenant has for itself is replaced: by chance, one of these.
    pub tenant_uses: RangeInclusive<u32>,
    /// WebAssembly instructions for one call on a connection; each byte that one copies or fills counts as one.
    pub connection_instructions: u64,
    /// The same for one call on a request or a response.
    pub http_instructions: u64,
    /// The same for starting an instance, which is done once for many calls.
    pub start_instructions: u64,
    /// Processor time for one call, for guests that find slow instructions.
    pub call_time: Duration,
    /// And for starting an instance.
    pub start_time: Duration,
    /// Memory of one instance on the data path.
    pub memory_bytes_max: usize,
    /// By how much it may grow in one call.
    pub growth_bytes_max: usize,
    /// Instructions for `describe` or `plan`, which run on the admin path only.
    pub plan_instructions: u64,
    /// Processor time for `describe` or `plan`.
    pub plan_time: Duration,
    /// Memory for `describe` or `plan`.
    pub plan_memory_bytes_max: usize,
    /// Whether a plugin that fails again and again is left alone for a while.
    pub breaker: bool,
    pub compile: Compile,
}

/// Where components are compiled.
#[derive(Debug, Clone)]
pub enum Compile {
    /// In this process: for tests and tools, whose components are their own.
    Here,
    /// In a process apart, for what others have made. The code is kept in `data_dir`.
    Apart { limits: CompileLimits, data_dir: PathBuf },
}

/// Address space for each memory of a guest; it decides which bounds checks the code has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reservation {
    Default,
    Bytes(u64),
}

impl Default for Settings {
    fn default() -> Self {
        // Pingora gives each of its services (TLS, plain HTTP) threads of its own.
        let threads = 2 * thread::available_parallelism().map_or(2, usize::from);
        Self {
            threads,
            instances_per_thread_max: 256,
            bodies_per_thread_max: 256,
            bodies_per_tenant_max: 64,
            instances_max: 8192,
            waiting_per_thread_max: 256,
            tenant_uses: 64..=256,
            connection_instructions: 1_000_000,
            http_instructions: 2_000_000,
            start_instructions: 20_000_000,
            // What the host does for a call counts too, and takes many times as long where it is not optimised.
            call_time: Duration::from_millis(if cfg!(debug_assertions) { 10 } else { 2 }),
            start_time: Duration::from_millis(10),
            memory_bytes_max: 16 << 20,
            growth_bytes_max: 2 << 20,
            plan_instructions: 4_000_000_000,
            plan_time: Duration::from_secs(2),
            plan_memory_bytes_max: 64 << 20,
            breaker: true,
            compile: Compile::Here,
        }
    }
}

impl Settings {
    /// Of all threads: never so many that the shelves of a large machine have nothing left of the pool.
    pub(super) fn waiting_max(&self) -> u32 {
        let threads = u32::try_from(self.threads).unwrap_or(u32::MAX);
        self.waiting_per_thread_max
            .saturating_mul(threads)
            .min(u32::try_from(self.instances_max / 4).unwrap_or(u32::MAX))
    }

    /// Beside those of live bindings, which have all of their places to themselves.
    pub(super) fn shadow_bodies_per_thread_max(&self) -> usize {
        self.bodies_per_thread_max.div_ceil(SHADOW_BODIES_SHARE)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum HostError {
    #[error("cannot start the Wasm engine: {0}")]
    Engine(String),
    #[error("cannot start the thread that watches plugin deadlines: {0}")]
    Ticker(#[from] std::io::Error),
}

/// Runs plugins. Cheap to clone.
#[derive(Clone)]
pub struct Host(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub engine: Engine,
    pub clock: Clock,
    pub linker: Linker<State>,
    /// For those that may wait.
    pub waiting_linker: Linker<State>,
    pub waiting: Room,
    pub settings: Settings,
    pub reservation: Reservation,
    /// Where a component was compiled before, or is in a process apart.
    pub apart: Option<Apart>,
}

impl Host {
    pub fn new(mut settings: Settings) -> Result<Self, HostError> {
        share_out(&mut settings);
        let failed = |error: wasmtime::Error| HostError::Engine(format!("{error:#}"));
        let (engine, reservation) = engine(&settings).map_err(failed)?;
        let linker = linker(&engine).map_err(failed)?;
        let mut waiting_linker = linker.clone();
        callout::link_waiting(waiting_linker.allow_shadowing(true)).map_err(failed)?;
        let call_max = settings.plan_time.max(settings.call_time).max(settings.start_time);
        let clock = Clock::start(engine.weak(), CALL_TIMES_MAX * call_max)?;
        let apart = match &settings.compile {
            Compile::Here => None,
            Compile::Apart { limits, data_dir } => Some(Apart::new(data_dir, *limits)),
        };
        let waiting = Room::default();
        Ok(Self(Arc::new(Inner { engine, clock, linker, waiting_linker, waiting, settings, reservation, apart })))
    }

    /// All that was uploaded before is loaded: compiled code of anything else is removed.
    pub fn forget_unused(&self) {
        if let Some(apart) = &self.0.apart {
            apart.sweep();
        }
    }

    /// Compiles a component, where that was not done before, and asks it what it is. Blocks for a tenth of a second, or as
    /// long as the limits of compiling allow: not for a request's thread.
    pub fn load(&self, bytes: &[u8]) -> Result<Arc<Plugin>, LoadError> {
        Plugin::load(&self.0, bytes).map(Arc::new)
    }

    /// Has the plugin check a configuration (JSON) and read the tables that it is granted, and starts it once with the
    /// result.
    pub fn bind(&self, plugin: &Arc<Plugin>, config_json: &str, tables: &Tables) -> Result<Arc<Binding>, BindError> {
        self.bind_on(plugin, config_json, tables, Callouts::default(), Terms::default())
    }

    pub fn bind_on(
        &self,
        plugin: &Arc<Plugin>,
        config_json: &str,
        tables: &Tables,
        callouts: Callouts,
        terms: Terms,
    ) -> Result<Arc<Binding>, BindError> {
        Binding::new(&self.0, plugin, config_json, tables, callouts, terms).map(Arc::new)
    }
}

impl Inner {
    /// For `describe`, and for `plan` with tables of so many bytes.
    pub(super) fn plan_budget(&self, table_bytes: u64) -> Budget {
        let settings = &self.settings;
        let instructions =
            settings.plan_instructions.saturating_add(INSTRUCTIONS_PER_TABLE_BYTE.saturating_mul(table_bytes));
        let time = settings
            .plan_time
            .saturating_add(TIME_PER_TABLE_BYTE.saturating_mul(u32::try_from(table_bytes).unwrap_or(u32::MAX)));
        Budget {
            start_instructions: instructions,
            start_time: time,
            call_instructions: instructions,
            call_time: time,
            memory_bytes: self.settings.plan_memory_bytes_max,
            growth_bytes: self.settings.plan_memory_bytes_max,
            output_bytes: 4 << 20,
        }
    }
}

/// The engine with a pool of instances, or without one where the system does not give the address space for it.
fn engine(settings: &Settings) -> wasmtime::Result<(Engine, Reservation)> {
    let mut pooled = config(Reservation::Default);
    pooled.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(settings)));
    Engine::new(&pooled).map(|engine| (engine, Reservation::Default)).or_else(|error| {
        tracing::warn!(error = %format_args!("{error:#}"), "no address space for a pool of plugin instances: each one is allocated by itself, which is slower");
        // Not the 4 GiB for each memory that make bounds checks needless.
        let reservation = Reservation::Bytes(settings.memory_bytes_max as u64);
        Ok((Engine::new(&config(reservation))?, reservation))
    })
}

/// Without a pool of instances, which the code does not depend on.
pub(super) fn config(reservation: Reservation) -> Config {
    let mut config = Config::new();
    // What waits in our worlds does so on a stack of its own; support for waiting in the component model would triple the
    // price of each call.
    config.concurrency_support(false);
    config.consume_fuel(true);
    config.epoch_interruption(true);
    config.memory_init_cow(true);
    if let Reservation::Bytes(bytes) = reservation {
        config.memory_reservation(bytes);
        config.memory_guard_size(MEMORY_GUARD_BYTES);
    }
    config
}

/// How many instances one thread may have at once: so many that all threads have theirs, whatever the others keep.
fn share_out(settings: &mut Settings) {
    let beside = POOL_INSTANCES_SPARE.saturating_add(usize::try_from(settings.waiting_max()).unwrap_or(usize::MAX));
    let share = settings.instances_max.saturating_sub(beside) / settings.threads.max(1);
    settings.bodies_per_thread_max = settings.bodies_per_thread_max.min(share / 2);
    let idle = share.saturating_sub(settings.bodies_per_thread_max + settings.shadow_bodies_per_thread_max());
    settings.instances_per_thread_max = settings.instances_per_thread_max.min(idle).max(1);
}

fn pool(settings: &Settings) -> PoolingAllocationConfig {
    let bodies = settings.bodies_per_thread_max.saturating_add(settings.shadow_bodies_per_thread_max());
    let per_thread = settings.instances_per_thread_max.saturating_add(bodies);
    let shelves = settings.threads.saturating_mul(per_thread);
    let waiting = usize::try_from(settings.waiting_max()).unwrap_or(usize::MAX);
    let instances = shelves.saturating_add(POOL_INSTANCES_SPARE).saturating_add(waiting).min(settings.instances_max);
    let instances = u32::try_from(instances).unwrap_or(u32::MAX);
    // For what waits, and for starting one on each thread.
    let stacks = settings.waiting_max().saturating_add(u32::try_from(settings.threads).unwrap_or(u32::MAX));
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_stacks(stacks.saturating_add(POOL_INSTANCES_SPARE as u32))
        .total_core_instances(instances.saturating_mul(CORE_INSTANCES_PER_COMPONENT_MAX))
        .total_memories(instances)
        .total_tables(instances.saturating_mul(TABLES_PER_COMPONENT_MAX))
        .max_core_instances_per_component(CORE_INSTANCES_PER_COMPONENT_MAX)
        .max_memories_per_component(1)
        .max_tables_per_component(TABLES_PER_COMPONENT_MAX)
        .max_memory_size(settings.memory_bytes_max.max(settings.plan_memory_bytes_max))
        .linear_memory_keep_resident(KEEP_RESIDENT_BYTES)
        .table_keep_resident(KEEP_RESIDENT_BYTES)
        .pagemap_scan(Enabled::Auto);
    pool
}

/// All that a plugin may import.
fn linker(engine: &Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    guest::control::latchkey::edge::log::add_to_linker::<_, HasSelf<_>>(&mut linker, |state: &mut State| state)?;
    guest::control::latchkey::edge::datasets::add_to_linker::<_, HasSelf<_>>(&mut linker, |state: &mut State| state)?;
    guest::control::latchkey::edge::rates::add_to_linker::<_, HasSelf<_>>(&mut linker, |state: &mut State| state)?;
    guest::control::latchkey::edge::rules::add_to_linker::<_, HasSelf<_>>(&mut linker, |state: &mut State| state)?;
    callout::link(&mut linker)?;
    linker.instance(guest::TYPES)?;
    Ok(linker)
}
