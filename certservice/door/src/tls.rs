//! TLS of the API's socket: its own certificate, and whose client certificates are believed. The files are read again
//! when they change; what can't be used changes nothing.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use contract::bundle::sha256;
use prometheus::IntGauge;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;
use zeroize::Zeroizing;

use crate::access::Presented;
use crate::listen::{ClientFiles, TlsFiles};

const HANDSHAKE_SECONDS_MAX: u64 = 10;

/// The files, as they were read last.
pub(crate) struct Files {
    paths: TlsFiles,
    seen: [u8; 32],
    unusable: IntGauge,
}

impl Files {
    /// `unusable` is 1 while they have changed and can't be used.
    pub(crate) fn open(paths: TlsFiles, unusable: IntGauge) -> Result<(Self, TlsAcceptor), String> {
        let seen = fingerprint(&paths);
        let acceptor = acceptor(&paths)?;
        Ok((Self { paths, seen, unusable }, acceptor))
    }

    /// What they say now, where they say something else than before.
    pub(crate) fn look(&mut self) -> Option<TlsAcceptor> {
        let now = fingerprint(&self.paths);
        if now == self.seen {
            return None;
        }
        self.seen = now;
        match acceptor(&self.paths) {
            Ok(acceptor) => {
                self.unusable.set(0);
                tracing::info!("certificates, CAs and revocation lists of the API were read again");
                Some(acceptor)
            }
            Err(error) => {
                self.unusable.set(1);
                tracing::error!(
                    error,
                    "the API's changed TLS files can't be used; what was read before stays in force"
                );
                None
            }
        }
    }
}

/// Of all that the files hold, and of who may read the key; a file that can't be read is as good as an empty one.
fn fingerprint(paths: &TlsFiles) -> [u8; 32] {
    let client = paths.client.iter().flat_map(|client| std::iter::once(&client.ca).chain(&client.crl));
    let mut digests = Vec::new();
    for path in [&paths.certificate, &paths.key].into_iter().chain(client) {
        digests.extend(sha256(&Zeroizing::new(std::fs::read(path).unwrap_or_default())));
    }
    digests.extend(std::fs::metadata(&paths.key).map_or(0, |key| key.permissions().mode()).to_le_bytes());
    sha256(&digests)
}

fn acceptor(files: &TlsFiles) -> Result<TlsAcceptor, String> {
    let (certificate, key) = (files.certificate.display(), files.key.display());
    let chain = CertificateDer::pem_file_iter(&files.certificate).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = chain.map_err(|error| format!("{certificate} holds no certificate chain in PEM: {error}"))?;
    let private = private_key(&files.key)?;
    let config = ServerConfig::builder_with_provider(default_provider().into());
    let config = config.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
    let config = match &files.client {
        Some(client) => config.with_client_cert_verifier(verifier(client)?),
        None => config.with_no_client_auth(),
    };
    let config = config.with_single_cert(chain, private);
    let mut config = config.map_err(|error| format!("{certificate} and {key} can't be used: {error}"))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// As at the start, so later: one that others can read is not taken.
fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let shown = path.display();
    let unread = |error: io::Error| format!("{shown} can't be read: {error}");
    let mut file = File::open(path).map_err(unread)?;
    let mode = file.metadata().map_err(unread)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(format!(
            "{shown} has mode {mode:04o}, and others could read the key; its owner alone may: chmod 600"
        ));
    }
    let mut pem = Zeroizing::new(Vec::new());
    file.read_to_end(&mut pem).map_err(unread)?;
    // The error is not shown: it could quote the key.
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_| format!("{shown} holds no private key in PEM"))
}

fn verifier(files: &ClientFiles) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let mut roots = RootCertStore::empty();
    for root in pem::<CertificateDer<'static>>(&files.ca, "certificate")? {
        roots.add(root).map_err(|error| format!("{} holds a CA that can't be used: {error}", files.ca.display()))?;
    }
    let mut verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), default_provider().into());
    if let Some(crl) = &files.crl {
        // The newest list that we have counts, however old: an operator who is late must not lock everybody out.
        verifier = verifier.with_crls(pem::<CertificateRevocationListDer<'static>>(crl, "revocation list")?);
        verifier = verifier.only_check_end_entity_revocation();
    }
    if !files.required {
        verifier = verifier.allow_unauthenticated();
    }
    let built = verifier.build();
    built.map_err(|error| format!("the CA or revocation list of client certificates can't be used: {error}"))
}

fn pem<T: PemObject>(path: &Path, what: &str) -> Result<Vec<T>, String> {
    let all = T::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let all = all.map_err(|error| format!("{} can't be read as PEM: {error}", path.display()))?;
    if all.is_empty() {
        return Err(format!("{} holds no {what} in PEM", path.display()));
    }
    Ok(all)
}

pub(crate) async fn handshake(tls: &TlsAcceptor, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
    let limit = Duration::from_secs(HANDSHAKE_SECONDS_MAX);
    tokio::time::timeout(limit, tls.accept(stream)).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// The certificate that the other side has shown, and that was verified.
pub(crate) fn presented(stream: &TlsStream<TcpStream>) -> Option<Arc<Presented>> {
    let der = stream.get_ref().1.peer_certificates()?.first()?;
    let (_, certificate) = parse_x509_certificate(der).ok()?;
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names.iter().flat_map(|names| &names.value.general_names);
    let uris = names.filter_map(|name| if let GeneralName::URI(uri) = name { Some((*uri).to_owned()) } else { None });
    let not_after = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0);
    Some(Arc::new(Presented { sha256: sha256(der), uris: uris.collect(), not_after }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_can_not_be_used_are_counted_until_they_can() {
        let folder = tempfile::tempdir().unwrap();
        let paths = TlsFiles { certificate: folder.path().join("pem"), key: folder.path().join("key"), client: None };
        let may_read = |mode| std::fs::set_permissions(&paths.key, std::fs::Permissions::from_mode(mode)).unwrap();
        let write = || {
            let key = rcgen::KeyPair::generate().unwrap();
            let certificate = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
            std::fs::write(&paths.certificate, certificate.self_signed(&key).unwrap().pem()).unwrap();
            std::fs::write(&paths.key, key.serialize_pem()).unwrap();
            may_read(0o600);
        };
        let unusable = IntGauge::new("unusable", "unusable").unwrap();
        write();
        let (mut files, _) = Files::open(paths.clone(), unusable.clone()).unwrap();
        assert!(files.look().is_none() && unusable.get() == 0);
        std::fs::write(&paths.certificate, "nonsense").unwrap();
        for _ in 0..2 {
            assert!(files.look().is_none());
            assert_eq!(unusable.get(), 1);
        }
        write();
        assert!(files.look().is_some());
        assert_eq!(unusable.get(), 0);
        write();
        may_read(0o640);
        assert!(files.look().is_none(), "others can read the new key");
        assert_eq!(unusable.get(), 1);
        may_read(0o600);
        assert!(files.look().is_some());
        assert_eq!(unusable.get(), 0);
    }
}
