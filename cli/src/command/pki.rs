use std::path::Path;

use super::Failure;
use crate::args::{PkiAction, Role};
use crate::pki::{CA_DAYS, DAYS, Folder, Index, Issued, Subject};
use crate::when;

pub(super) fn run(dir: &Path, action: PkiAction, json: bool) -> Result<(), Failure> {
    let now = when::now();
    match action {
        PkiAction::Init { name, days } => {
            let folder = Folder::init(dir, &name, days, now)?;
            tell(&folder.index, json, || {
                println!("CA `{name}` in {}", dir.display());
                println!(
                    "ca.pem and crl.pem go to CertService (listen.tls.client_ca_file, client_crl_file); ca.pem to edges"
                );
            });
        }
        PkiAction::Issue { name, role, tenant, hosts, days } => {
            let subject = match role {
                None => Subject::Server { hosts },
                Some(role) => Subject::Client { uri: uri(role, tenant.as_deref(), &name) },
            };
            let mut folder = Folder::open(dir)?;
            issued(dir, folder.issue(&name, subject, days, now)?, json);
        }
        PkiAction::Rotate { name: Some(name), days, .. } => {
            let mut folder = Folder::open(dir)?;
            issued(dir, folder.rotate(&name, days.unwrap_or(DAYS), now)?, json);
        }
        PkiAction::Rotate { name: None, days, .. } => {
            let mut folder = Folder::open(dir)?;
            folder.rotate_ca(days.unwrap_or(CA_DAYS), now)?;
            tell(&folder.index, json, || {
                println!(
                    "the CA has key {}; give ca.pem and crl.pem to CertService and edges",
                    folder.index.generation
                );
            });
        }
        PkiAction::Revoke { name, serial } => {
            let mut folder = Folder::open(dir)?;
            let count = folder.revoke(&name, serial.as_deref(), now)?;
            tell(&folder.index, json, || {
                println!("{count} of {name} revoked; give crl.pem to CertService, which reads it again within seconds");
            });
        }
        PkiAction::Ls => {
            let folder = Folder::open(dir)?;
            tell(&folder.index, json, || folder.index.certificates.iter().for_each(|issued| line(issued, now)));
        }
    }
    Ok(())
}

/// `latchkey:edge/fra1`, `latchkey:app/shop/backend`
fn uri(role: Role, tenant: Option<&str>, name: &str) -> String {
    match (role, tenant) {
        (Role::Edge, _) => format!("latchkey:edge/{name}"),
        (Role::Operator, _) => format!("latchkey:operator/{name}"),
        (Role::Viewer, _) => format!("latchkey:viewer/{name}"),
        (Role::App, tenant) => format!("latchkey:app/{}/{name}", tenant.unwrap_or_default()),
    }
}

fn tell(index: &Index, json: bool, says: impl FnOnce()) {
    if json { println!("{}", serde_json::json!(index)) } else { says() }
}

fn issued(dir: &Path, issued: &Issued, json: bool) {
    if json {
        println!("{}", serde_json::json!(issued));
        return;
    }
    let at = |ending: &str| dir.join(format!("{}.{ending}", issued.name)).display().to_string();
    println!("certificate  {}\nprivate key  {}  (0600)", at("pem"), at("key"));
    println!("for          {}\nsha256       {}\nserial       {}", issued.subject, issued.sha256, issued.serial);
}

fn line(issued: &Issued, now: u64) {
    let state = match issued.revoked_at {
        Some(_) => "revoked",
        None if issued.not_after <= now => "ended",
        None => "valid",
    };
    let days = issued.not_after.saturating_sub(now) / 86_400;
    println!("{:<20} {state:<8} {days:>5} d  {}  {}", issued.name, issued.serial, issued.subject);
}
