use serde_json::json;

use crate::Failure;
use crate::args::{AdminArgs, CertServiceArgs};
use crate::client::{Admin, CertService, ClientError};

/// One part of the fleet, as it was found.
struct Part {
    name: &'static str,
    at: String,
    /// What there is to know; an error where it is not ready.
    found: Result<String, String>,
}

pub(super) async fn run(admin: &AdminArgs, certservice: &CertServiceArgs, json: bool) -> Result<(), Failure> {
    let mut parts = vec![Part { name: "proxy", at: admin.admin.to_string(), found: proxy(admin).await }];
    if certservice.certservice.is_some() {
        let found = reach_certservice(certservice).await;
        parts.push(Part { name: "certservice", at: certservice.target().to_string(), found });
    }
    for Part { name, at, found } in &parts {
        let (word, says) = match found {
            Ok(says) => ("ready", says),
            Err(says) => ("NOT READY", says),
        };
        if json {
            println!("{}", json!({"part": name, "at": at, "ready": found.is_ok(), "says": says}));
        } else {
            println!("{name:<12} {word:<10} {at}\n{:<12} {says}", "");
        }
    }
    let unready: Vec<_> = parts.iter().filter(|part| part.found.is_err()).map(|part| part.name).collect();
    if unready.is_empty() { Ok(()) } else { Err(Failure::Outcome(format!("not ready: {}", unready.join(", ")))) }
}

async fn proxy(args: &AdminArgs) -> Result<String, String> {
    let readiness = async { Admin::new(args)?.readiness().await };
    let readiness = readiness.await.map_err(|error| error.to_string())?;
    let state = format!("configuration revision {}; CertService: {}", readiness.revision, readiness.certservice);
    if readiness.ready { Ok(state) } else { Err(readiness.reasons.join("; ")) }
}

async fn reach_certservice(args: &CertServiceArgs) -> Result<String, String> {
    let ready = async { CertService::new(args)?.ready().await };
    ready.await.map(|()| "it answers, and so does its store".into()).map_err(|error: ClientError| error.to_string())
}
