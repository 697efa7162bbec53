use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::{Context, Result};

/// A private temporary folder, removed on drop; kept for a look where a test has failed.
pub struct Folder(Option<TempDir>);

impl Folder {
    pub fn new() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("latchkey-").tempdir();
        Ok(Self(Some(folder.context("create a temporary folder")?)))
    }

    pub fn path(&self) -> &Path {
        self.0.as_ref().map_or(Path::new(""), TempDir::path)
    }

    /// Leaves the folder on disk.
    pub fn keep(&mut self) -> Option<PathBuf> {
        self.0.take().map(TempDir::keep)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<PathBuf> {
        let path = self.path().join(name);
        write(&path, content)?;
        Ok(path)
    }

    pub fn subfolder(&self, name: &str) -> Result<PathBuf> {
        let path = self.path().join(name);
        std::fs::create_dir_all(&path).context(path.display())?;
        Ok(path)
    }
}

pub fn write(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    std::fs::write(path, content).context(path.display())
}

pub fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).context(path.display())
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(path) = self.keep()
        {
            eprintln!("data and logs of this test are kept in {}", path.display());
        }
    }
}
