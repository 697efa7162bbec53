//! The access log: requests append lines to buffers in memory, a thread of its own writes them out.
//!
//! A request never waits for the log: a buffer is locked for as long as it takes to append a line, or to swap it for an
//! empty one. A buffer that is full, because the disk or the reader of a pipe is slow, takes no more lines; they are counted.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use super::METRICS;
use super::access::{LINE_BYTES_MAX, Record};

/// How long a line lies in memory at most, while the log keeps up.
const WRITE_EVERY: Duration = Duration::from_millis(100);
/// How often a file's name is looked at: whether it still names the open file.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a stop waits for the last lines.
const FINISH_WITHIN: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLogSettings {
    pub to: Target,
    /// One in so many requests that went well.
    pub sample_one_in: u32,
    pub query: bool,
    /// Of all buffers together.
    pub buffer_bytes_max: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    Stdout,
    Stderr,
    File(PathBuf),
}

pub struct AccessLog {
    /// One for each thread that serves, so that they don't wait for each other.
    buffers: Box<[Mutex<Vec<u8>>]>,
    buffer_bytes_max: usize,
    sample_one_in: u32,
    pub query: bool,
    seen: AtomicU32,
    reopen: AtomicBool,
    stop: AtomicBool,
    writer: OnceLock<Thread>,
}

/// The thread that writes.
pub struct Writer {
    log: Arc<AccessLog>,
    thread: JoinHandle<()>,
}

impl AccessLog {
    /// Opens the file, where it is one: what can't be opened is an error now and not a silent loss later.
    pub fn start(settings: AccessLogSettings, threads: usize) -> std::io::Result<(Arc<Self>, Writer)> {
        let sink = Sink::open(settings.to)?;
        let buffers: Box<[_]> = (0..threads.max(1)).map(|_| Mutex::default()).collect();
        let log = Arc::new(Self {
            buffer_bytes_max: settings.buffer_bytes_max / buffers.len(),
            buffers,
            sample_one_in: settings.sample_one_in.max(1),
            query: settings.query,
            seen: AtomicU32::new(0),
            reopen: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            writer: OnceLock::new(),
        });
        let writing = log.clone();
        let thread = std::thread::Builder::new().name("access-log".into()).spawn(move || writing.write_all(sink))?;
        let _ = log.writer.set(thread.thread().clone());
        Ok((log.clone(), Writer { log, thread }))
    }

    /// Whether this request is one of those that are logged. Faults always are.
    pub fn takes(&self, failed: bool) -> bool {
        failed || self.sample_one_in == 1 || self.seen.fetch_add(1, Relaxed).is_multiple_of(self.sample_one_in)
    }

    pub fn append(&self, record: &Record<'_>) {
        let mut buffer = lock(&self.buffers[slot() % self.buffers.len()]);
        let before = buffer.len();
        if before + LINE_BYTES_MAX > self.buffer_bytes_max {
            drop(buffer);
            METRICS.access_log_dropped.inc();
            return self.wake();
        }
        record.render(&mut buffer);
        let half = self.buffer_bytes_max / 2;
        if before < half && buffer.len() >= half {
            drop(buffer);
            self.wake();
        }
    }

    /// The file has been moved away: the next line goes to a new one of its name.
    pub fn reopen(&self) {
        self.reopen.store(true, Relaxed);
        self.wake();
    }

    fn wake(&self) {
        if let Some(writer) = self.writer.get() {
            writer.unpark();
        }
    }

    fn write_all(&self, mut sink: Sink) {
        let mut spare = Vec::new();
        loop {
            // Read before the buffers are: what was appended before the stop is written.
            let last = self.stop.load(Relaxed);
            if self.reopen.swap(false, Relaxed) {
                sink.reopen();
            }
            sink.look();
            for buffer in &self.buffers {
                std::mem::swap(&mut *lock(buffer), &mut spare);
                sink.write(&spare);
                spare.clear();
                // A burst's memory is given back.
                spare.shrink_to(LINE_BYTES_MAX * 8);
            }
            if last {
                return;
            }
            std::thread::park_timeout(WRITE_EVERY);
        }
    }
}

