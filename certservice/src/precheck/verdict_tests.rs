use super::*;

const EDGE: &str = "198.51.100.7";
const EDGE6: &str = "2001:db8::7";
const ELSEWHERE: &str = "203.0.113.9";
const ELSEWHERE6: &str = "2001:db8:9::9";

fn targets() -> Targets {
    Targets {
        addresses: vec![EDGE.parse().unwrap(), EDGE6.parse().unwrap()],
        cnames: vec![Hostname::parse("edge.saas.example").unwrap()],
    }
}

fn ours() -> Fetched {
    Fetched::Ours { cdn: None }
}

fn other() -> Fetched {
    Fetched::Other { status: 404, cdn: None }
}

fn findings(seen: &[(&str, Fetched)]) -> Findings {
    let fetches: Vec<(IpAddr, Fetched)> = seen.iter().map(|(at, got)| (at.parse().unwrap(), got.clone())).collect();
    let of = |wanted: fn(&IpAddr) -> bool| fetches.iter().map(|(at, _)| *at).filter(wanted).collect();
    let records = Records { v4: of(IpAddr::is_ipv4), v6: of(IpAddr::is_ipv6), cnames: vec![] };
    Findings { records: Ok(records), caa: Caa::NoRecord, fetches, tls: false }
}

fn judged(findings: &Findings, targets: &Targets) -> Report {
    findings.report(&Hostname::parse("www.shop.example").unwrap(), targets)
}

/// Code and culprit of the first fault.
fn fault(findings: &Findings) -> Option<(String, Who)> {
    let report = judged(findings, &targets());
    let fault = report.fault()?;
    assert!(fault.fix.as_ref().is_some_and(|fix| !fix.is_empty()) && !fault.says.is_empty(), "{fault:?}");
    Some((fault.code.clone(), fault.who))
}

#[test]
fn each_fault_has_its_code_and_its_culprit() {
    let cloudflare = Some("Cloudflare");
    for (seen, code, who) in [
        (vec![], "no_record", Who::Customer),
        (vec![(ELSEWHERE, other())], "wrong_address", Who::Customer),
        (vec![(ELSEWHERE, Fetched::Unreachable("timed out".into()))], "wrong_address", Who::Customer),
        (vec![(EDGE, ours()), (ELSEWHERE, other())], "wrong_address", Who::Customer),
        (vec![(EDGE, ours()), (ELSEWHERE6, other())], "stale_ipv6", Who::Customer),
        (vec![(ELSEWHERE, Fetched::Other { status: 403, cdn: cloudflare })], "cdn_in_front", Who::Customer),
        (vec![("10.0.0.1", Fetched::NotPublic)], "wrong_address", Who::Customer),
        (vec![(EDGE, Fetched::Unreachable("refused".into()))], "port_80_unreachable", Who::Operator),
        (vec![(EDGE, other())], "wrong_answer", Who::Operator),
    ] {
        assert_eq!(fault(&findings(&seen)), Some((code.to_owned(), who)), "{seen:?}");
    }
    let knocked = |got: Fetched| Findings { tls: true, ..findings(&[(EDGE, got)]) };
    let closed = fault(&knocked(Fetched::Unreachable("refused".into())));
    assert_eq!(closed, Some(("port_443_unreachable".to_owned(), Who::Operator)));
    assert_eq!(fault(&knocked(Fetched::Open)), None);
    let unanswered = Findings { records: Err(NoAnswer("A: Server Failure".into())), ..findings(&[]) };
    assert_eq!(fault(&unanswered), Some(("dns_failed".to_owned(), Who::Customer)));
}

#[test]
fn what_the_ca_would_accept_passes() {
    for seen in [
        vec![(EDGE, ours())],
        vec![(EDGE, ours()), (EDGE6, ours())],
        // From here there is no IPv6; the CA has it.
        vec![(EDGE, ours()), (EDGE6, Fetched::NoWay)],
        // A proxy of the customer's that passes everything on.
        vec![(ELSEWHERE, ours())],
        vec![(ELSEWHERE, Fetched::Ours { cdn: Some("Cloudflare") })],
        vec![(EDGE, Fetched::Redirect)],
    ] {
        assert_eq!(fault(&findings(&seen)), None, "{seen:?}");
    }
}

