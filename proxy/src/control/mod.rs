//! Everything that is not on a request's way: the configuration in force, uploaded plugins, the admin API.
//!
//! Must never be awaited by a request, publish a snapshot that failed a check, or clear a good one because a store is
//! down.

mod admin;
mod apply;
mod audit;
mod diff;
mod document;
mod in_use;
mod leisure; // gives way to the threads that serve
mod news;
mod plan;
mod plugins;
mod resolved; // names of upstreams
mod revisions;
mod shadows;
mod snapshot;
mod tables;
mod tickets;
mod turn;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use contract::admin::{Applied, Author, Diff, Plan, Revision, Shadow};
use contract::api::Fault;
use door::Server;
use tokio::runtime::Handle;
use tokio::sync::{Mutex, watch};

use self::admin::Known as KnownCallers;
pub use self::admin::openapi;
use self::apply::{Inputs, build};
use self::audit::Audit;
use self::in_use::{InUse, KEEP_EVERY};
use self::leisure::Leisure;
pub use self::news::News;
use self::plugins::Plugins;
use self::revisions::{RevisionError, Revisions};
pub use self::shadows::{Change, NoShadow, Of};
pub use self::snapshot::{Current, Snapshot};
use self::tables::Tables;
pub use self::tickets::TicketNews;
use self::turn::Turn;
pub use self::turn::{HandedOver, Held};
use crate::config::{AdminTcp, Listener};
use crate::observe::{METRICS, disk_failed};
use crate::supply::Supply;
use crate::tls::{Known, Table};
use crate::wasm::{Compile, Digest, Host, HostError};

pub struct Control {
    host: Host,
    plugins: Plugins,
    tables: Tables,
    current: Arc<Current>,
    supply: Arc<Supply>,
    table: Arc<Table>,
    known: Arc<Known>,
    listeners: Vec<Listener>,
    listener_names: Vec<String>,
    /// Whether they are accepted on.
    accepting: AtomicBool,
    revisions: Revisions,
    in_use: InUse,
    audit: Audit,
    known_callers: KnownCallers,
    /// Where it is to listen besides the Unix socket.
    over_tcp: Option<AdminTcp>,
    left_tcp: watch::Sender<bool>,
    /// A preview is under way.
    previewing: Mutex<()>,
    /// For what takes long.
    leisure: Leisure,
    /// One change at a time, in the order they came.
    changing: Turn,
}

