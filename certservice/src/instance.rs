//! Who this process is among those on one store.

use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::Write;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use crate::store::Store;

/// A name of its own, unlike that of any other. What the last process in the same folder had under way is free at once, if
/// it is dead: a lock tells, and that both ran on one machine since it was switched on. Keep the file: it is the lock.
pub(crate) async fn begin(data_dir: &Path, store: &Store) -> Result<(String, File), String> {
    let path = data_dir.join("instance");
    let failed = |error: std::io::Error| format!("{} can't be used: {error}", path.display());
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let boot: String = boot.chars().filter(char::is_ascii_hexdigit).collect();
    let name = format!("{boot}-{:016x}", RandomState::new().hash_one(&boot));
    let mut file = File::options().read(true).append(true).create(true).open(&path).map_err(failed)?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        // Another one lives in this folder; what it has under way stays with it.
        return Ok((name, file));
    }
    let before = std::fs::read_to_string(&path).map_err(failed)?;
    if before.split_once('-').is_some_and(|(its_boot, _)| its_boot == boot) {
        let left = store.leave(&before).await.map_err(|error| error.to_string())?;
        if left > 0 {
            tracing::info!(orders = left, "orders that were under way are taken up again");
        }
    }
    file.set_len(0).and_then(|()| file.write_all(name.as_bytes())).map_err(failed)?;
    Ok((name, file))
}
