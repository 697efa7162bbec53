//! What the HTTP phases tell the guard of a connection: which requests are open, which still send.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use super::refusal::Refusal;

/// Header bytes of all open requests of this process.
static HEADER_BYTES: AtomicUsize = AtomicUsize::new(0);

#[derive(Debug, Default)]
pub struct Progress {
    open: AtomicU32,
    uploading: AtomicU32,
    /// Requests begun, ever: a change tells that one came and went between two looks.
    begun: AtomicU32,
    /// Pieces of answers to requests that still send.
    answers: AtomicU32,
    header_bytes: AtomicUsize,
    refusal: OnceLock<Refusal>,
}

/// An open request: it ends when this is dropped, however the request ends.
#[derive(Debug)]
pub struct OpenRequest {
    progress: Arc<Progress>,
    uploading: bool,
    header_bytes: usize,
}

impl OpenRequest {
    /// A request's header is complete.
    pub fn begin(progress: &Arc<Progress>, with_body: bool) -> Self {
        progress.begun.fetch_add(1, Ordering::Relaxed);
        progress.open.fetch_add(1, Ordering::Release);
        progress.uploading.fetch_add(u32::from(with_body), Ordering::Release);
        Self { progress: progress.clone(), uploading: with_body, header_bytes: 0 }
    }

    /// Counts what its header holds in memory; returns what the headers of all open requests hold, of this connection
    /// and of the process.
    pub fn hold(&mut self, header_bytes: usize) -> (usize, usize) {
        self.header_bytes += header_bytes;
        let of_connection = self.progress.header_bytes.fetch_add(header_bytes, Ordering::Relaxed);
        let of_process = HEADER_BYTES.fetch_add(header_bytes, Ordering::Relaxed);
        (of_connection + header_bytes, of_process + header_bytes)
    }

    /// A piece of its answer's body came. Where it still sends, both sides talk to each other: the visitor may be waiting
    /// for what is said to it.
    pub fn is_answered(&self) {
        if self.uploading {
            self.progress.answers.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Its body is complete.
    pub fn uploaded(&mut self) {
        if std::mem::take(&mut self.uploading) {
            self.progress.uploading.fetch_sub(1, Ordering::Release);
        }
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.uploaded();
        self.progress.header_bytes.fetch_sub(self.header_bytes, Ordering::Relaxed);
        HEADER_BYTES.fetch_sub(self.header_bytes, Ordering::Relaxed);
        self.progress.open.fetch_sub(1, Ordering::Release);
    }
}

impl Progress {
    pub(super) fn open(&self) -> u32 {
        self.open.load(Ordering::Acquire)
    }

    pub(super) fn uploading(&self) -> u32 {
        self.uploading.load(Ordering::Acquire)
    }

    /// Of the request that the HTTP library refused by itself, if it did.
    pub fn refusal(&self) -> Option<Refusal> {
        self.refusal.get().copied()
    }

    /// True if it is the first one.
    pub(super) fn refuse(&self, refusal: Refusal) -> bool {
        self.refusal.set(refusal).is_ok()
    }

    pub(super) fn answers(&self) -> u32 {
        self.answers.load(Ordering::Relaxed)
    }

    pub(super) fn begun(&self) -> u32 {
        self.begun.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_while_its_request_still_sends() {
        let progress = Arc::default();
        let (mut sends, sent) = (OpenRequest::begin(&progress, true), OpenRequest::begin(&progress, false));
        sends.is_answered();
        sent.is_answered();
        assert_eq!(progress.answers(), 1);
        sends.uploaded();
        sends.is_answered();
        assert_eq!(progress.answers(), 1);
    }

    #[test]
    fn headers_are_held_until_their_request_ends() {
        let progress = Arc::default();
        let mut one = OpenRequest::begin(&progress, false);
        let mut two = OpenRequest::begin(&progress, true);
        assert_eq!((one.hold(100).0, two.hold(50).0), (100, 150));
        drop(one);
        let mut three = OpenRequest::begin(&progress, false);
        assert_eq!(three.hold(1).0, 51);
        drop((two, three));
        let left = (progress.open(), progress.uploading(), progress.header_bytes.load(Ordering::Relaxed));
        assert_eq!(left, (0, 0, 0));
    }
}
