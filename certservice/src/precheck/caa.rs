//! Certification Authority Authorization (RFC 8659): which record set counts, and whether it lets our CA issue.

use contract::Hostname;

use super::dns::{Dns, NoAnswer};

/// How our challenges are called in `validationmethods` (RFC 8657).
const OUR_METHODS: [&str; 2] = ["http-01", "tls-alpn-01"];

/// One CAA record; the tag in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaaRecord {
    pub critical: bool,
    pub tag: String,
    pub value: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Caa {
    /// No name up to the root has one.
    NoRecord,
    /// The set at `at` lets our CA issue.
    Allows {
        at: String,
    },
    /// It does not, or nobody.
    Forbids {
        at: String,
        says: String,
    },
    /// There is a set, and we don't know what our CA is called in it.
    Unknown {
        at: String,
    },
    NoAnswer {
        at: String,
        says: String,
    },
}

/// Climbs from the domain towards the root; the first name that has CAA records decides (RFC 8659 section 3).
pub(super) async fn climb(dns: &Dns, domain: &Hostname, ca_names: &[String]) -> Caa {
    let mut name = domain.as_str();
    loop {
        match dns.caa(name).await {
            Ok(records) if records.is_empty() => {}
            Ok(records) => return judge(name, &records, ca_names),
            Err(NoAnswer(says)) => return Caa::NoAnswer { at: name.to_owned(), says },
        }
        match name.split_once('.') {
            Some((_, parent)) => name = parent,
            None => return Caa::NoRecord,
        }
    }
}

/// Whether the relevant set authorizes the CA for a name without a wildcard (RFC 8659 section 4.2).
fn judge(at: &str, records: &[CaaRecord], ca_names: &[String]) -> Caa {
    let at = at.to_owned();
    let known = ["issue", "issuewild", "iodef", "issuemail", "issuevmc"];
    if let Some(record) = records.iter().find(|record| record.critical && !known.contains(&record.tag.as_str())) {
        return Caa::Forbids { at, says: format!("its critical tag `{}` is one that no CA may ignore", record.tag) };
    }
    let issue: Vec<_> = records.iter().filter(|record| record.tag == "issue").collect();
    if issue.is_empty() {
        return Caa::Allows { at };
    }
    let named: Vec<_> = issue.iter().map(|record| issuer(&record.value)).collect();
    if named.iter().all(|(name, _)| name.is_empty()) {
        return Caa::Forbids { at, says: "it lets no CA issue (`issue \";\"`)".to_owned() };
    }
    if ca_names.is_empty() {
        return Caa::Unknown { at };
    }
    let ours: Vec<_> =
        named.iter().filter(|(name, _)| ca_names.iter().any(|ca| ca.eq_ignore_ascii_case(name))).collect();
    if ours.iter().any(|(_, parameters)| allows_our_method(parameters)) {
        return Caa::Allows { at };
    }
    let listed: Vec<_> = named.iter().map(|(name, _)| *name).filter(|name| !name.is_empty()).collect();
    let says = match ours.is_empty() {
        true => format!("it names {}, not {}", listed.join(", "), ca_names.join(" or ")),
        false => format!("it allows {} only other methods than {}", ca_names.join(" or "), OUR_METHODS.join(", ")),
    };
    Caa::Forbids { at, says }
}

/// `ca.example; a=b; c=d`: the CA's name and what it is bound to.
fn issuer(value: &str) -> (&str, Vec<(&str, &str)>) {
    let mut parts = value.split(';').map(str::trim);
    let name = parts.next().unwrap_or_default();
    (name, parts.filter_map(|part| part.split_once('=')).map(|(key, value)| (key.trim(), value.trim())).collect())
}

fn allows_our_method(parameters: &[(&str, &str)]) -> bool {
    let methods = parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case("validationmethods"));
    methods.is_none_or(|(_, methods)| methods.split(',').any(|method| OUR_METHODS.contains(&method.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(critical: bool, tag: &str, value: &str) -> CaaRecord {
        CaaRecord { critical, tag: tag.into(), value: value.into() }
    }

    fn allows(records: &[CaaRecord]) -> bool {
        match judge("shop.example", records, &["letsencrypt.org".to_owned()]) {
            Caa::Allows { .. } => true,
            Caa::Forbids { .. } => false,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_set_decides_as_rfc_8659_says() {
        for (value, allowed) in [
            ("letsencrypt.org", true),
            ("LetsEncrypt.Org", true),
            (" letsencrypt.org ; accounturi=https://x", true),
            ("letsencrypt.org; validationmethods=http-01,dns-01", true),
            ("letsencrypt.org; validationmethods=dns-01", false),
            ("ca.example", false),
            (";", false),
            ("", false),
            ("letsencrypt.org.evil.example", false),
        ] {
            assert_eq!(allows(&[record(false, "issue", value)]), allowed, "{value}");
        }
        // One that fits is enough, whatever stands beside it.
        assert!(allows(&[record(false, "issue", ";"), record(false, "issue", "letsencrypt.org")]));
        // Without `issue`, a name that is no wildcard is not restricted.
        assert!(allows(&[record(false, "issuewild", ";"), record(false, "iodef", "mailto:a@b")]));
        assert!(!allows(&[record(true, "future", "x"), record(false, "issue", "letsencrypt.org")]));
        assert!(allows(&[record(false, "future", "x"), record(false, "issue", "letsencrypt.org")]));
    }

    #[test]
    fn a_set_is_not_judged_without_the_name_of_the_ca() {
        let judged = judge("shop.example", &[record(false, "issue", "ca.example")], &[]);
        assert_eq!(judged, Caa::Unknown { at: "shop.example".into() });
        assert!(matches!(judge("a.example", &[record(false, "issue", ";")], &[]), Caa::Forbids { .. }));
    }
}
