use std::path::{Path, PathBuf};

use contract::admin::{Applied, AuditEntry, Extent, Plan, Revision};
use serde_json::json;

use super::text;
use crate::Failure;
use crate::args::{AdminArgs, ConfigAction, Why};
use crate::client::{Admin, ClientError, Intent, Order};
use crate::failure::{difference, shown};
use crate::when::date;

pub(super) async fn run(args: &AdminArgs, action: ConfigAction, json: bool) -> Result<(), Failure> {
    let admin = Admin::new(args)?;
    match action {
        ConfigAction::Dump => dump(&admin, json).await,
        ConfigAction::Plan { file } => {
            let applied = admin.apply(text(&file)?, Order::PLAN).await;
            let applied = applied.map_err(|error| in_file(file.clone(), error))?;
            say(json, &applied, &(remarks(&applied.plan, Some(&file)) + &planned(&applied.plan)));
            Ok(())
        }
        ConfigAction::Apply { file, why } => {
            let order = ordered(&why, false);
            let applied = admin.apply(text(&file)?, order).await.map_err(|error| in_file(file.clone(), error))?;
            say(json, &applied, &(remarks(&applied.plan, Some(&file)) + &done(&applied)));
            Ok(())
        }
        ConfigAction::Diff { revision, since } => {
            let newest = admin.revisions().await?.first().map_or(0, |newest| newest.number);
            let plan = admin.diff(revision.unwrap_or(newest), since).await?;
            say(json, &plan, &planned(&plan));
            Ok(())
        }
        ConfigAction::Revert { revision, dry_run, why } => {
            let applied = admin.revert(revision, ordered(&why, dry_run)).await?;
            let words = if dry_run { planned(&applied.plan) } else { done(&applied) };
            say(json, &applied, &(remarks(&applied.plan, None) + &words));
            Ok(())
        }
        ConfigAction::Audit { limit } => {
            let entries = admin.audit(limit).await?;
            let lines: Vec<_> = entries.iter().map(audited).collect();
            say(json, &entries, &lines.join("\n"));
            Ok(())
        }
        ConfigAction::Log { limit } => {
            let mut revisions = admin.revisions().await?;
            revisions.truncate(limit);
            let lines: Vec<_> = revisions.iter().map(logged).collect();
            say(json, &revisions, &lines.join("\n"));
            Ok(())
        }
    }
}

async fn dump(admin: &Admin, json: bool) -> Result<(), Failure> {
    let (config, etag) = admin.config().await?;
    if json {
        let config: serde_json::Value = serde_json::from_str(&config).unwrap_or(serde_json::Value::String(config));
        println!("{}", json!({"etag": etag, "config": config}));
    } else {
        println!("{}", config.trim_end());
    }
    Ok(())
}

pub(super) fn ordered(why: &Why, dry_run: bool) -> Order<'_> {
    let intent = if dry_run { Intent::Plan } else { Intent::Apply };
    Order { intent, if_match: why.if_match.as_deref(), message: &why.message }
}

pub(super) fn say(json: bool, value: &impl serde::Serialize, words: &str) {
    if json { println!("{}", json!(value)) } else { println!("{words}") }
}

pub(super) fn done(applied: &Applied) -> String {
    if applied.changed {
        format!("revision {} is in force: {}", applied.revision, applied.plan.summary)
    } else {
        format!("revision {} stays in force: it says the same", applied.revision)
    }
}

/// What plugins say about settings that they accept.
pub(super) fn remarks(plan: &Plan, file: Option<&Path>) -> String {
    let file = file.map(|file| file.display().to_string());
    plan.warnings.iter().map(|warning| format!("warning: {}", shown(warning, file.as_deref()))).collect()
}

/// What is different, line by line, then how far it reaches.
pub(super) fn planned(plan: &Plan) -> String {
    let mut lines: Vec<String> = plan.diff.differences.iter().map(difference).collect();
    if plan.diff.more > 0 {
        lines.push(format!("  … and {} more", plan.diff.more));
    }
    lines.extend(plan.plugins.iter().map(|(plugin, extent)| format!("plugin {plugin}: {}", places(extent))));
    let beside = |(plugin, extent)| format!("shadow beside {plugin}: {}", places(extent));
    lines.extend(plan.shadows.iter().map(beside));
    lines.push(plan.summary.clone());
    lines.join("\n")
}

fn places(extent: &Extent) -> String {
    let counts = [("added on", extent.added), ("changed on", extent.changed), ("removed from", extent.removed)];
    let counts: Vec<_> =
        counts.iter().filter(|(_, count)| *count > 0).map(|(what, count)| format!("{what} {count}")).collect();
    let more = if extent.total() > extent.examples.len() as u64 { ", …" } else { "" };
    format!("{} ({}{more})", counts.join(", "), extent.examples.join(", "))
}

fn logged(revision: &Revision) -> String {
    let reverts = revision.reverts_to.map(|to| format!(", back to {to}")).unwrap_or_default();
    let message = if revision.message.is_empty() { String::new() } else { format!("\n      {}", revision.message) };
    let Revision { number, at, who, summary, .. } = revision;
    format!("{number:<5} {}  {who}{reverts}: {summary}{message}", date(*at))
}

fn audited(entry: &AuditEntry) -> String {
    let AuditEntry { at, who, from, method, path, status, message, left_out } = entry;
    let from = from.as_ref().map(|from| format!(" from {from}")).unwrap_or_default();
    let message = if message.is_empty() { String::new() } else { format!(": {message}") };
    let more = if *left_out > 0 { format!(" (and {left_out} before it that are not listed)") } else { String::new() };
    format!("{}  {status}  {method} {path}  {who}{from}{message}{more}", date(*at))
}

/// Faults are told with the file that they are in.
fn in_file(file: PathBuf, error: ClientError) -> Failure {
    match error {
        ClientError::Refused { problem, .. } => Failure::Config { file, problem },
        other => other.into(),
    }
}
