use contract::Hostname;
use contract::api::Budget;
use serde_json::json;

use crate::Failure;
use crate::args::CertServiceArgs;
use crate::client::CertService;
use crate::when::{date, now, span};

pub(super) async fn list(args: &CertServiceArgs, domain: Option<&Hostname>, json: bool) -> Result<(), Failure> {
    let budgets = CertService::new(args)?.budgets(domain).await?;
    if json {
        println!("{}", json!(budgets));
        return Ok(());
    }
    for issuer in &budgets.issuers {
        let state = match issuer.closed_until {
            Some(until) => format!("closed until {}: {}", date(until), issuer.says.as_deref().unwrap_or_default()),
            None => "open".to_owned(),
        };
        println!("{}  {state}; {} in line", issuer.name, issuer.in_line);
        issuer
            .limits
            .iter()
            .for_each(|budget| row(budget, if budget.scope.is_empty() { "account" } else { &budget.scope }));
    }
    if let Some(budget) = &budgets.first_visits {
        println!("first visits");
        row(budget, &format!("tenant {}", budget.scope));
    }
    if let Some(budget) = &budgets.renews {
        println!("new certificates asked for");
        row(budget, &format!("tenant {}", budget.scope));
    }
    Ok(())
}

fn row(budget: &Budget, scope: &str) {
    let next = budget.next_at.map(|at| format!("; next in {}", span(at.saturating_sub(now()))));
    let (limit, left, count, seconds) = (&budget.limit, budget.left, budget.count, span(budget.seconds));
    println!("  {limit:<24} {left:>6} of {count} per {seconds} left  {scope}{}", next.unwrap_or_default());
}
