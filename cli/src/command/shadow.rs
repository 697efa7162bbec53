use contract::admin::{Shadow, ShadowCost, ShadowReport};
use serde_json::{Map, Value, json};

use super::config::{done, ordered, planned, remarks, say};
use super::text;
use crate::Failure;
use crate::args::{AdminArgs, Change, ShadowAction};
use crate::client::{Admin, ShadowChange};
use crate::when::date;

pub(super) async fn run(args: &AdminArgs, action: ShadowAction, json: bool) -> Result<(), Failure> {
    let admin = Admin::new(args)?;
    match action {
        ShadowAction::Start { plugin, with, config, tables, percent, change } => {
            let mut settings = Map::from_iter([("percent".to_owned(), json!(percent))]);
            if let Some(with) = with {
                settings.insert("plugin".to_owned(), with.into());
            }
            if let Some(file) = config {
                let config: Value = serde_json::from_str(&text(&file)?)
                    .map_err(|error| Failure::Outcome(format!("{}: {error}", file.display())))?;
                settings.insert("config".to_owned(), config);
            }
            if !tables.is_empty() {
                settings.insert("tables".to_owned(), tables.into());
            }
            made(&admin, &plugin, ShadowChange::Start(settings.into()), &change, json).await
        }
        ShadowAction::Show { plugin } => {
            let shadows = admin.shadows(&plugin).await?;
            if shadows.is_empty() && !json {
                println!("no binding of `{plugin}` has a shadow");
            }
            let told: Vec<_> = shadows.iter().map(shown).collect();
            say(json, &shadows, told.join("\n").trim_end());
            Ok(())
        }
        ShadowAction::Promote { plugin, change } => made(&admin, &plugin, ShadowChange::Promote, &change, json).await,
        ShadowAction::Drop { plugin, change } => made(&admin, &plugin, ShadowChange::Drop, &change, json).await,
    }
}

async fn made(admin: &Admin, plugin: &str, what: ShadowChange, how: &Change, json: bool) -> Result<(), Failure> {
    let order = ordered(&how.why, how.dry_run);
    let applied = admin.shadow(plugin, what, how.at.as_deref(), order).await?;
    let words = if how.dry_run { planned(&applied.plan) } else { done(&applied) };
    say(json, &applied, &(remarks(&applied.plan, None) + &words));
    Ok(())
}

fn shown(shadow: &Shadow) -> String {
    let Shadow { percent, places, examples, report } = shadow;
    let ShadowReport { plugin, version, since, calls, same, different, .. } = report;
    let more = if *places > examples.len() as u64 { ", …" } else { "" };
    let mut text = format!(
        "{plugin} {version}, {percent} % of the calls since {}, beside {places} ({}{more})\n",
        date(*since),
        examples.join(", ")
    );
    text += &format!("  {calls} calls: {same} the same, {different} different\n");
    if report.not_compared > 0 {
        text += &format!(
            "  {} more were not compared: nobody knows what servers would have said, or there was no place for a body\n",
            report.not_compared
        );
    }
    for (name, cost) in [("live", &report.live), ("shadow", &report.shadow)] {
        text += &format!("  {name:<7} {}\n", taken(cost));
    }
    if let Some(ratio) = report.micros_ratio {
        let instructions = report.instructions_ratio.map(|ratio| format!(", {ratio:.2} × the instructions"));
        text += &format!("  a call takes {ratio:.2} × the time{}\n", instructions.unwrap_or_default());
    }
    text.extend(report.stopped.iter().map(|why| format!("  stopped: {why}\n")));
    for difference in &report.differences {
        text += &format!("  {} × {}\n", difference.count, difference.kind);
        for example in &difference.examples {
            text += &format!("      {}: {}; the shadow: {}\n", example.about, example.live, example.shadow);
        }
    }
    if report.differences_beyond > 0 {
        text += &format!("  {} × of further kinds\n", report.differences_beyond);
    }
    for crash in &report.crashes {
        text += &format!("  {} × {} in {}: {}\n", crash.count, crash.reason, crash.hook, crash.says);
        text.extend(crash.stack.iter().map(|function| format!("      {function}\n")));
    }
    text
}

fn taken(cost: &ShadowCost) -> String {
    let mut parts = vec![format!("{} calls of the plugin", cost.calls)];
    if cost.without_call > 0 {
        parts.push(format!("{} answers without one", cost.without_call));
    }
    if let (Some(mean), Some(most)) = (cost.micros_mean, cost.micros_max) {
        parts.push(format!("{mean:.2} µs, at most {most:.0} µs"));
    }
    parts.extend(cost.instructions_mean.map(|mean| format!("{mean:.0} instructions")));
    parts.extend(cost.faults.iter().map(|(reason, count)| format!("{count} failed ({reason})")));
    parts.join(", ")
}
