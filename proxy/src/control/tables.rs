//! Uploaded tables: texts that plugins read while they plan, on disk by digest. Too large for a configuration.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Body;
use futures_util::StreamExt;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt;

use crate::wasm::Digest;

/// Largest table, in bytes.
pub(super) const TABLE_BYTES_MAX: u64 = 512 << 20;
/// Of all tables together.
const ALL_BYTES_MAX: u64 = 4 << 30;
const EXTENSION: &str = "table";

pub(super) struct Tables {
    folder: PathBuf,
}

#[derive(Debug, Serialize)]
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
    #[error("the table is larger than {TABLE_BYTES_MAX} bytes")]
    TooLarge,
    #[error("all tables together would be larger than {ALL_BYTES_MAX} bytes; remove some: `latchkey table rm`")]
    Full,
    #[error("no table with the digest {0} was uploaded")]
    Unknown(String),
    #[error("the table {0} is named by the running configuration")]
    InUse(String),
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
            if path.extension().is_some_and(|extension| extension == "partial") {
                std::fs::remove_file(path)?;
            }
        }
        Ok(Self { folder })
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

    /// Keeps what arrives, as it arrives. False if it was there.
    pub(super) async fn upload(&self, given: &str, body: Body) -> Result<(Kept, bool), TableError> {
        let path = self.path(given)?;
        let new = !path.exists();
        let others: u64 = self.list()?.iter().map(|kept| kept.bytes).sum();
        let partial = path.with_extension("partial");
        let received = receive(&partial, body, others).await;
        let (actual, bytes) = match received {
            Ok(received) => received,
            Err(error) => {
                let _ = tokio::fs::remove_file(&partial).await;
                return Err(error);
            }
        };
        if actual != given.to_ascii_lowercase() {
            tokio::fs::remove_file(&partial).await?;
            return Err(TableError::OtherDigest { given: given.to_owned(), actual });
        }
        tokio::fs::rename(&partial, &path).await?;
        let uploaded_at = UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
        Ok((Kept { digest: actual, bytes, uploaded_at }, new))
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

/// The digest and the length of what was written.
async fn receive(partial: &Path, body: Body, others: u64) -> Result<(String, u64), TableError> {
    let mut options = tokio::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(partial).await?;
    let (mut hash, mut bytes) = (Sha256::new(), 0);
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| TableError::Broken(error.to_string()))?;
        bytes += chunk.len() as u64;
        if bytes > TABLE_BYTES_MAX {
            return Err(TableError::TooLarge);
        }
        if bytes + others > ALL_BYTES_MAX {
            return Err(TableError::Full);
        }
        hash.update(&chunk);
        file.write_all(&chunk).await?;
    }
    file.sync_all().await?;
    Ok((Digest::from(<[u8; 32]>::from(hash.finalize())).to_string(), bytes))
}
