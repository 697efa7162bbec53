//! How often something may happen, counted by the proxy for all threads. In native tests there is no limit.

/// So many a minute, and so many at once after a rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    pub per_minute: u32,
    pub burst: u32,
}

/// Takes one for this key; false where there is none left. Not in `plan`.
pub fn take(key: &[u8], rate: Rate) -> bool {
    #[cfg(target_arch = "wasm32")]
    {
        use crate::bindings::rates as wit;
        wit::take(key, wit::Rate { per_minute: rate.per_minute, burst: rate.burst })
    }
    #[cfg(not(target_arch = "wasm32"))]
    {
        let _ = (key, rate);
        true
    }
}
