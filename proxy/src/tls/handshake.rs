//! The handshake. A certificate in memory is set from the SNI callback, without suspending; else the handshake is
//! suspended, the certificate waited for, and a refusal is told to the client by its proper alert.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use contract::Hostname;
use openssl::error::ErrorStack;
use openssl::ex_data::Index;
use openssl::ssl::{
    AlpnError, NameType, SniError, Ssl, SslAcceptor, SslAlert, SslContext, SslMethod, SslOptions, SslRef, SslVersion,
    select_next_proto,
};
use pingora::protocols::l4::stream::Stream as L4Stream;
use pingora::protocols::tls::SslStream;
use pingora::tls::ext;
use tokio::io::AsyncWriteExt;

use super::ffi;
use super::known::Known;
use super::miss::{Miss, Misses};
use super::table::{Found, Table, Tier};
use super::warm::Certificate;
use crate::connection::{Connection, Handshake};
use crate::observe::{METRICS, TOP};

/// Hybrid post-quantum first (`X25519MLKEM768`), then what every client has.
const GROUPS: &str = "X25519MLKEM768:X25519:P-256:P-384";
/// TLS 1.2: forward secrecy and AEAD only.
const CIPHERS_TLS12: &str = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:\
ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES256-GCM-SHA384:ECDHE-RSA-CHACHA20-POLY1305";
const ALPN: &[u8] = b"\x02h2\x08http/1.1";

pub struct Terminator {
    context: SslContext,
    state: Index<Ssl, Arc<State>>,
    misses: Arc<Misses>,
    /// From the first byte to a finished handshake.
    handshake_timeout: Duration,
    /// How long of it is spent waiting for a certificate.
    load_timeout: Duration,
}

/// What the SNI callback found out; one per handshake.
struct State {
    client: IpAddr,
    named: OnceLock<Named>,
    /// What answered for the certificate.
    tier: OnceLock<Tier>,
}

enum Named {
    /// From memory, and set.
    Served(Hostname),
    /// To be waited for.
    Missing(Hostname),
    Refused(Refusal),
}

#[derive(Debug, Clone, thiserror::Error)]
enum Refusal {
    #[error("the client named no host (SNI, RFC 6066 section 3)")]
    NoSni,
    #[error("the client named something that is not a host: {0}")]
    MalformedSni(String),
    #[error("{0}: {1}")]
    Miss(Hostname, Miss),
}

/// A handshake that came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum Unfinished {
    #[error("{0}")]
    Refused(String, &'static str),
    #[error("what came is not TLS")]
    NotTls,
    #[error("the client and this server could not agree, or the client broke off: {0}")]
    Protocol(String),
    #[error("not finished within {0:?}")]
    TimedOut(Duration),
    #[error("OpenSSL: {0}")]
    Internal(#[from] ErrorStack),
}

impl Unfinished {
    /// Label of the counter.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Refused(_, reason) => reason,
            Self::NotTls => "not_tls",
            Self::Protocol(_) => "protocol",
            Self::TimedOut(_) => "timed_out",
            Self::Internal(_) => "internal",
        }
    }
}

impl From<Refusal> for Unfinished {
    fn from(refusal: Refusal) -> Self {
        let reason = match &refusal {
            Refusal::NoSni => "no_sni",
            Refusal::MalformedSni(_) => "malformed_sni",
            Refusal::Miss(_, miss) => miss.reason(),
        };
        Self::Refused(refusal.to_string(), reason)
    }
}

