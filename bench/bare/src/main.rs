//! Pingora as it comes, with one certificate and one upstream: the least that a proxy on it costs.

use std::net::SocketAddr;
use std::process::ExitCode;

use async_trait::async_trait;
use clap::Parser;
use pingora::listeners::tls::TlsSettings;
use pingora::proxy::{ProxyHttp, Session, http_proxy_service};
use pingora::server::Server;
use pingora::server::configuration::ServerConf;
use pingora::upstreams::peer::HttpPeer;

/// A proxy that is nothing but Pingora.
#[derive(Parser)]
struct Arguments {
    #[arg(long)]
    listen: SocketAddr,
    #[arg(long)]
    upstream: SocketAddr,
    /// Chain, leaf first, PEM
    #[arg(long)]
    certificate: String,
    /// Private key, PEM
    #[arg(long)]
    key: String,
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Connections kept open to the upstream while idle
    #[arg(long, default_value_t = 1024)]
    pool: usize,
}

struct Bare {
    upstream: SocketAddr,
}

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> pingora::Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.upstream, false, String::new())))
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let conf = ServerConf {
        threads: arguments.threads,
        upstream_keepalive_pool_size: arguments.pool,
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let mut service = http_proxy_service(&server.configuration, Bare { upstream: arguments.upstream });
    let mut tls = match TlsSettings::intermediate(&arguments.certificate, &arguments.key) {
        Ok(tls) => tls,
        Err(error) => {
            eprintln!("bare-pingora: certificate or key: {error}");
            return ExitCode::FAILURE;
        }
    };
    tls.enable_h2();
    service.add_tls_with_settings(&arguments.listen.to_string(), None, tls);
    server.add_service(service);
    server.run_forever();
}
