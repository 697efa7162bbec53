use std::net::SocketAddr;

use super::super::guest::connection::{Client, Outcome as Judged};
use super::super::verify;
use super::*;
use crate::accept::header::{Header, Tlvs, Version};

const TRUSTED: &str = "10.1.2.3:40000";
const STRANGER: &str = "203.0.113.9:40000";
const CLIENT: &str = "192.0.2.7:5555";

fn at(address: &str) -> SocketAddr {
    address.parse().expect("is an address")
}

fn header(client: Option<&str>) -> Header {
    let (source, destination) = (client.map(at), client.map(|_| at("198.51.100.1:443")));
    Header { version: Version::V2, source, destination, local: client.is_none(), tlvs: Tlvs::default() }
}

#[test]
fn a_header_is_expected_of_trusted_peers_only() {
    let binding = bind("proxy-policy", r#"{"trusted": ["10.0.0.0/8", "2001:db8::/32"]}"#);
    let expected = |peer| binding.expect("https", at(peer));
    assert_eq!(expected(TRUSTED), Ok(Expectation::Require));
    assert_eq!(expected("[::ffff:10.1.2.3]:1"), Ok(Expectation::Require));
    assert_eq!(expected("[2001:db8::1]:1"), Ok(Expectation::Require));
    assert_eq!(expected("[2001:db9::1]:1"), Ok(Expectation::Forbid));
    assert_eq!(expected(STRANGER), Ok(Expectation::Forbid));
}

#[test]
fn the_header_names_the_client() {
    let binding = bind("proxy-policy", r#"{"trusted": ["10.0.0.0/8"], "deny": ["192.0.2.8/32"]}"#);
    let judged = |peer, seen: Option<Header>| binding.judge("https", at(peer), seen.as_ref());
    assert_eq!(judged(TRUSTED, Some(header(Some(CLIENT)))), Ok(Outcome::Admit(at(CLIENT))));
    assert_eq!(judged(TRUSTED, Some(header(Some("192.0.2.8:1")))), Ok(Outcome::Reset));
    assert_eq!(judged(TRUSTED, Some(header(None))), Ok(Outcome::Admit(at(TRUSTED))));
    assert_eq!(judged(TRUSTED, None), Ok(Outcome::Reset));
    assert_eq!(judged(STRANGER, None), Ok(Outcome::Admit(at(STRANGER))));
    assert_eq!(judged(STRANGER, Some(header(Some(CLIENT)))), Ok(Outcome::Reset));
}

#[test]
fn a_client_that_no_header_names_is_refused() {
    let outcome = |seen: Option<Header>| verify::outcome(Judged::Admit(Client::FromHeader), at(TRUSTED), seen.as_ref());
    assert_eq!(outcome(Some(header(Some(CLIENT)))), Ok(Outcome::Admit(at(CLIENT))));
    assert_eq!(outcome(Some(header(None))).map_err(|fault| fault.reason()), Err("output"));
    assert_eq!(outcome(None).map_err(|fault| fault.reason()), Err("output"));
}

#[test]
fn an_ipv6_client_keeps_its_address() {
    let binding = bind("proxy-policy", r#"{"trusted": ["::1"], "deny": ["2001:db8::/33"]}"#);
    let judged = |client| binding.judge("https", at("[::1]:1"), Some(&header(Some(client))));
    assert_eq!(judged("[2001:db8:8000::1]:9"), Ok(Outcome::Admit(at("[2001:db8:8000::1]:9"))));
    assert_eq!(judged("[2001:db8:7fff::1]:9"), Ok(Outcome::Reset));
}

#[test]
fn a_bad_network_is_refused_with_its_place() {
    let config = r#"{"trusted": ["10.0.0.1/8"], "deny": ["x"], "header": "maybe"}"#;
    let faults = faults("proxy-policy", config);
    let at: Vec<_> = faults.iter().filter_map(|fault| fault.split(':').next()).collect();
    assert_eq!(at, ["/trusted/0", "/header", "/deny/0"]);
}

#[test]
fn connections_are_counted_by_client_over_all_instances() {
    let binding = bind("proxy-policy", r#"{"trusted": ["10.0.0.0/8"], "rate": {"per_minute": 1, "burst": 3}}"#);
    let admitted = |client: &str, tries: usize| {
        let judged = |_: &usize| binding.judge("https", at(TRUSTED), Some(&header(Some(client)))).expect("answers");
        (0..tries).filter(|n| judged(n) != Outcome::Reset).count()
    };
    assert_eq!(admitted(CLIENT, 5), 3);
    let elsewhere = std::thread::scope(|scope| scope.spawn(|| admitted(CLIENT, 5)).join().expect("ends"));
    assert_eq!(elsewhere, 0, "an instance of another thread counts with them");
    assert_eq!(admitted("192.0.2.8:1", 5), 3);
    binding.forget_rates();
    assert_eq!(admitted(CLIENT, 5), 3);
}
