//! From what was seen to what is said: pure, so that each case is a line in a test.

use std::net::IpAddr;

use contract::Hostname;
use contract::api::{DomainStep, Who, for_a_person};

use super::caa::Caa;
use super::dns::{NoAnswer, Records};
use super::fetch::Fetched;
use super::{Report, Targets};

/// Addresses that are named; of more, how many there are.
const LISTED_MAX: usize = 8;

pub(super) struct Findings {
    pub records: Result<Records, NoAnswer>,
    pub caa: Caa,
    pub fetches: Vec<(IpAddr, Fetched)>,
    /// Port 443 was knocked at, not port 80 asked.
    pub tls: bool,
}

impl Findings {
    pub(super) fn report(&self, domain: &Hostname, targets: &Targets) -> Report {
        let steps = vec![self.dns(domain, targets), of_caa(&self.caa, domain), self.http(domain, targets)];
        let wrong = |id: &str| steps.iter().any(|step| step.id == id && step.ok == Some(false));
        // Names without a record, and CAs that are forbidden, fail at the CA as they do here. Who connects from where, may not.
        let nowhere = self.records.as_ref().is_ok_and(|records| records.v4.is_empty() && records.v6.is_empty());
        // A resolver that does not answer us may answer the CA.
        let forbidden = matches!(self.caa, Caa::Forbids { .. });
        let doubtful = !nowhere && !forbidden && (wrong("dns") || wrong("caa") || wrong(self.reach()));
        Report { steps, doubtful }
    }

    fn arrives(&self) -> bool {
        let counts = |fetched: &Fetched| !matches!(fetched, Fetched::NoWay);
        let ours = |fetched: &Fetched| matches!(fetched, Fetched::Ours { .. });
        let mut counted = self.fetches.iter().map(|(_, fetched)| fetched).filter(|fetched| counts(fetched)).peekable();
        counted.peek().is_some() && counted.all(ours)
    }

