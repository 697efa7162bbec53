//! Which edge keys open a bundle. A fleet has few such sets, however many bundles it has: they are counted by set.

use std::collections::BTreeMap;

use contract::Bundle;
use contract::bundle::sha256;

/// Key IDs, and of each whether the key is known to open it: CertService has sealed it to the key itself, or the key's own
/// edge has opened it. What another edge has wrapped for a key is believed only then.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeySet(BTreeMap<String, bool>);

/// Behind a key ID that is not confirmed.
const UNCONFIRMED: char = '?';

impl KeySet {
    /// Of a bundle that CertService has sealed: the keys that open all its certificates.
    pub fn of(bundle: &Bundle) -> Self {
        Self(in_all(bundle).map(|kid| (kid.to_owned(), true)).collect())
    }

    /// After entries were put into a bundle or taken out: what is new is not confirmed.
    pub(super) fn after(&self, bundle: &Bundle) -> Self {
        Self(in_all(bundle).map(|kid| (kid.to_owned(), self.opens(kid))).collect())
    }

    pub(super) fn confirm(&mut self, kid: &str) {
        self.0.entry(kid.to_owned()).and_modify(|confirmed| *confirmed = true);
    }

    pub fn has(&self, kid: &str) -> bool {
        self.0.contains_key(kid)
    }

    /// Known to.
    pub fn opens(&self, kid: &str) -> bool {
        self.0.get(kid) == Some(&true)
    }

    pub(super) fn kids(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// As it is stored.
    pub fn text(&self) -> String {
        let kids = self.0.iter().map(|(kid, confirmed)| match confirmed {
            true => kid.clone(),
            false => format!("{kid}{UNCONFIRMED}"),
        });
        kids.collect::<Vec<_>>().join(" ")
    }

    pub fn parse(text: &str) -> Self {
        let kid = |word: &str| match word.strip_suffix(UNCONFIRMED) {
            Some(kid) => (kid.to_owned(), false),
            None => (word.to_owned(), true),
        };
        Self(text.split_ascii_whitespace().map(kid).collect())
    }

    /// What bundles are counted by; never 0, which is a bundle that is not counted yet.
    pub fn id(&self) -> i64 {
        let digest = sha256(self.text().as_bytes());
        i64::from_be_bytes(std::array::from_fn(|at| digest[at])) | 1
    }
}

fn in_all(bundle: &Bundle) -> impl Iterator<Item = &str> {
    let others = bundle.rsa.iter().map(|second| &second.key.recipients);
    let first = bundle.key.recipients.iter().map(|recipient| recipient.header.kid.as_str());
    first.filter(move |kid| others.clone().all(|other| other.iter().any(|recipient| recipient.header.kid == *kid)))
}