#[test]
fn without_targets_the_answer_alone_counts() {
    let none = Targets::default();
    assert!(judged(&findings(&[(ELSEWHERE, ours())]), &none).fault().is_none());
    let report = judged(&findings(&[(ELSEWHERE, other())]), &none);
    assert_eq!(report.fault().map(|step| step.code.as_str()), Some("wrong_answer"));
}

#[test]
fn a_cname_to_us_is_as_good_as_our_address() {
    let by_name = Targets { addresses: vec![], ..targets() };
    let mut seen = findings(&[(ELSEWHERE, Fetched::NoWay)]);
    assert_eq!(judged(&seen, &by_name).fault().map(|step| step.code.as_str()), Some("wrong_address"));
    seen.records = seen.records.map(|records| Records { cnames: vec!["edge.saas.example".into()], ..records });
    assert!(judged(&seen, &by_name).fault().is_none());
}

#[test]
fn caa_says_where_it_comes_from() {
    let forbids = |at: &str| Caa::Forbids { at: at.into(), says: "it names ca.example, not letsencrypt.org".into() };
    let with = |caa| Findings { caa, ..findings(&[(EDGE, ours())]) };
    assert_eq!(fault(&with(forbids("www.shop.example"))).unwrap().0, "caa_forbids");
    assert_eq!(fault(&with(forbids("shop.example"))).unwrap().0, "caa_forbids_inherited");
    let report = judged(&with(forbids("shop.example")), &targets());
    assert!(report.fault().unwrap().says.contains("inherits the CAA record of shop.example"));
    let failed = with(Caa::NoAnswer { at: "example".into(), says: "SERVFAIL".into() });
    assert_eq!(fault(&failed).unwrap().0, "caa_failed");
    assert_eq!(fault(&with(Caa::Unknown { at: "shop.example".into() })), None);
}

#[test]
fn only_what_the_ca_may_see_otherwise_is_doubtful() {
    assert!(judged(&findings(&[(ELSEWHERE, other())]), &targets()).doubtful);
    assert!(judged(&findings(&[(EDGE, Fetched::Unreachable("x".into()))]), &targets()).doubtful);
    assert!(!judged(&findings(&[]), &targets()).doubtful);
    // A resolver of ours that is ill must not keep a renewal from the CA, which asks another.
    let silent = Findings {
        records: Err(NoAnswer("timed out".into())),
        caa: Caa::NoAnswer { at: "shop.example".into(), says: "timed out".into() },
        ..findings(&[])
    };
    assert!(judged(&silent, &targets()).doubtful);
    let forbids = Caa::Forbids { at: "example".into(), says: "x".into() };
    assert!(!judged(&Findings { caa: forbids, ..findings(&[(ELSEWHERE, other())]) }, &targets()).doubtful);
}

#[test]
fn what_stands_in_dns_makes_no_step_long_and_moves_no_cursor() {
    let many: Vec<String> = (0..4000).map(|at| format!("203.0.{}.{}", at / 250, at % 250)).collect();
    let many: Vec<_> = many.iter().map(|address| (address.as_str(), other())).collect();
    let report = judged(&findings(&many), &targets());
    assert!(report.fault().unwrap().says.ends_with("203.0.0.7, 3992 more, which is not ours"), "{report:?}");
    let long = format!("it names \u{1b}]0;{}", "x".repeat(20_000));
    let caa = Caa::Forbids { at: "shop.example".into(), says: long };
    let step = bounded(of_caa(&caa, &Hostname::parse("shop.example").unwrap()));
    assert!(step.says.chars().count() == 600 && !step.says.contains(char::is_control), "{}", step.says);
}

#[test]
fn the_fix_names_the_record_to_set() {
    let fix = |domain: &str, targets: &Targets| {
        let report = findings(&[]).report(&Hostname::parse(domain).unwrap(), targets);
        report.fault().unwrap().fix.clone().unwrap()
    };
    assert!(fix("www.shop.example", &targets()).contains("www.shop.example CNAME edge.saas.example"));
    // An apex can't have a CNAME (RFC 1912 section 2.4).
    assert!(fix("shop.example", &targets()).contains("shop.example A 198.51.100.7 and AAAA 2001:db8::7"));
    let name_only = Targets { addresses: vec![], ..targets() };
    assert!(fix("shop.example", &name_only).contains("ALIAS"));
    assert!(fix("shop.example", &Targets::default()).contains("at our edge"));
}
