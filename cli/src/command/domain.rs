use std::time::{Duration, Instant};

use contract::Hostname;
use contract::api::{Domain, DomainStep, OrderWhen, PutDomain, State, Who};
use serde_json::json;

use crate::args::{CertServiceArgs, DomainAction};
use crate::client::CertService;
use crate::when::{date, now, span};
use crate::{Failure, when};

const LOOK_EVERY: Duration = Duration::from_millis(500);

pub(super) async fn run(args: &CertServiceArgs, action: DomainAction, json: bool) -> Result<(), Failure> {
    let certservice = CertService::new(args)?;
    match action {
        DomainAction::Add { name, tenant, issuers, profile, order, bulk, www } => {
            let issuers = Some(issuers).filter(|issuers| !issuers.is_empty());
            let wanted = PutDomain { tenant, issuer: None, issuers, profile, order, bulk, www: www.then_some(true) };
            let domain = certservice.add(&name, &wanted).await?;
            print(&domain, json);
            if !json && domain.state == State::Working && domain.order == OrderWhen::Now {
                println!("follow it with: latchkey domain watch {name}");
            }
        }
        DomainAction::Show { name } => print(&certservice.domain(&name).await?, json),
        DomainAction::Check { name } => check(&certservice, &name, json).await?,
        DomainAction::Renew { name } => print(&certservice.renew(&name).await?, json),
        DomainAction::Revoke { name, reason } => print(&certservice.revoke(&name, reason).await?, json),
        DomainAction::Ls { state, tenant, expires_within } => {
            list(&certservice.domains_where(&filter(state, tenant, expires_within)).await?, json);
        }
        DomainAction::Rm { name } => {
            certservice.remove(&name).await?;
            if json {
                println!("{}", json!({"name": name, "removed": true}));
            } else {
                println!("{name} is off-boarded: the edges stop serving it within seconds");
            }
        }
        DomainAction::Watch { name, timeout } => watch(&certservice, &name, timeout, json).await?,
    }
    Ok(())
}

/// As the query of the API has it.
pub(super) fn filter(state: Option<State>, tenant: Option<String>, expires_within: Option<u32>) -> String {
    let state = state.map(|state| format!("state={}", json!(state).as_str().unwrap_or_default()));
    let tenant = tenant.map(|tenant| format!("tenant={tenant}"));
    let ends = expires_within.map(|days| format!("expires_before={}", now() + u64::from(days) * 86_400));
    [Some("limit=1000".to_owned()), state, tenant, ends].into_iter().flatten().collect::<Vec<_>>().join("&")
}

fn list(domains: &[Domain], json: bool) {
    if json {
        println!("{}", json!(domains));
        return;
    }
    let width = domains.iter().map(|domain| domain.name.as_str().len()).max().unwrap_or_default();
    for domain in domains {
        println!("{:<width$}  {:<13}  {}", domain.name.as_str(), state(domain.state), domain.says);
    }
    println!("{} domain{}", domains.len(), if domains.len() == 1 { "" } else { "s" });
}

pub(super) fn print(domain: &Domain, json: bool) {
    if json {
        println!("{}", json!(domain));
        return;
    }
    println!("{}", domain.name);
    let row = |label: &str, value: String| println!("  {label:<12} {value}");
    row("state", format!("{} ({}): {}", state(domain.state), domain.code, domain.says));
    if domain.who != Who::Nobody {
        row("who acts", who(domain.who).into());
    }
    if let Some(at) = domain.next_check_at.filter(|_| domain.state != State::Live) {
        row("next look", format!("{} (in {})", date(at), span(at.saturating_sub(now()))));
    }
    print_steps(&domain.steps);
    row("tenant", domain.tenant.clone());
    row("issuer", domain.issuer.clone());
    if !domain.issuers.is_empty() {
        row("preferred", domain.issuers.join(", "));
    }
    if let Some(profile) = &domain.profile {
        row("profile", profile.clone());
    }
    if domain.order == OrderWhen::FirstVisit {
        row("ordered", "with the first visit".into());
    }
    for passed in &domain.passed_over {
        row("passed over", format!("{} ({}): {}", passed.issuer, passed.code, passed.says));
    }
    row("since", date(domain.created_at));
    if let Some(page) = &domain.page {
        row("page", page.clone());
    }
    if let Some(certificate) = &domain.certificate {
        row("issued by", certificate.issued_by.clone());
        let left = when::span(certificate.not_after.saturating_sub(now()));
        row("valid until", format!("{} ({left} left)", date(certificate.not_after)));
        row("sha-256", certificate.sha256.clone());
        row("revision", certificate.revision.to_string());
    }
}

async fn check(certservice: &CertService, name: &Hostname, json: bool) -> Result<(), Failure> {
    let report = certservice.check(name).await?;
    if json {
        println!("{}", json!(report));
    } else {
        println!("{name}");
        print_steps(&report.steps);
    }
    match report.steps.iter().find(|step| step.ok == Some(false)) {
        Some(fault) => Err(Failure::Outcome(format!("{name}: {} must act: {}", who(fault.who), fault.says))),
        None => Ok(()),
    }
}

/// One line a step, and one for what to do.
fn print_steps(steps: &[DomainStep]) {
    for step in steps {
        let mark = match step.ok {
            Some(true) => "yes",
            Some(false) => "NO",
            None => "-",
        };
        println!("  {:<12} {mark:<4} {} ({})", step.id, step.says, step.code);
        if let Some(fix) = &step.fix {
            println!("  {:<12}      {}: {fix}", "", who(step.who));
        }
    }
}

async fn watch(certservice: &CertService, name: &Hostname, timeout: u64, json: bool) -> Result<(), Failure> {
    let start = Instant::now();
    let mut told = None;
    loop {
        let domain = certservice.domain(name).await?;
        let stands = (domain.state, domain.code.clone(), domain.says.clone());
        if told.as_ref() != Some(&stands) {
            if json {
                println!("{}", json!(domain));
            } else {
                println!("{:>5.1} s  {} ({}): {}", start.elapsed().as_secs_f32(), state(stands.0), stands.1, stands.2);
                for fault in domain.steps.iter().filter(|step| step.ok == Some(false)) {
                    println!("         {}: {}", who(fault.who), fault.fix.as_deref().unwrap_or(&fault.says));
                }
            }
            told = Some(stands);
        }
        match domain.state {
            State::Live => return Ok(()),
            State::Working if waits_for_visit(&domain.code) => return Ok(()),
            State::ActionNeeded | State::Blocked => {
                return Err(Failure::Outcome(format!("{name}: {} must act: {}", who(domain.who), domain.says)));
            }
            State::Working if start.elapsed().as_secs() >= timeout => {
                return Err(Failure::Outcome(format!("{name} has no certificate after {timeout} s: {}", domain.says)));
            }
            State::Working => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}

/// Nobody works on it before somebody comes.
pub(super) fn waits_for_visit(code: &str) -> bool {
    matches!(code, "awaits_visit" | "first_visits_used_up" | "covered_by_wildcard")
}

pub(super) fn state(state: State) -> &'static str {
    match state {
        State::Working => "working",
        State::ActionNeeded => "action needed",
        State::Live => "live",
        State::Blocked => "blocked",
    }
}

fn who(who: Who) -> &'static str {
    match who {
        Who::Customer => "the customer",
        Who::Saas => "the application",
        Who::Operator => "the operator",
        Who::CertificateAuthority => "the certificate authority",
        Who::Nobody => "nobody",
    }
}
