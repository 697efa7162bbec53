//! CertService, one edge, and what they need, wired together in one temporary folder.

use std::net::SocketAddr;

use crate::certservice::{self, CertService, Issuer};
use crate::edge::{self, Edge};
use crate::folder::{self, Folder};
use crate::mariadb::MariaDb;
use crate::pebble::Pebble;
use crate::redis::Redis;
use crate::visitor::Visitor;
use crate::{Result, port};

/// What a fleet is made of. Default: CertService with SQLite and its internal CA, and one edge.
#[derive(Default, Clone, Copy)]
pub struct Plan {
    pub redis: bool,
    /// The store instead of SQLite.
    pub mariadb: bool,
    /// The issuer instead of the internal CA.
    pub pebble: bool,
    /// An RSA certificate beside the ECDSA one.
    pub rsa: bool,
    /// Wanted where they are free.
    pub https_port: Option<u16>,
    pub http_port: Option<u16>,
    /// Control is shown on the HTTPS listener instead of the plain one.
    pub tls_alpn: bool,
    /// Another edge, with a key of its own and no configuration.
    pub second_edge: bool,
    /// CertService listens on a Unix socket, so that it takes private keys.
    pub certservice_on_socket: bool,
    /// What the edge logs, as RUST_LOG has it; none: as this process.
    pub edge_log: Option<&'static str>,
    /// More sections of CertService's boot file.
    pub certservice_settings: &'static str,
}

/// Fields are dropped, and processes ended, in this order.
pub struct Fleet {
    pub edge: Edge,
    pub second_edge: Option<SecondEdge>,
    pub certservice: CertService,
    pub pebble: Option<Pebble>,
    pub redis: Option<Redis>,
    pub mariadb: Option<MariaDb>,
    pub edge_setup: edge::Setup,
    pub certservice_setup: certservice::Setup,
    pub folder: Folder,
}

pub struct SecondEdge {
    pub edge: Edge,
    pub setup: edge::Setup,
}

impl Fleet {
    pub async fn start(plan: Plan) -> Result<Self> {
        let folder = Folder::new()?;
        let path = folder.path();
        let (https, http) = (listener(plan.https_port)?, listener(plan.http_port)?);
        let redis = if plan.redis { Some(Redis::start(path).await?) } else { None };
        let mariadb = if plan.mariadb { Some(MariaDb::start(path).await?) } else { None };
        let pebble = if plan.pebble { Some(Pebble::start(path, http.port(), https.port()).await?) } else { None };

        let key = edge::generate_key(path)?;
        let issuer = pebble.as_ref().map_or(Issuer::Internal, |pebble| Issuer::Acme {
            directory: pebble.directory.clone(),
            root_file: pebble.api_root.clone(),
            resolver: pebble.resolver,
            ports: (http.port(), https.port()),
            tls_alpn: plan.tls_alpn,
        });
        let second_folder = plan.second_edge.then(|| folder.subfolder("second-edge")).transpose()?;
        let second_key = second_folder.as_deref().map(edge::generate_key).transpose()?;
        let public_keys: Vec<_> =
            [Some(&key), second_key.as_ref()].into_iter().flatten().map(|key| edge::public_key(key)).collect();
        let mut certservice_setup = certservice::Setup::new(path, &public_keys, &[issuer])?;
        certservice_setup.settings = plan.certservice_settings.to_owned();
        certservice_setup.redis_url = redis.as_ref().map(|redis| redis.url.clone());
        certservice_setup.store_url = mariadb.as_ref().map(|mariadb| mariadb.url.clone());
        certservice_setup.rsa = plan.rsa;
        certservice_setup.on_socket = plan.certservice_on_socket;
        let certservice = CertService::start(&certservice_setup).await?;

        let mut edge_setup = edge::Setup::new(path, key, &certservice_setup, https, http)?;
        edge_setup.log = plan.edge_log;
        let edge = Edge::start(&edge_setup).await?;
        let second_edge = match (second_folder, second_key) {
            (Some(folder), Some(key)) => {
                let setup = edge::Setup::new(&folder, key, &certservice_setup, port::free()?, port::free()?)?;
                Some(SecondEdge { edge: Edge::start(&setup).await?, setup })
            }
            _ => None,
        };
        Ok(Self { edge, second_edge, certservice, pebble, redis, mariadb, edge_setup, certservice_setup, folder })
    }

    /// Root of the certificates that visitors are shown.
    pub async fn root(&self) -> Result<String> {
        match &self.pebble {
            Some(pebble) => pebble.issuing_root().await,
            None => folder::read(&self.certservice_setup.internal_root()),
        }
    }

    /// A direct visitor of the HTTPS listener, who trusts that root only.
    pub async fn visitor(&self) -> Result<Visitor> {
        Visitor::to(self.edge_setup.https).trusting(&self.root().await?)
    }

    /// In order, each with time to finish; what does not is ended on drop.
    pub async fn stop(mut self) {
        let _ = self.edge.process.stop().await;
        let _ = self.certservice.process.stop().await;
    }
}

fn listener(wanted: Option<u16>) -> Result<SocketAddr> {
    wanted.map_or_else(port::free, port::prefer)
}
