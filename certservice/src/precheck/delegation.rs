//! Whether the name of a dns-01 challenge leads to where we can put answers. Pure.

use contract::api::{DomainStep, Who};

use super::dns::NoAnswer;

pub(super) struct Delegation {
    pub name: String,
    /// By CNAME records; itself where it has none.
    pub leads_to: Result<String, NoAnswer>,
}

impl Delegation {
    pub(super) fn step(&self, zones: &[String]) -> DomainStep {
        let Self { name, leads_to } = self;
        let step = |ok, code: &str, says: String, fix: Option<String>| {
            let who = if ok { Who::Nobody } else { Who::Customer };
            DomainStep { id: "delegation".into(), ok: Some(ok), code: code.into(), says, fix, who }
        };
        let target = match leads_to {
            Ok(target) => target,
            Err(NoAnswer(says)) => {
                let fix = format!("see that the name servers of {name} answer");
                return step(false, "dns_failed", format!("{name}: {says}"), Some(fix));
            }
        };
        if zones.iter().any(|zone| lies_in(target, zone)) {
            return match target == name {
                true => step(true, "own_zone", format!("{name} is in a zone of ours"), None),
                false => step(true, "delegated", format!("{name} leads to {target}"), None),
            };
        }
        let says = match target == name {
            true => format!("{name} does not lead to us"),
            false => format!("{name} leads to {target}, which is not ours"),
        };
        let base = name.trim_start_matches("_acme-challenge.");
        let fix = zones.first().map(|zone| format!("set {name} CNAME {base}.{zone}"));
        step(false, "dns_not_delegated", says, fix)
    }
}

/// Whether a name is a zone's apex or below it.
pub fn lies_in(name: &str, zone: &str) -> bool {
    zone.is_empty() || name.strip_suffix(zone).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_lies_in_its_zone_and_in_no_other() {
        for (name, zone, inside) in [
            ("_acme-challenge.shop.example", "shop.example", true),
            ("shop.example", "shop.example", true),
            ("_acme-challenge.workshop.example", "shop.example", false),
            ("example", "shop.example", false),
            ("anything.example", "", true),
        ] {
            assert_eq!(lies_in(name, zone), inside, "{name} in {zone}");
        }
    }

    #[test]
    fn a_challenge_leads_to_one_of_our_zones_or_its_customer_is_told_how() {
        let zones = ["acme.saas.example".to_owned(), "own.example".to_owned()];
        let step = |name: &str, leads_to: Result<&str, &str>| {
            let leads_to = leads_to.map(str::to_owned).map_err(|says| NoAnswer(says.to_owned()));
            Delegation { name: format!("_acme-challenge.{name}"), leads_to }.step(&zones)
        };
        let led = step("shop.example", Ok("shop.example.acme.saas.example"));
        assert_eq!((led.ok, led.code.as_str(), led.who), (Some(true), "delegated", Who::Nobody));
        assert_eq!(step("a.own.example", Ok("_acme-challenge.a.own.example")).code, "own_zone");
        for leads_to in ["_acme-challenge.shop.example", "elsewhere.example", "notacme.saas.example"] {
            let lost = step("shop.example", Ok(leads_to));
            assert_eq!((lost.ok, lost.code.as_str(), lost.who), (Some(false), "dns_not_delegated", Who::Customer));
            let fix = "set _acme-challenge.shop.example CNAME shop.example.acme.saas.example";
            assert_eq!(lost.fix.as_deref(), Some(fix), "{leads_to}");
        }
        assert_eq!(step("shop.example", Err("CNAME: SERVFAIL")).code, "dns_failed");
    }
}
