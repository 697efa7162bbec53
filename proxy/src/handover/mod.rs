//! A new process takes the place of the running one, and no visitor notices.
//!
//! ```text
//! latchkey-proxy upgrade ──"upgrade"──> incumbent ──starts──> successor
//!                                        sockets ─────────────> loads everything, accepts on them
//!                                        <──────────── serving
//!                                        yours ───────────────> takes the names: admin socket, this desk, pid file
//!                                        stops accepting, finishes what is open, ends
//! ```
//!
//! Until it has said `yours`, the incumbent goes on as if nothing was, whatever becomes of the successor.
//! Must never stop a process before another serves, hand a socket to a process it did not start, or listen to another
//! user.

mod channel;
mod incumbent;
mod messages;
mod names;
mod successor;
mod verdict;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use self::channel::Desk;
pub use self::incumbent::Incumbent;
pub use self::names::{Names, PidFile, Places};
pub use self::successor::Successor;
pub use self::verdict::upgrade;

/// From its start until it serves, a successor may take so long.
pub const UPGRADE_TIMEOUT: Duration = Duration::from_secs(60);
/// More are not handed over in one message.
pub const LISTENERS_MAX: usize = 64;
/// For an answer that takes no work.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    #[error("{0}: {1}")]
    Socket(String, std::io::Error),
    #[error(
        "another latchkey-proxy answers on {0}: it uses this data_dir; `latchkey-proxy upgrade` replaces it without a \
         break"
    )]
    InUse(String),
    #[error("--take-over is for a process that a running latchkey-proxy starts; use `latchkey-proxy upgrade`: {0}")]
    NoPredecessor(std::io::Error),
    #[error("the predecessor did not let go: {0}")]
    NotRelieved(std::io::Error),
    #[error("the upgrade did not happen, and the running process goes on: {0}")]
    NotUpgraded(String),
    #[error("the upgrade went wrong: {0}")]
    Unverified(String),
}

fn desk_path(data_dir: &Path) -> PathBuf {
    data_dir.join("handover.sock")
}

/// systemd, where it started this process and asks to be told.
pub fn tell_service_manager(state: &sd_notify::NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(std::slice::from_ref(state)) {
        tracing::warn!(%error, "the service manager could not be told");
    }
}
