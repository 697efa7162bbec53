use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use contract::admin::Crash;
use contract::bundle::sha256;
use contract::plugin::sign;
use contract::signed::SigningKey;
use serde_json::json;

use super::{read, write_new};
use crate::Failure;
use crate::args::{AdminArgs, PluginAction, ToProxy};
use crate::author;
use crate::client::Admin;
use crate::when::date;

pub(super) async fn run(args: &AdminArgs, action: PluginAction, json: bool) -> Result<(), Failure> {
    match action {
        PluginAction::Keygen { out } => keygen(&out, json),
        PluginAction::Sign { key, file } => {
            let signature = signed(&read(&file)?, &key)?;
            let out = beside(&file, "sig");
            std::fs::write(&out, format!("{signature}\n"))
                .map_err(|error| Failure::File { file: out.clone(), error })?;
            if json {
                println!("{}", json!({"signature": signature}))
            } else {
                println!("{}", out.display())
            }
            Ok(())
        }
        PluginAction::Push { file, key } => push(&Admin::new(args)?, &file, key.as_deref(), json).await,
        PluginAction::Ls => list(&Admin::new(args)?, json).await,
        PluginAction::Crashes { name } => crashes(&Admin::new(args)?, &name, json).await,
        PluginAction::New { name } => {
            let folder = author::new(&name)?;
            if json {
                println!("{}", json!({"folder": folder}))
            } else {
                println!("{}: now cd there, latchkey plugin build, latchkey plugin test cases.toml", folder.display())
            }
            Ok(())
        }
        PluginAction::Build { folder } => {
            let component = author::build(&folder)?;
            if json {
                println!("{}", json!({"component": component}))
            } else {
                println!("{}", component.display())
            }
            Ok(())
        }
        PluginAction::Run(run) => author::run(&run).await,
        PluginAction::Inspect(passed) => by_proxy(&["plugin", "inspect"], passed, json),
        PluginAction::Check(passed) => by_proxy(&["plugin", "check"], passed, json),
        PluginAction::Test(passed) => by_proxy(&["plugin", "test"], passed, json),
        PluginAction::Bench(passed) => by_proxy(&["plugin", "bench"], passed, json),
    }
}

async fn crashes(admin: &Admin, name: &str, json: bool) -> Result<(), Failure> {
    let found = admin.crashes(name).await?;
    if json {
        println!("{}", json!(found));
        return Ok(());
    }
    for crash in &found.crashes {
        let Crash { version, hook, reason, says, stack, count, first_at, last_at, .. } = crash;
        println!("{count} × {reason} in {hook} of {name} {version}, {} to {}: {says}", date(*first_at), date(*last_at));
        stack.iter().for_each(|function| println!("    {function}"));
    }
    match (found.crashes.len(), found.beyond) {
        (0, _) => println!("no call of `{name}` has failed since the proxy started"),
        (_, 0) => {}
        (_, beyond) => println!("and {beyond} failed calls of all plugins in no group"),
    }
    Ok(())
}

/// Plugins are run by the program that runs them in production, not by another build of its code.
pub(super) fn by_proxy(words: &[&str], ToProxy { arguments }: ToProxy, json: bool) -> Result<(), Failure> {
    let mut proxy = Command::new(support::program::own("latchkey-proxy")?);
    proxy.args(words).args(arguments).args(json.then_some("--json"));
    // Returns only where it fails.
    let error = proxy.exec();
    Err(Failure::File { file: proxy.get_program().into(), error })
}

fn keygen(out: &Path, json: bool) -> Result<(), Failure> {
    let (key, pem) = SigningKey::generate().map_err(|error| Failure::Outcome(error.to_string()))?;
    let public = beside(out, "pub");
    write_new(out, 0o600, pem.as_bytes())?;
    write_new(&public, 0o644, key.public_pem().as_bytes())?;
    if json {
        println!("{}", json!({"key": out, "public_key": public, "kid": key.kid()}));
    } else {
        println!("private key  {}  (stays with who vouches for plugins)", out.display());
        println!("public key   {}  (goes into plugins.trusted_keys of the edges)", public.display());
        println!("kid          {}", key.kid());
    }
    Ok(())
}

async fn push(admin: &Admin, file: &Path, key: Option<&Path>, json: bool) -> Result<(), Failure> {
    let component = read(file)?;
    let kept = beside(file, "sig");
    let signature = match key {
        Some(key) => Some(signed(&component, key)?),
        // Without a signature it is for the proxy to refuse: its boot file says what it trusts.
        None if kept.exists() => Some(String::from_utf8_lossy(&read(&kept)?).into_owned()),
        None => None,
    };
    let (digest, new) = admin.push(component, signature.as_deref()).await?;
    match (json, new) {
        (true, _) => println!("{}", json!({"digest": digest, "new": new})),
        (false, true) => println!("{digest}"),
        (false, false) => println!("{digest} (the proxy had it already)"),
    }
    Ok(())
}

async fn list(admin: &Admin, json: bool) -> Result<(), Failure> {
    let plugins = admin.plugins().await?;
    if json {
        println!("{}", json!(plugins));
    }
    for plugin in plugins.iter().filter(|_| !json) {
        let by = plugin.signed_by.as_ref().map_or("unsigned".to_owned(), |kid| format!("signed by {kid}"));
        println!("{:<16} {:<8} {:<12} {}  {by}", plugin.name, plugin.version, plugin.class, plugin.digest);
    }
    Ok(())
}

fn signed(component: &[u8], key: &Path) -> Result<String, Failure> {
    let pem = zeroize::Zeroizing::new(read(key)?);
    let key_of = |pem: &[u8]| SigningKey::from_pem(std::str::from_utf8(pem).unwrap_or_default());
    let signing = key_of(&pem).map_err(|error| Failure::Outcome(format!("{}: {error}", key.display())))?;
    Ok(sign(&sha256(component), &signing).to_string())
}

/// `hsts.wasm` → `hsts.wasm.sig`
fn beside(file: &Path, extension: &str) -> PathBuf {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(extension);
    file.with_file_name(name)
}
