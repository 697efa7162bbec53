//! Who runs where: servers on the first core, load and upstream on the others, so that neither waits for the other.

use std::process::Command;
use std::sync::OnceLock;

use support::{Context, Result, fail, program};

/// Of this machine; asked before anything is pinned, afterwards the answer would be smaller.
static CORES: OnceLock<usize> = OnceLock::new();

pub fn count() -> usize {
    *CORES.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from))
}

/// From now on what the first thread starts runs where servers run.
pub fn as_servers() -> Result<()> {
    if count() == 1 { Ok(()) } else { pin("0") }
}

/// From now on the first thread, and what it starts, runs where load comes from.
pub fn as_load() -> Result<()> {
    match count() - 1 {
        0 => Ok(()),
        last => pin(&format!("1-{last}")),
    }
}

fn pin(cores: &str) -> Result<()> {
    let taskset = program::find("taskset").context("taskset is not installed (Debian: util-linux)")?;
    // The number of a process is that of its first thread.
    let pid = std::process::id().to_string();
    let output = Command::new(taskset).args(["-p", "-c", cores, &pid]).output()?;
    if !output.status.success() {
        return fail(format!("taskset: {}", String::from_utf8_lossy(&output.stderr)));
    }
    Ok(())
}
