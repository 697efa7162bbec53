//! Where programs are: the fleet's own beside this one, others in the PATH or where `make setup-test` puts them.

use std::path::{Path, PathBuf};

use crate::{Context, Result, fail};

/// One of the fleet's own binaries: beside this executable, or one folder up, as Cargo places tests.
pub fn own(name: &str) -> Result<PathBuf> {
    let exe = std::env::current_exe().context("find this executable")?;
    let beside = exe.parent().unwrap_or(Path::new("."));
    let places = [beside.join(name), beside.join("..").join(name)];
    match places.iter().find(|path| path.is_file()) {
        Some(path) => Ok(path.clone()),
        None => fail(format!(
            "{name} is not beside {}; build it with `cargo build --workspace --bins`, or install it there",
            exe.display()
        )),
    }
}

pub fn other(name: &str) -> Result<PathBuf> {
    find(name).context(format!("{name} is not installed; `make setup-test` installs it"))
}

pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let home = std::env::home_dir().unwrap_or_default();
    let ours = home.join(".cache/latchkey/bin");
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from); // not in a plain user's PATH
    let mut folders = std::iter::once(ours).chain(std::env::split_paths(&path)).chain(system);
    folders.find_map(|folder| Some(folder.join(name)).filter(|file| file.is_file()))
}