    fn cdn(&self) -> Option<&'static str> {
        self.fetches.iter().find_map(|(_, fetched)| match fetched {
            Fetched::Ours { cdn } | Fetched::Other { cdn, .. } => *cdn,
            _ => None,
        })
    }

    fn dns(&self, domain: &Hostname, targets: &Targets) -> DomainStep {
        let step = |ok, code, says| step("dns", ok, code, says);
        let records = match &self.records {
            Ok(records) => records,
            Err(NoAnswer(says)) => {
                let says = format!("the name servers of {domain} did not answer: {says}");
                let fix =
                    format!("see that the name servers of {domain} answer; a broken DNSSEC chain looks like this, too");
                return fixable(step(false, "dns_failed", says), fix, Who::Customer);
            }
        };
        let point = point_here(domain, targets);
        let (v4, v6) = (foreign(&records.v4, records, targets), foreign(&records.v6, records, targets));
        let listed = listed(records);
        if records.v4.is_empty() && records.v6.is_empty() {
            let says = match records.cnames.last() {
                Some(last) => format!("{domain} leads to {last}, which has no address"),
                None => format!("{domain} has no A, AAAA or CNAME record"),
            };
            return fixable(step(false, "no_record", says), point, Who::Customer);
        }
        let (all_ours, arrives) = (v4.is_empty() && v6.is_empty(), self.arrives());
        if all_ours && targets.are_known() {
            return step(true, "points_here", format!("{domain} leads to {listed}"));
        }
        if arrives && self.cdn().is_none() {
            return step(true, "leads_here", format!("{domain} leads to {listed}, where our edge answers"));
        }
        if let Some(cdn) = self.cdn() {
            let says = format!("{cdn} stands in front of {domain}");
            if self.arrives() {
                return step(true, "cdn_in_front", format!("{says} and passes the challenge on"));
            }
            let fix = format!(
                "switch {cdn}'s proxying off for {domain} (\"DNS only\"), or let it pass /.well-known/acme-challenge/ on to us over HTTP"
            );
            return fixable(step(false, "cdn_in_front", says), fix, Who::Customer);
        }
        if all_ours {
            let says = format!("{domain} leads to {listed}; what is ours is not configured ([precheck] addresses)");
            return DomainStep { ok: None, ..step(true, "found", says) };
        }
        if v4.is_empty() && !records.v4.is_empty() {
            let wrong = join(&v6);
            let says = format!("the AAAA record of {domain} ({wrong}) is not ours, and CAs prefer IPv6");
            let fix = match targets.addresses.iter().any(IpAddr::is_ipv6) {
                true => format!("{point}; remove AAAA {wrong}"),
                false => format!("remove AAAA {wrong}"),
            };
            return fixable(step(false, "stale_ipv6", says), fix, Who::Customer);
        }
        let wrong = join(&[v4, v6].concat());
        let says = format!("{domain} leads to {wrong}, which is not ours");
        fixable(step(false, "wrong_address", says), point, Who::Customer)
    }

    /// The step that says whether a CA gets through.
    fn reach(&self) -> &'static str {
        if self.tls { "tls" } else { "http" }
    }

    fn http(&self, domain: &Hostname, targets: &Targets) -> DomainStep {
        let step = |ok, code, says| step(self.reach(), ok, code, says);
        let port = if self.tls { 443 } else { 80 };
        if self.fetches.is_empty() {
            return DomainStep { ok: None, ..step(true, "not_asked", "there is no address to ask".to_owned()) };
        }
        let worst = |(_, fetched): &&(IpAddr, Fetched)| match fetched {
            Fetched::NotPublic => 5,
            Fetched::Unreachable(_) => 4,
            Fetched::Other { .. } => 3,
            Fetched::Redirect => 2,
            Fetched::Ours { .. } | Fetched::Open => 1,
            Fetched::NoWay => 0,
        };
        let Some((address, fetched)) = self.fetches.iter().max_by_key(worst) else {
            return step(true, "not_asked", String::new());
        };
        let ours = targets.addresses.contains(address);
        let who = if ours { Who::Operator } else { Who::Customer };
        let fix = match ours {
            true => format!(
                "{address} is one of [precheck] addresses: see that an edge serves port {port} there, and reaches CertService"
            ),
            false => point_here(domain, targets),
        };
        match fetched {
            Fetched::Open => step(true, "port_443_open", format!("port 443 of {address} takes connections")),
            Fetched::Ours { .. } => step(true, "answers_here", "the challenge path leads to our edge".to_owned()),
            Fetched::Redirect => {
                let says =
                    format!("{address} redirects the challenge path; the CA follows, and what it finds there counts");
                DomainStep { ok: None, ..step(true, "redirected", says) }
            }
            Fetched::NoWay => {
                let says = format!("CertService has no way to {address}; the CA may have one");
                DomainStep { ok: None, ..step(true, "not_asked", says) }
            }
            Fetched::Unreachable(why) => {
                let says = format!("port {port} of {address} can't be reached: {why}");
                let code = if self.tls { "port_443_unreachable" } else { "port_80_unreachable" };
                fixable(step(false, code, says), fix, who)
            }
            Fetched::Other { status, .. } => {
                let says = format!("{address} answers the challenge path with HTTP {status}, not as our edge does");
                fixable(step(false, "wrong_answer", says), fix, who)
            }
            Fetched::NotPublic => {
                let says = format!("{address} is not a public address; no CA can reach it");
                fixable(step(false, "not_public", says), fix, who)
            }
        }
    }
}

pub(super) fn of_caa(caa: &Caa, domain: &Hostname) -> DomainStep {
    let step = |ok, code, says| step("caa", ok, code, says);
    match caa {
        Caa::NoRecord => step(true, "caa_absent", "no CAA record restricts who may issue".to_owned()),
        Caa::Allows { at } => step(true, "caa_allows", format!("the CAA record of {at} lets our CA issue")),
        Caa::Unknown { at } => {
            let says = format!("{at} has CAA records, and what our CA is called in them is not configured (caa_names)");
            DomainStep { ok: None, ..step(true, "caa_unknown", says) }
        }
        Caa::Forbids { at, says } => {
            let inherited = at != domain.base();
            let code = if inherited { "caa_forbids_inherited" } else { "caa_forbids" };
            let whose = if inherited { format!("{domain} inherits the CAA record of {at}: ") } else { String::new() };
            let fix = match inherited {
                true => format!("add a CAA record that names our CA at {}, or to those of {at}", domain.base()),
                false => format!("add our CA to the CAA records of {}, or remove them", domain.base()),
            };
            fixable(step(false, code, format!("{whose}{says}")), fix, Who::Customer)
        }
        Caa::NoAnswer { at, says } => {
            let says = format!("the name servers of {at} did not answer for CAA ({says}); a CA does not issue then");
            let fix = format!("see that the name servers of {at} answer queries for CAA (RFC 8659)");
            fixable(step(false, "caa_failed", says), fix, Who::Customer)
        }
    }
}

