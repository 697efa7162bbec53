//! What is written to the visitor, and how long it may take to read it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use pingora::protocols::IO;
use tokio::io::AsyncWrite;
use tokio::time::Instant;

use super::super::limits::Exceeded;
use super::super::refusal::Refusal;
use super::{Blocked, Guarded};

impl<S: IO> Guarded<S> {
    /// Whether a part of an answer has been written, and not all of it.
    pub(super) fn is_answering(&self) -> bool {
        self.progress.open() > 0 && self.answered == self.progress.begun()
    }

    /// After an interim answer the final one is still due. The head of an answer is written by itself, and first.
    fn answers(&mut self, bytes: &[u8]) {
        if self.progress.open() > 0 && !self.is_answering() && !is_interim(bytes) {
            self.answered = self.progress.begun();
        }
    }

    fn write_deadline(&self) -> Option<Instant> {
        let blocked = self.blocked.as_ref()?;
        let allowed = Duration::from_secs(blocked.taken / self.limits.body_rate_min.max(1));
        Some(blocked.moved.min(blocked.since + allowed) + self.limits.stall_timeout)
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
    pub(super) fn poll_release(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>>
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
        this.answers(bytes);
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
        this.answers(parts.first().map_or(&[], |part| part));
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

/// Of HTTP/1, other than that the protocol is switched.
fn is_interim(head: &[u8]) -> bool {
    head.starts_with(b"HTTP/1.") && head.get(8..10) == Some(b" 1") && head.get(10..12) != Some(b"01")
}
