use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use contract::Hostname;
use support::edge::Edge;
use support::fleet::{Fleet, Plan};
use support::upstream::Upstream;
use support::wait::until;
use support::{Result, fail, port, program};

use super::site_config::{PLUGINS, SiteConfig};
use super::talk::Talk;
use crate::args::CertServiceArgs;
use crate::client::{Admin, CertService, Order};

const HTTPS_PORT: u16 = 8443;
const HTTP_PORT: u16 = 8080;
const NAMES: [&str; 3] = ["shop.localhost", "blog.localhost", "bücher.localhost"];

/// The fleet, the customers' servers behind it, and the operator's clients of both APIs.
pub(super) struct Demo {
    pub(super) fleet: Fleet,
    pub(super) admin: Admin,
    pub(super) domains: CertService,
    /// Host → URL of its server.
    pub(super) sites: Vec<(Hostname, String)>,
    /// Plugin → digest.
    digests: BTreeMap<&'static str, String>,
    _upstreams: Vec<Upstream>,
}

impl Demo {
    pub(super) async fn start(plugin_folder: PathBuf, redis: bool, talk: &Talk) -> Result<Self> {
        if redis && program::find("redis-server").is_none() {
            return fail("redis-server is not installed: `apt-get install redis-server`, or `make demo REDIS=1`");
        }
        talk.say("Starting a whole fleet on loopback, in a temporary folder of its own:");
        let plan = Plan { redis, https_port: Some(HTTPS_PORT), http_port: Some(HTTP_PORT), ..Plan::default() };
        let fleet = Fleet::start(plan).await?;
        let (mut upstreams, mut sites) = (Vec::new(), Vec::new());
        for name in NAMES {
            let upstream = Upstream::start(&format!("the server of {name}"), port::free()?).await?;
            sites.push((Hostname::parse(name)?, upstream.url()));
            upstreams.push(upstream);
        }
        let admin = Admin::local(fleet.edge_setup.admin_socket())?;
        let domains = CertService::new(&CertServiceArgs {
            certservice: Some(fleet.certservice_setup.url().parse().or_else(|error: String| fail(error))?),
            token: None,
            token_file: Some(fleet.certservice_setup.operator_token_file()),
            ca_file: None,
            cert_file: None,
            key_file: None,
        })?;
        let digests = push_plugins(&fleet.edge, &plugin_folder).await?;
        let demo = Self { fleet, admin, domains, sites, digests, _upstreams: upstreams };
        demo.introduce(talk);
        Ok(demo)
    }

    fn introduce(&self, talk: &Talk) {
        if let Some(redis) = &self.fleet.redis {
            talk.evidence("Redis", format!("{}, certificates for all edges, keys sealed", redis.url));
        }
        let certservice = self.fleet.certservice_setup.url();
        talk.evidence("CertService", format!("{certservice}, SQLite, a certificate authority of its own"));
        for (name, url) in &self.sites {
            talk.evidence("customer's server", format!("{url} for {name}, answers with what it saw of a request"));
        }
        let edge = &self.fleet.edge_setup;
        talk.evidence(
            "proxy",
            format!("https://{} and http://{}, 3 signed plugins in WebAssembly", edge.https, edge.http),
        );
    }

    /// Puts the demo's configuration in force, with this HSTS age: its revision.
    pub(super) async fn configure(&self, hsts_seconds: u32) -> Result<u64> {
        let config = SiteConfig { digests: &self.digests, sites: &self.sites, hsts_seconds };
        Ok(self.admin.apply(format!("{:#}", config.json()), Order::APPLY).await?.revision)
    }

    pub(super) async fn until_ready(&self) -> Result<()> {
        let ready = until("the proxy to be ready", support::wait::PATIENCE, async || {
            let readiness = self.admin.readiness().await?;
            if readiness.ready { Ok(()) } else { fail(readiness.reasons.join("; ")) }
        });
        ready.await
    }

    /// The ends of the logs, which are kept.
    pub(super) fn last_words(&mut self) -> String {
        let parts = [&self.fleet.certservice.process, &self.fleet.edge.process];
        let tails = parts.map(|part| format!("---- last lines of {}\n{}", part.log_file().display(), part.log_tail()));
        let mut words = tails.to_vec();
        words.extend(
            self.fleet.folder.keep().map(|folder| format!("all logs and data are kept in {}", folder.display())),
        );
        words.join("\n")
    }

    /// Waits for ever, or until something that should run does not.
    pub(super) async fn until_a_part_dies(&mut self) -> Result<()> {
        let mut tick = tokio::time::interval(std::time::Duration::from_secs(1));
        loop {
            self.fleet.edge.process.check_running()?;
            self.fleet.certservice.process.check_running()?;
            if let Some(redis) = &mut self.fleet.redis {
                redis.process.check_running()?;
            }
            tick.tick().await;
        }
    }
}

async fn push_plugins(edge: &Edge, folder: &Path) -> Result<BTreeMap<&'static str, String>> {
    let mut digests = BTreeMap::new();
    for plugin in PLUGINS {
        digests.insert(plugin, edge.push(&folder.join(format!("{plugin}.wasm"))).await?);
    }
    Ok(digests)
}
