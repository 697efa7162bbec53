//! From the first connection to the last: accepts, is told to stop, and lets what is open finish.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pingora::apps::ServerApp;
use sd_notify::NotifyState;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::accept::Door;
use crate::config::Listener;
use crate::control::{Control, News};
use crate::handover::{Incumbent, Names, PidFile, Places, Successor, tell_service_manager};
use crate::http::App;
use crate::serve::ServeError;

/// After a stop, a kept-alive HTTP/1 connection may bring one more request for so long. It may be on its way already:
/// to close at once would fail it.
const LAST_REQUEST_WITHIN: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);

type Doors = Vec<(Arc<Door<App>>, TcpListener)>;

pub(crate) struct Life {
    pub(crate) doors: Doors,
    /// Open connections.
    pub(crate) open: Arc<AtomicUsize>,
    /// How long they may go on after a stop.
    pub(crate) drain: Duration,
    pub(crate) incumbent: Arc<Incumbent>,
    pub(crate) control: Arc<Control>,
    pub(crate) news: News,
}

/// Why this process stops.
enum Told {
    BySignal,
    /// That process serves instead.
    RelievedBy(u32),
}

impl Life {
    pub(crate) fn run(
        self,
        serving: &Runtime,
        background: &Runtime,
        names: Names,
        successor: Option<Successor>,
    ) -> Result<(), ServeError> {
        let Self { doors, open, drain, incumbent, control, news } = self;
        let (admin, desk, places) = names.into_parts();
        let mut signals = serving.block_on(async { Signals::new() })?;
        background.block_on(async { control.clone().start(admin) })?;
        let accepting = serving.block_on(async { Accepting::start(doors) })?;
        control.set_accepting(true);

        let taken = take_places(successor, places).and_then(|pid_file| {
            incumbent.clone().keep(desk)?;
            Ok(pid_file)
        });
        let _pid_file = match taken {
            Ok(pid_file) => pid_file,
            Err(error) => {
                // A predecessor goes on with the same sockets. What was accepted here meanwhile is finished here.
                incumbent.retire();
                serving.block_on(accepting.stop(&open, drain, &mut signals, 1));
                return Err(error);
            }
        };
        let following = background.spawn(news.follow());
        tell_service_manager(&NotifyState::Ready);

        let told = serving.block_on(signals.or_relief(incumbent.relieved()));
        control.set_accepting(false);
        let signals_ignored = match told {
            Told::BySignal => {
                tell_service_manager(&NotifyState::Stopping);
                control.keep_last();
                incumbent.retire();
                0
            }
            Told::RelievedBy(pid) => {
                tracing::info!(pid, "relieved: that process serves instead");
                following.abort();
                control.leave_tcp();
                1
            }
        };
        serving.block_on(accepting.stop(&open, drain, &mut signals, signals_ignored));
        Ok(())
    }
}

fn take_places(successor: Option<Successor>, places: Places) -> Result<Option<PidFile>, ServeError> {
    let Some(successor) = successor else {
        return Ok(Some(places.take()?));
    };
    let predecessor = successor.predecessor;
    let relief = successor.relieve()?;
    tracing::info!(predecessor, "took over");
    // The only process that serves does not end for a name.
    let taken =
        places.take().inspect_err(|error| tracing::error!("serving, but out of reach for the operator: {error}"));
    relief.named();
    Ok(taken.ok())
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    async fn or_relief(&mut self, mut relieved: watch::Receiver<Option<u32>>) -> Told {
        let relief = async {
            match relieved.wait_for(Option::is_some).await.map(|pid| *pid) {
                Ok(Some(pid)) => pid,
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.next() => Told::BySignal,
            pid = relief => Told::RelievedBy(pid),
        }
    }
}

struct Accepting {
    stop: watch::Sender<bool>,
    apps: Vec<Arc<App>>,
}

impl Accepting {
    fn start(doors: Doors) -> std::io::Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let mut apps = Vec::new();
        for (door, socket) in doors {
            let Listener { name, address, protocol, .. } = &door.listener;
            tracing::info!(listener = name, %address, protocol = protocol.as_str(), "listening");
            apps.extend(door.posts.iter().map(|post| post.app.clone()));
            let socket = tokio::net::TcpListener::from_std(socket)?;
            tokio::spawn(door.serve(socket, stopped.clone()));
        }
        Ok(Self { stop, apps })
    }

    /// Accepts no more. What is open may finish within `at_most`, or until a signal beyond those to be ignored.
    async fn stop(self, open: &AtomicUsize, at_most: Duration, signals: &mut Signals, ignored: u32) {
        tracing::info!(open = open.load(Ordering::Acquire), "stopping: no new connections, open ones may finish");
        // HTTP/1 connections close with their next answer, HTTP/2 ones say GOAWAY and finish their streams.
        self.stop.send_replace(true);
        let hurried = async {
            for _ in 0..=ignored {
                signals.next().await;
            }
        };
        let cut = tokio::select! {
            () = hurried => "a further signal",
            () = self.drained(open, at_most) => "drain_seconds are over",
        };
        match open.load(Ordering::Acquire) {
            0 => tracing::info!("stopped: every connection finished"),
            left => tracing::warn!(left, "stopped: {cut}, connections were cut"),
        }
    }

    async fn drained(&self, open: &AtomicUsize, at_most: Duration) {
        let since = Instant::now();
        let mut idle_ones_may_stay = true;
        while open.load(Ordering::Acquire) > 0 && since.elapsed() < at_most {
            if idle_ones_may_stay && since.elapsed() >= LAST_REQUEST_WITHIN.min(at_most / 2) {
                idle_ones_may_stay = false;
                for app in &self.apps {
                    app.cleanup().await;
                }
            }
            tokio::time::sleep(POLL).await;
        }
    }
}
