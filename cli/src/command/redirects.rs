use std::path::Path;

use contract::admin::{RulesOfBinding, UnusedRules};
use serde_json::{Value, json};

use super::text;
use crate::Failure;
use crate::args::{AdminArgs, Format, RedirectsAction};
use crate::client::Admin;
use crate::import::{self, Imported, LeftOut};
use crate::when::date;

pub(super) async fn run(admin: &AdminArgs, action: RedirectsAction, json: bool) -> Result<(), Failure> {
    match action {
        RedirectsAction::Import { from, table, file } => import(from, table, &file, json),
        RedirectsAction::Unused { days, plugin } => {
            let unused = Admin::new(admin)?.unused_rules(&plugin, days).await?;
            if json {
                println!("{}", json!(unused));
            } else {
                tell_unused(&plugin, &unused);
            }
            Ok(())
        }
    }
}

fn tell_unused(plugin: &str, unused: &UnusedRules) {
    if unused.bindings.is_empty() {
        println!("no site has a plugin that the configuration calls `{plugin}`");
    }
    for RulesOfBinding { config, rules, unused: list, more } in &unused.bindings {
        let count = list.len() as u64 + more;
        println!("{count} of {rules} rules have answered nobody for {} days", unused.days);
        for rule in list {
            let when = match (rule.last_at, rule.known_since) {
                (Some(last), _) => format!("last at {}", date(last)),
                (None, Some(since)) => format!("never since {}", date(since)),
                (None, None) => "never".to_owned(),
            };
            println!("  {}: {when}", place(config, rule.rule));
        }
        if *more > 0 {
            println!("  and {more} more");
        }
    }
}

/// Rules of the configuration come first, then those of the table by their lines.
fn place(config: &Value, rule: u32) -> String {
    let rules = config.get("rules").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let index = usize::try_from(rule).unwrap_or(usize::MAX);
    let text = |rule: &Value, key: &str| rule.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    match rules.get(index) {
        Some(known) => format!("rule {index}, {}{}", text(known, "host"), text(known, "from")),
        None => format!("table {}, line {}", text(config, "table"), index - rules.len()),
    }
}

fn import(from: Format, table: bool, file: &Path, json: bool) -> Result<(), Failure> {
    let Imported { mut rules, mut left_out } = import::read(from, &text(file)?);
    if table {
        for rule in rules.extract_if(.., |rule| rule.is_expression()) {
            let path = rule.path();
            let why = format!("`{path}` is a regular expression, which a table does not take: write it into `rules`");
            left_out.push(LeftOut { line: 0, why });
        }
        println!("from,to,status,match,host,query");
        rules.iter().for_each(|rule| println!("{}", rule.as_csv()));
    } else if json {
        println!("{}", json!({"rules": rules, "left_out": left_out}));
    } else {
        // One rule a line, as people edit them.
        let lines: Vec<_> = rules.iter().map(|rule| format!("  {}", json!(rule))).collect();
        println!("{{\"rules\": [\n{}\n]}}", lines.join(",\n"));
    }
    if !json {
        for LeftOut { line, why } in &left_out {
            match line {
                0 => eprintln!("{}: {why}", file.display()),
                _ => eprintln!("{}:{line}: {why}", file.display()),
            }
        }
    }
    match left_out.len() {
        0 => Ok(()),
        count => Err(Failure::Outcome(format!("{} rules were read, {count} were left out", rules.len()))),
    }
}
