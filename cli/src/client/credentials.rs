//! What is shown to an API over TCP: a token or a client certificate, and by which root the API is believed.

use std::path::Path;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Certificate, ClientBuilder, Identity};
use zeroize::Zeroizing;

use super::ClientError;

pub(super) struct Credentials {
    headers: HeaderMap,
    roots: Vec<Certificate>,
    identity: Option<Identity>,
}

impl Credentials {
    /// `identity`: files of a certificate and its key.
    pub(super) fn read(
        token: Option<String>,
        root: Option<&Path>,
        identity: Option<(&Path, &Path)>,
    ) -> Result<Self, ClientError> {
        let root = root.map(|file| {
            let not_pem = |error: reqwest::Error| setup(file.display(), error);
            Certificate::from_pem_bundle(read(file)?.as_bytes()).map_err(not_pem)
        });
        let identity = identity.map(|(certificate, key)| {
            let loaded = Identity::from_pkcs8_pem(read(certificate)?.as_bytes(), Zeroizing::new(read(key)?).as_bytes());
            loaded.map_err(|error| setup(certificate.display(), error))
        });
        let mut headers = HeaderMap::new();
        if let Some(token) = token {
            let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
                .map_err(|_| setup("token", "it holds characters that a header can't carry"))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        Ok(Self { headers, roots: root.transpose()?.unwrap_or_default(), identity: identity.transpose()? })
    }

    pub(super) fn configure(self, builder: ClientBuilder) -> ClientBuilder {
        let builder = builder.default_headers(self.headers);
        let builder = self.roots.into_iter().fold(builder, |builder, root| builder.add_root_certificate(root));
        self.identity.into_iter().fold(builder, |builder, identity| builder.identity(identity))
    }
}

pub(super) fn read(file: &Path) -> Result<String, ClientError> {
    std::fs::read_to_string(file).map_err(|error| setup(file.display(), error))
}

fn setup(file: impl std::fmt::Display, reason: impl std::fmt::Display) -> ClientError {
    ClientError::Setup { file: file.to_string(), reason: reason.to_string() }
}
