//! What may be registered, by whom, and with which issuer. Pure, and the same for a request and for a line of a list.

use contract::Hostname;
use contract::api::OrderWhen;
use serde::{Deserialize, Serialize};

use crate::budget::registered_domain;
use crate::config::is_tenant;
use crate::order::{Job, Lane};

const DEFAULT_TENANT: &str = "default";

/// What the boot file says about registering.
#[derive(Debug, Clone)]
pub struct Rules {
    /// All that there are.
    pub issuers: Vec<String>,
    /// In order of preference, of domains that have no own.
    pub preferred: Vec<String>,
    /// Those that can issue for wildcards.
    pub wildcards: Vec<String>,
    /// Names that a tenant may have of one registered domain; 0 is no limit.
    pub names_max: u64,
    /// `www.` comes with its parent, and the parent with it, where nobody says otherwise.
    pub www: bool,
    /// When the first order leaves, where nobody says otherwise.
    pub order: OrderWhen,
}

/// What somebody asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    pub name: String,
    #[serde(default)]
    pub tenant: Option<String>,
    #[serde(default)]
    pub issuer: Option<String>,
    #[serde(default)]
    pub issuers: Option<Vec<String>>,
    #[serde(default)]
    pub profile: Option<String>,
    #[serde(default)]
    pub www: Option<bool>,
    #[serde(default)]
    pub order: Option<OrderWhen>,
}

/// A domain as it is registered, and the one that comes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub name: Hostname,
    pub twin: Option<Hostname>,
    pub tenant: String,
    /// Whom the first order goes to.
    pub issuer: String,
    /// Its own order of preference; empty: the boot file's.
    pub issuers: Vec<String>,
    /// What kind of certificate; its issuer's own where it has none.
    pub profile: Option<String>,
    /// When the first order leaves.
    pub order: OrderWhen,
}

/// Why not. `code` is stable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub code: &'static str,
    pub says: String,
}

impl Rules {
    /// `own` is the tenant that the caller is confined to.
    pub fn admit(&self, own: Option<&str>, wanted: Wanted) -> Result<Entry, Refusal> {
        let refused = |code, says| Refusal { code, says };
        let name = Hostname::parse_domain(&wanted.name).map_err(|error| refused("invalid_name", error.to_string()))?;
        // Nobody can prove control of all names below one.
        if psl::domain_str(name.base()).is_none() {
            let says = format!("{} is a public suffix: names are registered below it (publicsuffix.org)", name.base());
            return Err(refused("public_suffix", says));
        }
        let tenant = match (own, wanted.tenant) {
            (Some(own), Some(wanted)) if own != wanted => {
                return Err(refused("forbidden", format!("this token is for tenant `{own}` only")));
            }
            (Some(own), _) => own.to_owned(),
            (None, Some(wanted)) if !is_tenant(&wanted) => {
                return Err(refused(
                    "invalid_tenant",
                    "a tenant is 1 to 64 characters of A-Z a-z 0-9 . _ -".to_owned(),
                ));
            }
            (None, wanted) => wanted.unwrap_or_else(|| DEFAULT_TENANT.to_owned()),
        };
        let profile = wanted.profile.filter(|profile| !profile.is_empty());
        if profile.as_ref().is_some_and(|profile| !is_tenant(profile)) {
            let says = "a profile is 1 to 64 characters of A-Z a-z 0-9 . _ -".to_owned();
            return Err(refused("invalid_profile", says));
        }
        let issuers = self.own_issuers(wanted.issuer, wanted.issuers)?;
        let issuer = issuers.first().or(self.preferred.first()).cloned().unwrap_or_default();
        let candidates = if issuers.is_empty() { &self.preferred } else { &issuers };
        if name.is_wildcard() && !candidates.iter().any(|issuer| self.wildcards.contains(issuer)) {
            let says = format!(
                "{} can't issue for wildcards: CAs want dns-01 for them, in `challenges` of the issuer, with [[dns]]",
                candidates.join(", ")
            );
            return Err(refused("no_wildcards", says));
        }
        let twin = if wanted.www.unwrap_or(self.www) { twin(&name) } else { None };
        let order = wanted.order.unwrap_or(self.order);
        Ok(Entry { name, twin, tenant, issuer, issuers, profile, order })
    }

