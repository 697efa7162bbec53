//! Certification Authority Authorization (RFC 8659): which record set counts, and whether it lets our CA issue.

use contract::{ChallengeKind, Hostname};

use super::dns::{Dns, NoAnswer};

/// What an order asks of a CA.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asks<'a> {
    /// What the CA calls itself; empty where that is not known.
    pub ca_names: &'a [String],
    /// How control can be shown (RFC 8657).
    pub methods: &'a [ChallengeKind],
    pub wildcard: bool,
}

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
pub(super) async fn climb(dns: &Dns, domain: &Hostname, asks: Asks<'_>) -> Caa {
    let mut name = domain.base();
    loop {
        match dns.caa(name).await {
            Ok(records) if records.is_empty() => {}
            Ok(records) => return judge(name, &records, asks),
            Err(NoAnswer(says)) => return Caa::NoAnswer { at: name.to_owned(), says },
        }
        match name.split_once('.') {
            Some((_, parent)) => name = parent,
            None => return Caa::NoRecord,
        }
    }
}

/// Whether the relevant set authorizes the CA (RFC 8659 sections 4.2 and 4.3).
fn judge(at: &str, records: &[CaaRecord], asks: Asks<'_>) -> Caa {
    let Asks { ca_names, methods, wildcard } = asks;
    let at = at.to_owned();
    let known = ["issue", "issuewild", "iodef", "issuemail", "issuevmc"];
    if let Some(record) = records.iter().find(|record| record.critical && !known.contains(&record.tag.as_str())) {
        return Caa::Forbids { at, says: format!("its critical tag `{}` is one that no CA may ignore", record.tag) };
    }
    let of_tag = |tag: &str| records.iter().filter(|record| record.tag == tag).collect::<Vec<_>>();
    // For a wildcard `issuewild` counts where there is one, and `issue` no more.
    let wild = if wildcard { of_tag("issuewild") } else { Vec::new() };
    let issue = if wild.is_empty() { of_tag("issue") } else { wild };
    if issue.is_empty() {
        return Caa::Allows { at };
    }
    let named: Vec<_> = issue.iter().map(|record| issuer(&record.value)).collect();
    if named.iter().all(|(name, _)| name.is_empty()) {
        return Caa::Forbids { at, says: format!("it lets no CA issue (`{} \";\"`)", issue[0].tag) };
    }
    if ca_names.is_empty() {
        return Caa::Unknown { at };
    }
    let ours: Vec<_> =
        named.iter().filter(|(name, _)| ca_names.iter().any(|ca| ca.eq_ignore_ascii_case(name))).collect();
    if ours.iter().any(|(_, parameters)| allows_one_of(methods, parameters)) {
        return Caa::Allows { at };
    }
    let listed: Vec<_> = named.iter().map(|(name, _)| *name).filter(|name| !name.is_empty()).collect();
    let says = match ours.is_empty() {
        true => format!("it names {}, not {}", listed.join(", "), ca_names.join(" or ")),
        false => {
            let methods: Vec<_> = methods.iter().map(|method| method.as_str()).collect();
            format!("it allows {} only other methods than {}", ca_names.join(" or "), methods.join(", "))
        }
    };
    Caa::Forbids { at, says }
}

/// `ca.example; a=b; c=d`: the CA's name and what it is bound to.
fn issuer(value: &str) -> (&str, Vec<(&str, &str)>) {
    let mut parts = value.split(';').map(str::trim);
    let name = parts.next().unwrap_or_default();
    (name, parts.filter_map(|part| part.split_once('=')).map(|(key, value)| (key.trim(), value.trim())).collect())
}

fn allows_one_of(ours: &[ChallengeKind], parameters: &[(&str, &str)]) -> bool {
    let methods = parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case("validationmethods"));
    let is_ours = |method: &str| ours.iter().any(|ours| ours.as_str() == method.trim());
    methods.is_none_or(|(_, methods)| methods.split(',').any(is_ours))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(critical: bool, tag: &str, value: &str) -> CaaRecord {
        CaaRecord { critical, tag: tag.into(), value: value.into() }
    }

    fn judged(records: &[CaaRecord], ca_names: &[&str], methods: &[ChallengeKind], wildcard: bool) -> Caa {
        let ca_names: Vec<_> = ca_names.iter().map(|name| (*name).to_owned()).collect();
        judge("shop.example", records, Asks { ca_names: &ca_names, methods, wildcard })
    }

    fn allows(records: &[CaaRecord]) -> bool {
        match judged(records, &["letsencrypt.org"], &[ChallengeKind::Http01], false) {
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
        let judged = |value: &str| judged(&[record(false, "issue", value)], &[], &[ChallengeKind::Http01], false);
        assert_eq!(judged("ca.example"), Caa::Unknown { at: "shop.example".into() });
        assert!(matches!(judged(";"), Caa::Forbids { .. }));
    }

    #[test]
    fn a_wildcard_has_records_of_its_own() {
        let (ours, other) = ("letsencrypt.org", "ca.example");
        for (issue, issuewild, wildcard, allowed) in [
            (Some(ours), None, true, true),
            (Some(other), None, true, false),
            (Some(other), Some(ours), true, true),
            (Some(ours), Some(other), true, false),
            (Some(ours), Some(";"), true, false),
            (Some(ours), Some(";"), false, true),
            (None, Some(ours), true, true),
            (None, Some(other), false, true),
        ] {
            let records: Vec<_> = [("issue", issue), ("issuewild", issuewild)]
                .into_iter()
                .filter_map(|(tag, value)| Some(record(false, tag, value?)))
                .collect();
            let verdict = judged(&records, &[ours], &[ChallengeKind::Dns01], wildcard);
            assert_eq!(matches!(verdict, Caa::Allows { .. }), allowed, "{issue:?} {issuewild:?} {wildcard}");
        }
        let bound = [record(false, "issue", "letsencrypt.org; validationmethods=dns-01")];
        assert!(matches!(judged(&bound, &[ours], &[ChallengeKind::Dns01], false), Caa::Allows { .. }));
        assert!(matches!(judged(&bound, &[ours], &[ChallengeKind::TlsAlpn01], false), Caa::Forbids { .. }));
    }
}
