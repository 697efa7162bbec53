//! Files that only CertService reads, written so that a crash leaves the old file or the new one.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use zeroize::Zeroizing;

/// A folder that only we enter. One that exists is narrowed.
pub(crate) fn make_folder(path: &Path) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{} can't be made: {error}", path.display());
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(failed)
}

/// Mode 0600.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), String> {
    write_with(path, text, 0o600)
}

/// Mode 0644.
pub(crate) fn write_public(path: &Path, text: &str) -> Result<(), String> {
    write_with(path, text, 0o644)
}

fn write_with(path: &Path, text: &str, mode: u32) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{} can't be written: {error}", path.display());
    let beside = path.with_extension("new");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&beside).map_err(failed)?;
    file.set_permissions(Permissions::from_mode(mode)).map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    std::fs::rename(&beside, path).map_err(failed)?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
}

pub(crate) fn read(path: &Path) -> Result<Zeroizing<String>, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{} can't be read: {error}", path.display()))?;
    Ok(Zeroizing::new(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_owner_reads_what_is_secret() {
        let folder = tempfile::tempdir().unwrap();
        let (inner, file) = (folder.path().join("a/b"), folder.path().join("a/b/key.pem"));
        make_folder(&inner).unwrap();
        write(&file, "one").unwrap();
        write(&file, "two").unwrap();
        assert_eq!(*read(&file).unwrap(), "two");
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&inner), mode(&file)), (0o700, 0o600));
        assert_eq!(std::fs::read_dir(&inner).unwrap().count(), 1);
        assert!(read(&inner.join("none")).unwrap_err().contains("none"));
    }
}
