//! How long a certificate lives, and when CertService replaces it: the edge sees by the same rule that it was not.

const DAY: u64 = 86_400;
const SHORT_LIVED_SECONDS: u64 = 10 * DAY;

/// Unix seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    pub not_before: u64,
    pub not_after: u64,
}

impl Validity {
    pub fn seconds(self) -> u64 {
        self.not_after.saturating_sub(self.not_before)
    }

    /// What is left of it, in seconds, when it is to be replaced: a third of its lifetime, half for the short-lived.
    pub fn left_at_renewal(self) -> u64 {
        let lifetime = self.seconds();
        if lifetime < SHORT_LIVED_SECONDS { lifetime / 2 } else { lifetime / 3 }
    }
}