impl Terminator {
    pub fn new(
        table: Arc<Table>,
        known: Arc<Known>,
        misses: Arc<Misses>,
        handshake_timeout: Duration,
        load_timeout: Duration,
    ) -> Result<Self, ErrorStack> {
        let state = Ssl::new_ex_index::<Arc<State>>()?;
        let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server())?;
        builder.set_min_proto_version(Some(SslVersion::TLS1_2))?;
        builder.set_cipher_list(CIPHERS_TLS12)?;
        builder.set_groups_list(GROUPS)?;
        builder.set_options(SslOptions::NO_RENEGOTIATION);
        builder.clear_options(SslOptions::CIPHER_SERVER_PREFERENCE);
        // Fewer reads: a record's header and body come in one.
        builder.set_read_ahead(true);
        builder.set_session_id_context(b"latchkey")?;
        builder.set_alpn_select_callback(|_, offered| select_next_proto(ALPN, offered).ok_or(AlpnError::NOACK));
        let refreshed = misses.clone();
        builder
            .set_servername_callback(move |ssl, alert| on_server_name(ssl, alert, state, &table, &known, &refreshed));
        Ok(Self { context: builder.build().into_context(), state, misses, handshake_timeout, load_timeout })
    }

    pub async fn handshake(
        &self,
        stream: L4Stream,
        connection: &Connection,
    ) -> Result<SslStream<L4Stream>, Unfinished> {
        let started = Instant::now();
        let finished = tokio::time::timeout(self.handshake_timeout, self.accept(stream, connection)).await;
        let stream = finished.map_err(|_| Unfinished::TimedOut(self.handshake_timeout))??;
        METRICS.handshakes.with_label_values(&["ok"]).inc();
        if let Some(handshake) = connection.handshake.get() {
            METRICS.handshake_seconds.with_label_values(&[handshake.tier]).observe(started.elapsed().as_secs_f64());
        }
        Ok(stream)
    }

    async fn accept(&self, stream: L4Stream, connection: &Connection) -> Result<SslStream<L4Stream>, Unfinished> {
        let state = Arc::new(State { client: connection.client.0.ip(), named: OnceLock::new(), tier: OnceLock::new() });
        let mut ssl = Ssl::new(&self.context)?;
        ssl.set_ex_data(self.state, state.clone());
        let mut stream = SslStream::new(ssl, stream).map_err(|e| Unfinished::Protocol(e.to_string()))?;
        let accepted = match stream.accept().await {
            Err(error) if ext::is_suspended_for_cert(&error) => self.resume(&mut stream, &state).await?,
            accepted => accepted,
        };
        match (accepted, state.named.get()) {
            (Ok(()), Some(Named::Served(name) | Named::Missing(name))) => {
                let _ = connection.sni.set(name.clone());
                let tier = state.tier.get().map_or("none", |tier| tier.label());
                let _ = connection.handshake.set(agreed(stream.ssl(), tier));
                TOP.handshake(name.as_str());
                Ok(stream)
            }
            (_, Some(Named::Refused(refusal))) => {
                if let Refusal::Miss(name, Miss::Unknown) = refusal {
                    TOP.unknown_sni(name.as_str());
                }
                Err(refusal.clone().into())
            }
            (Ok(()), None) => Err(Refusal::NoSni.into()),
            (Err(error), _) => Err(unfinished(&error)),
        }
    }

    /// The name was not in memory: waits for it, then goes on or tells the client why not.
    async fn resume(
        &self,
        stream: &mut SslStream<L4Stream>,
        state: &State,
    ) -> Result<Result<(), openssl::ssl::Error>, Unfinished> {
        let Some(Named::Missing(name)) = state.named.get() else {
            return Err(Refusal::NoSni.into());
        };
        match self.misses.wait(name, self.load_timeout).await {
            Ok((certificate, tier)) => {
                let _ = state.tier.set(tier);
                ffi::with_ssl(stream, |ssl| {
                    ext::unblock_ssl_cert(ssl);
                    certificate.apply(ssl)
                })?;
                Ok(stream.accept().await)
            }
            Err(miss) => {
                if matches!(miss, Miss::Unknown) {
                    TOP.unknown_sni(name.as_str());
                }
                send_alert(stream, alert_for(&miss)).await;
                Err(Refusal::Miss(name.clone(), miss).into())
            }
        }
    }
}

fn agreed(ssl: &SslRef, tier: &'static str) -> Handshake {
    Handshake {
        version: ssl.version_str(),
        cipher: ssl.current_cipher().map_or("", |cipher| cipher.name()),
        group: None,
        resumed: ssl.session_reused(),
        tier,
    }
}

