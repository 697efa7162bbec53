//! The handshake. The name is settled when the ClientHello has been read and nothing is done yet: with a certificate from
//! memory it goes on at once; else it is suspended there until the certificate is at hand, and a refusal is told by its
//! proper alert. So a session can't be resumed for a name that is not served any more.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use contract::tickets::KeyName;
use openssl::error::ErrorStack;
use openssl::ex_data::Index;
use openssl::ssl::{
    AlpnError, ClientHelloResponse, ErrorCode, SniError, Ssl, SslAcceptor, SslAlert, SslContext, SslContextBuilder,
    SslMethod, SslOptions, SslRef, SslSessionCacheMode, SslVersion, select_next_proto,
};
use pingora::protocols::l4::stream::Stream as L4Stream;
use pingora::protocols::tls::SslStream;

use super::choice::{Choice, Refusal, Served, Sources, WAITS_MAX};
use super::health::HEALTH;
use super::miss::Miss;
use super::table::Tier;
use super::tickets::{Found, Protection, Protects, Tickets};
use super::unfinished::{Unfinished, unfinished};
use super::{ffi, hello};
use crate::connection::{Connection, Handshake};
use crate::observe::{METRICS, TOP};

/// Hybrid post-quantum first (`X25519MLKEM768`), then what every client has.
const GROUPS: &str = "X25519MLKEM768:X25519:P-256:P-384";
/// The same, as the access log has them.
const GROUP_NAMES: [&str; 4] = ["X25519MLKEM768", "x25519", "secp256r1", "secp384r1"];
/// TLS 1.2: forward secrecy and AEAD only.
const CIPHERS_TLS12: &str = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:\
ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES256-GCM-SHA384:ECDHE-RSA-CHACHA20-POLY1305";
const ALPN: &[u8] = b"\x02h2\x08http/1.1";
const ACME: &[u8] = b"\x0aacme-tls/1";
/// Numbers of TLS extensions.
const SERVER_NAME: u32 = 0;
const PROTOCOLS: u32 = 16;

type StateIndex = Index<Ssl, Arc<State>>;

pub struct Terminator {
    context: SslContext,
    state: StateIndex,
    sources: Arc<Sources>,
    timeouts: Timeouts,
}

#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// From the first byte to a finished handshake.
    pub handshake: Duration,
    /// How long of it is spent waiting for a certificate.
    pub load: Duration,
    /// The same for one that is being issued.
    pub order: Duration,
}

/// What the callbacks found out; one per handshake.
struct State {
    client: IpAddr,
    /// What the ClientHello was answered with at first. A HelloRetryRequest brings a second one: the answer stands.
    first: OnceLock<Choice>,
    /// What came of waiting.
    awaited: OnceLock<Choice>,
    ticket: AtomicU8,
}

/// What became of the ticket that the client presented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Ticket {
    None,
    UnknownKey,
    ExpiredKey,
    /// Its key is good; whether the ticket is, the outcome of the handshake tells.
    KnownKey,
}

