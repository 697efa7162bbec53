use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use contract::Hostname;
use support::certservice::{self, CertService, Issuer};
use support::edge::{self, Edge};
use support::folder::{Folder, read};
use support::redis::Redis;
use support::upstream::Upstream;
use support::visitor::Visitor;
use support::wait::until;
use support::{Context, Result, fail, port, program};

use super::site_config::{PLUGINS, SiteConfig};
use super::talk::Talk;
use crate::args::CertServiceArgs;
use crate::client::{self, Target};

const HTTPS_PORT: u16 = 8443;
const HTTP_PORT: u16 = 8080;
const NAMES: [&str; 3] = ["shop.localhost", "blog.localhost", "bücher.localhost"];

/// Everything that runs. Dropped in this order: visitors' side first, the folder last.
pub(super) struct Fleet {
    pub(super) edge: Edge,
    pub(super) certservice: CertService,
    pub(super) redis: Option<Redis>,
    pub(super) edge_setup: edge::Setup,
    pub(super) certservice_setup: certservice::Setup,
    pub(super) admin: client::Admin,
    pub(super) domains: client::CertService,
    pub(super) sites: Vec<(Hostname, String)>,
    /// Plugin → digest.
    pub(super) digests: BTreeMap<&'static str, String>,
    plugin_folder: PathBuf,
    _upstreams: Vec<Upstream>,
    folder: Folder,
}

impl Fleet {
    pub(super) async fn start(plugin_folder: PathBuf, with_redis: bool, talk: &Talk) -> Result<Self> {
        let folder = Folder::new()?;
        talk.say("Starting a whole fleet on loopback, in a temporary folder of its own:");
        let redis = if with_redis { Some(start_redis(folder.path()).await?) } else { None };
        if let Some(redis) = &redis {
            talk.evidence("Redis", format!("{}: certificates with sealed keys, shared by all edges", redis.url));
        }

        let key = edge::generate_key(folder.path())?;
        let mut certservice_setup =
            certservice::Setup::new(folder.path(), &[edge::public_key(&key)], &[Issuer::Internal])?;
        certservice_setup.redis_url = redis.as_ref().map(|redis| redis.url.clone());
        let certservice = CertService::start(&certservice_setup).await?;
        talk.evidence(
            "CertService",
            format!("{}: SQLite, a certificate authority of its own", certservice_setup.url()),
        );

        let (mut upstreams, mut sites) = (Vec::new(), Vec::new());
        for name in NAMES {
            let upstream = Upstream::start(&format!("the server of {name}"), port::free()?).await?;
            talk.evidence("customer's server", format!("{}: {name}, says what it saw of a request", upstream.url()));
            sites.push((Hostname::parse(name)?, upstream.url()));
            upstreams.push(upstream);
        }

        let mut edge_setup = edge::Setup::new(folder.path(), key, &certservice_setup)?;
        edge_setup.https = port::prefer(HTTPS_PORT)?;
        edge_setup.http = port::prefer(HTTP_PORT)?;
        let edge = Edge::start(&edge_setup).await?;
        talk.evidence(
            "proxy",
            format!("https on {}, http on {}; its key never leaves it", edge_setup.https, edge_setup.http),
        );

        let admin = client::Admin::new(&Target::Unix(edge_setup.admin_socket()))?;
        let domains = client::CertService::new(&CertServiceArgs {
            certservice: Some(certservice_setup.url().parse().map_err(|e: String| e).or_else(fail)?),
            token: None,
            token_file: Some(certservice_setup.operator_token_file()),
            ca_file: None,
        })?;
        let mut fleet = Self {
            edge,
            certservice,
            redis,
            edge_setup,
            certservice_setup,
            admin,
            domains,
            sites,
            digests: BTreeMap::new(),
            plugin_folder,
            _upstreams: upstreams,
            folder,
        };
        fleet.push_plugins().await?;
        Ok(fleet)
    }

    async fn push_plugins(&mut self) -> Result<()> {
        for plugin in PLUGINS {
            let file = self.plugin_folder.join(format!("{plugin}.wasm"));
            let (digest, _) = self.admin.push(std::fs::read(&file).context(file.display())?).await?;
            self.digests.insert(plugin, digest);
        }
        Ok(())
    }

    /// Puts the demo's configuration in force, with this HSTS age: its revision.
    pub(super) async fn configure(&self, hsts_seconds: u32) -> Result<u64> {
        let config = SiteConfig { digests: &self.digests, sites: &self.sites, hsts_seconds };
        Ok(self.admin.apply(format!("{:#}", config.json()), None).await?)
    }

    pub(super) async fn until_ready(&self) -> Result<()> {
        let ready = until("the proxy to be ready", support::wait::PATIENCE, async || {
            let readiness = self.admin.readiness().await?;
            if readiness.ready { Ok(()) } else { fail(readiness.reasons.join(", ")) }
        });
        ready.await
    }

    /// Root of the internal CA.
    pub(super) fn root(&self) -> Result<String> {
        read(&self.certservice_setup.internal_root())
    }

    /// A direct visitor, who trusts the internal CA only.
    pub(super) fn visitor(&self) -> Result<Visitor> {
        Visitor::to(self.edge_setup.https).trusting(&self.root()?)
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn last_words(&mut self) -> String {
        let mut words = vec![super::last_words(&self.certservice.process), super::last_words(&self.edge.process)];
        words.extend(self.folder.keep().map(|folder| format!("all logs and data are kept in {}", folder.display())));
        words.join("\n")
    }

    /// Waits for ever, or until something that should run does not.
    pub(super) async fn until_a_part_dies(&mut self) -> Result<()> {
        loop {
            self.edge.process.check_running()?;
            self.certservice.process.check_running()?;
            if let Some(redis) = &mut self.redis {
                redis.process.check_running()?;
            }
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        }
    }

    /// In order, each with time to finish; what does not is ended on drop.
    pub(super) async fn stop(mut self) {
        let _ = self.edge.process.stop().await;
        let _ = self.certservice.process.stop().await;
        if let Some(redis) = &mut self.redis {
            let _ = redis.process.stop().await;
        }
    }
}

async fn start_redis(folder: &Path) -> Result<Redis> {
    if program::find("redis-server").is_none() {
        return fail("redis-server is not installed: `apt-get install redis-server`, or `make demo REDIS=1`");
    }
    Redis::start(folder).await
}
