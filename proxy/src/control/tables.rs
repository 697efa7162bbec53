//! Uploaded tables: texts that plugins read while they plan, on disk by digest. Too large for a configuration.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Body;
use futures_util::StreamExt;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::leisure::Leisure;
use crate::wasm::Digest;

/// Largest table, in bytes.
pub(super) const TABLE_BYTES_MAX: u64 = 512 << 20;
/// Of all tables together.
const ALL_BYTES_MAX: u64 = 4 << 30;
const EXTENSION: &str = "table";
const PARTIAL: &str = "partial";
/// Between two pieces of an upload.
const PIECE_WITHIN: Duration = Duration::from_secs(30);
/// Received at once; more wait. Each may take the room of the largest table on disk.
const UPLOADS_MAX: usize = 4;
/// What has arrived is digested and written in pieces of so many bytes.
const PIECE_BYTES: usize = 1 << 20;

pub(super) struct Tables {
    folder: PathBuf,
    uploads: Semaphore,
    /// Makes names of partial files unique within this process.
    turn: AtomicU64,
}

/// A table that has arrived and is not kept yet. Its file goes with the value.
pub(super) struct Received {
    partial: PathBuf,
    path: PathBuf,
    digest: String,
    bytes: u64,
}

impl Drop for Received {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.partial);
    }
}

#[derive(Debug)]
pub(super) struct Kept {
    pub(super) digest: String,
    pub(super) bytes: u64,
    /// Unix seconds.
    pub(super) uploaded_at: u64,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum TableError {
    #[error("`{0}` is not a digest; expected sha256: and 64 hexadecimal digits")]
    NotADigest(String),
    #[error("the body's digest is {actual}, not {given}")]
    OtherDigest { given: String, actual: String },
    #[error("the table is empty; a plugin would read nothing from it")]
    Empty,
    #[error("the table is larger than {TABLE_BYTES_MAX} bytes")]
    TooLarge,
    #[error("all tables together would be larger than {ALL_BYTES_MAX} bytes; remove some: `latchkey table rm`")]
    Full,
    #[error("no table with the digest {0} was uploaded")]
    Unknown(String),
    #[error("the table {0} is named by the running configuration")]
    InUse(String),
    #[error("nothing more of the table came within {PIECE_WITHIN:?}")]
    Slow,
    #[error("the upload broke off: {0}")]
    Broken(String),
    #[error("the table could not be kept: {0}")]
    Io(#[from] std::io::Error),
}

impl Tables {
    pub(super) fn open(folder: PathBuf) -> std::io::Result<Self> {
        std::fs::create_dir_all(&folder)?;
        // Uploads that a crash has cut off.
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == PARTIAL) {
                std::fs::remove_file(path)?;
            }
        }
        Ok(Self { folder, uploads: Semaphore::new(UPLOADS_MAX), turn: AtomicU64::new(0) })
    }

    pub(super) fn find(&self, digest: &str) -> Option<PathBuf> {
        let path = self.path(digest).ok()?;
        path.exists().then_some(path)
    }

    /// By digest.
    pub(super) fn list(&self) -> std::io::Result<Vec<Kept>> {
        let mut kept = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            let entry = entry?;
            let path = entry.path();
            if path.extension().is_none_or(|extension| extension != EXTENSION) {
                continue;
            }
            let about = entry.metadata()?;
            let digest = format!("sha256:{}", path.file_stem().unwrap_or_default().to_string_lossy());
            let at = about.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            let uploaded_at = at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
            kept.push(Kept { digest, bytes: about.len(), uploaded_at });
        }
        kept.sort_by(|a, b| a.digest.cmp(&b.digest));
        Ok(kept)
    }

    /// Writes what arrives, as it arrives, beside the tables: nobody need wait for it.
    pub(super) async fn receive(&self, given: &str, body: Body, leisure: &Leisure) -> Result<Received, TableError> {
        let path = self.path(given)?;
        let _permit = self.uploads.acquire().await.map_err(std::io::Error::other)?;
        let others: u64 = self.list()?.iter().map(|kept| kept.bytes).sum();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let partial = self.folder.join(format!("{turn}.{PARTIAL}"));
        let mut received = Received { partial, path, digest: String::new(), bytes: 0 };
        (received.digest, received.bytes) = write(&received.partial, body, others, leisure).await?;
        if received.digest != given.to_ascii_lowercase() {
            return Err(TableError::OtherDigest { given: given.to_owned(), actual: received.digest.clone() });
        }
        Ok(received)
    }

    /// Keeps what has arrived. False if it was there. Others may have arrived meanwhile.
    pub(super) fn keep(&self, received: &Received) -> Result<(Kept, bool), TableError> {
        let new = !received.path.exists();
        let others: u64 = self.list()?.iter().map(|kept| kept.bytes).sum();
        if new && others + received.bytes > ALL_BYTES_MAX {
            return Err(TableError::Full);
        }
        std::fs::rename(&received.partial, &received.path)?;
        let uploaded_at = UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
        Ok((Kept { digest: received.digest.clone(), bytes: received.bytes, uploaded_at }, new))
    }

    pub(super) fn remove(&self, digest: &str, in_use: impl Fn(&str) -> bool) -> Result<(), TableError> {
        let path = self.path(digest)?;
        let digest = digest.to_ascii_lowercase();
        if !path.exists() {
            return Err(TableError::Unknown(digest));
        }
        if in_use(&digest) {
            return Err(TableError::InUse(digest));
        }
        Ok(std::fs::remove_file(path)?)
    }

    fn path(&self, digest: &str) -> Result<PathBuf, TableError> {
        let hex = digest.strip_prefix("sha256:");
        let hex = hex.filter(|hex| hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let Some(hex) = hex else { return Err(TableError::NotADigest(digest.chars().take(100).collect())) };
        Ok(self.folder.join(hex.to_ascii_lowercase()).with_extension(EXTENSION))
    }
}

