//! To which edge keys bundles are sealed, and what sealing them to another one takes.

use serde::{Deserialize, Serialize};

use crate::Hostname;
use crate::sealed::SealedRecipient;

/// Most bundles in one page of `GET /v1/rewrap`, and in one body of `POST /v1/rewrap`.
pub const REWRAP_MAX: usize = 32;
/// Request header of `POST /v1/rewrap`: base64url of HMAC-SHA-256 of the body, under the secret of the page's challenge.
pub const PROOF_HEADER: &str = "latchkey-proof";

/// Body of `POST /v1/keys`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct AddKey {
    /// What the key is counted with. Unit: 1 to 64 characters of `[A-Za-z0-9._-]`.
    pub pool: String,
    /// PEM: RSA, 2048 to 4096 bits (`-----BEGIN PUBLIC KEY-----`).
    pub public_key: String,
}

/// Answer of `GET /v1/keys`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct KeyPage {
    pub keys: Vec<EdgeKeyInfo>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct EdgeKeyInfo {
    /// JWK thumbprint (RFC 7638).
    pub kid: String,
    pub pool: String,
    pub state: KeyState,
    pub bits: u32,
    /// Unix seconds.
    pub added_at: u64,
    /// Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retired_at: Option<u64>,
    /// The boot file of the CertService that answers names it.
    pub boot_file: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum KeyState {
    /// New certificates are sealed to it.
    Active,
    /// Nothing is sealed to it any more, and it never comes back.
    Retired,
    /// Its row in the database is not what CertService wrote; nothing is sealed to it.
    Altered,
}

/// Answer of `GET /v1/custody`: which bundles are sealed to what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Custody {
    pub bundles: u64,
    /// Bundles of before there was this report, which are not counted below yet.
    pub uncounted: u64,
    /// Bundles that no active key is known to open: nobody can serve them.
    pub unreadable: u64,
    pub keys: Vec<KeyCustody>,
    pub pools: Vec<PoolCustody>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct KeyCustody {
    pub kid: String,
    /// Empty where the key is not known any more.
    pub pool: String,
    pub state: KeyState,
    /// Bundles that it is known to open.
    pub sealed: u64,
    /// Bundles with an entry for it that its own edge has not tried yet.
    pub unconfirmed: u64,
    /// Bundles without an entry for it. Of an active key: those that are still to be re-wrapped.
    pub missing: u64,
    /// Bundles that no other active key is known to open: unreadable once it is retired.
    pub alone: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PoolCustody {
    pub pool: String,
    pub active_keys: u64,
    /// Bundles that each of its active keys is known to open.
    pub complete: u64,
    /// Bundles that none of its active keys is known to open.
    pub missing: u64,
    /// Bundles that no active key of another pool is known to open.
    pub alone: u64,
}

/// Answer of `DELETE /v1/keys/{kid}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RetiredKey {
    pub kid: String,
    pub pool: String,
    /// False for a dry run.
    pub retired: bool,
    /// Bundles that have an entry for it, which is taken out.
    pub sealed: u64,
    /// Bundles that nobody can open then.
    pub unreadable: u64,
}

/// Answer of `GET /v1/rewrap`: bundles that an edge key can open and that want something of its edge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RewrapPage {
    pub bundles: Vec<RewrapItem>,
    /// Give it as `?after=`; absent on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// A secret, sealed to the edge key (RSA-OAEP-256, base64url): under it is signed what comes back.
    pub challenge: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RewrapItem {
    /// As `GET /v1/bundles/{name}` answers.
    pub token: String,
    /// Of what is stored; what comes back for another one is not taken.
    pub version: String,
}

/// Body of `POST /v1/rewrap`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Rewrapped {
    /// Of the key that opened them.
    pub kid: String,
    pub bundles: Vec<RewrappedBundle>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RewrappedBundle {
    pub name: Hostname,
    pub version: String,
    /// Whether the key did open it.
    pub opens: bool,
    /// New entries, for each certificate of the bundle in its order. Default: none.
    #[serde(default)]
    pub recipients: Vec<Vec<SealedRecipient>>,
}

/// Answer of `POST /v1/rewrap`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RewrapOutcome {
    /// Bundles that have new entries.
    pub rewrapped: u64,
    /// Bundles that the key is known to open from here on.
    pub confirmed: u64,
    /// Bundles whose entry for the key did not open, and was taken out.
    pub removed: u64,
    /// Replaced meanwhile: their new bundles are asked for again where they want something.
    pub outdated: Vec<Hostname>,
    pub refused: Vec<RewrapRefusal>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RewrapRefusal {
    pub name: Hostname,
    pub says: String,
}
