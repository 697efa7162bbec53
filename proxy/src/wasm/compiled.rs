//! Compiled components on this host's disk, so that a start does not compile what an earlier one has.

use std::collections::BTreeSet;
use std::fs;
use std::hash::{Hash, Hasher};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use sha2::{Digest as _, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

use super::compile::{CompileError, CompileLimits, Compiler};
use super::engine::Reservation;
use super::precompiled::{Authentic, Key, Name};
use super::types::Digest;
use crate::files::write_atomically;
use crate::observe::{METRICS, disk_failed};

const FOLDER: &str = "compiled";
const KEY_FILE: &str = "compiled.key";
const EXTENSION: &str = "code";

/// Components become code in a process apart, and the code is kept.
pub(super) struct Apart {
    compiler: Compiler,
    /// None if the disk gives none: then nothing is kept.
    kept: Option<Kept>,
}

struct Kept {
    folder: PathBuf,
    key: Key,
    /// Names of files that were of use to this process.
    used: Mutex<BTreeSet<String>>,
}

impl Apart {
    /// A disk that fails costs time at a start, and is no reason not to start.
    pub(super) fn new(data_dir: &Path, limits: CompileLimits) -> Self {
        let kept = Kept::open(data_dir).inspect_err(|error| {
            disk_failed("compiled plugins can't be kept", "each start compiles them again", error);
        });
        Self { compiler: Compiler::new(limits), kept: kept.ok() }
    }

    /// Blocks. From disk if it is there, else compiled and kept.
    pub(super) fn component(
        &self,
        engine: &Engine,
        reservation: Reservation,
        digest: &Digest,
        bytes: &[u8],
    ) -> Result<Component, CompileError> {
        let name = name(engine, digest);
        if let Some(component) = self.kept.as_ref().and_then(|kept| kept.find(engine, &name)) {
            count("cached");
            return Ok(component);
        }
        let compiled = self.compiler.compile(bytes, reservation).and_then(|code| {
            let loaded = code.load(engine).map_err(|error| CompileError::Failed(format!("{error:#}")))?;
            Ok((code, loaded))
        });
        count(if compiled.is_ok() { "compiled" } else { "refused" });
        let (code, component) = compiled?;
        if let Some(kept) = &self.kept {
            kept.keep(&name, &code);
        }
        Ok(component)
    }

    /// Removes what no component of this process has used: of other components, and of other versions of wasmtime.
    pub(super) fn sweep(&self) {
        if let Some(kept) = &self.kept {
            kept.sweep();
        }
    }
}

impl Kept {
    fn open(data_dir: &Path) -> std::io::Result<Self> {
        let folder = data_dir.join(FOLDER);
        fs::create_dir_all(&folder)?;
        let key = Key::open_or_make(&data_dir.join(KEY_FILE))?;
        Ok(Self { folder, key, used: Mutex::default() })
    }

    fn find(&self, engine: &Engine, name: &Name) -> Option<Component> {
        let path = self.path(name);
        let sealed = match fs::read(&path) {
            Ok(sealed) => sealed,
            Err(error) if error.kind() == ErrorKind::NotFound => return None,
            Err(error) => {
                disk_failed("a compiled plugin can't be read", "it is compiled again", &error);
                return None;
            }
        };
        // The second check is wasmtime's own: whether the code is for this engine.
        let component = self.key.open(name, sealed).and_then(|code| code.load(engine).ok());
        if component.is_none() {
            count("rejected");
            tracing::error!(file = %path.display(), "a compiled plugin is damaged, or was not made by this proxy; it is removed and compiled again");
            let _ = fs::remove_file(&path);
        }
        component.inspect(|_| self.note(&path))
    }

    fn keep(&self, name: &Name, code: &Authentic) {
        let path = self.path(name);
        match write_atomically(&path, &self.key.seal(name, code)) {
            Ok(()) => self.note(&path),
            Err(error) => {
                disk_failed("a compiled plugin can't be kept", "the next start compiles it again", &error);
            }
        }
    }

    fn note(&self, path: &Path) {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        self.used.lock().unwrap_or_else(PoisonError::into_inner).extend(name);
    }

    fn sweep(&self) {
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            if !used.contains(&*entry.file_name().to_string_lossy()) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    fn path(&self, name: &Name) -> PathBuf {
        let hex: String = name.iter().map(|byte| format!("{byte:02x}")).collect();
        self.folder.join(hex).with_extension(EXTENSION)
    }
}

fn count(result: &str) {
    METRICS.plugin_compiles.with_label_values(&[result]).inc();
}

/// Of the component, and of all that its code depends on: wasmtime's version, the processor, the engine's configuration.
fn name(engine: &Engine, digest: &Digest) -> Name {
    let mut hasher = Hashing(Sha256::new());
    hasher.0.update(digest.bytes());
    engine.precompile_compatibility_hash().hash(&mut hasher);
    hasher.0.finalize().into()
}

struct Hashing(Sha256);

impl Hasher for Hashing {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Not asked for: what was hashed is taken whole.
    fn finish(&self) -> u64 {
        0
    }
}
