//! Uploaded plugins: components on disk by digest, compiled once.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use super::files::write_atomically;
use crate::wasm::{Digest, Host, LoadError, Plugin};

pub(super) struct Plugins {
    folder: PathBuf,
    loaded: RwLock<BTreeMap<String, Arc<Plugin>>>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum UploadError {
    #[error("`{0}` is not a digest; expected sha256: and 64 hexadecimal digits")]
    NotADigest(String),
    #[error("the body's digest is {actual}, not {given}")]
    OtherDigest { given: String, actual: String },
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("the plugin could not be kept: {0}")]
    Io(#[from] std::io::Error),
}

impl Plugins {
    /// Loads what was uploaded before. A file that does not load any more is named and left alone.
    pub(super) fn open(folder: PathBuf, host: &Host) -> std::io::Result<Self> {
        std::fs::create_dir_all(&folder)?;
        let mut loaded = BTreeMap::new();
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "wasm") {
                continue;
            }
            let bytes = std::fs::read(&path)?;
            match host.load(&bytes) {
                Ok(plugin) => drop(loaded.insert(plugin.digest().to_string(), plugin)),
                Err(error) => tracing::error!(file = %path.display(), "plugin does not load any more: {error}"),
            }
        }
        Ok(Self { folder, loaded: RwLock::new(loaded) })
    }

    pub(super) fn find(&self, digest: &str) -> Option<Arc<Plugin>> {
        self.loaded.read().unwrap_or_else(PoisonError::into_inner).get(digest).cloned()
    }

    pub(super) fn list(&self) -> Vec<Arc<Plugin>> {
        self.loaded.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Compiles and keeps a component: takes a good part of a second, belongs on a blocking thread. False if it was there.
    pub(super) fn upload(&self, host: &Host, given: &str, bytes: &[u8]) -> Result<(Arc<Plugin>, bool), UploadError> {
        let hex =
            given.strip_prefix("sha256:").filter(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()));
        let Some(hex) = hex else {
            return Err(UploadError::NotADigest(given.chars().take(100).collect()));
        };
        let actual = Digest::of(bytes).to_string();
        if actual != given.to_ascii_lowercase() {
            return Err(UploadError::OtherDigest { given: given.to_owned(), actual });
        }
        if let Some(plugin) = self.find(&actual) {
            return Ok((plugin, false));
        }
        let plugin = host.load(bytes)?;
        write_atomically(&self.folder.join(format!("{}.wasm", hex.to_ascii_lowercase())), bytes)?;
        self.loaded.write().unwrap_or_else(PoisonError::into_inner).insert(actual, plugin.clone());
        Ok((plugin, true))
    }
}
