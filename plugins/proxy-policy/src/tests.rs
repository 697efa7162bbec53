use std::net::SocketAddr;

use latchkey_sdk::connection::{HeaderFields, HeaderVersion, check};

use super::*;

const TRUSTED: &str = "10.1.2.3:40000";
const STRANGER: &str = "203.0.113.9:40000";

fn plan(config: &str) -> ProxyPolicy {
    check::<ProxyPolicy>(config).expect("is accepted").0.policy
}

fn faults(config: &str) -> Vec<(String, String, Option<String>)> {
    let diagnostics = check::<ProxyPolicy>(config).expect_err("is refused");
    diagnostics.into_iter().map(|d| (d.at, d.message, d.hint)).collect()
}

fn at(address: &str) -> SocketAddr {
    address.parse().expect("is an address")
}

fn header(client: Option<&str>) -> Seen {
    let fields = HeaderFields {
        checked: false,
        alpn: None,
        authority: None,
        unique_id: None,
        tls: None,
        aws_vpce_id: None,
        azure_link_id: None,
        gcp_psc_id: None,
        others: vec![],
    };
    let (client, local) = (client.map(at), client.is_none());
    Seen::Header(Header { version: HeaderVersion::V2, client, destination: None, local, fields })
}

fn who(peer: &str) -> Connection<'static> {
    Connection { listener: "https", peer: at(peer), found: &[] }
}

/// `peer`, `header` or `reset`.
fn judged(policy: &ProxyPolicy, peer: &str, seen: Seen) -> &'static str {
    match policy.judge(&who(peer), seen) {
        Outcome::Admit(Client::Peer) => "peer",
        Outcome::Admit(Client::FromHeader) => "header",
        Outcome::Reset => "reset",
    }
}