impl Writer {
    /// Writes what is left, unless nobody takes it.
    pub fn finish(self) {
        self.log.stop.store(true, Relaxed);
        self.log.wake();
        let until = Instant::now() + FINISH_WITHIN;
        while !self.thread.is_finished() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        if !self.thread.is_finished() {
            tracing::warn!("the access log takes no more lines; the last ones are lost");
        }
    }
}

/// A thread's number, in the order in which threads first log.
fn slot() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static SLOT: usize = NEXT.fetch_add(1, Relaxed));
    SLOT.try_with(|slot| *slot).unwrap_or(0)
}

fn lock(buffer: &Mutex<Vec<u8>>) -> MutexGuard<'_, Vec<u8>> {
    buffer.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where lines go.
struct Sink {
    target: Target,
    /// None for the standard streams.
    file: Option<File>,
    looked: Instant,
    /// A write ended within a line.
    torn: bool,
    /// The last write failed: said once, and again when it works.
    failing: bool,
}

impl Sink {
    fn open(target: Target) -> std::io::Result<Self> {
        let file = match &target {
            Target::File(path) => Some(append_to(path)?),
            Target::Stdout | Target::Stderr => None,
        };
        Ok(Self { target, file, looked: Instant::now(), torn: false, failing: false })
    }

    /// Writes whole lines, or counts those that are lost.
    fn write(&mut self, lines: &[u8]) {
        if lines.is_empty() {
            return;
        }
        let mut written = 0;
        let outcome = self.write_from(lines, &mut written);
        let count = |bytes: &[u8]| bytes.iter().filter(|&&byte| byte == b'\n').count() as u64;
        METRICS.access_log_written.inc_by(count(&lines[..written]));
        METRICS.access_log_dropped.inc_by(count(&lines[written..]));
        self.torn = if written > 0 { lines[written - 1] != b'\n' } else { self.torn };
        match outcome {
            Err(error) if !self.failing => {
                self.failing = true;
                tracing::error!(%error, to = ?self.target, "the access log can't be written; its lines are lost until it can");
            }
            Ok(()) if self.failing => {
                self.failing = false;
                tracing::info!(to = ?self.target, "the access log is written again");
            }
            _ => {}
        }
    }

    fn write_from(&mut self, lines: &[u8], written: &mut usize) -> std::io::Result<()> {
        if self.torn {
            self.write_some(b"\n")?;
            self.torn = false;
        }
        while *written < lines.len() {
            match self.write_some(&lines[*written..]) {
                Ok(0) => return Err(std::io::ErrorKind::WriteZero.into()),
                Ok(bytes) => *written += bytes,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn write_some(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match (&mut self.file, &self.target) {
            (Some(file), _) => file.write(bytes),
            (None, Target::Stderr) => std::io::stderr().write(bytes),
            (None, _) => {
                // Standard output is buffered by lines; what is given to it is not lost at exit.
                let mut stdout = std::io::stdout();
                let taken = stdout.write(bytes)?;
                stdout.flush()?;
                Ok(taken)
            }
        }
    }

    /// A file that was moved or removed without a signal is noticed too.
    fn look(&mut self) {
        let (Target::File(path), Some(file)) = (&self.target, &self.file) else { return };
        if self.looked.elapsed() < LOOK_EVERY {
            return;
        }
        self.looked = Instant::now();
        let named = std::fs::metadata(path).map(|named| (named.dev(), named.ino())).ok();
        let open = file.metadata().map(|open| (open.dev(), open.ino())).ok();
        if named != open {
            self.reopen();
        }
    }

    fn reopen(&mut self) {
        let Target::File(path) = &self.target else { return };
        match append_to(path) {
            Ok(file) => (self.file, self.torn) = (Some(file), false),
            // Lines go on into the old one.
            Err(error) => tracing::error!(path = %path.display(), %error, "the access log can't be opened anew"),
        }
    }
}

fn append_to(path: &PathBuf) -> std::io::Result<File> {
    File::options().create(true).append(true).mode(0o640).open(path)
}

#[cfg(test)]
#[path = "access_log_tests.rs"]
mod tests;
