//! `bind-c <wit> <world> <folder>`: C bindings of a world. What `wit-bindgen c` prints, by the version that the SDK uses.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};

use wit_bindgen_core::Files;
use wit_bindgen_core::wit_parser::Resolve;

fn main() -> ExitCode {
    let arguments: Vec<PathBuf> = env::args_os().skip(1).map(PathBuf::from).collect();
    let [wit, world, folder] = arguments.as_slice() else {
        eprintln!("usage: bind-c <wit> <world> <folder>");
        return ExitCode::from(2);
    };
    match bind(wit, &world.to_string_lossy(), folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot bind {}: {error:#}", world.display());
            ExitCode::FAILURE
        }
    }
}

fn bind(wit: &Path, world: &str, folder: &Path) -> Result<(), Box<dyn Error>> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(wit)?;
    let world = resolve.select_world(&[package], Some(world))?;
    let mut files = Files::default();
    wit_bindgen_c::Opts::default().build().generate(&mut resolve, world, &mut files)?;
    fs::create_dir_all(folder)?;
    for (name, content) in files.iter() {
        fs::write(folder.join(name), content)?;
    }
    Ok(())
}
