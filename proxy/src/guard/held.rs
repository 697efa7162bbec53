//! Small writes wait for each other. HTTP writes a header, a chunk's length, a chunk; each by itself would be a TLS record
//! and a system call.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

/// Fewer bytes wait for the next write or the flush, as in a TCP segment of their own they would be small.
const HELD_MAX: usize = 1460;
/// What goes out together: the payload of a TLS record.
const TOGETHER_MAX: usize = 16 * 1024;

/// What was accepted and not written yet. Takes no memory while it is empty.
#[derive(Default)]
pub(super) struct Held {
    bytes: Vec<u8>,
    written: usize,
}

impl Held {
    /// Whether a write may bypass what is held.
    pub(super) fn passes(&self, size: usize) -> bool {
        self.bytes.is_empty() && size >= HELD_MAX
    }

    /// Takes what fits; returns how much.
    pub(super) fn take(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(TOGETHER_MAX - self.bytes.len());
        if self.bytes.is_empty() {
            self.bytes.reserve_exact(taken.max(HELD_MAX));
        }
        self.bytes.extend_from_slice(&bytes[..taken]);
        taken
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Whether it has waited enough.
    pub(super) fn is_due(&self) -> bool {
        self.bytes.len() >= HELD_MAX
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes.len() >= TOGETHER_MAX
    }

    /// Writes some of it: how much. Once all is written it holds nothing.
    pub(super) fn poll_write(
        &mut self,
        inner: Pin<&mut impl AsyncWrite>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let written = ready!(inner.poll_write(context, &self.bytes[self.written..]))?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.written += written;
        if self.written == self.bytes.len() {
            *self = Self::default();
        }
        Poll::Ready(Ok(written))
    }
}
