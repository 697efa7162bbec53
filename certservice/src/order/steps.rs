//! What a person is shown of an order: each thing that has to hold, in order.

use contract::api::{DomainStep, Who};

use super::gate::BUNDLES_DOWN;
use super::job::{Job, Stage, Step};
use super::machine::{LOOKED, LOOKED_SAYS};
use super::visit;

/// The look at the domain, then the CA, then the certificate.
pub(super) fn steps(job: &Job) -> Vec<DomainStep> {
    job.checks.iter().cloned().chain([of_order(job), of_certificate(job)]).collect()
}

fn of_order(job: &Job) -> DomainStep {
    let at_ca = matches!(job.step, Step::Ready { .. } | Step::Keyed { .. } | Step::Finalizing { .. });
    if at_ca || matches!(job.step, Step::Issued { .. }) {
        return step("order", Some(true), "agreed", "the CA has seen that the domain points here");
    }
    if matches!(job.step, Step::Looked { .. }) {
        return step("order", None, LOOKED, LOOKED_SAYS);
    }
    let in_line = matches!(job.step, Step::InLine { .. });
    if in_line || job.status.code == "rate_limited" && job.stage() != Stage::UnderWay {
        let held = step("order", None, &job.status.code, &job.status.says);
        return DomainStep { fix: fix(&job.status.code).map(str::to_owned), ..held };
    }
    if job.status.code == "next_issuer" {
        return step("order", None, &job.status.code, &job.status.says);
    }
    let seen_before = job.checks.iter().any(|check| check.ok == Some(false) && check.code == job.status.code);
    if job.failures > 0 && !seen_before {
        return failed("order", job);
    }
    match &job.step {
        Step::Awaited | Step::Parked => step("order", None, visit::AWAITED, visit::AWAITED_SAYS),
        Step::Queued if seen_before => step("order", None, "not_asked", "the CA is not asked before the rest holds"),
        Step::Queued => step("order", None, "queued", "waiting for its turn"),
        _ => step("order", None, "validating", "the CA checks that the domain points here"),
    }
}

fn of_certificate(job: &Job) -> DomainStep {
    match &job.step {
        Step::Issued { .. } => step("certificate", Some(true), "issued", "the certificate is served"),
        Step::Ready { .. } | Step::Keyed { .. } | Step::Finalizing { .. } if job.failures > 0 => {
            failed("certificate", job)
        }
        _ if job.renews => step("certificate", Some(true), "renewing", "the current certificate is served"),
        _ => step("certificate", None, "not_issued", "there is no certificate yet"),
    }
}

fn failed(id: &str, job: &Job) -> DomainStep {
    let status = &job.status;
    let step = step(id, Some(false), &status.code, &status.says);
    DomainStep { who: status.who, fix: fix(&status.code).map(str::to_owned), ..step }
}

fn step(id: &str, ok: Option<bool>, code: &str, says: &str) -> DomainStep {
    DomainStep { id: id.into(), ok, code: code.into(), says: says.into(), fix: None, who: Who::Nobody }
}

/// What to do about a failure at the CA. The codes stand in docs/certservice.md.
fn fix(code: &str) -> Option<&'static str> {
    Some(match code {
        "challenge_failed" => {
            "see that port 80 of the domain leads to our edge from everywhere on the Internet, over IPv6 as well where it has AAAA records"
        }
        "caa_forbids" => "add our CA to the CAA records of the domain or of the parent that has them",
        "rate_limited" => "nothing: it is tried again by itself when the CA's limit allows it",
        "paused_by_ca" => "mend what made the orders fail, then open the CA's link and unpause the name",
        "name_refused" => "ask the CA why it refuses the name; PUT the domain again as an operator to ask once more",
        "account_refused" => "read the CA's words; check `contact` and `eab` of the issuer, and its account file",
        "ca_unavailable" | "order_lost" => "nothing: it is tried again by itself",
        "unknown_profile" => "choose a profile that the CA offers, of the domain or of the issuer; or another issuer",
        "dns_update_failed" => "see the words of the DNS server or of the webhook; check [[dns]]",
        "dns_not_delegated" => "set a CNAME record from the challenge's name into one of our zones, or host it there",
        "ca_unsupported" => "choose an issuer that offers the challenge",
        "order_refused" | "certificate_refused" | "internal_error" => "see CertService's log",
        BUNDLES_DOWN => "look at the database at `store.bundles`; orders go on by themselves when it answers",
        "unknown_issuer" => "put the issuer back into the boot file, or register the domain anew with another one",
        _ => return None,
    })
}
