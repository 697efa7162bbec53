use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process, kill_process_group};

use crate::wait::{PATIENCE, until};
use crate::{Context, Result, fail, program};

const TAIL_LINES: usize = 40;

/// A running child process. Ended on drop; its log is shown where a test has failed.
pub struct Process {
    name: String,
    log: PathBuf,
    child: Child,
}

impl Process {
    /// Starts `program`; what it writes goes to `<logs>/<name>.log`.
    pub fn start(name: &str, program: &Path, logs: &Path, arguments: impl FnOnce(&mut Command)) -> Result<Self> {
        let log = logs.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log).context(log.display())?;
        let mut command = dies_with_us(program);
        arguments(&mut command);
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        // A group of its own: Ctrl-C reaches us, and we end our children in order.
        command.process_group(0);
        let child = command.spawn().context(format!("start {}", program.display()))?;
        Ok(Self { name: name.into(), log, child })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn log_file(&self) -> &Path {
        &self.log
    }

    pub fn log(&self) -> String {
        std::fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The last line of the log that has all `parts`; waited for, because a log is written beside what it tells.
    pub async fn says(&self, parts: &[&str]) -> Result<String> {
        until(format!("{} to log {parts:?}", self.name), PATIENCE, async || {
            let log = self.log();
            let line = log.lines().rfind(|line| parts.iter().all(|part| line.contains(part)));
            line.map(str::to_owned).context(self.log_tail())
        })
        .await
    }

    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }

    /// An error, with its last words, where it has ended by itself.
    pub fn check_running(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => {
                fail(format!("{} ended by itself ({status}); its last lines:\n{}", self.name, self.log_tail()))
            }
        }
    }

    /// Polls until `probe` succeeds; gives up as soon as the process ends.
    pub async fn until_ready<T>(&mut self, probe: impl AsyncFn() -> Result<T>) -> Result<T> {
        let what = format!("{} to be ready", self.name);
        let ready = until(what.as_str(), PATIENCE, async || match self.child.try_wait() {
            Ok(None) => probe().await.map(Some),
            _ => Ok(None),
        });
        match ready.await {
            Ok(Some(value)) => Ok(value),
            Ok(None) => self.check_running().and_then(|()| fail(what)),
            Err(error) => fail(format!("{error}; its last lines:\n{}", self.log_tail())),
        }
    }

    /// Asks it to end and waits; kills it where it does not.
    pub async fn stop(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::TERM);
        let what = format!("{} to end", self.name);
        let ended = until(what.as_str(), PATIENCE, async || self.child.try_wait()?.context("it still runs")).await;
        if ended.is_err() {
            self.kill();
        }
        ended
    }

    /// Waits for it to end by itself.
    pub async fn ended(&mut self) -> Result<ExitStatus> {
        let what = format!("{} to end by itself", self.name);
        until(what.as_str(), PATIENCE, async || self.child.try_wait()?.context("it still runs")).await
    }

    /// Ends it at once, as a crash would, and with it whatever it has started.
    pub fn kill(&mut self) {
        if let Some(pid) = self.pid() {
            // Fails only where all have ended already.
            let _ = kill_process_group(pid, Signal::KILL);
        }
        let _ = self.child.wait();
    }

    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid() {
            // Fails only where it has ended already.
            let _ = kill_process(pid, signal);
        }
    }

    /// Also the number of its process group.
    fn pid(&self) -> Option<Pid> {
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("---- last lines of {} ({})\n{}\n----", self.name, self.log.display(), self.log_tail());
        }
    }
}

/// Where util-linux is there, the kernel ends the child even where we are killed and no destructor runs.
fn dies_with_us(path: &Path) -> Command {
    let Some(setpriv) = program::find("setpriv") else { return Command::new(path) };
    let mut command = Command::new(setpriv);
    command.args(["--pdeathsig", "KILL", "--"]).arg(path);
    command
}
