//! `[edge]`: where this edge's private key is.

use std::path::{Path, PathBuf};

use contract::document::Faults;
use contract::sealed::EdgeKey;
use deserr::Deserr;

use super::secrets::read_private;
use super::{ConfigError, file::File, read_file};
use crate::token::{self, KeyName, Settings, TokenName};

#[derive(Debug, Deserr)]
#[deserr(error = Faults, deny_unknown_fields)]
pub(super) struct Edge {
    /// RSA private key in PEM, mode 0600. Made by `latchkey-proxy keygen`; leaves this host never.
    #[deserr(default)]
    pub key_file: Option<String>,
    /// Or a token that holds it.
    #[deserr(default)]
    pub pkcs11: Option<Pkcs11>,
}

#[derive(Debug, Deserr)]
#[deserr(error = Faults, deny_unknown_fields)]
pub(super) struct Pkcs11 {
    /// The token's library, such as `/usr/lib/softhsm/libsofthsm2.so`.
    pub module: String,
    /// The token's label.
    #[deserr(default)]
    pub token_label: Option<String>,
    /// Or its slot, where the library keeps the numbers.
    #[deserr(default)]
    pub slot: Option<u64>,
    /// The private key's label (`CKA_LABEL`).
    #[deserr(default)]
    pub key_label: Option<String>,
    /// Or its `CKA_ID`, hexadecimal.
    #[deserr(default)]
    pub key_id: Option<String>,
    /// The user's PIN, mode 0600.
    pub pin_file: String,
}

/// What `keygen --in-token` needs of a boot file.
pub fn token_settings(path: &Path) -> Result<Settings, ConfigError> {
    let file: File = read_file(path)?;
    match &file.edge.pkcs11 {
        Some(pkcs11) => settings(pkcs11),
        None => Err(wrong(format!("{} has no [edge] pkcs11", path.display()))),
    }
}

pub(super) fn key(edge: &Edge) -> Result<EdgeKey, ConfigError> {
    match (&edge.key_file, &edge.pkcs11) {
        (Some(path), None) => {
            let key = EdgeKey::from_pem(read_private(path)?.as_bytes());
            key.map_err(|error| wrong(format!("edge.key_file {path}: {error}")))
        }
        (None, Some(pkcs11)) => token::open(settings(pkcs11)?).map_err(|error| wrong(format!("edge.pkcs11: {error}"))),
        _ => Err(wrong("[edge] needs either `key_file` or `pkcs11`")),
    }
}

fn settings(pkcs11: &Pkcs11) -> Result<Settings, ConfigError> {
    let token = match (&pkcs11.token_label, pkcs11.slot) {
        (Some(label), None) => TokenName::Label(label.clone()),
        (None, Some(slot)) => TokenName::Slot(slot),
        _ => return Err(wrong("edge.pkcs11 needs either `token_label` or `slot`")),
    };
    let key = match (&pkcs11.key_label, &pkcs11.key_id) {
        (Some(label), None) => KeyName::Label(label.clone()),
        (None, Some(id)) => KeyName::Id(hex(id).ok_or_else(|| {
            wrong(format!("edge.pkcs11.key_id is `{id}`; it must be bytes in hexadecimal, two digits each"))
        })?),
        _ => return Err(wrong("edge.pkcs11 needs either `key_label` or `key_id`")),
    };
    let pin = read_private(&pkcs11.pin_file)?.trim_end_matches(['\r', '\n']).to_owned();
    Ok(Settings { module: PathBuf::from(&pkcs11.module), token, key, pin: pin.into() })
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.len().is_multiple_of(2) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let byte = |at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    if digits && !text.is_empty() { (0..text.len()).step_by(2).map(byte).collect() } else { None }
}

fn wrong(says: impl Into<String>) -> ConfigError {
    ConfigError::Setting(says.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pkcs11() -> Pkcs11 {
        Pkcs11 {
            module: "/none.so".into(),
            token_label: Some("t".into()),
            slot: None,
            key_label: Some("k".into()),
            key_id: None,
            pin_file: "/none".into(),
        }
    }

    #[test]
    fn a_token_and_a_key_are_named_in_one_way() {
        for (wrong, says) in [
            (Pkcs11 { slot: Some(1), ..pkcs11() }, "`token_label` or `slot`"),
            (Pkcs11 { token_label: None, ..pkcs11() }, "`token_label` or `slot`"),
            (Pkcs11 { key_id: Some("01".into()), ..pkcs11() }, "`key_label` or `key_id`"),
            (Pkcs11 { key_label: None, ..pkcs11() }, "`key_label` or `key_id`"),
            (Pkcs11 { key_label: None, key_id: Some("0g".into()), ..pkcs11() }, "`0g`"),
            (Pkcs11 { key_label: None, key_id: Some("012".into()), ..pkcs11() }, "`012`"),
            (Pkcs11 { key_label: None, key_id: Some(String::new()), ..pkcs11() }, "hexadecimal"),
            (pkcs11(), "/none"),
        ] {
            let error = settings(&wrong).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains(says), "{says}: {error}");
        }
        assert_eq!(hex("00fF"), Some(vec![0, 255]));
        for edge in [Edge { key_file: None, pkcs11: None }, Edge { key_file: Some("k".into()), pkcs11: Some(pkcs11()) }]
        {
            assert!(key(&edge).unwrap_err().to_string().contains("either `key_file` or `pkcs11`"));
        }
    }
}
