//! `latchkey-proxy keygen`

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use clap::ValueEnum;
use contract::sealed::EdgeKey;
use proxy::config::token_settings;
use proxy::token;

/// What an edge can open.
#[derive(Clone, Copy, ValueEnum)]
#[repr(u32)]
pub(crate) enum Bits {
    #[value(name = "2048")]
    Bits2048 = 2048,
    #[value(name = "3072")]
    Bits3072 = 3072,
    #[value(name = "4096")]
    Bits4096 = 4096,
}

pub(crate) fn run(out: &Path, bits: Bits) -> Result<(), String> {
    let key = EdgeKey::generate(bits as u32).map_err(|error| error.to_string())?;
    let private = key.private_pem().map_err(|error| error.to_string())?;
    write_new(out, 0o600, private.as_bytes())?;
    println!("private key  {}  (stays on this host)", out.display());
    public(&key, out)
}

/// In the token that a boot file names; only the public key comes out.
pub(crate) fn in_token(config: &Path, out: &Path, bits: Bits) -> Result<(), String> {
    let settings = token_settings(config).map_err(|error| error.to_string())?;
    let named = settings.key.to_string();
    let key = token::generate(settings, bits as u32).map_err(|error| error.to_string())?;
    println!("private key  {named} in the token  (can't be read out of it)");
    public(&key, out)
}

fn public(key: &EdgeKey, out: &Path) -> Result<(), String> {
    let public = key.public_pem().map_err(|error| error.to_string())?;
    let public_path = out.with_file_name(format!("{}.pub", out.file_name().unwrap_or_default().to_string_lossy()));
    write_new(&public_path, 0o644, public.as_bytes())?;
    println!("public key   {}  (goes into [edges] public_keys of CertService)", public_path.display());
    println!("kid          {}", key.kid());
    Ok(())
}

/// Never over an existing file: what is sealed to a lost key can't be opened again.
fn write_new(path: &Path, mode: u32, bytes: &[u8]) -> Result<(), String> {
    let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let mut file = opened.map_err(|error| format!("{}: {error}", path.display()))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(|error| format!("{}: {error}", path.display()))
}
