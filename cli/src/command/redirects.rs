use serde_json::json;

use super::text;
use crate::Failure;
use crate::args::RedirectsAction;
use crate::import::{self, Imported, LeftOut};

pub(super) fn run(action: RedirectsAction, json: bool) -> Result<(), Failure> {
    let RedirectsAction::Import { from, file } = action;
    let Imported { rules, left_out } = import::read(from, &text(&file)?);
    if json {
        println!("{}", json!({"rules": rules, "left_out": left_out}));
    } else {
        // One rule a line, as people edit them.
        let lines: Vec<_> = rules.iter().map(|rule| format!("  {}", json!(rule))).collect();
        println!("{{\"rules\": [\n{}\n]}}", lines.join(",\n"));
        for LeftOut { line, why } in &left_out {
            eprintln!("{}:{line}: {why}", file.display());
        }
    }
    match left_out.len() {
        0 => Ok(()),
        count => Err(Failure::Outcome(format!("{} rules were read, {count} were left out", rules.len()))),
    }
}
