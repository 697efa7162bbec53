use serde_json::json;

use crate::Failure;
use crate::args::CertServiceArgs;
use crate::client::CertService;

pub(super) async fn run(args: &CertServiceArgs, json: bool) -> Result<(), Failure> {
    let report = CertService::new(args)?.doctor().await?;
    if json {
        println!("{}", json!(report));
    } else {
        let width = report.checks.iter().map(|check| check.id.len()).max().unwrap_or_default();
        for check in &report.checks {
            let mark = match check.ok {
                Some(true) => "yes",
                Some(false) => "NO",
                None => "-",
            };
            println!("{:<width$}  {mark:<4} {}", check.id, check.says);
            if let Some(fix) = &check.fix {
                println!("{:<width$}       {fix}", "");
            }
        }
    }
    let ill: Vec<_> =
        report.checks.iter().filter(|check| check.ok == Some(false)).map(|check| check.id.as_str()).collect();
    if ill.is_empty() { Ok(()) } else { Err(Failure::Outcome(format!("not well: {}", ill.join(", ")))) }
}
