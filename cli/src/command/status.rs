use serde_json::json;

use crate::Failure;
use crate::args::{AdminArgs, CertServiceArgs};
use crate::client::{Admin, CertService, ClientError};

pub(super) async fn run(admin: &AdminArgs, certservice: &CertServiceArgs, json: bool) -> Result<(), Failure> {
    let mut parts = vec![("proxy", admin.admin.to_string(), proxy(admin).await)];
    if certservice.certservice.is_some() {
        parts.push(("certservice", certservice.target().to_string(), reach_certservice(certservice).await));
    }
    for (name, target, reasons) in &parts {
        if json {
            println!("{}", json!({"part": name, "at": target, "ready": reasons.is_empty(), "reasons": reasons}));
            continue;
        }
        println!("{name:<12} {:<10} {target}", if reasons.is_empty() { "ready" } else { "NOT READY" });
        for reason in reasons {
            println!("{:<12} {reason}", "");
        }
    }
    let unready: Vec<_> = parts.iter().filter(|(.., reasons)| !reasons.is_empty()).map(|(name, ..)| *name).collect();
    if unready.is_empty() { Ok(()) } else { Err(Failure::Outcome(format!("not ready: {}", unready.join(", ")))) }
}

/// Why it is not ready; empty where it is.
async fn proxy(args: &AdminArgs) -> Vec<String> {
    let readiness = async { Admin::new(&args.admin)?.readiness().await };
    match readiness.await {
        Ok(readiness) if readiness.ready => Vec::new(),
        Ok(readiness) if readiness.reasons.is_empty() => vec!["it does not say why".into()],
        Ok(readiness) => readiness.reasons,
        Err(error) => vec![error.to_string()],
    }
}

async fn reach_certservice(args: &CertServiceArgs) -> Vec<String> {
    let ready = async { CertService::new(args)?.ready().await };
    ready.await.err().map(|error: ClientError| error.to_string()).into_iter().collect()
}
