//! What the boot file says of clients that name no host, or none of ours.

use std::sync::Arc;

use contract::Hostname;

use super::ConfigError;
use super::file::{NameAnswer, Tls};
use super::secrets::{read_private, read_text};
use crate::tls::{self, Fallback, NamePolicy};

pub(super) fn policy(tls: &Tls) -> Result<NamePolicy, ConfigError> {
    let wanted = [tls.without_sni, tls.unknown_sni].contains(&NameAnswer::Default);
    let fallback = fallback(tls)?;
    match (&fallback, wanted) {
        (None, true) => {
            let says = "[tls] without_sni and unknown_sni: `default` needs `default_hostname`, or \
                        `default_certificate_file` and `default_key_file`";
            return Err(ConfigError::Setting(says.into()));
        }
        (Some(_), false) => {
            let says =
                "[tls] has a default certificate, which nobody gets: set without_sni or unknown_sni to `default`";
            return Err(ConfigError::Setting(says.into()));
        }
        _ => {}
    }
    let of = |answer| if answer == NameAnswer::Default { fallback.clone() } else { None };
    Ok(NamePolicy { without_sni: of(tls.without_sni), unknown_sni: of(tls.unknown_sni) })
}

fn fallback(tls: &Tls) -> Result<Option<Fallback>, ConfigError> {
    match (&tls.default_hostname, &tls.default_certificate_file, &tls.default_key_file) {
        (None, None, None) => Ok(None),
        (Some(name), None, None) => {
            let name = Hostname::parse(name);
            let name = name.map_err(|error| ConfigError::Setting(format!("tls.default_hostname: {error}")))?;
            Ok(Some(Fallback::Of(name)))
        }
        (None, Some(chain), Some(key)) => {
            let certificate = tls::from_pem(&read_text(chain)?, &read_private(key)?, tls::now());
            let failed = |error| ConfigError::Setting(format!("tls.default_certificate_file {chain}: {error}"));
            Ok(Some(Fallback::Certificate(Arc::new(certificate.map_err(failed)?))))
        }
        _ => {
            let says = "[tls] default certificate: give either `default_hostname`, or both `default_certificate_file` and \
                        `default_key_file`";
            Err(ConfigError::Setting(says.into()))
        }
    }
}
