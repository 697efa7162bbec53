//! What the HTTP phases tell the guard of a connection: which requests are open, which still send.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

#[derive(Debug, Default)]
pub struct Progress {
    open: AtomicU32,
    uploading: AtomicU32,
    /// Requests begun, ever: a change tells that one came and went between two looks.
    begun: AtomicU32,
}

/// An open request: it ends when this is dropped, however the request ends.
#[derive(Debug)]
pub struct OpenRequest {
    progress: Arc<Progress>,
    uploading: bool,
}

impl OpenRequest {
    /// A request's header is complete.
    pub fn begin(progress: &Arc<Progress>, with_body: bool) -> Self {
        progress.begun.fetch_add(1, Ordering::Relaxed);
        progress.open.fetch_add(1, Ordering::Release);
        progress.uploading.fetch_add(u32::from(with_body), Ordering::Release);
        Self { progress: progress.clone(), uploading: with_body }
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

    pub(super) fn begun(&self) -> u32 {
        self.begun.load(Ordering::Relaxed)
    }
}