#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("the Wasm engine does not start: {0}")]
    Engine(#[from] HostError),
    #[error("the thread for changes does not start: {0}")]
    Thread(std::io::Error),
    #[error("data_dir {0}: {1}")]
    Data(String, std::io::Error),
    #[error(transparent)]
    Revision(#[from] RevisionError),
    #[error("revision {0} of the configuration is valid no more:\n{1}")]
    Outdated(u64, String),
}

/// Why a configuration was not applied. The running one is untouched.
#[derive(Debug)]
pub enum NotApplied {
    /// `If-Match` did not match: somebody else was first.
    Conflict {
        current: u64,
        /// What they changed, where the revision of `If-Match` is still kept.
        diff: Option<Box<Diff>>,
    },
    Invalid(Vec<Fault>),
    UnknownRevision(u64),
    NoShadow(NoShadow),
    Io(std::io::Error),
    HandedOver(HandedOver),
}

/// How, and by whom, a configuration is to be applied.
#[derive(Debug, Default)]
pub struct Order {
    /// The revision that it replaces.
    pub expected: Option<u64>,
    /// Only check, and say what would change.
    pub dry_run: bool,
    pub who: Author,
    pub message: String,
    /// The revision that the text was taken from.
    pub reverts_to: Option<u64>,
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
        // Plugins are called on the threads that serve; bound, and asked for previews, on the one that gives way to them, or on
        // one in its place.
        let threads = config.threads + crate::serve::CONTROL_THREADS + 1;
        let compile = Compile::Apart { limits: config.compile, data_dir: config.data_dir.clone() };
        let host = Host::new(crate::wasm::Settings { threads, compile, ..Default::default() })?;
        let plugins = Plugins::open(config.data_dir.join("plugins"), &host, config.trust.clone()).map_err(data)?;
        let tables = Tables::open(config.data_dir.join("tables")).map_err(data)?;
        Ok(Self {
            host,
            plugins,
            tables,
            current: Current::new(Snapshot::empty()),
            supply,
            table,
            known,
            listeners: config.listeners.clone(),
            listener_names: config.listeners.iter().map(|listener| listener.name.clone()).collect(),
            accepting: AtomicBool::new(false),
            revisions: Revisions::open(config.data_dir.join("revisions"))?,
            in_use: InUse::open(config.data_dir.join("rules-in-use")),
            audit: Audit::new(config.data_dir.join("audit.log")),
            known_callers: KnownCallers {
                tokens: config.admin.tokens.clone(),
                certificates: config.admin.certificates.clone(),
            },
            over_tcp: config.admin.tcp.clone(),
            left_tcp: watch::Sender::new(false),
            previewing: Mutex::default(),
            leisure: Leisure::start().map_err(ControlError::Thread)?,
            changing: Turn::default(),
        })
    }

    pub fn current(&self) -> Arc<Current> {
        self.current.clone()
    }

    /// Waits for the turn to change something. Work that may outlast who asked for it takes it along.
    async fn turn(&self) -> Result<Held, HandedOver> {
        self.changing.take().await
    }

    /// For a thread that may block. None where a change is under way for as long as that.
    pub fn hold_changes(&self, within: Duration) -> Option<Held> {
        self.keep_last();
        self.changing.hold(within)
    }

    /// The process that serves instead listens there too. It has the name of the Unix socket already.
    pub fn leave_tcp(&self) {
        self.left_tcp.send_replace(true);
    }

    pub fn set_accepting(&self, accepting: bool) {
        self.accepting.store(accepting, Ordering::Release);
    }

    /// Puts the configuration of before the restart in force. What no longer builds is said, and nothing is served by
    /// halves: the file stays as it is.
    pub async fn restore(&self) -> Result<(), ControlError> {
        let Some(latest) = self.revisions.latest() else { return Ok(()) };
        let text = self.revisions.text(&latest)?;
        match build(&text, latest.number, &self.inputs(&Snapshot::empty(), false)).await {
            Ok(snapshot) => {
                self.publish(snapshot);
                Ok(())
            }
            Err(faults) => Err(ControlError::Outdated(latest.number, contract::document::render(&faults, "document"))),
        }
    }

    /// Checks, keeps and publishes a configuration. One that says what the running one says makes no revision; only the
    /// files that it names are read again.
    pub async fn apply(self: &Arc<Self>, text: String, order: Order) -> Result<Applied, NotApplied> {
        self.change(order, |_| Ok(text)).await
    }

    /// Starts, promotes or drops shadows: applies the running configuration with that in it.
    pub async fn change_shadow(self: &Arc<Self>, of: Of, change: Change, order: Order) -> Result<Applied, NotApplied> {
        let text = move |running: &str| shadows::changed(running, &of, &change).map_err(NotApplied::NoShadow);
        self.change(order, text).await
    }

    /// Makes the text of the running one, and applies it; to the end, even if who asked for it goes away meanwhile.
    async fn change(
        self: &Arc<Self>,
        order: Order,
        text: impl FnOnce(&str) -> Result<String, NotApplied> + Send + 'static,
    ) -> Result<Applied, NotApplied> {
        let turn = self.turn().await.map_err(NotApplied::HandedOver)?;
        let (control, runtime) = (self.clone(), Handle::current());
        let change = move || {
            let _turn = turn;
            let text = text(&control.current.get().document)?;
            counted(runtime.block_on(control.apply_in_turn(&text, order)))
        };
        self.leisure.run(change).await.map_err(NotApplied::Io)?
    }

    /// Those beside the bindings of a plugin, as the running configuration calls it.
    pub fn shadows(&self, plugin: &str) -> Result<Vec<Shadow>, NoShadow> {
        let current = self.current.get();
        shadows::named(&serde_json::from_str(&current.document).unwrap_or_default(), plugin)?;
        let of_plugin = current.shadows.iter().filter(|(key, _)| key.names[0] == plugin);
        let mut shadows: Vec<_> = of_plugin.map(|(_, placed)| placed.report()).collect();
        shadows.sort_by(|a, b| a.examples.cmp(&b.examples));
        Ok(shadows)
    }

    /// Applies the text of an earlier revision, as a new one.
    pub async fn revert(self: &Arc<Self>, number: u64, order: Order) -> Result<Applied, NotApplied> {
        let text = self.text_of(number).ok_or(NotApplied::UnknownRevision(number))?;
        self.apply(text, Order { reverts_to: Some(number), ..order }).await
    }

    async fn apply_in_turn(&self, text: &str, order: Order) -> Result<Applied, NotApplied> {
        let previous = self.current.get();
        if let Some(expected) = order.expected.filter(|expected| *expected != previous.revision) {
            let theirs = self.text_of(expected);
            let diff = theirs.map(|theirs| Box::new(compare(&theirs, &previous.document).diff));
            return Err(NotApplied::Conflict { current: previous.revision, diff });
        }
        let number = previous.revision + 1;
        let snapshot = build(text, number, &self.inputs(&previous, true)).await.map_err(NotApplied::Invalid)?;
        let plan = Plan { warnings: snapshot.warnings.clone(), ..compare(&previous.document, text) };
        // A new edge has no configuration, so its first one changes it, even where it is empty.
        let differs = previous.revision == 0 || !plan.diff.differences.is_empty();
        if order.dry_run || !differs {
            if !order.dry_run {
                let (revision, document) = (previous.revision, previous.document.clone());
                self.publish(Snapshot { revision, document, ..snapshot });
            }
            return Ok(Applied { revision: previous.revision, changed: false, plan });
        }
        let revision = Revision {
            number,
            at: std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs()),
            who: order.who,
            message: order.message,
            digest: Digest::of(text.as_bytes()).to_string(),
            bytes: text.len() as u64,
            reverts_to: order.reverts_to,
            summary: plan.summary.clone(),
        };
        let (who, message, summary) = (revision.who.to_string(), revision.message.clone(), &plan.summary);
        self.revisions.keep(revision, text).map_err(|error| {
            disk_failed("a configuration can't be kept", "it is not applied", &error);
            NotApplied::Io(error)
        })?;
        self.publish(snapshot);
        tracing::info!(revision = number, who, message, summary, "configuration applied");
        Ok(Applied { revision: number, changed: true, plan })
    }

    fn text_of(&self, number: u64) -> Option<String> {
        let text = self.revisions.find(number).map(|revision| self.revisions.text(&revision))?;
        text.inspect_err(|error| tracing::error!("{error}")).ok()
    }

    /// What lies between two revisions; none where one of them is not kept.
    pub fn between(&self, from: u64, to: u64) -> Result<Plan, NotApplied> {
        let text = |number| match number {
            // Before the first one there was nothing.
            0 => Ok("{}".to_owned()),
            _ => self.text_of(number).ok_or(NotApplied::UnknownRevision(number)),
        };
        Ok(compare(&text(from)?, &text(to)?))
    }

    fn inputs<'a>(&'a self, previous: &'a Snapshot, must_resolve: bool) -> Inputs<'a> {
        let listeners = &self.listener_names;
        Inputs { host: &self.host, plugins: &self.plugins, tables: &self.tables, listeners, previous, must_resolve }
    }

    /// Puts a snapshot in force, and moves the health checks from the upstreams that were to those that are.
    fn publish(&self, snapshot: Snapshot) {
        let previous = self.current.get();
        self.in_use.hand_on(&previous, &snapshot);
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
        self.leisure.free(previous);
    }

    /// Until another process has taken over: then what it keeps counts.
    async fn keep_in_use(self: Arc<Self>) {
        loop {
            tokio::time::sleep(KEEP_EVERY).await;
            let Ok(turn) = self.turn().await else { return };
            drop(turn);
            let control = self.clone();
            let _ = self.leisure.run(move || control.in_use.keep(&control.current.get())).await;
        }
    }

    /// At the end, and when another process begins in the place of this one. Blocks.
    pub fn keep_last(&self) {
        self.in_use.keep(&self.current.get());
    }

    /// Starts the background work and the admin API.
    pub fn start(self: Arc<Self>, admin: std::os::unix::net::UnixListener) -> std::io::Result<()> {
        admin.set_nonblocking(true)?;
        let listener = tokio::net::UnixListener::from_std(admin)?;
        let control = self.clone();
        tokio::spawn(async move { control.keep_resolved().await });
        let control = self.clone();
        tokio::spawn(async move { control.keep_in_use().await });
        // A process that takes another's place listens beside it for a moment.
        let over_tcp = self.over_tcp.as_ref().map(|tcp| {
            let tls = tcp.tls.as_ref().map(|tls| (tls, &METRICS.admin_tls_files_unusable));
            Server::tcp(tcp.address, tls, &tcp.networks, true)
        });
        let over_tcp = over_tcp.transpose().map_err(|says| std::io::Error::other(format!("admin.tcp: {says}")))?;
        if let Some(server) = &over_tcp {
            tracing::info!(address = server.address(), "the admin API listens over TCP");
        }
        admin::serve(listener, over_tcp, self);
        Ok(())
    }
}

fn counted(applied: Result<Applied, NotApplied>) -> Result<Applied, NotApplied> {
    let result = match &applied {
        Ok(Applied { changed: true, .. }) => "ok",
        Ok(_) => "unchanged",
        Err(NotApplied::Conflict { .. }) => "conflict",
        Err(NotApplied::Invalid(_) | NotApplied::UnknownRevision(_) | NotApplied::NoShadow(_)) => "invalid",
        Err(NotApplied::Io(_) | NotApplied::HandedOver(_)) => "error",
    };
    METRICS.config_applies.with_label_values(&[result]).inc();
    applied
}

/// Both are valid: what could not be read was never applied.
fn compare(old: &str, new: &str) -> Plan {
    let [old, new] = [old, new].map(|text| serde_json::from_str(text).unwrap_or_default());
    plan::plan(&old, &new)
}
