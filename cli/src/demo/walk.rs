//! The steps, in the order in which a request meets the parts.

mod arrival;
mod change;

use contract::api::{PutDomain, State};
use support::wait::{PATIENCE, until};
use support::{Context, Result, fail};

use super::fleet::Demo;
use super::talk::Talk;

pub(super) const HSTS_SECONDS: u32 = 86_400;

pub(super) async fn all(demo: &mut Demo, talk: &mut Talk) -> Result<()> {
    registers_domains(demo, talk).await?;
    chooses_certificates(demo, talk).await?;
    adds_hsts(demo, talk).await?;
    redirects(demo, talk).await?;
    arrival::through_a_load_balancer(demo, talk).await?;
    arrival::refuses_untrusted_header(demo, talk).await?;
    arrival::overwrites_claims(demo, talk).await?;
    arrival::refuses_unknown_name(demo, talk).await?;
    change::hot_load(demo, talk).await?;
    change::refuses_mistakes(demo, talk).await?;
    change::survives_without_certservice(demo, talk).await
}

async fn registers_domains(demo: &Demo, talk: &mut Talk) -> Result<()> {
    talk.step(
        "Customers' domains are registered, certificates arrive",
        "Each name goes to CertService's API. It makes a key, has a certificate issued by its own CA, seals the key\n\
         to the edge's public key (only the edge can open it) and stores both in SQLite. The proxy gets its routes\n\
         and plugins through its admin socket.",
    );
    for (name, _) in &demo.sites {
        let start = std::time::Instant::now();
        demo.domains.add(name, &PutDomain::default()).await.context(format!("register {name}"))?;
        let live = until("a certificate", PATIENCE, async || {
            let domain = demo.domains.domain(name).await?;
            if domain.state == State::Live { Ok(domain) } else { fail(format!("{}: {}", domain.code, domain.says)) }
        });
        let certificate = live.await?.certificate.context(format!("{name} is live, but without a certificate"))?;
        let took = start.elapsed().as_millis();
        talk.evidence(name.as_str(), format!("issued by {} after {took} ms", certificate.issued_by));
    }
    let revision = demo.configure(HSTS_SECONDS).await?;
    demo.until_ready().await?;
    talk.evidence("configuration", format!("revision {revision}: 3 sites, 3 plugins"));
    let live = demo.domains.domains().await?.iter().filter(|domain| domain.state == State::Live).count();
    let holds = live == demo.sites.len() && demo.admin.readiness().await?.ready;
    talk.check(holds, &format!("{live} domains are live, the proxy is ready"))
}

async fn chooses_certificates(demo: &Demo, talk: &mut Talk) -> Result<()> {
    talk.step(
        "The certificate follows the name that the visitor asks for (SNI)",
        "One port, three names. The visitor trusts the internal CA's root and nothing else, and verifies the chain\n\
         and the name. The first request for a name fetches its certificate from CertService; then it is in memory.",
    );
    let mut fingerprints = Vec::new();
    for (name, _) in &demo.sites {
        let start = std::time::Instant::now();
        let mut connection = demo.fleet.visitor().await?.https(name.as_str()).await?;
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
    talk.check(fingerprints.len() == demo.sites.len(), "three names, three different certificates")
}

async fn adds_hsts(demo: &Demo, talk: &mut Talk) -> Result<()> {
    talk.step(
        "A WebAssembly plugin adds HSTS",
        "The customer's server sends no Strict-Transport-Security header. The plugin `hsts` does, as configured.",
    );
    let answer = demo.fleet.visitor().await?.https("shop.localhost").await?.get("shop.localhost", "/").await?;
    let header = answer.header("strict-transport-security").unwrap_or("(none)");
    talk.evidence("header", format!("strict-transport-security: {header}"));
    talk.check(header.contains(&format!("max-age={HSTS_SECONDS}")), "browsers will come back over HTTPS only")
}

async fn redirects(demo: &Demo, talk: &mut Talk) -> Result<()> {
    talk.step(
        "A WebAssembly plugin redirects, and port 80 leads to HTTPS",
        "The plugin `redirects` answers /old itself; the customer's server is not asked. The plain HTTP port sends\n\
         everybody to HTTPS (and answers http-01 challenges, where certificates come over ACME).",
    );
    let old =
        demo.fleet.visitor().await?.https("shop.localhost").await?.get("shop.localhost", "/old?from=demo").await?;
    let location = old.header("location").unwrap_or("(none)").to_owned();
    talk.evidence("GET /old?from=demo", format!("{} to {location}", old.status));
    talk.check(old.status == 308 && location.contains("/new"), "the plugin's redirect")?;

    let http = support::visitor::Visitor::to(demo.fleet.edge_setup.http);
    let plain = http.http().await?.get("shop.localhost", "/some/page").await?;
    let location = plain.header("location").unwrap_or("(none)").to_owned();
    talk.evidence("http://…/some/page", format!("{} to {location}", plain.status));
    let https = format!("https://shop.localhost:{}/some/page", demo.fleet.edge_setup.https.port());
    talk.check((300..400).contains(&plain.status) && location == https, "plain HTTP leads to HTTPS")
}

fn seen(what: &Option<String>) -> &str {
    what.as_deref().unwrap_or("(nobody)")
}
