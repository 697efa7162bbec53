//! Starts a plugin of the user's own, and compiles it. Everything that it takes but the compiler is in this program.

mod files;
mod run;

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Failure;

pub(crate) use self::run::run;

const NAME_BYTES_MAX: usize = 64;
/// The SDK's part of a plugin's folder.
const SDK: &str = "latchkey";

/// Makes the folder, which must not be there.
pub(crate) fn new(name: &str) -> Result<PathBuf, Failure> {
    check_name(name)?;
    let folder = PathBuf::from(name);
    make(&folder)?;
    for (path, text) in files::TEMPLATE {
        write(&folder.join(path), &text.replace("{{name}}", name))?;
    }
    for (path, text) in files::SDK {
        write(&folder.join(SDK).join(path), text)?;
    }
    write(&folder.join(SDK).join("plugins/Cargo.toml"), &files::sdk_workspace())?;
    Ok(folder)
}

/// Compiles it: the component's file.
pub(crate) fn build(folder: &Path) -> Result<PathBuf, Failure> {
    let io = |error| Failure::File { file: folder.to_owned(), error };
    let folder = folder.canonicalize().map_err(io)?;
    let script = folder.join(SDK).join("plugins/build.sh");
    if !script.is_file() {
        let says = format!(
            "{} has no {SDK}/plugins/build.sh: it is no folder that `latchkey plugin new` made",
            folder.display()
        );
        return Err(Failure::Outcome(says));
    }
    let status = Command::new("sh").arg(&script).env("LATCHKEY_PLUGIN", &folder).status().map_err(io)?;
    if !status.success() {
        return Err(Failure::Outcome(format!("{} was not compiled ({status})", folder.display())));
    }
    let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).map_err(io)?;
    let name = manifest.lines().find_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"')).unwrap_or_default();
    Ok(folder.join("built").join(name).with_extension("wasm"))
}

fn check_name(name: &str) -> Result<(), Failure> {
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let begins = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
    if begins && name.len() <= NAME_BYTES_MAX && name.bytes().all(legal) && !name.ends_with('-') {
        return Ok(());
    }
    let says = format!(
        "`{name}` is not a plugin's name: 1 to {NAME_BYTES_MAX} lower-case letters, digits and hyphens, a letter first"
    );
    Err(Failure::Outcome(says))
}

fn make(folder: &Path) -> Result<(), Failure> {
    std::fs::create_dir(folder).map_err(|error| Failure::File { file: folder.to_owned(), error })
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let written = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(path, text));
    written.map_err(|error| Failure::File { file: path.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_names_that_cargo_or_the_edge_would_refuse() {
        for name in ["", "A", "a_b", "a/b", "../x", "1a", "a-", &"a".repeat(65)] {
            assert!(check_name(name).is_err(), "{name}");
        }
        assert!(check_name("my-policy-2").is_ok() && check_name(&"a".repeat(64)).is_ok());
    }
}