impl Terminator {
    pub fn new(sources: Sources, tickets: Arc<Tickets>, timeouts: Timeouts) -> Result<Self, ErrorStack> {
        let state = Ssl::new_ex_index::<Arc<State>>()?;
        let sources = Arc::new(sources);
        let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server())?;
        builder.set_min_proto_version(Some(SslVersion::TLS1_2))?;
        builder.set_cipher_list(CIPHERS_TLS12)?;
        builder.set_groups_list(GROUPS)?;
        builder.set_options(SslOptions::NO_RENEGOTIATION);
        builder.clear_options(SslOptions::CIPHER_SERVER_PREFERENCE);
        // Fewer reads: a record's header and body come in one.
        builder.set_read_ahead(true);
        builder.set_alpn_select_callback(move |ssl, offered| on_protocols(ssl, offered, state));
        let chooser = sources.clone();
        builder.set_client_hello_callback(move |ssl, alert| on_client_hello(ssl, alert, state, &chooser));
        resume_by_tickets(&mut builder, state, tickets)?;
        Ok(Self { context: builder.build().into_context(), state, sources, timeouts })
    }

    pub async fn handshake(
        &self,
        stream: L4Stream,
        connection: &Connection,
    ) -> Result<SslStream<L4Stream>, Unfinished> {
        let started = Instant::now();
        let finished = tokio::time::timeout(self.timeouts.handshake, self.accept(stream, connection)).await;
        let stream = finished.map_err(|_| Unfinished::TimedOut(self.timeouts.handshake))??;
        METRICS.handshakes.with_label_values(&["ok"]).inc();
        if let Some(handshake) = connection.handshake.get() {
            METRICS.handshake_seconds.with_label_values(&[handshake.tier]).observe(started.elapsed().as_secs_f64());
        }
        Ok(stream)
    }

    async fn accept(&self, stream: L4Stream, connection: &Connection) -> Result<SslStream<L4Stream>, Unfinished> {
        let state = Arc::new(State::new(connection.client.0.ip()));
        let mut ssl = Ssl::new(&self.context)?;
        ssl.set_ex_data(self.state, state.clone());
        let mut stream = SslStream::new(ssl, stream).map_err(|e| Unfinished::Protocol(e.to_string()))?;
        let mut accepted = stream.accept().await;
        if let Err(error) = &accepted
            && error.code() == ErrorCode::WANT_CLIENT_HELLO_CB
        {
            let _ = state.awaited.set(self.settle(state.first.get()).await);
            accepted = stream.accept().await;
        }
        state.count(stream.ssl(), accepted.is_ok());
        match (accepted, state.choice()) {
            (Ok(()), Some(Choice::Serve(served))) => {
                if let Some(name) = &served.name {
                    let _ = connection.sni.set(name.clone());
                    TOP.handshake(name.as_str());
                    HEALTH.passed(name, super::now());
                }
                let _ = connection.handshake.set(agreed(stream.ssl(), served));
                Ok(stream)
            }
            (Ok(()), Some(Choice::Prove(name, _))) => Err(Unfinished::ChallengeAnswered(name.clone())),
            (_, Some(Choice::Refuse(refusal))) => {
                if let Refusal::Miss(name, Miss::Unknown) = refusal {
                    TOP.unknown_sni(name.as_str());
                }
                Err(refusal.into())
            }
            (Err(error), choice) => {
                let unfinished = unfinished(&error);
                if let (Unfinished::CertificateRefused(_), Some(Choice::Serve(Served { name: Some(name), .. }))) =
                    (&unfinished, choice)
                {
                    HEALTH.failed(name, connection.client.0.ip(), super::now());
                }
                Err(unfinished)
            }
            (Ok(()), _) => Err(Unfinished::Protocol("no certificate was chosen".into())),
        }
    }
}

impl Terminator {
    /// Waits for what is wanted, and if it does not come for what stands in for it: all in one deadline, but for what is being
    /// issued.
    async fn settle(&self, first: Option<&Choice>) -> Choice {
        let mut wanted = match first {
            Some(Choice::Wait(wanted)) => wanted.clone(),
            Some(Choice::WaitForChallenge(name)) => return self.sources.prove(name).await,
            _ => return Choice::Refuse(Refusal::NoSni),
        };
        let started = Instant::now();
        for _ in 0..WAITS_MAX {
            let timeout = if wanted.coming { self.timeouts.order } else { self.timeouts.load };
            let left = timeout.saturating_sub(started.elapsed());
            match self.sources.wait(&wanted, left).await {
                Choice::Wait(next) => wanted = next,
                settled => return settled,
            }
        }
        Choice::Refuse(Refusal::NoSni)
    }
}

