use contract::api::Forecast;
use serde_json::json;

use crate::Failure;
use crate::args::CertServiceArgs;
use crate::client::CertService;
use crate::when::{date, span};

/// Days that are drawn one by one.
const DAYS_SHOWN: usize = 35;
const BAR: u64 = 40;

pub(super) async fn run(args: &CertServiceArgs, ca_down: Option<u64>, json: bool) -> Result<(), Failure> {
    let forecast = CertService::new(args)?.forecast(ca_down.unwrap_or(0)).await?;
    if json {
        println!("{}", json!(forecast));
    } else {
        show(&forecast);
    }
    let Forecast { ended, outage, .. } = &forecast;
    match (ended, outage.would_end) {
        (0, 0) => Ok(()),
        (0, count) => Err(Failure::Outcome(format!("{count} certificates would end within {}", span(outage.seconds)))),
        (count, _) => Err(Failure::Outcome(format!("{count} certificates have ended and are not replaced"))),
    }
}

fn show(forecast: &Forecast) {
    for issuer in &forecast.issuers {
        println!("{}: {} certificates", issuer.name, issuer.certificates);
        let (needed, most) = (issuer.renewals_per_day, issuer.renewals_per_day_max);
        println!("  renewals       {needed} a day needed, at most {most} begin in one; {} are due", issuer.due);
        if let Some(seconds) = issuer.replace_all_seconds.filter(|_| issuer.certificates > 0) {
            println!("  replace all    {} at best, if the CA revoked them all", span(seconds));
        }
        if let Some(most) = issuer.orders_per_day_max {
            println!("  new domains    {most} a day by the CA's limit; {} orders in line", issuer.in_line);
        }
    }
    if let Some(end) = forecast.soonest_end {
        println!("soonest end      {} (in {})", date(end), span(end.saturating_sub(forecast.at)));
    }
    let most = forecast.days.iter().map(|day| day.renewals).max().unwrap_or(0).max(1);
    for day in forecast.days.iter().take(DAYS_SHOWN).filter(|_| most > 1) {
        let bar = "#".repeat(usize::try_from(day.renewals * BAR / most).unwrap_or(0));
        println!("  {}  {:>8}  {bar}", &date(day.at)[..10], day.renewals);
    }
    let outage = &forecast.outage;
    if outage.seconds > 0 {
        println!("if no CA answered for {}:", span(outage.seconds));
        println!("  {} certificates would end", outage.would_end);
        for ending in &outage.first {
            println!("    {}  {}", date(ending.ends_at), ending.name);
        }
        println!("  {} renewals would wait; caught up with in {} days", outage.held_up, outage.catch_up_days);
    }
}
