use serde_json::json;

use super::text;
use crate::Failure;
use crate::args::RedirectsAction;
use crate::import::{self, Imported, LeftOut};

pub(super) fn run(action: RedirectsAction, json: bool) -> Result<(), Failure> {
    let RedirectsAction::Import { from, table, file } = action;
    let Imported { mut rules, mut left_out } = import::read(from, &text(&file)?);
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
