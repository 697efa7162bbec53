//! Everything that is not on a request's way: the configuration in force, uploaded plugins, the admin API.
//!
//! Must never be awaited by a request, publish a snapshot that failed a check, or clear a good one because a store is
//! down.

mod admin;
mod apply;
mod document;
mod files;
mod news;
mod plugins;
mod snapshot;
mod tickets;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use contract::api::Fault;
use futures_util::{StreamExt, stream};
use tokio::sync::{Mutex, MutexGuard, OwnedMutexGuard};

use self::apply::{Inputs, build};
use self::files::write_atomically;
pub use self::news::News;
use self::plugins::Plugins;
pub use self::snapshot::{Current, Snapshot};
pub use self::tickets::TicketNews;
use crate::config::Listener;
use crate::observe::METRICS;
use crate::supply::Supply;
use crate::tls::{Known, Table};
use crate::upstream::Upstream;
use crate::wasm::{Host, HostError};

/// How often upstream names are resolved anew.
const RESOLVE_EVERY: Duration = Duration::from_secs(30);
const RESOLVED_AT_ONCE_MAX: usize = 16;

pub struct Control {
    host: Host,
    plugins: Plugins,
    current: Arc<Current>,
    supply: Arc<Supply>,
    table: Arc<Table>,
    known: Arc<Known>,
    listeners: Vec<Listener>,
    listener_names: Vec<String>,
    /// Whether they are accepted on.
    accepting: AtomicBool,
    applied_file: PathBuf,
    /// One change at a time, in the order they came.
    changing: Arc<Mutex<Changes>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Changes {
    Ours,
    /// Another process has taken over: only it may change what is on disk.
    HandedOver,
}

/// Nothing is changed while it lives.
pub struct Held(OwnedMutexGuard<Changes>);

impl Held {
    /// Nor ever after by this process.
    pub fn hand_over(mut self) {
        *self.0 = Changes::HandedOver;
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("the Wasm engine does not start: {0}")]
    Engine(#[from] HostError),
    #[error("data_dir {0}: {1}")]
    Data(String, std::io::Error),
    #[error("{0} is damaged: {1}")]
    Damaged(String, String),
}

/// Why a configuration was not applied. The running one is untouched.
#[derive(Debug)]
pub enum NotApplied {
    /// `If-Match` did not match: somebody else was first.
    Conflict {
        current: u64,
    },
    Invalid(Vec<Fault>),
    Io(std::io::Error),
    HandedOver(HandedOver),
}

#[derive(Debug, thiserror::Error)]
#[error("another process has just taken over from this one; send it again, and it gets it")]
pub struct HandedOver;

/// The applied configuration on disk: what a restart begins with.
#[derive(serde::Serialize, serde::Deserialize)]
struct Applied {
    revision: u64,
    document: String,
}

impl Control {
    pub fn new(
        config: &crate::config::Config,
        supply: Arc<Supply>,
        table: Arc<Table>,
        known: Arc<Known>,
    ) -> Result<Self, ControlError> {
        let data = |error| ControlError::Data(config.data_dir.display().to_string(), error);
        std::fs::create_dir_all(&config.data_dir).map_err(data)?;
        // Plugins are called on the threads that serve, and bound on those of control.
        let threads = config.threads + crate::serve::CONTROL_THREADS;
        let host = Host::new(crate::wasm::Settings { threads, ..Default::default() })?;
        let plugins = Plugins::open(config.data_dir.join("plugins"), &host).map_err(data)?;
        Ok(Self {
            host,
            plugins,
            current: Current::new(Snapshot::empty()),
            supply,
            table,
            known,
            listeners: config.listeners.clone(),
            listener_names: config.listeners.iter().map(|listener| listener.name.clone()).collect(),
            accepting: AtomicBool::new(false),
            applied_file: config.data_dir.join("applied.json"),
            changing: Arc::new(Mutex::new(Changes::Ours)),
        })
    }

    pub fn current(&self) -> Arc<Current> {
        self.current.clone()
    }

    /// Waits for the turn to change something.
    async fn turn(&self) -> Result<MutexGuard<'_, Changes>, HandedOver> {
        let turn = self.changing.lock().await;
        if *turn == Changes::Ours { Ok(turn) } else { Err(HandedOver) }
    }

    /// For a thread that may block.
    pub fn hold_changes(&self) -> Held {
        Held(self.changing.clone().blocking_lock_owned())
    }