fn agreed(ssl: &SslRef, served: &Served) -> Handshake {
    Handshake {
        version: ssl.version_str(),
        cipher: ssl.current_cipher().map_or("", |cipher| cipher.name()),
        group: group(ssl),
        resumed: ssl.session_reused(),
        tier: served.tier.label(),
        validity: served.certificate.validity,
    }
}

fn group(ssl: &SslRef) -> Option<&'static str> {
    let agreed = ffi::group(ssl)?.to_bytes();
    GROUP_NAMES.into_iter().find(|name| name.as_bytes() == agreed)
}

/// As a label.
fn version(ssl: &SslRef) -> &'static str {
    if is_tls13(ssl) { "1.3" } else { "1.2" }
}

fn is_tls13(ssl: &SslRef) -> bool {
    ssl.version2() == Some(SslVersion::TLS1_3)
}

impl State {
    fn new(client: IpAddr) -> Self {
        Self { client, first: OnceLock::new(), awaited: OnceLock::new(), ticket: AtomicU8::new(Ticket::None as u8) }
    }

    /// What the client is answered with, as far as it is settled.
    fn choice(&self) -> Option<&Choice> {
        self.awaited.get().or_else(|| self.first.get())
    }

    /// What a ticket is good for: this name, with this certificate.
    fn purpose(&self) -> Option<Vec<u8>> {
        match self.choice()? {
            Choice::Serve(Served { name, certificate, .. }) => {
                // No host is called `-`.
                let name = name.as_ref().map_or("-", |name| name.as_str());
                Some(format!("{name} {}", certificate.revision).into_bytes())
            }
            _ => None,
        }
    }

    fn count(&self, ssl: &SslRef, finished: bool) {
        let resumed = ssl.session_reused();
        if finished {
            let result = if resumed { "resumed" } else { "full" };
            METRICS.tls_sessions.with_label_values(&[version(ssl), result]).inc();
        }
        let refused = match self.ticket.load(Ordering::Relaxed) {
            ticket if ticket == Ticket::UnknownKey as u8 => "unknown_key",
            ticket if ticket == Ticket::ExpiredKey as u8 => "expired_key",
            ticket if ticket == Ticket::KnownKey as u8 && !resumed => "not_valid",
            _ => return,
        };
        METRICS.tickets_refused.with_label_values(&[refused]).inc();
    }
}

/// Asked before anything is done about a ClientHello, and again after a wait. `RETRY` suspends the handshake.
fn on_client_hello(
    ssl: &mut SslRef,
    alert: &mut SslAlert,
    state: StateIndex,
    sources: &Sources,
) -> Result<ClientHelloResponse, ErrorStack> {
    let Some(state) = ssl.ex_data(state) else {
        *alert = SslAlert::INTERNAL_ERROR;
        return Err(ErrorStack::get());
    };
    state.first.get_or_init(|| {
        let named = hello::server_name(ffi::client_hello_extension(ssl, SERVER_NAME));
        let offer = hello::offer(ffi::client_hello_extension(ssl, PROTOCOLS));
        sources.choose(named, offer, state.client)
    });
    match state.choice() {
        // The alert for a missing name exists in TLS 1.3 only: it is told once the version is settled.
        Some(Choice::Serve(..) | Choice::Prove(..) | Choice::Refuse(Refusal::NoSni)) => {
            Ok(ClientHelloResponse::SUCCESS)
        }
        Some(Choice::Wait(_) | Choice::WaitForChallenge(_)) | None => Ok(ClientHelloResponse::RETRY),
        Some(Choice::Refuse(refusal)) => {
            *alert = refusal.alert();
            Err(ErrorStack::get())
        }
    }
}

/// HTTP, but for a CA that checks a challenge, and only for it.
fn on_protocols<'a>(ssl: &mut SslRef, offered: &'a [u8], state: StateIndex) -> Result<&'a [u8], AlpnError> {
    match ssl.ex_data(state).and_then(|state| state.choice()) {
        Some(Choice::Prove(..)) => select_next_proto(ACME, offered).ok_or(AlpnError::ALERT_FATAL),
        _ => select_next_proto(ALPN, offered).ok_or(AlpnError::NOACK),
    }
}

