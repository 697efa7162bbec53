//! The stream that Pingora's HTTP reads and writes.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use pingora::protocols::{ALPN, IO};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::h2::{Meter, header_deadline};
use super::held::Held;
use super::limits::{Exceeded, Limits};
use super::progress::Progress;
use super::refusal::Refusal;
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

    fn write_deadline(&self) -> Option<Instant> {
        let blocked = self.blocked.as_ref()?;
        let allowed = Duration::from_secs(blocked.taken / self.limits.body_rate_min.max(1));
        Some(blocked.moved.min(blocked.since + allowed) + self.limits.stall_timeout)
    }

    /// Ends the connection: an HTTP/1 visitor is told why if its socket takes it.
    fn end(&mut self, exceeded: Exceeded, context: &mut Context<'_>) -> io::Error
    where
        S: Unpin,
    {
        METRICS.guard_closed.with_label_values(&[exceeded.reason()]).inc();
        tracing::debug!(reason = exceeded.reason(), "connection ended: {exceeded}");
        if let (None, true, Some(answer)) = (&self.meter, self.held.is_empty(), exceeded.http1_answer())
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

    fn wrote(&mut self, written: Poll<io::Result<usize>>, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(written) => {
                if let Ok(bytes) = written {
                    if let Some(meter) = &mut self.meter {
                        meter.sent(bytes);
                    }
                    if let Some(blocked) = &mut self.blocked {
                        blocked.taken += bytes as u64;
                        blocked.moved = Instant::now();
                    }
                }
                Poll::Ready(written)
            }
            Poll::Pending => {
                self.block(context)?;
                Poll::Pending
            }
        }
    }

    /// Until nothing is held back.
    fn poll_release(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>>
    where
        S: Unpin,
    {
        while !self.held.is_empty() {
            let written = self.held.poll_write(Pin::new(&mut self.inner), context);
            ready!(self.wrote(written, context))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Accepts what may wait, once there is room for it.
    fn poll_hold(&mut self, bytes: &[u8], context: &mut Context<'_>) -> Poll<io::Result<usize>>
    where
        S: Unpin,
    {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if self.held.is_full() {
            ready!(self.poll_release(context))?;
        }
        let taken = self.held.take(bytes);
        if self.held.is_due()
            && let Poll::Ready(Err(error)) = self.poll_release(context)
        {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(taken))
    }

    /// Over HTTP/1, where something is written while no request has begun since the header that is being read: the HTTP
    /// library refuses it by itself. What it says is not passed on, ours is.
    fn refuses(&mut self, answer: &[u8]) -> bool {
        let unbegun = self.header.is_some() && self.progress.open() == 0 && self.progress.begun() == self.begun;
        if !unbegun || self.meter.is_some() {
            return false;
        }
        let refusal = Refusal::of(&self.first, answer);
        if self.progress.refuse(refusal) {
            self.held.take(&refusal.page());
        }
        true
    }

    fn flushed(&mut self, flushed: Poll<io::Result<()>>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match flushed {
            Poll::Ready(flushed) => {
                self.blocked = None;
                Poll::Ready(flushed)
            }
            Poll::Pending => {
                self.block(context)?;
                Poll::Pending
            }
        }
    }

    fn block(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let now = Instant::now();
        self.blocked.get_or_insert(Blocked { since: now, taken: 0, moved: now });
        match self.write_deadline().map(|deadline| self.write_timer.poll(deadline, context)) {
            Some(Poll::Ready(())) => Err(self.end(Exceeded::NotReading, context)),
            _ => Ok(()),
        }
    }
}

impl<S: IO> AsyncWrite for Guarded<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.refuses(bytes) {
            return Poll::Ready(Ok(bytes.len()));
        }
        if !this.held.passes(bytes.len()) {
            return this.poll_hold(bytes, context);
        }
        let written = Pin::new(&mut this.inner).poll_write(context, bytes);
        this.wrote(written, context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.refuses(parts.first().map_or(&[], |part| part)) {
            return Poll::Ready(Ok(parts.iter().map(|part| part.len()).sum()));
        }
        let mut taken = 0;
        for part in parts.iter().filter(|part| !part.is_empty()) {
            match (taken, this.held.passes(part.len())) {
                (0, true) => return Pin::new(this).poll_write(context, part),
                // Large, and nothing before it is held any more: next time, by itself.
                (_, true) => break,
                _ => {}
            }
            match this.poll_hold(part, context) {
                Poll::Ready(Ok(more)) => {
                    taken += more;
                    if more < part.len() {
                        break;
                    }
                }
                Poll::Pending if taken > 0 => break,
                other => return other,
            }
        }
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_release(context))?;
        let flushed = Pin::new(&mut this.inner).poll_flush(context);
        this.flushed(flushed, context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_release(context))?;
        let flushed = Pin::new(&mut this.inner).poll_shutdown(context);
        this.flushed(flushed, context)
    }
}

impl<S: IO> Drop for Guarded<S> {
    /// What a broken response has left goes out if the socket takes it.
    fn drop(&mut self) {
        let _ = self.poll_release(&mut Context::from_waker(Waker::noop()));
    }
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
