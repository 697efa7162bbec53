//! Plugins of the world `body-plugin`: an [`HttpPolicy`] that also sees bodies.

use crate::http::HttpPolicy;

pub use crate::bindings::body::{Head, Message, Messages, Passage};

/// Sees bodies as they pass, and may change them.
pub trait BodyPolicy: HttpPolicy {
    /// One body under way.
    type Body: Body;

    /// Of which messages bodies are seen. What is not named costs nothing.
    fn messages(&self) -> Messages;

    /// Called when the head of a message with a body is decided.
    fn begin(&self, head: &Head) -> Course<Self::Body>;
}

/// Is asked for a body's pieces in their order, and dropped after the last one, or at any moment.
pub trait Body: 'static {
    /// A piece of 8 KiB at most. `end`: the last one; it may be empty.
    fn push(&mut self, piece: &[u8], end: bool) -> Passage;
}

/// What is to be done with a body.
pub enum Course<B> {
    /// It passes as it is, and costs nothing more.
    Pass,
    /// It is shown, and passes as it is: [`Passage::Replace`] would be a fault.
    Watch(B),
    /// What `push` returns goes out in its place.
    Change(B),
}

/// For tests: the whole body, pushed in pieces of so many bytes, or what it was refused with.
pub fn pushed(mut body: impl Body, whole: &[u8], piece_bytes: usize) -> Result<Vec<u8>, u16> {
    let mut out = Vec::new();
    let mut pieces = whole.chunks(piece_bytes.max(1)).peekable();
    if pieces.peek().is_none() {
        return passed(body.push(&[], true), &[]);
    }
    while let Some(piece) = pieces.next() {
        out.extend(passed(body.push(piece, pieces.peek().is_none()), piece)?);
    }
    Ok(out)
}

fn passed(passage: Passage, piece: &[u8]) -> Result<Vec<u8>, u16> {
    match passage {
        Passage::Pass => Ok(piece.to_vec()),
        Passage::Replace(bytes) => Ok(bytes),
        Passage::Refuse(status) => Err(status),
    }
}

/// Exports a [`BodyPolicy`] from the component. Once in a crate, in place of `export_http`.
#[macro_export]
macro_rules! export_http_body {
    ($policy:ty) => {
        $crate::export_http!($policy);
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            type Plugin = $crate::glue::Http<$policy>;
    $crate::bindings::body::export_http_body!(Plugin with_types_in $crate::bindings::body);
        };
        #[cfg(not(target_arch = "wasm32"))]
        const _: *const () = <$policy as $crate::body::BodyPolicy>::begin as *const ();
    };
}