/// Asked when it is known whether a session is resumed, and before a certificate is needed. A resumed one needs none.
fn on_server_name(
    ssl: &mut SslRef,
    alert: &mut SslAlert,
    state: StateIndex,
    lifetime_seconds: u32,
) -> Result<(), SniError> {
    let state = ssl.ex_data(state).cloned();
    let served = match state.as_ref().and_then(|state| state.choice()) {
        Some(Choice::Serve(served)) => served,
        Some(Choice::Prove(_, proof)) => return proof.apply(ssl).map_err(|_| SniError::ALERT_FATAL),
        Some(Choice::Refuse(refusal)) => {
            *alert = refusal.alert();
            return Err(SniError::ALERT_FATAL);
        }
        _ => return Err(SniError::ALERT_FATAL),
    };
    if ssl.session_reused() {
        return Ok(());
    }
    if let Some(session) = ssl.session() {
        ffi::set_session_timeout(session, lifetime_seconds);
    }
    let started = Instant::now();
    let applied = served.certificate.apply(ssl).map_err(|error| {
        tracing::error!(name = ?served.name, %error, "OpenSSL does not take a certificate");
        *alert = SslAlert::INTERNAL_ERROR;
        SniError::ALERT_FATAL
    });
    // What was waited for has been counted by its load.
    if !matches!(served.tier, Tier::Supplied(_)) {
        METRICS.certificate_cost(served.tier.label(), served.found_in + started.elapsed());
    }
    // RFC 6066 section 3: a name that is not ours is not acknowledged.
    applied.and(served.name.as_ref().map(|_| ()).ok_or(SniError::NOACK))
}

/// Sessions are kept by clients, in tickets that any edge opens; none is kept here. No data is taken before the end of
/// the handshake (0-RTT), which could be replayed: OpenSSL's limit for it is 0 unless it is set.
fn resume_by_tickets(
    builder: &mut SslContextBuilder,
    state: StateIndex,
    tickets: Arc<Tickets>,
) -> Result<(), ErrorStack> {
    builder.set_session_cache_mode(SslSessionCacheMode::OFF);
    // The same on every edge: a session of another context is not resumed.
    builder.set_session_id_context(b"latchkey")?;
    ffi::set_ticket_keys(builder, Arc::new(HandshakeTickets { tickets: tickets.clone(), state }))?;
    builder.set_servername_callback(move |ssl, alert| on_server_name(ssl, alert, state, tickets.lifetime_seconds()));
    Ok(())
}

struct HandshakeTickets {
    tickets: Arc<Tickets>,
    state: StateIndex,
}

impl Protects for HandshakeTickets {
    fn protect(&self, ssl: &SslRef) -> Option<(KeyName, Protection)> {
        let purpose = ssl.ex_data(self.state)?.purpose()?;
        let key = self.tickets.encrypting(super::now())?;
        Some((key.name, key.protection(&purpose).ok()?))
    }

    fn open(&self, ssl: &SslRef, name: &KeyName) -> Option<(Protection, bool)> {
        let state = ssl.ex_data(self.state)?;
        let (ticket, key) = match self.tickets.find(name, super::now()) {
            Found::Unknown => (Ticket::UnknownKey, None),
            Found::Expired => (Ticket::ExpiredKey, None),
            // TLS 1.3 gives a new ticket each time: who presents one twice can be recognised (RFC 8446 appendix C.4).
            Found::Current(key) => (Ticket::KnownKey, Some((key, is_tls13(ssl)))),
            Found::Older(key) => (Ticket::KnownKey, Some((key, true))),
        };
        state.ticket.store(ticket as u8, Ordering::Relaxed);
        let (key, renew) = key?;
        Some((key.protection(&state.purpose()?).ok()?, renew))
    }
}