    /// The same for a certificate that somebody brings along: no issuer is asked for anything.
    pub fn admit_own(&self, own: Option<&str>, wanted: Wanted) -> Result<Entry, Refusal> {
        let all = self.issuers.clone();
        Self { wildcards: all, ..self.clone() }.admit(own, wanted)
    }

    fn own_issuers(&self, one: Option<String>, several: Option<Vec<String>>) -> Result<Vec<String>, Refusal> {
        let refused = |code, says: String| Refusal { code, says };
        let issuers = match (one, several) {
            (Some(_), Some(_)) => {
                return Err(refused("invalid_issuers", "give either `issuer` or `issuers`".to_owned()));
            }
            (one, several) => several.unwrap_or_else(|| one.into_iter().collect()),
        };
        if let Some(unknown) = issuers.iter().find(|name| !self.issuers.contains(name)) {
            // What it is called is the caller's text; a person needs a part of it only.
            let shown: String = unknown.chars().take(64).collect();
            let says = format!("there is no issuer `{shown}`; there are: {}", self.issuers.join(", "));
            return Err(refused("unknown_issuer", says));
        }
        if let Some(twice) = issuers.iter().enumerate().find(|(at, name)| issuers[..*at].contains(name)) {
            return Err(refused("invalid_issuers", format!("issuer `{}` stands twice", twice.1)));
        }
        Ok(issuers)
    }

    pub fn too_many(&self, name: &Hostname) -> Refusal {
        let (domain, most) = (registered_domain(name), self.names_max);
        let says = format!(
            "{domain} has {most} names already, which is the most that is accepted; an operator may remove some, or raise \
             domains.names_per_registered_domain_max"
        );
        Refusal { code: "too_many_names", says }
    }
}

impl Entry {
    /// The first orders, of the domain and of the one that comes with it.
    pub fn jobs(&self, bulk: bool, now: u64) -> Vec<Job> {
        let names = [Some(&self.name), self.twin.as_ref()].into_iter().flatten();
        names
            .map(|name| {
                let mut job = Job::new(name.clone(), self.issuer.clone(), 0, now);
                job.issuers.clone_from(&self.issuers);
                job.profile.clone_from(&self.profile);
                if bulk {
                    job.lane = Lane::Bulk;
                }
                job.when(self.order)
            })
            .collect()
    }
}

/// Names that no other tenant may have beside this one: who points a wildcard here points all names below it here, and could
/// be taken for whoever registers one of them; and one answer in DNS is for a name and its wildcard.
pub fn related(name: &Hostname) -> (String, String) {
    if name.is_wildcard() {
        return (name.base().to_owned(), name.base().to_owned());
    }
    let above = name.as_str().split_once('.').map_or(name.as_str(), |(_, above)| above);
    (format!("*.{name}"), format!("*.{above}"))
}

pub fn says_taken(name: &Hostname) -> String {
    let (one, other) = related(name);
    let which = if one == other { one } else { format!("{one} or {other}") };
    format!("another tenant has {which}, and whoever controls that controls {name}")
}

