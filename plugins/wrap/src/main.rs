//! `wrap <folder> <module.wasm>…`: turns core modules that wit-bindgen made into components, in `<folder>`.
//!
//! The module carries its world in a custom section, so nothing else is needed. Same input, same bytes out.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};

use wit_component::ComponentEncoder;

fn main() -> ExitCode {
    let mut arguments = env::args_os().skip(1).map(PathBuf::from);
    let Some(folder) = arguments.next() else {
        eprintln!("usage: wrap <folder> <module.wasm>…");
        return ExitCode::from(2);
    };
    for module in arguments {
        if let Err(error) = wrap(&module, &folder) {
            eprintln!("cannot wrap {}: {error:#}", module.display());
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn wrap(module: &Path, folder: &Path) -> Result<(), Box<dyn Error>> {
    let name = module.file_stem().ok_or("it has no name")?.to_string_lossy().replace('_', "-");
    let component = ComponentEncoder::default().validate(true).module(&fs::read(module)?)?.encode()?;
    fs::create_dir_all(folder)?;
    let path = folder.join(name).with_extension("wasm");
    // An unchanged file keeps its time, so that what depends on it is not rebuilt.
    if fs::read(&path).ok().as_deref() != Some(&component) {
        let partial = path.with_extension("wasm.partial");
        fs::write(&partial, &component)?;
        fs::rename(&partial, &path)?;
        println!("{} ({} bytes)", path.display(), component.len());
    }
    Ok(())
}
