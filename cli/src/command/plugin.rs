use serde_json::json;

use super::read;
use crate::Failure;
use crate::args::{AdminArgs, PluginAction};
use crate::client::Admin;

pub(super) async fn run(args: &AdminArgs, action: PluginAction, json: bool) -> Result<(), Failure> {
    let admin = Admin::new(&args.admin)?;
    match action {
        PluginAction::Push { file } => {
            let (digest, new) = admin.push(read(&file)?).await?;
            match (json, new) {
                (true, _) => println!("{}", json!({"digest": digest, "new": new})),
                (false, true) => println!("{digest}"),
                (false, false) => println!("{digest} (the proxy had it already)"),
            }
        }
        PluginAction::Ls => {
            let plugins = admin.plugins().await?;
            if json {
                println!("{}", json!(plugins));
            }
            for plugin in plugins.iter().filter(|_| !json) {
                println!("{:<16} {:<8} {:<12} {}", plugin.name, plugin.version, plugin.class, plugin.digest);
            }
        }
    }
    Ok(())
}
