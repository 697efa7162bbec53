use super::super::certificate::tests::opened;
use super::*;

const ROOMY: Capacity = Capacity { warm_bytes_max: 1 << 20, parsed_bytes_max: 1 << 20 };

fn name(text: &str) -> Hostname {
    Hostname::parse(text).unwrap()
}

fn table(capacity: Capacity) -> Table {
    Table::new(capacity, Duration::from_secs(300))
}

fn keep(table: &Table, domain: &str, revision: u64) -> Option<u64> {
    table.keep(&name(domain), opened(domain, revision)).map(|kept| kept.revision)
}

/// The tier that serves a name now, and the revision.
fn served(table: &Table, domain: &str) -> Option<(Tier, u64)> {
    match table.find(&name(domain), crate::tls::now()) {
        Found::Fresh(certificate, tier) | Found::Aging(certificate, tier) => Some((tier, certificate.revision)),
        Found::Absent(_) | Found::Nothing => None,
    }
}

#[test]
fn an_older_revision_never_replaces_a_newer_one() {
    let table = table(ROOMY);
    let kept = |revision| keep(&table, "a.example", revision);
    assert_eq!((kept(2), kept(1), kept(3)), (Some(2), Some(2), Some(3)));
    table.require(&name("a.example"), 5);
    assert_eq!((kept(4), kept(5)), (None, Some(5)));
    assert_eq!(served(&table, "a.example"), Some((Tier::Parsed, 5)));
}

#[test]
fn what_is_not_parsed_any_more_is_parsed_from_memory_once() {
    let table = table(ROOMY);
    keep(&table, "a.example", 1);
    table.forget_parsed();
    assert_eq!(served(&table, "a.example"), Some((Tier::Warm, 1)));
    assert_eq!(served(&table, "a.example"), Some((Tier::Parsed, 1)));
}

#[test]
fn a_parsed_certificate_is_not_served_after_its_warm_one_was_replaced_or_went() {
    let table = table(ROOMY);
    keep(&table, "a.example", 1);
    let stray = table.parsed.get(&name("a.example")).unwrap();
    keep(&table, "a.example", 2);
    // As a slow thread would do that parsed it before.
    table.parsed.insert(name("a.example"), stray.clone());
    assert_eq!(served(&table, "a.example"), Some((Tier::Warm, 2)));
    table.withdraw(&name("a.example"));
    assert_eq!((table.warm.len(), table.parsed.len()), (0, 0));
    table.parsed.insert(name("a.example"), stray.clone());
    assert_eq!(served(&table, "a.example"), None);
    // The same, while the thread is at it: the key does not stay behind.
    assert!(table.parse(&name("a.example"), stray.warm()).is_some());
    table.forget_parsed();
    assert!(table.parse(&name("a.example"), stray.warm()).is_some());
    assert_eq!(table.parsed.len(), 0);
}

#[test]
fn what_ended_is_not_served_and_goes() {
    let table = table(ROOMY);
    keep(&table, "a.example", 1);
    let end = crate::tls::now() + 3600;
    assert!(matches!(table.find(&name("a.example"), end - 30), Found::Aging(..)));
    assert!(matches!(table.find(&name("a.example"), end + 30), Found::Nothing));
    assert_eq!((table.warm.len(), table.parsed.len()), (0, 0));
}

#[test]
fn a_clock_that_jumps_loses_no_certificate_and_has_it_checked_anew() {
    let table = table(ROOMY);
    keep(&table, "a.example", 1);
    let now = crate::tls::now();
    for jumped in [0, now - 86_400, now - 300, now + 300] {
        assert!(matches!(table.find(&name("a.example"), jumped), Found::Aging(..)), "{jumped}");
    }
    // Asked for in vain: not at each visit.
    table.keep_absent(&name("a.example"), Miss::Unavailable("down".into()));
    assert!(matches!(table.find(&name("a.example"), 0), Found::Fresh(..)));
}

#[test]
fn both_tiers_are_bounded_in_bytes() {
    let capacity = Capacity { warm_bytes_max: 64 * 1024, parsed_bytes_max: 64 * 1024 };
    let table = table(capacity);
    for number in 0..300 {
        keep(&table, &format!("n{number}.example"), 1);
        let (warm, parsed) = (table.warm_size(), table.parsed_size());
        assert!(warm.bytes <= capacity.warm_bytes_max && parsed.bytes <= capacity.parsed_bytes_max);
    }
    let (warm, parsed) = (table.warm_size(), table.parsed_size());
    assert!(parsed.entries > 0 && warm.entries > parsed.entries, "{warm:?} {parsed:?}");
}

#[test]
fn a_scan_of_cold_names_does_not_push_hot_ones_out() {
    let table = table(Capacity { warm_bytes_max: 64 * 1024, parsed_bytes_max: 64 * 1024 });
    let hot: Vec<String> = (0..3).map(|n| format!("hot{n}.example")).collect();
    hot.iter().for_each(|domain| assert!(keep(&table, domain, 1).is_some()));
    for number in 0..1000 {
        if number % 5 == 0 {
            hot.iter().for_each(|domain| assert!(served(&table, domain).is_some(), "{domain} at {number}"));
        }
        keep(&table, &format!("cold{number}.example"), 1);
    }
    assert!(hot.iter().all(|domain| served(&table, domain) == Some((Tier::Parsed, 1))));
}
