//! Uploaded plugins: components on disk by digest, each with the signature that vouches for it, compiled once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use contract::plugin::Signature;

use crate::config::{Trust, TrustError};
use crate::files::write_atomically;
use crate::observe::disk_failed;
use crate::wasm::{Digest, Host, LoadError, Plugin};

/// Extension of the file beside a component.
const SIGNATURE: &str = "sig";

pub(super) struct Plugins {
    folder: PathBuf,
    trust: Trust,
    loaded: RwLock<BTreeMap<String, Uploaded>>,
}

#[derive(Clone)]
pub(super) struct Uploaded {
    pub(super) plugin: Arc<Plugin>,
    pub(super) signature: Option<Signature>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum UploadError {
    #[error("`{0}` is not a digest; expected sha256: and 64 hexadecimal digits")]
    NotADigest(String),
    #[error("the body's digest is {actual}, not {given}")]
    OtherDigest { given: String, actual: String },
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("the plugin could not be kept: {0}")]
    Io(#[from] std::io::Error),
}

impl Plugins {
    /// Loads what was uploaded before. A file that does not load any more, or whose signature is not trusted any more,
    /// is named and left alone.
    pub(super) fn open(folder: PathBuf, host: &Host, trust: Trust) -> std::io::Result<Self> {
        std::fs::create_dir_all(&folder)?;
        if matches!(trust, Trust::Anything(_)) {
            tracing::warn!("plugins without a signature are accepted (plugins.accept_unsigned)");
        }
        let mut loaded = BTreeMap::new();
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "wasm") {
                continue;
            }
            let bytes = std::fs::read(&path)?;
            let signature = std::fs::read_to_string(path.with_extension(SIGNATURE)).ok();
            match load(host, &trust, &bytes, signature.as_deref()) {
                Ok(uploaded) => drop(loaded.insert(uploaded.plugin.digest().to_string(), uploaded)),
                Err(error) => tracing::error!(file = %path.display(), "plugin is not loaded any more: {error}"),
            }
        }
        host.forget_unused();
        Ok(Self { folder, trust, loaded: RwLock::new(loaded) })
    }

    pub(super) fn find(&self, digest: &str) -> Option<Arc<Plugin>> {
        self.uploaded(digest).map(|uploaded| uploaded.plugin)
    }

    pub(super) fn list(&self) -> Vec<Uploaded> {
        self.loaded.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    fn uploaded(&self, digest: &str) -> Option<Uploaded> {
        self.loaded.read().unwrap_or_else(PoisonError::into_inner).get(digest).cloned()
    }

    /// Compiles and keeps a component: takes a good part of a second, belongs on a blocking thread. False if it was
    /// there; then only the signature is renewed. Nothing is compiled that is not trusted.
    pub(super) fn upload(
        &self,
        host: &Host,
        given: &str,
        signature: Option<&str>,
        bytes: &[u8],
    ) -> Result<(Uploaded, bool), UploadError> {
        let hex =
            given.strip_prefix("sha256:").filter(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()));
        let Some(hex) = hex else {
            return Err(UploadError::NotADigest(given.chars().take(100).collect()));
        };
        let actual = Digest::of(bytes).to_string();
        if actual != given.to_ascii_lowercase() {
            return Err(UploadError::OtherDigest { given: given.to_owned(), actual });
        }
        let path = self.folder.join(format!("{}.wasm", hex.to_ascii_lowercase()));
        let (uploaded, new) = match self.find(&actual) {
            Some(plugin) => (Uploaded { plugin, signature: trusted(&self.trust, bytes, signature)? }, false),
            None => (load(host, &self.trust, bytes, signature)?, true),
        };
        write(&path, &uploaded, new.then_some(bytes)).inspect_err(|error| {
            disk_failed("an uploaded plugin can't be kept", "it is refused", error);
        })?;
        self.loaded.write().unwrap_or_else(PoisonError::into_inner).insert(actual, uploaded.clone());
        Ok((uploaded, new))
    }
}

fn write(path: &Path, uploaded: &Uploaded, component: Option<&[u8]>) -> std::io::Result<()> {
    // The signature first: a component without one would not be loaded after a crash between the two.
    if let Some(signature) = &uploaded.signature {
        write_atomically(&path.with_extension(SIGNATURE), signature.to_string().as_bytes())?;
    }
    component.map_or(Ok(()), |bytes| write_atomically(path, bytes))
}

fn load(host: &Host, trust: &Trust, bytes: &[u8], signature: Option<&str>) -> Result<Uploaded, UploadError> {
    let signature = trusted(trust, bytes, signature)?;
    Ok(Uploaded { plugin: host.load(bytes)?, signature })
}

fn trusted(trust: &Trust, bytes: &[u8], signature: Option<&str>) -> Result<Option<Signature>, UploadError> {
    let signature = signature.map(str::parse).transpose().map_err(TrustError::from)?;
    trust.check(Digest::of(bytes).bytes(), signature.as_ref())?;
    Ok(signature)
}
