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
    /// Requests that what comes may belong to.
    reading: AtomicU32,
    /// Requests begun, ever: a change tells that one came and went between two looks.
    begun: AtomicU32,
    /// Pieces of answers to requests that still send.
    answers: AtomicU32,
    header_bytes: AtomicUsize,
    refusal: OnceLock<Refusal>,
}

/// What of a request is still to come once its header is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    Nothing,
    Body,
    /// A body, but its visitor waits for the upstream's leave (RFC 9110 section 10.1.1).
    BodyWithLeave,
}

/// An open request: it ends when this is dropped, however the request ends.
#[derive(Debug)]
pub struct OpenRequest {
    progress: Arc<Progress>,
    rest: Rest,
    switches: bool,
    header_bytes: usize,
}

impl OpenRequest {
    /// A request's header is complete.
    pub fn begin(progress: &Arc<Progress>, rest: Rest) -> Self {
        progress.begun.fetch_add(1, Ordering::Relaxed);
        progress.open.fetch_add(1, Ordering::Release);
        progress.uploading.fetch_add(u32::from(rest == Rest::Body), Ordering::Release);
        progress.reading.fetch_add(u32::from(rest != Rest::Nothing), Ordering::Release);
        Self { progress: progress.clone(), rest, switches: false, header_bytes: 0 }
    }

    /// What comes may be of another protocol.
    pub fn may_switch(&mut self) {
        if !std::mem::replace(&mut self.switches, true) {
            self.progress.reading.fetch_add(1, Ordering::Release);
        }
    }

    /// The visitor need not wait any more, or has not waited.
    pub fn has_leave(&mut self) {
        if self.rest == Rest::BodyWithLeave {
            self.rest = Rest::Body;
            self.progress.uploading.fetch_add(1, Ordering::Release);
        }
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
        if self.rest == Rest::Body {
            self.progress.answers.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Its body is complete.
    pub fn uploaded(&mut self) {
        let rest = std::mem::replace(&mut self.rest, Rest::Nothing);
        self.progress.uploading.fetch_sub(u32::from(rest == Rest::Body), Ordering::Release);
        self.progress.reading.fetch_sub(u32::from(rest != Rest::Nothing), Ordering::Release);
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.uploaded();
        self.progress.reading.fetch_sub(u32::from(self.switches), Ordering::Release);
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

    pub(super) fn reading(&self) -> u32 {
        self.reading.load(Ordering::Acquire)
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
        let (mut sends, sent) =
            (OpenRequest::begin(&progress, Rest::Body), OpenRequest::begin(&progress, Rest::Nothing));
        sends.is_answered();
        sent.is_answered();
        assert_eq!(progress.answers(), 1);
        sends.uploaded();
        sends.is_answered();
        assert_eq!(progress.answers(), 1);
    }

    #[test]
    fn what_comes_belongs_to_a_request_that_still_takes_it() {
        let progress = Arc::<Progress>::default();
        let now = |progress: &Progress| (progress.uploading(), progress.reading());
        let mut request = OpenRequest::begin(&progress, Rest::BodyWithLeave);
        assert_eq!(now(&progress), (0, 1));
        request.has_leave();
        request.has_leave();
        assert_eq!(now(&progress), (1, 1));
        request.uploaded();
        request.has_leave();
        assert_eq!(now(&progress), (0, 0));
        let mut switches = OpenRequest::begin(&progress, Rest::Nothing);
        switches.may_switch();
        switches.uploaded();
        assert_eq!(now(&progress), (0, 1));
        drop((request, switches));
        assert_eq!(now(&progress), (0, 0));
    }

    #[test]
    fn headers_are_held_until_their_request_ends() {
        let progress = Arc::default();
        let mut one = OpenRequest::begin(&progress, Rest::Nothing);
        let mut two = OpenRequest::begin(&progress, Rest::Body);
        assert_eq!((one.hold(100).0, two.hold(50).0), (100, 150));
        drop(one);
        let mut three = OpenRequest::begin(&progress, Rest::Nothing);
        assert_eq!(three.hold(1).0, 51);
        drop((two, three));
        let left = (progress.open(), progress.uploading(), progress.header_bytes.load(Ordering::Relaxed));
        assert_eq!(left, (0, 0, 0));
    }
}