/// What is written of a table so far.
struct Writing {
    file: File,
    hash: Sha256,
}

impl Writing {
    fn piece(mut self, bytes: &[u8]) -> std::io::Result<Self> {
        self.hash.update(bytes);
        self.file.write_all(bytes)?;
        Ok(self)
    }

    fn end(self) -> std::io::Result<Digest> {
        self.file.sync_all()?;
        Ok(Digest::from(<[u8; 32]>::from(self.hash.finalize())))
    }
}

/// The digest and the length of what was written.
async fn write(partial: &Path, body: Body, others: u64, leisure: &Leisure) -> Result<(String, u64), TableError> {
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(partial)?;
    let mut writing = Writing { file, hash: Sha256::new() };
    let (mut piece, mut bytes) = (Vec::new(), 0);
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = timeout(PIECE_WITHIN, chunks.next()).await.map_err(|_| TableError::Slow)? {
        let chunk = chunk.map_err(|error| TableError::Broken(error.to_string()))?;
        bytes += chunk.len() as u64;
        if bytes > TABLE_BYTES_MAX {
            return Err(TableError::TooLarge);
        }
        if bytes + others > ALL_BYTES_MAX {
            return Err(TableError::Full);
        }
        piece.extend_from_slice(&chunk);
        if piece.len() >= PIECE_BYTES {
            let piece = std::mem::take(&mut piece);
            writing = leisure.run(move || writing.piece(&piece)).await??;
        }
    }
    if bytes == 0 {
        return Err(TableError::Empty);
    }
    let digest = leisure.run(move || writing.piece(&piece)?.end()).await??;
    Ok((digest.to_string(), bytes))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use axum::body::Bytes;
    use futures_util::stream;

    use super::*;

    fn of(bytes: &'static [u8]) -> (String, Body) {
        (Digest::of(bytes).to_string(), Body::from(bytes))
    }

    /// What begins and does not go on.
    fn paused() -> Body {
        let first = stream::iter([Ok::<_, Infallible>(Bytes::from_static(b"from"))]);
        Body::from_stream(first.chain(stream::pending()))
    }

    fn files(folder: &Path) -> usize {
        std::fs::read_dir(folder).unwrap().count()
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_pauses_holds_up_no_other_and_ends() {
        let folder = tempfile::tempdir().unwrap();
        let tables = Tables::open(folder.path().into()).unwrap();
        let (digest, body) = of(b"from,to\n");
        let leisure = Leisure::start().unwrap();
        let slow = tables.receive(&digest, paused(), &leisure);
        let other = async {
            let received = tables.receive(&digest, body, &leisure).await.unwrap();
            let first = tables.keep(&received).unwrap();
            assert_eq!((first.1, tables.keep(&received).is_err()), (true, true), "its file is kept once");
        };
        let (slow, ()) = tokio::join!(slow, other);
        assert!(matches!(slow.err(), Some(TableError::Slow)));
        assert_eq!((files(folder.path()), tables.find(&digest).is_some()), (1, true));
    }

    #[tokio::test]
    async fn what_is_not_kept_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let tables = Tables::open(folder.path().into()).unwrap();
        let (digest, body) = of(b"from,to\n");
        let leisure = Leisure::start().unwrap();
        drop(tables.receive(&digest, body, &leisure).await.unwrap());
        let (_, other) = of(b"other");
        assert!(matches!(tables.receive(&digest, other, &leisure).await.err(), Some(TableError::OtherDigest { .. })));
        assert_eq!(files(folder.path()), 0);
    }
}
