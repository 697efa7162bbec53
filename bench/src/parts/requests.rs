//! (a) Requests on connections that are kept, through TLS, to one upstream.

use std::collections::HashMap;

use support::folder::{self, Folder};
use support::{Context, Result, fail};

use super::{Cost, Effort, Measured, cost, note};
use crate::cores;
use crate::load::client::{Client, Group, Protocol};
use crate::load::requests::{Load, ask};
use crate::names::Issuer;
use crate::peers::{self, HSTS_SECONDS, LatchkeySetup, Missing, Server, Site};
use crate::report::{Case, show};
use crate::standin;

/// The edge has its plugins by site: one host without, one with them.
const PLAIN: &str = "plain.shop.example";
const POLICIES: &str = "shop.example";
const REDIRECTS: usize = 10;

pub(super) async fn run(effort: Effort) -> Result<Measured> {
    let folder = Folder::new()?;
    let redirects: Vec<_> = (0..REDIRECTS).map(|n| (format!("/old/{n}"), format!("/new/{n}"))).collect();
    let upstream = standin::upstream().await?;
    cores::as_servers()?;
    let issuer = Issuer::new(folder.path())?;
    let (plain, policies) = (issuer.issue(PLAIN)?, issuer.issue(POLICIES)?);
    let bundles = [&plain, &policies].map(|name| Ok((name.host.clone(), issuer.token(name)?)));
    let certservice = standin::certservice(0, bundles.into_iter().collect::<Result<HashMap<_, _>>>()?).await?;

    let [chain, key, both] = ["chain.pem", "key.pem", "both.pem"].map(|file| folder.path().join(file));
    let (chain_pem, key_pem) = (issuer.chain_pem(&policies)?, policies.key.private_key_to_pem_pkcs8()?);
    folder::write(&chain, &chain_pem)?;
    folder::write(&key, &key_pem)?;
    folder::write(&both, [chain_pem, key_pem].concat())?;
    let site = Site {
        folder: folder.path(),
        host: POLICIES,
        upstream: upstream.address,
        chain,
        key,
        both,
        redirects: &redirects,
    };
    let setup = LatchkeySetup {
        folder: folder.path(),
        certservice: certservice.address,
        redis_url: None,
        upstream: upstream.address,
        redirects: &redirects,
        warm_mib_max: 64,
    };
    let edge = setup.start_with_plugins(PLAIN, POLICIES).await.context("the edge")?;
    let (mut servers, missing) = peers::proxies(&site).await;
    servers.insert(0, edge.server);
    cores::as_load()?;

    let mut measured = Measured::of(&servers, missing);
    for protocol in [Protocol::Http1, Protocol::Http2] {
        for policies in [false, true] {
            let mut fit = Vec::new();
            for door in doors(&servers, protocol, policies)? {
                match door.check(&redirects).await {
                    Ok(()) => fit.push(door),
                    Err(error) if door.server.name == peers::LATCHKEY => return Err(error).context(door.case()),
                    Err(error) => {
                        let peer = format!("{}, {}", door.server.name, door.case());
                        measured.missing.push(Missing { peer, why: error.to_string() });
                    }
                }
            }
            measure(effort, fit, &mut measured).await?;
        }
    }
    Ok(measured)
}

/// One server's listener for a case.
struct Door<'a> {
    server: &'a Server,
    client: Client,
    protocol: Protocol,
    policies: bool,
    host: &'static str,
}

/// Bare Pingora has no policies: it stands beside those who have, for comparison.
fn doors(servers: &[Server], protocol: Protocol, policies: bool) -> Result<Vec<Door<'_>>> {
    let mut doors = Vec::new();
    for server in servers {
        let (address, behind_balancer) = match server.addresses.policies {
            Some(address) if policies => (address, true),
            _ => (server.addresses.plain, false),
        };
        let client = Client::new(address, Group::X25519, protocol)?.behind_balancer(behind_balancer);
        let host = if server.name == peers::LATCHKEY && !policies { PLAIN } else { POLICIES };
        doors.push(Door { server, client, protocol, policies: behind_balancer, host });
    }
    Ok(doors)
}

impl Door<'_> {
    fn case(&self) -> String {
        let protocol = if self.protocol == Protocol::Http1 { "HTTP/1.1" } else { "HTTP/2" };
        format!("{protocol}, {} plugins", if self.policies { 3 } else { 0 })
    }

    async fn round(&self, effort: Effort) -> Result<Cost> {
        let mut load = Load::start(&self.client, self.protocol, self.host).await?;
        cost(effort, self.server.meter(), || load.answered()).await
    }

    /// It does what is measured: an answer from the upstream, and with policies a redirect and HSTS.
    async fn check(&self, redirects: &[(String, String)]) -> Result<()> {
        let answer = ask(&self.client, self.protocol, self.host, "/").await?;
        let hsts = answer.head.contains(&format!("max-age={HSTS_SECONDS}"));
        if answer.status != 200 || answer.body_bytes != standin::BODY_BYTES || hsts != self.policies {
            return fail(format!("not the answer that was expected: {answer:?}"));
        }
        if self.policies {
            let (from, to) = redirects.last().context("a redirect")?;
            let answer = ask(&self.client, self.protocol, self.host, from).await?;
            if answer.status != 308 || !answer.head.contains(to) {
                return fail(format!("not the redirect that was expected: {answer:?}"));
            }
        }
        Ok(())
    }
}

/// A peer that fails is missing from then on; the edge must not fail.
async fn measure(effort: Effort, mut doors: Vec<Door<'_>>, into: &mut Measured) -> Result<()> {
    let Some(name) = doors.first().map(Door::case) else { return fail("no server") };
    let mut case = Case::new(name.clone(), "µs CPU per request");
    let mut busy = Case::new(format!("{name}: how busy"), "% of a core");
    for _ in 0..effort.rounds {
        for door in std::mem::take(&mut doors) {
            match door.round(effort).await {
                Ok(cost) => {
                    note(&mut case, &mut busy, door.server.name, &cost);
                    doors.push(door);
                }
                Err(error) if door.server.name == peers::LATCHKEY => return Err(error).context(name),
                Err(error) => {
                    [&mut case, &mut busy].into_iter().for_each(|case| case.remove(door.server.name));
                    into.missing
                        .push(Missing { peer: format!("{}, {name}", door.server.name), why: error.to_string() });
                }
            }
        }
    }
    show(&case);
    into.cases.extend([case, busy]);
    Ok(())
}
