//! The stream that Pingora's HTTP reads and writes.

mod writing;

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use pingora::protocols::{ALPN, IO};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::Instant;

use super::h2::{Meter, header_deadline};
use super::held::Held;
use super::limits::{Exceeded, Limits};
use super::progress::Progress;
use super::timer::Timer;
use crate::observe::METRICS;

/// The first bytes of a request, nearly always all of its header.
const AHEAD_MAX: usize = 4096;

pub struct Guarded<S: IO> {
    pub(super) inner: S,
    limits: Arc<Limits>,
    progress: Arc<Progress>,
    /// On HTTP/2 connections.
    meter: Option<Meter>,
    started: Instant,
    /// HTTP/1: bytes of a header that is not complete, and since when.
    header: Option<(Instant, usize)>,
    /// Requests begun when this was last looked at.
    begun: u32,
    /// How the request that is awaited begins; for nothing but to say what is wrong with it.
    first: Bytes,
    /// Since when no request is open.
    idle_since: Option<Instant>,
    /// Since when the visitor is waited for.
    waiting_since: Option<Instant>,
    /// While a body is being sent: how long the visitor was waited for, and how much came.
    upload: Option<(Duration, u64)>,
    /// Pieces of answers to those who send, when this was last looked at.
    answers: u32,
    /// Read while nobody had room for it.
    ahead: Bytes,
    /// It came before the request that is being answered was over.
    early: bool,
    /// The last request for which something other than an interim answer was written.
    answered: u32,
    held: Held,
    /// While the visitor takes less than is written.
    blocked: Option<Blocked>,
    read_timer: Timer,
    write_timer: Timer,
}

struct Blocked {
    since: Instant,
    /// What it has taken since, and when the last of it.
    taken: u64,
    moved: Instant,
}

impl<S: IO> Guarded<S> {
    pub fn new(inner: S, limits: Arc<Limits>, progress: Arc<Progress>) -> Self {
        let now = Instant::now();
        let h2 = matches!(inner.selected_alpn_proto(), Some(ALPN::H2));
        // As much as the HTTP library unpacks: it and the phases judge what is in it.
        let meter = h2.then(|| Meter::new(now, limits.header_bytes_max.saturating_mul(2)));
        Self {
            inner,
            limits,
            progress,
            meter,
            started: now,
            header: None,
            begun: 0,
            first: Bytes::new(),
            idle_since: Some(now),
            waiting_since: None,
            upload: None,
            answers: 0,
            ahead: Bytes::new(),
            early: false,
            answered: 0,
            held: Held::default(),
            blocked: None,
            read_timer: Timer::default(),
            write_timer: Timer::default(),
        }
    }

    /// Brings the guard's own view up to what the HTTP phases have told.
    fn look(&mut self, now: Instant) {
        let begun = self.progress.begun();
        if begun != self.begun {
            self.begun = begun;
            self.header = None;
            self.first = Bytes::new();
            self.idle_since = None;
        }
        if self.progress.open() > 0 {
            self.idle_since = None;
        } else if self.idle_since.is_none() {
            self.idle_since = Some(now);
        }
        if self.progress.uploading() == 0 {
            self.upload = None;
        } else if self.upload.is_none() {
            self.upload = Some((Duration::ZERO, 0));
            // It may have begun with the upstream's leave, for which the visitor was right to wait.
            self.waiting_since = self.waiting_since.map(|_| now);
        }
        let answers = self.progress.answers();
        if answers != self.answers && self.meter.is_some() {
            self.answers = answers;
            self.waiting_since = self.waiting_since.map(|_| now);
            self.upload = self.upload.map(|(_, sent)| (Duration::ZERO, sent));
        }
    }

    fn was_read(&mut self, bytes: &[u8], now: Instant) -> Result<(), Exceeded> {
        self.look(now);
        let waited = self.waiting_since.take().map_or(Duration::ZERO, |since| now - since);
        if let Some((waited_so_far, sent)) = &mut self.upload {
            *waited_so_far += waited;
            *sent += bytes.len() as u64;
        }
        if let Some(meter) = &mut self.meter {
            return meter.read(bytes, now);
        }
        if self.progress.open() == 0 {
            let (since, size) = self.header.unwrap_or((now, 0));
            let size = size + bytes.len();
            self.header = Some((since, size));
            // A body that came with its header is counted here too: twice the limit leaves it room.
            if size > self.limits.header_bytes_max.saturating_mul(2).saturating_add(64 * 1024) {
                return Err(Exceeded::HeaderTooLarge);
            }
        }
        Ok(())
    }

