//! To which edge keys private keys are sealed, and which bundles which of them opens: keys are added and retired while
//! CertService runs, and edges wrap what they can open for others. Must never see a plaintext, take an edge's word without a
//! proof that it has the key, or let the last key go.

mod custody;
mod rewrap;
mod set;
mod tidy;

use std::sync::Arc;

use contract::api::{Custody, EdgeKeyInfo, KeyState, RetiredKey};
use contract::sealed::{RECIPIENTS_MAX, Recipient, RecipientError};
use ring::hmac;

pub use self::rewrap::{Offered, RewrapError};
pub use self::set::KeySet;
pub use self::tidy::run as tidy;
use crate::clock;
use crate::store::{KeyRow, OURSELVES, Store, StoreError};

/// Of the keys that the boot file names.
const BOOT_POOL: &str = "boot";
const POOL_BYTES_MAX: usize = 64;
/// Somebody else changes keys at the same time.
const ATTEMPTS_MAX: u32 = 10;

/// Cheap to clone.
#[derive(Clone)]
pub struct Keys {
    store: Store,
    secrets: Arc<Secrets>,
    boot: Arc<[Recipient]>,
}

/// Derived from what nobody but CertService has.
struct Secrets {
    /// Authenticates rows: who can write to the database can't have keys sealed to himself.
    rows: hmac::Key,
    /// Of challenges to edges.
    proofs: hmac::Key,
}

/// An edge key as it stands in the database.
struct Known {
    row: KeyRow,
    state: KeyState,
    /// Of an active one.
    recipient: Option<Recipient>,
}

#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Key(#[from] RecipientError),
    #[error("pool is `{0}`; it must be 1 to {POOL_BYTES_MAX} characters of [A-Za-z0-9._-]")]
    Pool(String),
    #[error("there is no edge key {0}; `latchkey keys ls` names all")]
    Unknown(String),
    #[error("edge key {0} was retired, and what is retired does not come back; make a new key")]
    Retired(String),
    #[error("edge key {0} is in pool `{1}` already; retire it there, or leave it")]
    OtherPool(String, String),
    #[error("{RECIPIENTS_MAX} edge keys are active already, and no more are accepted: retire one first")]
    TooMany,
    #[error("{0} is the last active edge key: without one nothing can be sealed; add another one first")]
    Last(String),
    #[error(
        "{unreadable} bundles can be opened by no other active edge key, and would be unreadable until they are issued anew; \
         re-wrap them first (`latchkey keys rewrap` on an edge), or force it"
    )]
    Unreadable { unreadable: u64 },
    #[error("{0} bundles are not counted yet; try again in a minute, or force it")]
    Uncounted(u64),
    #[error("edge keys are being changed by somebody else all the time; try again")]
    Busy,
}

