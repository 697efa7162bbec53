//! Messages to the proxy's log. Without effect in native tests.

pub use crate::bindings::control::log::Level;

/// Writes a message if anybody would see it; the text is only made then.
pub fn write(level: Level, message: impl FnOnce() -> String) {
    #[cfg(target_arch = "wasm32")]
    {
        use crate::bindings::control::log;
        if log::enabled(level) {
            log::write(level, &message());
        }
    }
    #[cfg(not(target_arch = "wasm32"))]
    let _ = (level, message);
}
