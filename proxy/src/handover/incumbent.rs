//! The running process' side: it answers at its desk, on a thread of its own.

use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tokio::sync::watch;

use super::channel::{Channel, Desk};
use super::messages::{Owned, Owner, Reply, Request, Step};
use super::{ANSWER_TIMEOUT, UPGRADE_TIMEOUT, tell_service_manager};
use crate::control::Control;

/// After a failed accept at the desk.
const PAUSE: Duration = Duration::from_millis(100);
/// For a change that is under way to end. With it, the answer still comes before whoever asks gives up.
const TURN_WITHIN: Duration = Duration::from_secs(4);
/// For a successor that serves to put its admin socket and pid file in place.
const NAMED_WITHIN: Duration = Duration::from_secs(1);
/// For a successor that has gone to be told by the kernel.
const REAPED_WITHIN: Duration = Duration::from_secs(1);

pub struct Incumbent {
    /// Name and socket of each listener; none once another process has them.
    sockets: Mutex<Vec<(String, TcpListener)>>,
    control: Arc<Control>,
    /// One upgrade at a time.
    turn: Mutex<()>,
    /// The process that has taken over.
    relieved_by: watch::Sender<Option<u32>>,
}

impl Incumbent {
    pub fn new(sockets: Vec<(String, TcpListener)>, control: Arc<Control>) -> Arc<Self> {
        Arc::new(Self {
            sockets: Mutex::new(sockets),
            control,
            turn: Mutex::new(()),
            relieved_by: watch::Sender::new(None),
        })
    }

    /// Tells when another process has taken over.
    pub fn relieved(&self) -> watch::Receiver<Option<u32>> {
        self.relieved_by.subscribe()
    }

    /// Closes the listening sockets here: the kernel queues connections for as long as anyone has them open.
    pub fn retire(&self) {
        self.sockets().clear();
    }

    /// Answers until the process ends.
    pub fn keep(self: Arc<Self>, desk: Desk) -> std::io::Result<()> {
        std::thread::Builder::new().name("handover".into()).spawn(move || {
            loop {
                match desk.accept() {
                    Ok(channel) => self.clone().answer(channel),
                    Err(error) => {
                        tracing::warn!(%error, "accept on the hand-over socket failed");
                        std::thread::sleep(PAUSE);
                    }
                }
            }
        })?;
        Ok(())
    }

    fn answer(self: Arc<Self>, channel: Channel) {
        if let Err(error) = self.try_answer(channel) {
            tracing::warn!(%error, "a question on the hand-over socket was not answered");
        }
    }

    fn try_answer(self: Arc<Self>, channel: Channel) -> std::io::Result<()> {
        channel.set_timeout(ANSWER_TIMEOUT)?;
        let uid = channel.peer()?.uid;
        if !uid.is_root() && uid != rustix::process::geteuid() {
            let why = format!("user {} may not ask, only the one that runs this process", uid.as_raw());
            return channel.send(&Reply::Failed { why }, &[]);
        }
        match channel.receive()?.0 {
            Request::Who => channel.send(&Reply::Owner(self.owner()?), &[]),
            Request::Upgrade => {
                // Beside this thread, so that a second one can be refused meanwhile.
                std::thread::Builder::new().name("upgrade".into()).spawn(move || {
                    let reply = match self.upgrade() {
                        Ok(pid) => Reply::Upgraded { pid },
                        Err(why) => {
                            tracing::warn!("no upgrade, this process goes on: {why}");
                            Reply::Failed { why }
                        }
                    };
                    // Whoever asked may have gone; the verdict stands.
                    let _ = channel.send(&reply, &[]);
                })?;
                Ok(())
            }
        }
    }

    fn sockets(&self) -> MutexGuard<'_, Vec<(String, TcpListener)>> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn owner(&self) -> std::io::Result<Owner> {
        let owned = |(name, socket): &(String, TcpListener)| {
            let inode = rustix::fs::fstat(socket)?.st_ino;
            Ok(Owned { name: name.clone(), address: socket.local_addr()?, inode })
        };
        let listeners = self.sockets().iter().map(owned).collect::<std::io::Result<_>>()?;
        Ok(Owner { pid: std::process::id(), version: env!("CARGO_PKG_VERSION").into(), listeners })
    }

    /// Starts a successor and gives way to it. Its process ID; or why nothing has changed.
    fn upgrade(&self) -> Result<u32, String> {
        let Ok(_turn) = self.turn.try_lock() else {
            return Err("another upgrade is under way".into());
        };
        if let Some(pid) = *self.relieved_by.borrow() {
            return Err(format!("process {pid} has taken over just now"));
        }
        if self.sockets().is_empty() {
            return Err("this process is stopping".into());
        }
        // What is applied from here on would be unknown to the successor.
        let held = self.control.hold_changes(TURN_WITHIN).ok_or_else(|| {
            format!("a change of the configuration has been under way for {TURN_WITHIN:?}; ask again when it is done")
        })?;
        let (ours, theirs) = Channel::pair().map_err(|error| format!("no channel to a new process: {error}"))?;
        let mut child = start(theirs.into())?;
        let pid = child.id();
        tracing::info!(pid, "a new process was started to take over");
        if let Err(error) = self.give_way(&ours, pid) {
            return Err(ended(&mut child, &error));
        }
        held.hand_over();
        tell_service_manager(&NotifyState::MainPid(pid));
        Ok(pid)
    }

    fn give_way(&self, channel: &Channel, pid: u32) -> std::io::Result<()> {
        channel.set_timeout(UPGRADE_TIMEOUT)?;
        {
            let sockets = self.sockets();
            let borrowed: Vec<BorrowedFd<'_>> = sockets.iter().map(|(_, socket)| socket.as_fd()).collect();
            channel.send(&Step::Sockets { pid: std::process::id() }, &borrowed)?;
        }
        match channel.receive()?.0 {
            Step::Serving => {}
            other => return Err(std::io::Error::other(format!("it said {other:?} instead of serving"))),
        }
        channel.send(&Step::Yours, &[])?;
        self.retire();
        // Else whoever is told of the upgrade could find this process' names, or none. It serves by now in any case.
        channel.set_timeout(NAMED_WITHIN)?;
        if let Err(error) = channel.receive::<Step>() {
            tracing::warn!(%error, "the new process serves and did not say that its admin socket is in place");
        }
        self.relieved_by.send_replace(Some(pid));
        Ok(())
    }
}

/// The same command line again: the program that stands there now.
fn start(channel: OwnedFd) -> Result<Child, String> {
    let mut arguments = std::env::args_os();
    let program = arguments.next().ok_or("this process does not know its own program")?;
    let mut command = Command::new(&program);
    command.args(arguments.filter(|argument| argument != "--take-over")).arg("--take-over");
    let started = command.stdin(Stdio::from(channel)).spawn();
    started.map_err(|error| format!("{} does not start: {error}", program.display()))
}

/// Makes sure that a successor which did not take over is gone, and says what became of it.
fn ended(child: &mut Child, error: &std::io::Error) -> String {
    let until = Instant::now() + REAPED_WITHIN;
    while error.kind() == std::io::ErrorKind::UnexpectedEof && Instant::now() < until {
        if let Ok(Some(status)) = child.try_wait() {
            return format!("the new process ended before it served ({status}); the log says why");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let _ = child.kill();
    let _ = child.wait();
    match error.kind() {
        std::io::ErrorKind::TimedOut => {
            format!("the new process did not serve within {} s and was ended", UPGRADE_TIMEOUT.as_secs())
        }
        _ => format!("the new process was ended: {error}"),
    }
}
