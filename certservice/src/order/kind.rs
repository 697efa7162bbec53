//! What an order is to the limits of a CA. Pure.

use super::job::Job;
use crate::budget::Kind;

impl Job {
    /// What its issuer knows the certificate by that this one replaces.
    pub fn replaces(&self) -> Option<&str> {
        self.replaces_at(&self.issuer)
    }

    /// An issuer that has not made the certificate that is served knows nothing of it.
    fn replaces_at(&self, issuer: &str) -> Option<&str> {
        self.replaces.as_deref().filter(|_| self.was_served_by(issuer))
    }

    fn was_served_by(&self, issuer: &str) -> bool {
        self.served_by.as_ref().is_none_or(|by| *by == issuer)
    }

    /// What it is to the CA's limits.
    pub fn kind(&self) -> Kind {
        self.kind_at(&self.issuer)
    }

    fn kind_at(&self, issuer: &str) -> Kind {
        match (self.renews && self.was_served_by(issuer), self.replaces_at(issuer)) {
            (_, Some(_)) => Kind::Replacement,
            (true, None) => Kind::Renewal,
            (false, None) => Kind::New,
        }
    }

    /// Whether it would take of what an issuer limits by account.
    pub(super) fn counts_for_account(&self, issuer: &str) -> bool {
        let has_taken = self.spent && *issuer == self.issuer;
        !has_taken && self.kind_at(issuer).counts_for_account()
    }
}
