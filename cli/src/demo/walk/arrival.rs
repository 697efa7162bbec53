//! Who is who: load balancers with the PROXY protocol, pretenders, and names that nobody serves.

use std::net::SocketAddr;

use support::visitor::Visitor;
use support::wait::{PATIENCE, until};
use support::{Result, fail, proxy_header};

use super::super::fleet::Demo;
use super::super::site_config::LOAD_BALANCER;
use super::super::talk::Talk;
use super::seen;

/// An address from the documentation range (RFC 5737): nobody on this machine has it.
const CLIENT: ([u8; 4], u16) = ([203, 0, 113, 7], 51_000);
const CLIENT_IP: &str = "203.0.113.7";

fn header(demo: &Demo) -> Vec<u8> {
    proxy_header::v2(SocketAddr::from(CLIENT), demo.fleet.edge_setup.https)
}

/// The counter when it has grown: what a visitor sees may come a moment before it is counted.
async fn grown(demo: &Demo, name: &str, label: &str, before: f64) -> Result<f64> {
    until(format!("{name}{{{label}}} to grow from {before}"), PATIENCE, async || {
        let now = demo.fleet.edge.admin.metric(name, label).await?;
        if now > before { Ok(now) } else { fail("it has not") }
    })
    .await
}

pub(super) async fn through_a_load_balancer(demo: &Demo, talk: &mut Talk) -> Result<()> {
    talk.step(
        "Behind a load balancer, the customer's server still sees the visitor",
        "A load balancer at 127.0.0.2, which the plugin `proxy-policy` trusts, begins its connection with a PROXY v2\n\
         header: “my client is 203.0.113.7”. TLS follows on the same connection.",
    );
    let balancer = demo.fleet.visitor().await?.from(LOAD_BALANCER).beginning_with(header(demo));
    let answer = balancer.https("shop.localhost").await?.get("shop.localhost", "/").await?;
    talk.evidence("server saw", format!("x-forwarded-for: {}", seen(&answer.seen("x-forwarded-for"))));
    talk.evidence("", format!("forwarded: {}", seen(&answer.seen("forwarded"))));
    let claim = format!("the server was told {CLIENT_IP}, not the load balancer's address");
    talk.check(answer.seen("x-forwarded-for").as_deref() == Some(CLIENT_IP), &claim)
}

pub(super) async fn refuses_untrusted_header(demo: &Demo, talk: &mut Talk) -> Result<()> {
    const REFUSALS: &str = "latchkey_connection_refusals_total";
    talk.step(
        "Somebody else who sends a PROXY header is refused",
        "The same bytes from 127.0.0.1, which is not a load balancer of ours: who could choose its own address could\n\
         walk around every rule that is made by address.",
    );
    const LABEL: &str = "reason=\"proxy_header_untrusted_peer\"";
    let before = demo.fleet.edge.admin.metric(REFUSALS, LABEL).await?;
    let pretender = demo.fleet.visitor().await?.beginning_with(header(demo));
    let refused = pretender.https("shop.localhost").await.err();
    let after = grown(demo, REFUSALS, LABEL, before).await?;
    talk.evidence("the pretender got", refused.as_ref().map_or("a connection".into(), ToString::to_string));
    talk.evidence("counter", format!("{REFUSALS}{{{LABEL}}}: {before} → {after}"));
    talk.check(refused.is_some(), "closed before TLS, and counted")
}

pub(super) async fn overwrites_claims(demo: &Demo, talk: &mut Talk) -> Result<()> {
    talk.step(
        "A visitor's own claims about its address do not get through",
        "A direct visitor sends X-Forwarded-For and Forwarded headers with an address that it made up.",
    );
    let claims = [("x-forwarded-for", "6.6.6.6"), ("forwarded", "for=6.6.6.6")];
    let mut connection = demo.fleet.visitor().await?.https("blog.localhost").await?;
    let answer = connection.send("GET", "blog.localhost", "/", &claims, b"").await?;
    talk.evidence("server saw", format!("x-forwarded-for: {}", seen(&answer.seen("x-forwarded-for"))));
    talk.evidence("", format!("forwarded: {}", seen(&answer.seen("forwarded"))));
    talk.check(!answer.text().contains("6.6.6.6"), "only the address that the proxy itself saw")
}

pub(super) async fn refuses_unknown_name(demo: &Demo, talk: &mut Talk) -> Result<()> {
    const HANDSHAKES: &str = "latchkey_tls_handshakes_total";
    talk.step(
        "A name that nobody registered is refused clearly",
        "No wrong certificate, no hanging: the TLS alert `unrecognized_name` (RFC 6066).",
    );
    const LABEL: &str = "outcome=\"unknown_sni\"";
    let before = demo.fleet.edge.admin.metric(HANDSHAKES, LABEL).await?;
    let refused = Visitor::to(demo.fleet.edge_setup.https).https("stranger.localhost").await.err();
    let after = grown(demo, HANDSHAKES, LABEL, before).await?;
    let told = refused.map_or("a connection".into(), |error| error.to_string());
    talk.evidence("the visitor got", &told);
    talk.evidence("counter", format!("{HANDSHAKES}{{{LABEL}}}: {before} → {after}"));
    talk.check(told.contains("unrecognized name"), "refused by alert, and counted")
}