impl Keys {
    /// `secret`: what nobody else has. `boot`: the keys that the boot file names.
    pub fn new(store: Store, secret: &[u8], boot: Vec<Recipient>) -> Self {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let derived = |what: &[u8]| hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&secret, what).as_ref());
        let secrets = Secrets { rows: derived(b"latchkey edge keys"), proofs: derived(b"latchkey edge proofs") };
        Self { store, secrets: Arc::new(secrets), boot: boot.into() }
    }

    /// Takes in what the boot file names. It adds and never retires: instances' boot files may differ.
    pub async fn begin(&self) -> Result<(), KeysError> {
        for recipient in self.boot.iter() {
            let known = self.known().await?;
            match known.iter().find(|known| known.row.kid == recipient.kid()).map(|known| known.state) {
                Some(KeyState::Active) => {}
                Some(KeyState::Retired) => {
                    tracing::warn!(
                        kid = recipient.kid(),
                        "[edges] public_keys names a key that was retired: nothing is sealed to it"
                    );
                }
                None | Some(KeyState::Altered) => drop(self.put(recipient, BOOT_POOL, OURSELVES, false).await?),
            }
        }
        for Known { row, state, .. } in self.known().await? {
            if state == KeyState::Altered {
                tracing::error!(
                    kid = row.kid,
                    "an edge key in the database is not what was written: nothing is sealed to it"
                );
            }
            let named = self.boot.iter().any(|recipient| recipient.kid() == row.kid);
            if state == KeyState::Active && row.pool == BOOT_POOL && !named {
                let says = "an edge key is no longer in the boot file, and stays active until it is retired: latchkey keys retire KID";
                tracing::warn!(kid = row.kid, "{says}");
            }
        }
        Ok(())
    }

    /// To whom is sealed now. Read each time: a key that another instance retires is not used once more.
    pub async fn active(&self) -> Result<Vec<Recipient>, StoreError> {
        Ok(self.known().await?.into_iter().filter_map(|known| known.recipient).collect())
    }

    pub async fn list(&self) -> Result<Vec<EdgeKeyInfo>, StoreError> {
        Ok(self.known().await?.iter().map(|known| self.shown(known)).collect())
    }

    /// A key that is sealed to from here on; `false` where it was there.
    pub async fn add(
        &self,
        pool: &str,
        pem: &str,
        actor: &str,
        dry_run: bool,
    ) -> Result<(EdgeKeyInfo, bool), KeysError> {
        let is_name = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        if pool.is_empty() || pool.len() > POOL_BYTES_MAX || !pool.bytes().all(is_name) {
            return Err(KeysError::Pool(pool.chars().take(POOL_BYTES_MAX).collect()));
        }
        self.put(&Recipient::from_pem(pem)?, pool, actor, dry_run).await
    }

    async fn put(
        &self,
        recipient: &Recipient,
        pool: &str,
        actor: &str,
        dry_run: bool,
    ) -> Result<(EdgeKeyInfo, bool), KeysError> {
        for _ in 0..ATTEMPTS_MAX {
            let known = self.known().await?;
            let same = known.iter().find(|known| known.row.kid == recipient.kid());
            match same.map(|same| (same, same.state)) {
                Some((_, KeyState::Retired)) => return Err(KeysError::Retired(recipient.kid().to_owned())),
                Some((same, KeyState::Active)) if same.row.pool != pool => {
                    return Err(KeysError::OtherPool(same.row.kid.clone(), same.row.pool.clone()));
                }
                Some((same, KeyState::Active)) => return Ok((self.shown(same), false)),
                Some((_, KeyState::Altered)) | None => {}
            }
            if known.iter().filter(|known| known.state == KeyState::Active).count() >= RECIPIENTS_MAX {
                return Err(KeysError::TooMany);
            }
            let row = self.sealed_row(KeyRow {
                kid: recipient.kid().to_owned(),
                pool: pool.to_owned(),
                public_key: recipient.public_pem()?,
                added_at: clock::now(),
                retired_at: None,
                mac: String::new(),
            });
            let detail = [("pool".to_owned(), pool.into()), ("bits".to_owned(), recipient.bits().into())].into();
            let seen: Vec<_> = known.into_iter().map(|known| known.row).collect();
            if dry_run || self.store.change_edge_key(&seen, &row, actor, "key.added", detail).await? {
                return Ok((self.shown(&self.read(row)), true));
            }
        }
        Err(KeysError::Busy)
    }

    /// Nothing is sealed to it from here on, and its entries are taken out of all bundles.
    pub async fn retire(&self, kid: &str, force: bool, dry_run: bool, actor: &str) -> Result<RetiredKey, KeysError> {
        for _ in 0..ATTEMPTS_MAX {
            let known = self.known().await?;
            let found = known.iter().find(|known| known.row.kid == kid);
            let found = found.ok_or_else(|| KeysError::Unknown(kid.chars().take(64).collect()))?;
            let report = self.report(&known).await?;
            let of_key = report.keys.iter().find(|of_key| of_key.kid == kid);
            let (sealed, unreadable) = of_key.map_or((0, 0), |key| (key.sealed + key.unconfirmed, key.alone));
            let retired =
                RetiredKey { kid: kid.to_owned(), pool: found.row.pool.clone(), retired: !dry_run, sealed, unreadable };
            if found.state == KeyState::Retired {
                return Ok(RetiredKey { retired: true, ..retired });
            }
            let others = known.iter().filter(|other| other.state == KeyState::Active && other.row.kid != kid).count();
            if others == 0 {
                return Err(KeysError::Last(kid.to_owned()));
            }
            if !force && unreadable > 0 && !dry_run {
                return Err(KeysError::Unreadable { unreadable });
            }
            if !force && report.uncounted > 0 && !dry_run {
                return Err(KeysError::Uncounted(report.uncounted));
            }
            let row = self.sealed_row(KeyRow { retired_at: Some(clock::now()), ..found.row.clone() });
            let detail = [
                ("forced".to_owned(), force.into()),
                ("pool".to_owned(), row.pool.clone().into()),
                ("sealed".to_owned(), sealed.into()),
                ("unreadable".to_owned(), unreadable.into()),
            ]
            .into();
            let seen: Vec<_> = known.into_iter().map(|known| known.row).collect();
            if dry_run || self.store.change_edge_key(&seen, &row, actor, "key.retired", detail).await? {
                return Ok(retired);
            }
        }
        Err(KeysError::Busy)
    }

    pub async fn custody(&self) -> Result<Custody, StoreError> {
        self.report(&self.known().await?).await
    }

    async fn report(&self, known: &[Known]) -> Result<Custody, StoreError> {
        let states: Vec<_> =
            known.iter().map(|known| (known.row.kid.as_str(), known.row.pool.as_str(), known.state)).collect();
        let (counted, uncounted) = self.store.bundles_by_key_set().await?;
        Ok(custody::report(&states, &counted, uncounted))
    }

    async fn known(&self) -> Result<Vec<Known>, StoreError> {
        Ok(self.store.edge_keys().await?.into_iter().map(|row| self.read(row)).collect())
    }

    fn read(&self, row: KeyRow) -> Known {
        let recipient = Recipient::from_pem(&row.public_key).ok().filter(|recipient| recipient.kid() == row.kid);
        match (recipient, row.retired_at) {
            (Some(recipient), None) if self.is_ours(&row) => {
                Known { row, state: KeyState::Active, recipient: Some(recipient) }
            }
            (Some(_), Some(_)) if self.is_ours(&row) => Known { row, state: KeyState::Retired, recipient: None },
            _ => Known { row, state: KeyState::Altered, recipient: None },
        }
    }

    fn shown(&self, known: &Known) -> EdgeKeyInfo {
        let Known { row, state, .. } = known;
        EdgeKeyInfo {
            kid: row.kid.clone(),
            pool: row.pool.clone(),
            state: *state,
            bits: Recipient::from_pem(&row.public_key).map_or(0, |recipient| recipient.bits()),
            added_at: row.added_at,
            retired_at: row.retired_at,
            boot_file: self.boot.iter().any(|recipient| recipient.kid() == row.kid),
        }
    }

    fn sealed_row(&self, row: KeyRow) -> KeyRow {
        let mac = hex(hmac::sign(&self.secrets.rows, &authenticated(&row)).as_ref());
        KeyRow { mac, ..row }
    }

    fn is_ours(&self, row: &KeyRow) -> bool {
        let mac: Option<Vec<u8>> = (0..row.mac.len().min(64))
            .step_by(2)
            .map(|at| u8::from_str_radix(row.mac.get(at..at + 2)?, 16).ok())
            .collect();
        mac.is_some_and(|mac| hmac::verify(&self.secrets.rows, &authenticated(row), &mac).is_ok())
    }
}

fn authenticated(row: &KeyRow) -> Vec<u8> {
    let KeyRow { kid, pool, public_key, added_at, retired_at, .. } = row;
    serde_json::json!([kid, pool, public_key, added_at, retired_at]).to_string().into_bytes()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
