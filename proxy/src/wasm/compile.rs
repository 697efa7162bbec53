//! Compiles components in a process of its own, which is this same program: a component that takes the compiler too long,
//! too much memory or down takes down that process alone.
//!
//! The process limits itself before it has read a byte, and gets nothing but the component: no environment, no
//! descriptors but its three pipes, no right to write files or start anything.

use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit};
use wasmtime::Engine;

use super::component::{COMPONENT_BYTES_MAX, explained};
use super::engine::{self, Reservation};
use super::precompiled::Authentic;
use super::verify::shown;

/// The argument that makes this program the compiler.
pub const COMMAND: &str = "compile-plugin";
/// Machine code is a few times larger than the component.
const CODE_BYTES_MAX: u64 = 512 << 20;
const SAYS_BYTES_MAX: u64 = 4096;
/// A busy machine may give the compiler only a small share of its time.
const REAL_TIME_FACTOR: u32 = 10;
const LOOK_EVERY: Duration = Duration::from_millis(5);
const DESCRIPTORS_MAX: u64 = 16;

/// What compiling one component may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompileLimits {
    /// Of processor time.
    pub seconds_max: u32,
    /// Of memory, all of the process's address space.
    pub mib_max: u32,
}

#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    #[error("not a valid component: {0}")]
    Invalid(String),
    #[error(
        "compiling the component takes more than {0} s of processor time (plugins.compile_seconds_max): it has too many functions, or too large ones"
    )]
    Time(u32),
    #[error(
        "compiling the component takes more than {0} MiB of memory (plugins.compile_mib_max): it has too many functions, or too large ones"
    )]
    Memory(u32),
    #[error("the component was not compiled within {0:?}; this machine is too busy, try again")]
    RealTime(Duration),
    #[error("the compiler failed: {0}")]
    Failed(String),
}

pub(super) struct Compiler {
    program: PathBuf,
    limits: CompileLimits,
    /// One at a time: their limits would add up.
    turn: Mutex<()>,
}

impl Compiler {
    pub(super) fn new(limits: CompileLimits) -> Self {
        // The program that runs, also where another stands at its path by now.
        Self { program: "/proc/self/exe".into(), limits, turn: Mutex::default() }
    }

    /// Blocks, as long as it takes.
    pub(super) fn compile(&self, component: &[u8], reservation: Reservation) -> Result<Authentic, CompileError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = |what: &str, error: std::io::Error| CompileError::Failed(format!("{what}: {error}"));
        let mut child = self.start(reservation).map_err(|error| failed("it does not start", error))?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(mut stdin), Some(stdout), Some(stderr)) = pipes else {
            return Err(CompileError::Failed("it has no pipes".into()));
        };
        let patience = Duration::from_secs(self.limits.seconds_max.into()) * REAL_TIME_FACTOR;
        let (status, code, says) = thread::scope(|scope| {
            // Ends early where the compiler does; why, its status tells.
            scope.spawn(move || drop(stdin.write_all(component)));
            let code = scope.spawn(move || read(stdout, CODE_BYTES_MAX));
            let says = scope.spawn(move || read(stderr, SAYS_BYTES_MAX));
            let status = wait(&mut child, Instant::now() + patience);
            (status, code.join().unwrap_or_default(), says.join().unwrap_or_default())
        });
        let says = String::from_utf8_lossy(&says);
        match status.map_err(|error| failed("waiting for it", error))? {
            Some(status) if status.success() => Ok(Authentic::from_compiler(code)),
            Some(status) => Err(self.why(status, says.trim())),
            None => Err(CompileError::RealTime(patience)),
        }
    }

    fn start(&self, reservation: Reservation) -> std::io::Result<Child> {
        let CompileLimits { seconds_max, mib_max } = self.limits;
        let mut command = Command::new(&self.program);
        command.arg0("latchkey-proxy").arg(COMMAND);
        command.args(["--seconds-max", &seconds_max.to_string(), "--mib-max", &mib_max.to_string()]);
        if let Reservation::Bytes(bytes) = reservation {
            command.args(["--memory-bytes", &bytes.to_string()]);
        }
        command.env_clear().current_dir("/");
        // The allocator reserves address space ahead, by default more than small limits have.
        command.env("MIMALLOC_ARENA_RESERVE", "32MiB");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
    }

    fn why(&self, status: ExitStatus, says: &str) -> CompileError {
        let CompileLimits { seconds_max, mib_max } = self.limits;
        let is = |signal: Signal| status.signal() == Some(signal.as_raw());
        // As the system and Rust say it; a stack that can't grow ends with the signal alone.
        let said = ["memory allocation of", "Cannot allocate memory", "overflowed its stack"];
        let out_of_memory = is(Signal::SEGV) || is(Signal::BUS) || said.iter().any(|said| says.contains(said));
        match status.code() {
            _ if is(Signal::XCPU) || is(Signal::KILL) => CompileError::Time(seconds_max),
            _ if out_of_memory => CompileError::Memory(mib_max),
            Some(1) => CompileError::Invalid(shown(says, 512)),
            _ => CompileError::Failed(format!("{status}: {}", shown(says, 512))),
        }
    }
}

fn read(pipe: impl Read, bytes_max: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    // What was cut is no code that loads.
    let _ = pipe.take(bytes_max).read_to_end(&mut bytes);
    bytes
}

/// None if it had to be ended.
fn wait(child: &mut Child, until: Instant) -> std::io::Result<Option<ExitStatus>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= until {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// The compiling process: a component on standard input, its code on standard output.
pub fn compile_standard_input(limits: CompileLimits, memory_bytes: Option<u64>) -> Result<(), String> {
    restrict(limits).map_err(|error| format!("its limits can't be set: {error}"))?;
    let mut component = Vec::new();
    let read = std::io::stdin().lock().take(COMPONENT_BYTES_MAX as u64 + 1).read_to_end(&mut component);
    read.map_err(|error| format!("reading the component: {error}"))?;
    let reservation = memory_bytes.map_or(Reservation::Default, Reservation::Bytes);
    let engine = Engine::new(&engine::config(reservation)).map_err(|error| explained(&error))?;
    let code = engine.precompile_component(&component).map_err(|error| explained(&error))?;
    std::io::stdout().lock().write_all(&code).map_err(|error| format!("writing the code: {error}"))
}

fn restrict(limits: CompileLimits) -> rustix::io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let seconds = u64::from(limits.seconds_max);
    for (resource, soft, hard) in [
        (Resource::Core, 0, 0),
        (Resource::Fsize, 0, 0),
        (Resource::Nproc, 0, 0),
        (Resource::Nofile, DESCRIPTORS_MAX, DESCRIPTORS_MAX),
        (Resource::As, u64::from(limits.mib_max) << 20, u64::from(limits.mib_max) << 20),
        // The first one says why.
        (Resource::Cpu, seconds, seconds + 1),
    ] {
        setrlimit(resource, Rlimit { current: Some(soft), maximum: Some(hard) })?;
    }
    Ok(())
}
