//! Sealed bundles on this edge's disk: what it has served before, it can serve again after a restart while Redis,
//! CertService and its database are all down. A bundle is sealed and signed, so the disk need not be trusted.
//!
//! One file a domain, replaced whole. A damaged one is a miss, and is removed.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use contract::Hostname;
use contract::bundle::sha256;
use contract::signed::TOKEN_BYTES_MAX;

/// When a bundle was checked that has been replaced since: the time of its file.
pub(super) const OUTDATED: u64 = 0;

pub struct Disk {
    folder: PathBuf,
    /// Makes names of partial files unique within this process.
    turn: AtomicU64,
}

/// A token, and when it was last known to be the current one (Unix seconds).
pub(super) struct Kept {
    pub(super) token: String,
    pub(super) checked_at: u64,
}

impl Disk {
    pub fn open(folder: PathBuf) -> std::io::Result<Self> {
        fs::create_dir_all(&folder)?;
        Ok(Self { folder, turn: AtomicU64::new(0) })
    }

    /// One look at a folder, which the system mostly has in memory: a name that is not kept costs no change of thread.
    /// True where that fails; to read tells why.
    pub(super) fn has(&self, name: &Hostname) -> bool {
        self.path(name).try_exists().unwrap_or(true)
    }

    /// Blocks.
    pub(super) fn get(&self, name: &Hostname) -> std::io::Result<Option<Kept>> {
        let file = match File::open(self.path(name)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let checked_at =
            file.metadata()?.modified()?.duration_since(UNIX_EPOCH).map_or(OUTDATED, |since| since.as_secs());
        let mut bytes = Vec::new();
        file.take(TOKEN_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
        // What is not text is damaged, and does not verify: no fault of the disk's.
        let token = String::from_utf8_lossy(&bytes).into_owned();
        Ok(Some(Kept { token, checked_at }))
    }

    /// Blocks. What is there already only becomes newly checked.
    pub(crate) fn put(&self, name: &Hostname, token: &str) -> std::io::Result<()> {
        let path = self.path(name);
        if let Ok(Some(kept)) = self.get(name)
            && kept.token == token
        {
            return OpenOptions::new().write(true).open(&path)?.set_modified(SystemTime::now());
        }
        let partial = path.with_file_name(format!(".{}.partial", self.turn.fetch_add(1, Ordering::Relaxed)));
        let written = write(&partial, token).and_then(|()| fs::rename(&partial, &path));
        if written.is_err() {
            // A full disk: nothing half written stays, and the bundle of before is untouched.
            let _ = fs::remove_file(&partial);
        }
        written
    }

    /// Blocks.
    pub(super) fn outdate(&self, name: &Hostname) -> std::io::Result<()> {
        let file = match OpenOptions::new().write(true).open(self.path(name)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            opened => opened?,
        };
        file.set_modified(UNIX_EPOCH + Duration::from_secs(OUTDATED))
    }

    /// Blocks.
    pub(super) fn remove(&self, name: &Hostname) -> std::io::Result<()> {
        match fs::remove_file(self.path(name)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    /// 256 folders: a million domains are about 4,000 files in each. Twice as deep, nearly every new name would make a
    /// folder, which costs more than its file.
    fn path(&self, name: &Hostname) -> PathBuf {
        // Not the name itself: with an ending it may be longer than a file name can be.
        let hex: String = sha256(name.as_str().as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        self.folder.join(&hex[..2]).join(format!("{hex}.jws"))
    }
}

/// Without fsync: a file lost in a power failure is a miss, and one half written does not verify.
fn write(path: &Path, token: &str) -> std::io::Result<()> {
    let open = || OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    let mut file = match (open(), path.parent()) {
        (Err(error), Some(folder)) if error.kind() == ErrorKind::NotFound => {
            fs::create_dir_all(folder)?;
            open()?
        }
        (opened, _) => opened?,
    };
    file.write_all(token.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Hostname {
        Hostname::parse(text).unwrap()
    }

    #[test]
    fn keeps_replaces_and_removes() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(folder.path().join("bundles")).unwrap();
        let token = |n: &str| disk.get(&name(n)).unwrap().map(|kept| kept.token);
        assert_eq!(token("a.example"), None);
        disk.put(&name("a.example"), "one").unwrap();
        disk.put(&name("b.example"), "two").unwrap();
        disk.put(&name("a.example"), "three").unwrap();
        assert_eq!((token("a.example").as_deref(), token("b.example").as_deref()), (Some("three"), Some("two")));
        disk.remove(&name("a.example")).unwrap();
        disk.remove(&name("a.example")).unwrap();
        assert_eq!(token("a.example"), None);
    }

    #[test]
    fn the_same_token_again_is_checked_anew() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(folder.path().to_owned()).unwrap();
        disk.put(&name("a.example"), "one").unwrap();
        let long_ago = UNIX_EPOCH + std::time::Duration::from_secs(1000);
        OpenOptions::new().write(true).open(disk.path(&name("a.example"))).unwrap().set_modified(long_ago).unwrap();
        assert_eq!(disk.get(&name("a.example")).unwrap().unwrap().checked_at, 1000);
        disk.put(&name("a.example"), "one").unwrap();
        assert!(disk.get(&name("a.example")).unwrap().unwrap().checked_at > 1000);
    }

    #[test]
    fn what_was_replaced_is_marked_until_something_newer_comes() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(folder.path().to_owned()).unwrap();
        let checked_at = || disk.get(&name("a.example")).unwrap().map(|kept| kept.checked_at);
        disk.outdate(&name("a.example")).unwrap();
        assert_eq!(checked_at(), None);
        disk.put(&name("a.example"), "one").unwrap();
        disk.outdate(&name("a.example")).unwrap();
        assert_eq!(checked_at(), Some(OUTDATED));
        disk.put(&name("a.example"), "two").unwrap();
        assert!(checked_at().unwrap() > OUTDATED);
    }

    #[test]
    fn an_overlong_file_is_read_no_further_than_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(folder.path().to_owned()).unwrap();
        disk.put(&name("a.example"), &"x".repeat(TOKEN_BYTES_MAX * 2)).unwrap();
        assert_eq!(disk.get(&name("a.example")).unwrap().unwrap().token.len(), TOKEN_BYTES_MAX + 1);
    }

    #[test]
    fn a_failed_write_is_an_error_and_leaves_nothing_half_written() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(folder.path().to_owned()).unwrap();
        // As root, modes stop nobody: a folder stands where the file should, then a file where the folder should.
        let path = disk.path(&name("a.example"));
        fs::create_dir_all(path.join("in-the-way")).unwrap();
        assert!(disk.put(&name("a.example"), "one").is_err());
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no partial file stays");
        let other = disk.path(&name("b.example"));
        fs::write(other.parent().unwrap(), "in the way").unwrap();
        assert!(disk.put(&name("b.example"), "one").is_err());
        assert!(disk.get(&name("b.example")).is_err());
    }

    #[test]
    fn a_failed_write_leaves_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(folder.path().to_owned()).unwrap();
        disk.put(&name("a.example"), "one").unwrap();
        // The next partial file can't be made.
        let partial = disk.path(&name("a.example")).with_file_name(".1.partial");
        fs::create_dir(partial).unwrap();
        assert!(disk.put(&name("a.example"), "two").is_err());
        assert_eq!(disk.get(&name("a.example")).unwrap().unwrap().token, "one");
    }

    #[test]
    fn a_file_from_before_the_epoch_counts_as_never_checked() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(folder.path().to_owned()).unwrap();
        disk.put(&name("a.example"), "one").unwrap();
        let before = UNIX_EPOCH - std::time::Duration::from_secs(1000);
        OpenOptions::new().write(true).open(disk.path(&name("a.example"))).unwrap().set_modified(before).unwrap();
        assert_eq!(disk.get(&name("a.example")).unwrap().unwrap().checked_at, 0);
    }
}