/// `www.` of a registered domain, and the registered domain of that.
fn twin(name: &Hostname) -> Option<Hostname> {
    let registered = registered_domain(name);
    if name.is_wildcard() {
        return None;
    }
    if name.as_str() == registered {
        return Hostname::parse(&format!("www.{name}")).ok();
    }
    name.as_str().strip_prefix("www.").filter(|rest| *rest == registered).and_then(|rest| Hostname::parse(rest).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        let issuers = vec!["first".to_owned(), "second".to_owned()];
        Rules {
            preferred: issuers.clone(),
            wildcards: vec!["second".into()],
            issuers,
            names_max: 100,
            www: false,
            order: OrderWhen::Now,
        }
    }

    fn wanted(name: &str) -> Wanted {
        Wanted { name: name.into(), ..Wanted::default() }
    }

    #[test]
    fn a_name_gets_the_defaults() {
        let entry = rules().admit(None, wanted("Bücher.example")).unwrap();
        assert_eq!((entry.name.as_str(), entry.twin.is_none()), ("xn--bcher-kva.example", true));
        assert_eq!((entry.tenant.as_str(), entry.issuer.as_str()), ("default", "first"));
        let own = rules().admit(Some("shop"), Wanted { issuer: Some("second".into()), ..wanted("a.example") }).unwrap();
        assert_eq!((own.tenant.as_str(), own.issuer.as_str()), ("shop", "second"));
    }

    #[test]
    fn what_may_not_be_is_refused_with_its_code() {
        let tenant = |tenant: &str| Wanted { tenant: Some(tenant.into()), ..wanted("a.example") };
        for (own, wanted, code) in [
            (None, wanted("no host"), "invalid_name"),
            (None, wanted("co.uk"), "public_suffix"),
            (None, Wanted { issuer: Some("second".into()), ..wanted("*.co.uk") }, "public_suffix"),
            (None, wanted("*.example"), "invalid_name"),
            (None, Wanted { issuer: Some("first".into()), ..wanted("*.a.example") }, "no_wildcards"),
            (Some("shop"), tenant("other"), "forbidden"),
            (None, tenant("a b"), "invalid_tenant"),
            (None, tenant(&"x".repeat(65)), "invalid_tenant"),
            (None, Wanted { issuer: Some("third".into()), ..wanted("a.example") }, "unknown_issuer"),
        ] {
            assert_eq!(rules().admit(own, wanted).unwrap_err().code, code);
        }
        assert!(rules().admit(None, tenant(&"x".repeat(64))).is_ok());
    }

    #[test]
    fn a_name_has_its_own_order_of_preference_or_none() {
        let with = |issuer: Option<&str>, issuers: Option<&[&str]>| {
            let issuers = issuers.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
            let wanted = Wanted { issuer: issuer.map(str::to_owned), issuers, ..wanted("a.example") };
            rules().admit(None, wanted).map(|entry| (entry.issuer, entry.issuers)).map_err(|refusal| refusal.code)
        };
        assert_eq!(with(None, Some(&["second", "first"])).unwrap().0, "second");
        assert_eq!(with(None, Some(&["second", "first"])).unwrap().1, ["second", "first"]);
        for none in [None, Some(&[][..])] {
            assert_eq!(with(None, none).unwrap(), ("first".to_owned(), vec![]));
        }
        assert_eq!(with(Some("second"), None).unwrap().1, ["second"]);
        assert_eq!(with(Some("second"), Some(&["second"])).unwrap_err(), "invalid_issuers");
        assert_eq!(with(None, Some(&["second", "second"])).unwrap_err(), "invalid_issuers");
        assert_eq!(with(None, Some(&["second", "third"])).unwrap_err(), "unknown_issuer");
    }

    #[test]
    fn a_wildcard_and_what_it_covers_are_one_tenants() {
        let related = |name: &str| related(&Hostname::parse_domain(name).unwrap());
        assert_eq!(related("a.shop.example"), ("*.a.shop.example".to_owned(), "*.shop.example".to_owned()));
        assert_eq!(related("*.shop.example"), ("shop.example".to_owned(), "shop.example".to_owned()));
    }

    #[test]
    fn a_wildcard_goes_to_whom_can_issue_one_and_has_no_twin() {
        let entry = rules().admit(None, Wanted { www: Some(true), ..wanted("*.Shop.example") }).unwrap();
        assert_eq!((entry.name.as_str(), entry.twin), ("*.shop.example", None));
    }

    #[test]
    fn www_comes_with_a_registered_domain_and_with_nothing_else() {
        let twin = |name: &str, www| {
            let entry = rules().admit(None, Wanted { www, ..wanted(name) }).unwrap();
            entry.twin.map(|twin| twin.to_string())
        };
        assert_eq!(twin("shop.co.uk", Some(true)).as_deref(), Some("www.shop.co.uk"));
        assert_eq!(twin("www.shop.co.uk", Some(true)).as_deref(), Some("shop.co.uk"));
        assert_eq!(twin("a.shop.co.uk", Some(true)), None);
        assert_eq!(twin("www.a.shop.co.uk", Some(true)), None);
        assert_eq!(twin("shop.co.uk", None), None);
        let always = Rules { www: true, ..rules() };
        assert!(always.admit(None, wanted("shop.co.uk")).unwrap().twin.is_some());
        assert!(always.admit(None, Wanted { www: Some(false), ..wanted("shop.co.uk") }).unwrap().twin.is_none());
    }
}