/// Of an issuer that has no way to see who controls a wildcard, or wants none.
pub(super) fn of_wildcard(domain: &Hostname, needs_nothing: bool) -> Report {
    if needs_nothing {
        return Report::none();
    }
    let says = format!("{domain} is a wildcard, and this issuer is not set up for dns-01, which CAs want for one");
    let fix = "add dns-01 to the issuer's `challenges`, or choose another issuer".to_owned();
    Report { steps: vec![fixable(step("dns", false, "no_wildcards", says), fix, Who::Operator)], doubtful: false }
}

/// A look that came to no end: as good as none.
pub(super) fn too_slow(seconds: u64) -> Report {
    let says = format!("DNS or the addresses took more than {seconds} s");
    let fix = "see that the domain's name servers answer at once".to_owned();
    Report { steps: vec![fixable(step("dns", false, "dns_failed", says), fix, Who::Customer)], doubtful: true }
}

fn step(id: &str, ok: bool, code: &str, says: String) -> DomainStep {
    DomainStep { id: id.into(), ok: Some(ok), code: code.into(), says, fix: None, who: Who::Nobody }
}

/// What stands in somebody's DNS is their text: none of it makes a step long, or moves a terminal's cursor.
pub(super) fn bounded(step: DomainStep) -> DomainStep {
    DomainStep { says: for_a_person(&step.says), fix: step.fix.as_deref().map(for_a_person), ..step }
}

fn fixable(step: DomainStep, fix: String, who: Who) -> DomainStep {
    DomainStep { fix: Some(fix), who, ..step }
}

/// Those that are not where domains should point; none where that is not configured.
fn foreign(addresses: &[IpAddr], records: &Records, targets: &Targets) -> Vec<IpAddr> {
    let by_name = targets.cnames.iter().any(|ours| records.cnames.iter().any(|cname| cname == ours.as_str()));
    if by_name || !targets.are_known() {
        return Vec::new();
    }
    addresses.iter().filter(|address| !targets.addresses.contains(address)).copied().collect()
}

fn listed(records: &Records) -> String {
    let addresses = join(&[records.v4.clone(), records.v6.clone()].concat());
    match records.cnames.last() {
        Some(cname) => format!("{cname} ({addresses})"),
        None => addresses,
    }
}

fn join(addresses: &[IpAddr]) -> String {
    let mut listed: Vec<_> = addresses.iter().take(LISTED_MAX).map(IpAddr::to_string).collect();
    if let more @ 1.. = addresses.len().saturating_sub(LISTED_MAX) {
        listed.push(format!("{more} more"));
    }
    listed.join(", ")
}

/// The record that a customer is to set.
fn point_here(domain: &Hostname, targets: &Targets) -> String {
    let apex = psl::domain_str(domain.as_str()) == Some(domain.as_str());
    let records = |wanted: fn(&IpAddr) -> bool, kind: &str| {
        let of_kind: Vec<_> = targets.addresses.iter().filter(|address| wanted(address)).copied().collect();
        (!of_kind.is_empty()).then(|| format!("{kind} {}", join(&of_kind)))
    };
    let addresses: Vec<_> =
        [records(IpAddr::is_ipv4, "A"), records(IpAddr::is_ipv6, "AAAA")].into_iter().flatten().collect();
    let addresses = addresses.join(" and ");
    match targets.cnames.first() {
        Some(cname) if !apex => format!("set {domain} CNAME {cname}, and remove its other A and AAAA records"),
        Some(cname) if addresses.is_empty() => format!("set {domain} ALIAS (or ANAME) {cname}"),
        _ if !addresses.is_empty() => format!("set {domain} {addresses}, and remove its other A and AAAA records"),
        _ => format!("point {domain} at our edge"),
    }
}

#[cfg(test)]
#[path = "verdict_tests.rs"]
mod tests;
