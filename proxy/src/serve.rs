//! Wires the rooms together and runs them.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use pingora::server::configuration::ServerConf;
use tokio::signal::unix::{SignalKind, signal};

use crate::accept::{self, Clients, Door, Post};
use crate::config::{Config, Listener, Protocol};
use crate::control::{Control, ControlError, News, TicketNews};
use crate::handover::{HandoverError, Incumbent, Names, Successor};
use crate::http::{App, Edge};
use crate::life::Life;
use crate::observe::{AccessLog, AccessLogSettings, Target, Writer};
use crate::supply::{CertService, Disk, Redis, Supply};
use crate::tls::{self, HEALTH, Known, Misses, Opener, Pool, Sources, Table, Terminator, Tickets, Timeouts};
use crate::workers::{Worker, Workers};

/// Threads of the admin API and background work, apart from those that serve requests.
pub(crate) const CONTROL_THREADS: usize = 2;
/// Connections kept open to upstreams while idle, by all threads together.
const POOL_CONNECTIONS: usize = 1024;

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("listener `{name}` can't listen on {address}: {error}")]
    Bind { name: String, address: std::net::SocketAddr, error: std::io::Error },
    #[error(transparent)]
    Handover(#[from] HandoverError),
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error("{0}")]
    Setting(String),
    #[error("TLS: {0}")]
    Tls(String),
    #[error("[access_log]: {to:?} can't be written: {error}")]
    AccessLog { to: Target, error: std::io::Error },
    #[error("the runtime does not start: {0}")]
    Runtime(#[from] std::io::Error),
}

