//! The way out over HTTP, for all who ask other systems.

use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Believes the system's roots or, where some are given, only those. `plain` allows `http` as well.
pub(crate) fn connector(root_pem: Option<&[u8]>, plain: bool) -> Result<HttpsConnector<HttpConnector>, String> {
    let builder = HttpsConnectorBuilder::new();
    let builder = match root_pem {
        None => builder
            .with_provider_and_native_roots(default_provider())
            .map_err(|error| format!("the system's root certificates can't be read: {error}"))?,
        Some(pem) => builder.with_tls_config(trusting(pem)?),
    };
    let builder = if plain { builder.https_or_http() } else { builder.https_only() };
    Ok(builder.enable_http1().build())
}

fn trusting(pem: &[u8]) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let added = certificate.map_err(|e| e.to_string()).and_then(|c| roots.add(c).map_err(|e| e.to_string()));
        added.map_err(|error| format!("root_file holds a certificate that can't be used: {error}"))?;
    }
    if roots.is_empty() {
        return Err("root_file holds no certificate (`-----BEGIN CERTIFICATE-----`)".to_owned());
    }
    let config = ClientConfig::builder_with_provider(default_provider().into());
    let config = config.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}
