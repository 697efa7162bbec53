use std::path::PathBuf;

use serde_json::json;

use super::read;
use crate::Failure;
use crate::args::{AdminArgs, ConfigAction};
use crate::client::{Admin, ClientError};

pub(super) async fn run(args: &AdminArgs, action: ConfigAction, json: bool) -> Result<(), Failure> {
    let admin = Admin::new(&args.admin)?;
    match action {
        ConfigAction::Get => get(&admin, json).await,
        ConfigAction::Apply { file, if_match } => {
            let revision = admin.apply(text(&file)?, if_match.as_deref()).await.map_err(|e| in_file(file, e))?;
            say(json, &json!({"revision": revision}), &format!("revision {revision} is in force"));
            Ok(())
        }
        ConfigAction::Check { file } => {
            admin.check(text(&file)?).await.map_err(|e| in_file(file, e))?;
            say(json, &json!({"valid": true}), "no faults; nothing was changed");
            Ok(())
        }
    }
}

async fn get(admin: &Admin, json: bool) -> Result<(), Failure> {
    let (config, etag) = admin.config().await?;
    if json {
        let config: serde_json::Value = serde_json::from_str(&config).unwrap_or(serde_json::Value::String(config));
        println!("{}", json!({"etag": etag, "config": config}));
    } else {
        println!("{}", config.trim_end());
    }
    Ok(())
}

fn say(json: bool, value: &serde_json::Value, words: &str) {
    if json { println!("{value}") } else { println!("{words}") }
}

fn text(file: &std::path::Path) -> Result<String, Failure> {
    let not_utf8 = |error| Failure::File {
        file: file.to_owned(),
        error: std::io::Error::new(std::io::ErrorKind::InvalidData, error),
    };
    String::from_utf8(read(file)?).map_err(not_utf8)
}

/// Faults are told with the file that they are in.
fn in_file(file: PathBuf, error: ClientError) -> Failure {
    match error {
        ClientError::Refused { problem, .. } => Failure::Config { file, problem },
        other => other.into(),
    }
}
