//! The steps, in the order in which a request meets the parts.

mod arrival;
mod change;

use contract::api::State;
use support::wait::{PATIENCE, until};
use support::{Context, Result, fail};

use super::fleet::Fleet;
use super::talk::Talk;
use contract::api::PutDomain;

pub(super) const HSTS_SECONDS: u32 = 86_400;

pub(super) async fn all(fleet: &mut Fleet, talk: &mut Talk) -> Result<()> {
    registers_domains(fleet, talk).await?;
    chooses_certificates(fleet, talk).await?;
    adds_hsts(fleet, talk).await?;
    redirects(fleet, talk).await?;
    arrival::through_a_load_balancer(fleet, talk).await?;
    arrival::refuses_untrusted_header(fleet, talk).await?;
    arrival::overwrites_claims(fleet, talk).await?;
    arrival::refuses_unknown_name(fleet, talk).await?;
    change::hot_load(fleet, talk).await?;
    change::refuses_mistakes(fleet, talk).await?;
    change::survives_without_certservice(fleet, talk).await
}

async fn registers_domains(fleet: &Fleet, talk: &mut Talk) -> Result<()> {
    talk.step(
        "Customers' domains are registered, certificates arrive",
        "Each name goes to CertService's API. It makes a key, has a certificate issued by its own CA, seals the key\n\
         to the edge's public key (only the edge can open it) and stores both in SQLite. The proxy gets its routes\n\
         and plugins through its admin socket.",
    );
    for (name, _) in &fleet.sites {
        let start = std::time::Instant::now();
        fleet.domains.add(name, &PutDomain::default()).await.context(format!("register {name}"))?;
        let live = until("a certificate", PATIENCE, async || {
            let domain = fleet.domains.domain(name).await?;
            if domain.state == State::Live { Ok(domain) } else { fail(format!("{}: {}", domain.code, domain.says)) }
        });
        let certificate = live.await?.certificate.context(format!("{name} is live, but without a certificate"))?;
        let seconds = start.elapsed().as_secs_f32();
        talk.evidence(name.as_str(), format!("issued by {} after {seconds:.1} s", certificate.issued_by));
    }
    let revision = fleet.configure(HSTS_SECONDS).await?;
    fleet.until_ready().await?;
    talk.evidence("configuration", format!("revision {revision}: 3 sites, 3 plugins"));
    talk.check(true, "three domains are live, the proxy is ready")
}

async fn chooses_certificates(fleet: &Fleet, talk: &mut Talk) -> Result<()> {
    talk.step(
        "The certificate follows the name that the visitor asks for (SNI)",
        "One port, three names. The visitor trusts the internal CA's root and nothing else, and verifies the chain\n\
         and the name. The first request for a name fetches its certificate from CertService; then it is in memory.",
    );
    let mut fingerprints = Vec::new();
    for (name, _) in &fleet.sites {
        let start = std::time::Instant::now();
        let mut connection = fleet.visitor()?.https(name.as_str()).await?;
        let handshake = start.elapsed().as_secs_f32() * 1000.0;
        let answer = connection.get(name.as_str(), "/").await?;
        let names = connection.names();
        talk.evidence(
            name.as_str(),
            format!("covers {}, issued by “{}”, handshake {handshake:.0} ms", names.join(", "), connection.issuer()),
        );
        let claim = format!("{name}: verified, right name, status 200 from {}", seen(&answer.seen("upstream")));
        talk.check(answer.status == 200 && names == [name.as_str()], &claim)?;
        fingerprints.push(connection.fingerprint()?);
    }
    fingerprints.sort();
    fingerprints.dedup();
    talk.check(fingerprints.len() == fleet.sites.len(), "three names, three different certificates")
}

async fn adds_hsts(fleet: &Fleet, talk: &mut Talk) -> Result<()> {
    talk.step(
        "A WebAssembly plugin adds HSTS",
        "The customer's server sends no Strict-Transport-Security header. The plugin `hsts` does, as configured.",
    );
    let answer = fleet.visitor()?.https("shop.localhost").await?.get("shop.localhost", "/").await?;
    let header = answer.header("strict-transport-security").unwrap_or("(none)");
    talk.evidence("header", format!("strict-transport-security: {header}"));
    talk.check(header.contains(&format!("max-age={HSTS_SECONDS}")), "browsers will come back over HTTPS only")
}

async fn redirects(fleet: &Fleet, talk: &mut Talk) -> Result<()> {
    talk.step(
        "A WebAssembly plugin redirects, and port 80 leads to HTTPS",
        "The plugin `redirects` answers /old itself; the customer's server is not asked. The plain HTTP port sends\n\
         everybody to HTTPS (and answers http-01 challenges, where certificates come over ACME).",
    );
    let old = fleet.visitor()?.https("shop.localhost").await?.get("shop.localhost", "/old?from=demo").await?;
    let location = old.header("location").unwrap_or("(none)").to_owned();
    talk.evidence("GET /old?from=demo", format!("{} to {location}", old.status));
    talk.check(old.status == 308 && location.contains("/new"), "the plugin's redirect")?;

    let http = support::visitor::Visitor::to(fleet.edge_setup.http);
    let plain = http.http().await?.get("shop.localhost", "/some/page").await?;
    let location = plain.header("location").unwrap_or("(none)").to_owned();
    talk.evidence("http://…/some/page", format!("{} to {location}", plain.status));
    let https = format!("https://shop.localhost:{}/some/page", fleet.edge_setup.https.port());
    talk.check((300..400).contains(&plain.status) && location == https, "plain HTTP leads to HTTPS")
}

fn seen(what: &Option<String>) -> &str {
    what.as_deref().unwrap_or("(nobody)")
}