/// Serves until told to stop, or until another process serves instead. `successor`: in the place of the one that started
/// this process.
pub fn run(config: Config, mut successor: Option<Successor>) -> Result<(), ServeError> {
    let bound = bind(&config.listeners, successor.as_mut())?;
    let control_runtime = runtime("control", CONTROL_THREADS)?;
    let accept_runtime = runtime("accept", 1)?;
    let workers = Workers::start(config.threads)?;

    let redis = config.redis.as_ref().map(Redis::new).transpose();
    let redis = redis.map_err(|error| ServeError::Setting(format!("[redis]: {error}")))?;
    let tls = config.tls;
    let table = Arc::new(Table::new(tls.capacity, tls.refresh_after));
    let certservice = CertService::new(&config.certservice).map_err(ServeError::Setting)?;
    let disk = Disk::open(config.data_dir.join("bundles"))
        .map_err(|error| ServeError::Setting(format!("data_dir: {error}")))?;
    let supply = Arc::new(Supply::new(disk, redis, certservice, config.verify_keys.clone()));
    let known_file = config.data_dir.join("known");
    // Damaged or absent: read anew, and meanwhile nothing is excluded.
    let known = std::fs::read(&known_file).ok().and_then(|bytes| Known::from_bytes(&bytes));
    let known = Arc::new(known.unwrap_or_default());
    let control = Arc::new(Control::new(&config, supply.clone(), table.clone(), known.clone())?);
    control_runtime.block_on(control.restore())?;
    let names = Names::make(&config.data_dir, &config.admin.socket, successor.is_some())?;

    let edge = config.edge_key.kid().to_owned();
    let edge_key = Arc::new(config.edge_key);
    let pool = Pool::start(tls.open_threads, tls.opens_queued_max)?;
    let misses = Misses::new(
        table.clone(),
        supply.clone(),
        Opener::new(edge_key.clone()),
        pool,
        control_runtime.handle().clone(),
    );
    let news = News {
        supply: supply.clone(),
        table: table.clone(),
        misses: misses.clone(),
        known: known.clone(),
        edge,
        poll: config.poll,
        cursor_file: config.data_dir.join("cursor"),
        known_file,
        renewals: &HEALTH.renewals,
        renewals_file: config.data_dir.join("renewals-failing"),
    };
    let tickets = Arc::new(Tickets::new(tls::now()).map_err(|error| ServeError::Tls(error.to_string()))?);
    let ticket_news = TicketNews {
        supply: supply.clone(),
        tickets: tickets.clone(),
        edge_key,
        file: config.data_dir.join("ticket-keys.jws"),
    };
    ticket_news.restore();
    let terminator = || {
        let sources = Sources {
            table: table.clone(),
            known: known.clone(),
            misses: misses.clone(),
            policy: config.names.clone(),
        };
        let timeouts = Timeouts { handshake: tls.handshake_timeout, load: tls.load_timeout, order: tls.order_timeout };
        Terminator::new(sources, tickets.clone(), timeouts).map_err(|error| ServeError::Tls(error.to_string()))
    };
    let current = control.current();
    let conf = Arc::new(ServerConf {
        threads: 1, // each application serves on one
        upstream_keepalive_pool_size: POOL_CONNECTIONS.div_ceil(config.threads),
        ..ServerConf::default()
    });
    let (access_log, writer) = start_access_log(config.access_log, config.threads)?.unzip();
    let open = Arc::new(AtomicUsize::new(0));
    let limits = Arc::new(config.limits);
    let clients = Arc::new(Clients::new(limits.connections_per_client_max));
    let shared = bound.iter().map(|(listener, socket)| Ok((listener.name.clone(), socket.try_clone()?)));
    let incumbent = Incumbent::new(shared.collect::<std::io::Result<_>>()?, control.clone());
    let doors = bound.into_iter().map(|(listener, socket)| {
        let tls = (listener.protocol == Protocol::Https).then(terminator).transpose()?;
        let edge = || Edge {
            listener: listener.clone(),
            current: current.clone(),
            supply: supply.clone(),
            limits: limits.clone(),
            access_log: access_log.clone(),
        };
        let post = |worker: &Worker| Post { worker: worker.clone(), app: Arc::new(App::new(edge(), conf.clone())) };
        let posts = workers.list.iter().map(post).collect();
        Ok((
            Arc::new(Door {
                listener,
                tls,
                posts,
                current: current.clone(),
                open: open.clone(),
                limits: limits.clone(),
                clients: clients.clone(),
            }),
            socket,
        ))
    });
    let doors = doors.collect::<Result<Vec<_>, ServeError>>()?;

    control_runtime.spawn(ticket_news.follow());
    control_runtime.spawn(follow_hangups(access_log.clone()));
    let life = Life { doors, open, drain: config.drain, incumbent, control, news };
    let ended = life.run(&accept_runtime, &control_runtime, names, successor);
    accept_runtime.shutdown_background();
    drop(workers);
    control_runtime.shutdown_background();
    if let Some(writer) = writer {
        writer.finish();
    }
    ended
}

/// Before anything starts: a port in use ends the process, it never lives on deaf.
fn bind(
    listeners: &[Listener],
    mut successor: Option<&mut Successor>,
) -> Result<Vec<(Listener, TcpListener)>, ServeError> {
    let bind = |listener: &Listener| {
        let (name, address) = (listener.name.clone(), listener.address);
        if let Some(socket) = successor.as_mut().and_then(|successor| successor.socket(address)) {
            return Ok((listener.clone(), socket));
        }
        let socket = accept::bind(address).map_err(|error| ServeError::Bind { name, address, error })?;
        Ok((listener.clone(), socket))
    };
    listeners.iter().map(bind).collect()
}

fn start_access_log(
    settings: Option<AccessLogSettings>,
    threads: usize,
) -> Result<Option<(Arc<AccessLog>, Writer)>, ServeError> {
    let Some(settings) = settings else { return Ok(None) };
    let to = settings.to.clone();
    AccessLog::start(settings, threads).map(Some).map_err(|error| ServeError::AccessLog { to, error })
}

/// SIGHUP: the access log was moved away. Without one the signal means nothing, and does not end the process.
async fn follow_hangups(log: Option<Arc<AccessLog>>) {
    let Ok(mut hangup) = signal(SignalKind::hangup()) else { return };
    while hangup.recv().await.is_some() {
        if let Some(log) = &log {
            log.reopen();
        }
    }
}

fn runtime(name: &str, threads: usize) -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(threads).thread_name(name).enable_all().build()
}