    /// Until when the visitor must send something, and what it has failed to do if not.
    fn read_deadline(&self) -> Option<(Instant, Exceeded)> {
        let limits = &self.limits;
        if let (Some((waited, sent)), Some(since)) = (self.upload, self.waiting_since) {
            // Over HTTP/2 the visitor may be waiting itself, for window that a slow upstream holds back.
            let stall = limits.stall_timeout * if self.meter.is_some() { 3 } else { 1 };
            let allowed = stall + Duration::from_secs(sent / limits.body_rate_min.max(1));
            let left = allowed.saturating_sub(waited);
            return Some(if left < stall {
                (since + left, Exceeded::BodyTooSlow)
            } else {
                (since + stall, Exceeded::BodyStalled)
            });
        }
        if let Some(meter) = &self.meter {
            let header = header_deadline(meter, self.started, limits.header_timeout);
            let idle = self.idle_since.map(|since| (since + limits.h2_idle_timeout, Exceeded::Idle));
            return header.map(|at| (at, Exceeded::HeaderTimeout)).or(idle);
        }
        if let Some((since, _)) = self.header {
            return (self.progress.open() == 0).then_some((since + limits.header_timeout, Exceeded::HeaderTimeout));
        }
        let first = self.begun == 0;
        let timeout = if first { limits.header_timeout } else { limits.keepalive_timeout };
        self.idle_since.map(|since| (since + timeout, if first { Exceeded::HeaderTimeout } else { Exceeded::Idle }))
    }

    /// Ends the connection: an HTTP/1 visitor is told why if its socket takes it, and does not take it for a part of an answer.
    fn end(&mut self, exceeded: Exceeded, context: &mut Context<'_>) -> io::Error
    where
        S: Unpin,
    {
        METRICS.guard_closed.with_label_values(&[exceeded.reason()]).inc();
        tracing::debug!(reason = exceeded.reason(), "connection ended: {exceeded}");
        let free = self.held.is_empty() && !self.is_answering();
        if let (None, true, Some(answer)) = (&self.meter, free, exceeded.http1_answer())
            && let Poll::Ready(Ok(_)) = Pin::new(&mut self.inner).poll_write(context, answer)
        {
            let _ = Pin::new(&mut self.inner).poll_flush(context);
        }
        io::Error::new(io::ErrorKind::TimedOut, exceeded)
    }
}

impl<S: IO> AsyncRead for Guarded<S> {
    /// A read of nothing waits until there is something to read: so a connection between two requests holds no buffer.
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // The socket did not take it, and who wrote it may have no more to write.
        if this.held.is_due()
            && let Poll::Ready(Err(error)) = this.poll_release(context)
        {
            return Poll::Ready(Err(error));
        }
        if this.is_busy() {
            return this.poll_early(context);
        }
        if this.early {
            this.next_begins();
        }
        if !this.ahead.is_empty() {
            let size = this.ahead.len().min(buffer.remaining());
            buffer.put_slice(&this.ahead.split_to(size));
            return Poll::Ready(Ok(()));
        }
        if buffer.remaining() > 0 {
            return this.poll_receive(context, buffer);
        }
        let mut space = [MaybeUninit::uninit(); AHEAD_MAX];
        let mut read = ReadBuf::uninit(&mut space);
        ready!(this.poll_receive(context, &mut read))?;
        this.ahead = Bytes::copy_from_slice(read.filled());
        this.first = this.ahead.clone();
        Poll::Ready(Ok(()))
    }
}

impl<S: IO> Guarded<S> {
    /// Whether a request of HTTP/1 is being answered whose visitor has nothing more to send.
    fn is_busy(&self) -> bool {
        self.meter.is_none() && self.progress.open() > 0 && self.progress.reading() == 0
    }

    /// What comes meanwhile is the next request (RFC 9112 section 9.3.2). The HTTP library would take it for a fault of this
    /// one, so it waits here, as much as fits. Only the end of the connection is told.
    fn poll_early(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.ahead.len() < AHEAD_MAX {
            let mut space = [MaybeUninit::uninit(); AHEAD_MAX];
            let mut read = ReadBuf::uninit(&mut space[self.ahead.len()..]);
            ready!(self.poll_receive(context, &mut read))?;
            if read.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            self.early = true;
            self.ahead = [&self.ahead, read.filled()].concat().into();
        }
        Poll::Pending
    }

    /// It is read now as if it had just come. An empty line before it is nobody's (RFC 9112 section 2.2).
    fn next_begins(&mut self) {
        self.early = false;
        while self.ahead.starts_with(b"\r\n") {
            self.ahead.advance(2);
        }
        let now = Instant::now();
        self.look(now);
        self.first = self.ahead.clone();
        self.header = (!self.ahead.is_empty()).then_some((now, self.ahead.len()));
    }

    fn poll_receive(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        if let Poll::Ready(read) = Pin::new(&mut self.inner).poll_read(context, buffer) {
            read?;
            let read = &buffer.filled()[before..];
            return Poll::Ready(self.was_read(read, Instant::now()).map_err(|exceeded| self.end(exceeded, context)));
        }
        let now = Instant::now();
        self.look(now);
        self.waiting_since.get_or_insert(now);
        let Some((deadline, exceeded)) = self.read_deadline() else {
            return Poll::Pending;
        };
        ready!(self.read_timer.poll(deadline, context));
        Poll::Ready(Err(self.end(exceeded, context)))
    }
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
