use contract::api::{BringCertificate, BringSecond, CertificatePage, Domain, RenewalWindow};
use serde_json::json;

use super::{domain, text};
use crate::Failure;
use crate::args::{CertAction, CertServiceArgs};
use crate::client::CertService;
use crate::when::{date, now, span};

pub(super) async fn run(args: &CertServiceArgs, action: CertAction, json: bool) -> Result<(), Failure> {
    let certservice = CertService::new(args)?;
    match action {
        CertAction::Ls { expiring, issuer, tenant } => {
            let filter = domain::filter(None, tenant, Some(expiring.unwrap_or(FAR_DAYS)));
            let domains = certservice.domains_where(&filter).await?;
            let of_issuer = |domain: &Domain| issuer.as_ref().is_none_or(|issuer| *issuer == domain.issuer);
            list(&domains.into_iter().filter(of_issuer).collect::<Vec<_>>(), json);
        }
        CertAction::Show { name, chain } => show(&certservice.certificate(&name).await?, chain, json),
        CertAction::Upload { name, chain, key, rsa_chain, rsa_key, tenant } => {
            let rsa = match rsa_chain.zip(rsa_key) {
                Some((chain, key)) => Some(BringSecond { chain: text(&chain)?, key: text(&key)? }),
                None => None,
            };
            let brought = BringCertificate { chain: text(&chain)?, key: text(&key)?, rsa, tenant };
            domain::print(&certservice.bring(&name, &brought).await?, json);
        }
        CertAction::Rm { name } => domain::print(&certservice.give_up(&name).await?, json),
        CertAction::Renew { name } => domain::print(&certservice.renew(&name).await?, json),
        CertAction::Revoke { name, reason } => domain::print(&certservice.revoke(&name, reason).await?, json),
    }
    Ok(())
}

/// Later than any certificate ends: all of them, soonest end first.
const FAR_DAYS: u32 = 36_500;

fn list(domains: &[Domain], json: bool) {
    if json {
        let shown =
            |domain: &Domain| json!({"name": domain.name, "issuer": domain.issuer, "certificate": domain.certificate});
        println!("{}", json!(domains.iter().map(shown).collect::<Vec<_>>()));
        return;
    }
    let width = domains.iter().map(|domain| domain.name.as_str().len()).max().unwrap_or_default();
    for domain in domains {
        let Some(certificate) = &domain.certificate else { continue };
        let left = certificate.not_after.saturating_sub(now());
        println!(
            "{:<width$}  {} ({} left)  {}  revision {}  serial {}  sha-256 {}",
            domain.name.as_str(),
            date(certificate.not_after),
            span(left),
            domain.issuer,
            certificate.revision,
            certificate.serial,
            certificate.sha256
        );
    }
    println!("{} certificate{}", domains.len(), if domains.len() == 1 { "" } else { "s" });
}

fn show(page: &CertificatePage, chain: bool, json: bool) {
    if json {
        println!("{}", json!(page));
        return;
    }
    if chain {
        print!("{}", page.chain.concat());
        return;
    }
    println!("{}", page.name);
    let row = |label: &str, value: String| println!("  {label:<12} {value}");
    let certificate = &page.certificate;
    row("issuer", page.issuer.clone());
    row("issued by", certificate.issued_by.clone());
    row("valid from", date(certificate.not_before));
    let left = span(certificate.not_after.saturating_sub(now()));
    row("valid until", format!("{} ({left} left)", date(certificate.not_after)));
    row("serial", certificate.serial.clone());
    row("sha-256", certificate.sha256.clone());
    row("revision", certificate.revision.to_string());
    if page.rsa {
        row("beside it", "a second one with an RSA key".into());
    }
    if let Some(RenewalWindow { start, end }) = page.window {
        row("CA suggests", format!("{} to {} (ARI window)", date(start), date(end)));
    }
    for (label, at) in [("renewed", page.renew_at), ("CA is asked", page.ask_at), ("warning", page.warn_at)] {
        if let Some(at) = at {
            row(label, format!("{} (in {})", date(at), span(at.saturating_sub(now()))));
        }
    }
}
