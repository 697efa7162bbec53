//! A connection's requests, one after another.

use std::sync::Arc;

use async_trait::async_trait;
use pingora::apps::{HttpPersistentSettings, HttpServerApp, ServerApp};
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::default_h2_options;
use pingora::protocols::{ALPN, Stream};
use pingora::proxy::HttpProxy;
use pingora::server::ShutdownWatch;
use pingora::server::configuration::ServerConf;
use tokio::io::AsyncReadExt;
use tokio::sync::watch;

use super::{Edge, access};
use crate::connection::Connection;
use crate::observe::AccessLog;

/// Pingora's proxy, without what it keeps of an HTTP/1 connection between two requests: a session, buffers, and the
/// state of a request that may never come.
pub struct App {
    proxy: Arc<HttpProxy<Edge>>,
    listener: String,
    access_log: Option<Arc<AccessLog>>,
    /// No further request is waited for.
    closing: watch::Sender<bool>,
}

impl App {
    pub fn new(edge: Edge, conf: Arc<ServerConf>) -> Self {
        let limits = edge.limits.clone();
        let (listener, access_log) = (edge.listener.name.clone(), edge.access_log.clone());
        let mut proxy = HttpProxy::new(edge, conf);
        let mut h2 = default_h2_options();
        h2.max_concurrent_streams(limits.h2_streams_max);
        // The library refuses without a word to us. What is over our limit by less than as much again gets our answer,
        // and is counted.
        h2.max_header_list_size(u32::try_from(limits.header_bytes_max.saturating_mul(2)).unwrap_or(u32::MAX));
        proxy.h2_options = Some(h2);
        proxy.handle_init_modules();
        Self { proxy: Arc::new(proxy), listener, access_log, closing: watch::Sender::new(false) }
    }
}

#[async_trait]
impl ServerApp for App {
    async fn process_new(self: &Arc<Self>, mut stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        if matches!(stream.selected_alpn_proto(), Some(ALPN::H2)) {
            return self.proxy.process_new(stream, shutdown).await;
        }
        let mut kept: Option<HttpPersistentSettings> = None;
        let mut closing = self.closing.subscribe();
        let connection = Connection::of_stream(&stream);
        while is_asked(&mut stream, &mut closing).await {
            let mut session = ServerSession::new_http1(stream);
            // No timer of its own: the guard has the deadlines.
            session.set_keepalive(Some(0));
            if let Some(settings) = kept {
                settings.apply_to_session(&mut session);
            }
            let Some(reusable) = self.proxy.process_new_http(session, shutdown).await else { break };
            (stream, kept) = reusable.consume();
        }
        if let Some(connection) = connection
            && let Some(refusal) = connection.progress.refusal()
        {
            access::refused(&self.listener, self.access_log.as_deref(), &connection, refusal);
        }
        None
    }

    async fn cleanup(&self) {
        self.closing.send_replace(true);
        self.proxy.cleanup().await;
    }
}

/// Waits for a request. False if there will be none: the visitor left, was too slow, or the edge stops.
async fn is_asked(stream: &mut Stream, closing: &mut watch::Receiver<bool>) -> bool {
    tokio::select! {
        biased; // what has come is served
        something = stream.read(&mut []) => something.is_ok(),
        _ = closing.wait_for(|closing| *closing) => false,
    }
}