fn on_server_name(
    ssl: &mut SslRef,
    alert: &mut SslAlert,
    state: Index<Ssl, Arc<State>>,
    table: &Table,
    known: &Known,
    misses: &Arc<Misses>,
) -> Result<(), SniError> {
    let Some(state) = ssl.ex_data(state).cloned() else {
        return Err(SniError::ALERT_FATAL);
    };
    // A HelloRetryRequest brings the callback a second time: the first answer stands, and is set already.
    if state.named.get().is_some() {
        return Ok(());
    }
    let (named, refused_by) = match ssl.servername(NameType::HOST_NAME).map(Hostname::from_wire) {
        None => (Named::Refused(Refusal::NoSni), Some(SslAlert::MISSING_EXTENSION)),
        Some(Err(error)) => {
            (Named::Refused(Refusal::MalformedSni(error.to_string())), Some(SslAlert::UNRECOGNIZED_NAME))
        }
        Some(Ok(name)) => choose(ssl, name, &state, table, known, misses),
    };
    let _ = state.named.set(named);
    match refused_by {
        Some(by) => {
            *alert = by;
            Err(SniError::ALERT_FATAL)
        }
        None => Ok(()),
    }
}

fn choose(
    ssl: &mut SslRef,
    name: Hostname,
    state: &State,
    table: &Table,
    known: &Known,
    misses: &Arc<Misses>,
) -> (Named, Option<SslAlert>) {
    let started = Instant::now();
    let serve = |ssl: &mut SslRef, certificate: &Certificate, tier: Tier, name: Hostname| match certificate.apply(ssl) {
        Ok(()) => {
            METRICS.certificate_lookups.with_label_values(&[tier.label(), "hit"]).inc();
            METRICS.certificate_cost(tier.label(), started.elapsed());
            let _ = state.tier.set(tier);
            (Named::Served(name), None)
        }
        Err(error) => {
            let miss = Miss::Rejected(error.to_string());
            (Named::Refused(Refusal::Miss(name, miss)), Some(SslAlert::INTERNAL_ERROR))
        }
    };
    let not_in_memory = |result: &str| METRICS.certificate_lookups.with_label_values(&["warm", result]).inc();
    match table.find(&name, super::now()) {
        Found::Fresh(certificate, tier) => serve(ssl, &certificate, tier, name),
        Found::Aging(certificate, tier) => {
            misses.refresh(&name);
            serve(ssl, &certificate, tier, name)
        }
        Found::Absent(miss) => {
            not_in_memory("absent");
            let alert = alert_for(&miss);
            (Named::Refused(Refusal::Miss(name, miss)), Some(alert))
        }
        // Who joins a load that is under way costs nothing more.
        Found::Nothing
            if !(known.may_exist(name.as_str())
                || misses.loading(&name)
                || known.may_look_up_unlisted(name.as_str(), state.client)) =>
        {
            not_in_memory("unknown_name");
            (Named::Refused(Refusal::Miss(name, Miss::Unknown)), Some(SslAlert::UNRECOGNIZED_NAME))
        }
        Found::Nothing => {
            not_in_memory("miss");
            ext::suspend_when_need_ssl_cert(ssl);
            (Named::Missing(name), None)
        }
    }
}

/// RFC 6066 section 3 for a name we do not serve; a passing fault is ours.
fn alert_for(miss: &Miss) -> SslAlert {
    match miss {
        Miss::Unknown | Miss::NotIssued => SslAlert::UNRECOGNIZED_NAME,
        _ => SslAlert::INTERNAL_ERROR,
    }
}

/// Nothing was sent yet, so the alert goes in the clear, as its own record (RFC 8446 section 5.1 and 6).
async fn send_alert(stream: &mut SslStream<L4Stream>, alert: SslAlert) {
    let description = if alert == SslAlert::UNRECOGNIZED_NAME { 112 } else { 80 };
    let record = [21, 3, 3, 0, 2, 2, description];
    let socket = stream.get_mut();
    // The connection is given up in any case.
    let _ = socket.write_all(&record).await;
    let _ = socket.shutdown().await;
}

fn unfinished(error: &openssl::ssl::Error) -> Unfinished {
    let reasons = error.ssl_error().map(|stack| stack.errors()).unwrap_or_default();
    let reason = reasons.first().and_then(|e| e.reason()).unwrap_or("the connection ended");
    match reason {
        "wrong version number"
        | "http request"
        | "https proxy request"
        | "packet length too long"
        | "record layer failure" => Unfinished::NotTls,
        _ => Unfinished::Protocol(reason.to_owned()),
    }
}