#[test]
fn only_trusted_peers_are_read_for_a_header() {
    let require = plan(r#"{"trusted": ["10.0.0.0/8", "2001:db8::/32"]}"#);
    let expected = |policy: &ProxyPolicy, peer| policy.expect(&who(peer));
    assert_eq!(expected(&require, TRUSTED), Expectation::Require);
    assert_eq!(expected(&require, "[2001:db8::1]:1"), Expectation::Require);
    assert_eq!(expected(&require, STRANGER), Expectation::Forbid);
    assert_eq!(expected(&require, "[2001:db9::1]:1"), Expectation::Forbid);
    let allow = plan(r#"{"trusted": ["10.0.0.0/8"], "header": "allow"}"#);
    assert_eq!(expected(&allow, TRUSTED), Expectation::Allow);
    assert_eq!(expected(&allow, STRANGER), Expectation::Forbid);
}

#[test]
fn a_checksum_and_health_checks_are_a_matter_of_choice() {
    let strict = plan(r#"{"trusted": ["10.0.0.0/8"], "checksum": "require", "local": "reset"}"#);
    assert_eq!(strict.expect(&who(TRUSTED)), Expectation::RequireChecksum);
    assert_eq!(strict.expect(&who(STRANGER)), Expectation::Forbid);
    assert_eq!(judged(&strict, TRUSTED, header(None)), "reset");
    assert_eq!(judged(&strict, TRUSTED, header(Some("192.0.2.7:5"))), "header");
    let faults = faults(r#"{"trusted": ["10.0.0.0/8"], "header": "allow", "checksum": "require"}"#);
    assert_eq!(faults[0].0, "/checksum");
}

#[test]
fn a_trusted_peers_header_names_the_client() {
    let policy = plan(r#"{"trusted": ["10.0.0.0/8"]}"#);
    assert_eq!(judged(&policy, TRUSTED, header(Some("192.0.2.7:5"))), "header");
    assert_eq!(judged(&policy, TRUSTED, header(None)), "peer");
    assert_eq!(judged(&policy, TRUSTED, Seen::Nothing), "reset");
    let allow = plan(r#"{"trusted": ["10.0.0.0/8"], "header": "allow"}"#);
    assert_eq!(judged(&allow, TRUSTED, Seen::Nothing), "peer");
}

#[test]
fn a_stranger_never_gets_a_header_through() {
    let policy = plan(r#"{"trusted": ["10.0.0.0/8"]}"#);
    assert_eq!(judged(&policy, STRANGER, header(Some("192.0.2.7:5"))), "reset");
    assert_eq!(judged(&policy, STRANGER, Seen::Nothing), "peer");
    let closed = plan(r#"{"trusted": ["10.0.0.0/8"], "untrusted": "reset"}"#);
    assert_eq!(judged(&closed, STRANGER, Seen::Nothing), "reset");
}

#[test]
fn denies_the_real_client() {
    let policy = plan(r#"{"trusted": ["10.0.0.0/8"], "deny": ["192.0.2.0/24", "203.0.113.9"]}"#);
    assert_eq!(judged(&policy, TRUSTED, header(Some("192.0.2.255:5"))), "reset");
    assert_eq!(judged(&policy, TRUSTED, header(Some("192.0.3.0:5"))), "header");
    assert_eq!(judged(&policy, STRANGER, Seen::Nothing), "reset");
    assert_eq!(judged(&policy, "203.0.113.8:1", Seen::Nothing), "peer");
}

#[test]
fn ranges_have_exact_ends() {
    let policy = plan(r#"{"trusted": ["10.0.0.0/31", "10.0.0.4/30", "10.0.0.5", "::1", "0.0.0.0/32"]}"#);
    let trusted: Vec<u8> = (0..12).filter(|n| policy.trusted.contains([10, 0, 0, *n].into())).collect();
    assert_eq!(trusted, [0, 1, 4, 5, 6, 7]);
    assert!(policy.trusted.contains(at("[::1]:1").ip()) && !policy.trusted.contains(at("[::2]:1").ip()));
    assert!(policy.trusted.contains(at("0.0.0.0:1").ip()) && !policy.trusted.contains(at("0.0.0.1:1").ip()));
}

#[test]
fn reports_every_bad_network_with_what_to_write() {
    let config = r#"{"trusted": ["10.0.0.1/8", "10.0.0.0/33", "shop.example", "2001:db8::1/32", "10.0.0.0/+8",
        "::ffff:10.0.0.0/104"], "deny": [7], "heder": "allow"}"#;
    let faults = faults(config);
    let at: Vec<_> = faults.iter().map(|(at, ..)| at.as_str()).collect();
    assert_eq!(
        at,
        ["/heder", "/trusted/0", "/trusted/1", "/trusted/2", "/trusted/3", "/trusted/4", "/trusted/5", "/deny/0"]
    );
    assert_eq!(faults[0].2.as_deref(), Some("did you mean `header`?"));
    assert_eq!(faults[1].2.as_deref(), Some("did you mean `10.0.0.0/8`?"));
    assert_eq!(faults[4].2.as_deref(), Some("did you mean `2001:db8::/32`?"));
}

#[test]
fn refuses_to_reset_everybody_and_warns_of_trusting_everybody() {
    let closed = faults(r#"{"trusted": [], "untrusted": "reset"}"#);
    assert_eq!(closed[0].0, "/untrusted");
    let (_, warnings) = check::<ProxyPolicy>(r#"{"trusted": ["0.0.0.0/0"]}"#).expect("is accepted");
    assert_eq!(warnings[0].at, "/trusted");
}

#[test]
fn only_listed_private_endpoints_are_let_in() {
    let policy = plan(
        r#"{"trusted": ["10.0.0.0/8"], "endpoints": ["aws:vpce-08d2bf15fac5001c9", "azure:33555234", "gcp:13426798"]}"#,
    );
    let through = |change: fn(&mut HeaderFields)| {
        let Seen::Header(mut seen) = header(Some("192.0.2.7:5")) else { panic!() };
        change(&mut seen.fields);
        judged(&policy, TRUSTED, Seen::Header(seen))
    };
    assert_eq!(through(|fields| fields.aws_vpce_id = Some("vpce-08d2bf15fac5001c9".into())), "header");
    assert_eq!(through(|fields| fields.azure_link_id = Some(33_555_234)), "header");
    assert_eq!(through(|fields| fields.gcp_psc_id = Some(13_426_798)), "header");
    assert_eq!(through(|fields| fields.gcp_psc_id = Some(33_555_234)), "reset", "of another cloud");
    assert_eq!(through(|_| ()), "reset");
    assert_eq!(judged(&policy, TRUSTED, header(None)), "peer", "a health check");
    assert_eq!(judged(&policy, STRANGER, Seen::Nothing), "reset");
    let faults = faults(r#"{"trusted": [], "endpoints": ["vpce-1", "azure:x", "gcp:-1", "aws:x"]}"#);
    assert_eq!(faults.len(), 4, "{faults:?}");
    assert_eq!(self::faults(r#"{"trusted": [], "endpoints": []}"#)[0].0, "/endpoints");
}

#[test]
fn one_version_may_be_all_that_is_taken() {
    let of = |version: &str| plan(&format!(r#"{{"trusted": ["10.0.0.0/8"], "version": "{version}"}}"#));
    let outcomes = ["any", "v1", "v2"].map(|version| judged(&of(version), TRUSTED, header(Some("192.0.2.7:5"))));
    assert_eq!(outcomes, ["header", "reset", "header"]);
    assert_eq!(faults(r#"{"trusted": [], "version": "v1", "checksum": "require"}"#)[0].0, "/version");
}

#[test]
fn a_rate_is_checked() {
    let faults = faults(r#"{"trusted": [], "rate": {"per_minute": 0}}"#);
    let at: Vec<_> = faults.iter().map(|(at, ..)| at.as_str()).collect();
    assert_eq!(at, ["/rate/per_minute", "/rate"]);
}