    pub fn set_accepting(&self, accepting: bool) {
        self.accepting.store(accepting, Ordering::Release);
    }

    /// Puts the configuration of before the restart in force. What no longer builds is said, and nothing is served by
    /// halves: the file stays as it is.
    pub async fn restore(&self) -> Result<(), ControlError> {
        let shown = || self.applied_file.display().to_string();
        let text = match std::fs::read_to_string(&self.applied_file) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            read => read.map_err(|error| ControlError::Data(shown(), error))?,
        };
        let applied: Applied =
            serde_json::from_str(&text).map_err(|error| ControlError::Damaged(shown(), error.to_string()))?;
        match build(&applied.document, applied.revision, &self.inputs(&Snapshot::empty(), false)).await {
            Ok(snapshot) => {
                self.publish(snapshot);
                Ok(())
            }
            Err(faults) => Err(ControlError::Damaged(shown(), contract::document::render(&faults, "document"))),
        }
    }

    /// Checks, keeps and publishes a configuration; returns its revision. `expected` is the revision it replaces; a
    /// dry run only checks, and returns the revision that stays.
    pub async fn apply(&self, text: &str, expected: Option<u64>, dry_run: bool) -> Result<u64, NotApplied> {
        let _turn = self.turn().await.map_err(NotApplied::HandedOver)?;
        let previous = self.current.get();
        if expected.is_some_and(|expected| expected != previous.revision) {
            METRICS.config_applies.with_label_values(&["conflict"]).inc();
            return Err(NotApplied::Conflict { current: previous.revision });
        }
        let revision = previous.revision + 1;
        let snapshot = build(text, revision, &self.inputs(&previous, true)).await.map_err(|faults| {
            METRICS.config_applies.with_label_values(&["invalid"]).inc();
            NotApplied::Invalid(faults)
        })?;
        if dry_run {
            return Ok(previous.revision);
        }
        let applied = serde_json::to_vec(&Applied { revision, document: text.to_owned() });
        let kept = applied.map_err(std::io::Error::from).and_then(|json| write_atomically(&self.applied_file, &json));
        kept.map_err(|error| {
            METRICS.config_applies.with_label_values(&["error"]).inc();
            NotApplied::Io(error)
        })?;
        self.publish(snapshot);
        METRICS.config_applies.with_label_values(&["ok"]).inc();
        tracing::info!(revision, "configuration applied");
        Ok(revision)
    }

    fn inputs<'a>(&'a self, previous: &'a Snapshot, must_resolve: bool) -> Inputs<'a> {
        let listeners = &self.listener_names;
        Inputs { host: &self.host, plugins: &self.plugins, listeners, previous, must_resolve }
    }

    /// Puts a snapshot in force, and moves the health checks from the upstreams that were to those that are.
    fn publish(&self, snapshot: Snapshot) {
        let previous = self.current.get();
        let now: Vec<_> = snapshot.upstreams.values().cloned().collect();
        self.current.publish(snapshot);
        for upstream in previous.upstreams.values() {
            match now.iter().find(|other| other.name == upstream.name) {
                Some(same) if Arc::ptr_eq(same, upstream) => {}
                Some(_) => upstream.retire(),
                None => {
                    upstream.retire();
                    METRICS.forget_upstream(&upstream.name);
                }
            }
        }
        for upstream in &now {
            upstream.watch();
        }
    }

    /// Resolves upstream names anew, for as long as the process lives.
    async fn keep_resolved(&self) {
        let mut turn = tokio::time::interval(RESOLVE_EVERY);
        loop {
            turn.tick().await;
            let current = self.current.get();
            let named = current.upstreams.values().filter(|upstream| upstream.has_names());
            stream::iter(named).for_each_concurrent(RESOLVED_AT_ONCE_MAX, |upstream| resolve(upstream)).await;
        }
    }

    /// Starts the background work and the admin API.
    pub fn start(self: Arc<Self>, admin: std::os::unix::net::UnixListener) -> std::io::Result<()> {
        admin.set_nonblocking(true)?;
        let listener = tokio::net::UnixListener::from_std(admin)?;
        let control = self.clone();
        tokio::spawn(async move { control.keep_resolved().await });
        tokio::spawn(admin::serve(listener, self));
        Ok(())
    }
}

async fn resolve(upstream: &Upstream) {
    if let Err(errors) = upstream.resolve().await {
        for error in errors {
            tracing::warn!(upstream = upstream.name, "{error}; the addresses known so far stay");
        }
    }
}
