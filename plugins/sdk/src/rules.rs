//! Which rules there are, so that the proxy can keep which of them are in use. Without effect in native tests.

/// The next rules, in their order, by ids that say which rule it is ([`id`]); 0 is a place without a rule. In `plan` only.
pub fn declare(ids: &[u64]) {
    #[cfg(target_arch = "wasm32")]
    crate::bindings::control::rules::declare(ids);
    #[cfg(not(target_arch = "wasm32"))]
    let _ = ids;
}

/// An id of what makes a rule this rule (FNV-1a): the same in every configuration. Never 0.
pub fn id(parts: &[&str]) -> u64 {
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    // No text has this byte (UTF-8), so two parts are never taken for one.
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0xff]));
    bytes.fold(BASIS, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_never_taken_for_each_other() {
        assert_eq!(id(&["a", "b"]), id(&["a", "b"]));
        assert!(id(&["ab", ""]) != id(&["a", "b"]) && id(&["a", "b"]) != id(&["a", "b", ""]) && id(&[]) != 0);
    }
}
