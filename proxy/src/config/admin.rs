//! `[admin]` of the boot file: where the admin API listens, and who may do what over TCP.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use contract::document::Faults;
use deserr::{Deserr, ValuePointerRef};
use door::{ClientCertificate, ClientFiles, KnownBy, Networks, TlsFiles, Token};
use ipnet::IpNet;

use super::ConfigError;
use super::secrets::{read_private, read_text};

#[derive(Debug, Default, Deserr)]
#[deserr(error = Faults, deny_unknown_fields, validate = check -> Faults)]
pub(super) struct Admin {
    /// `unix:/path`. Default: `admin.sock` in `data_dir`. Whoever opens it may do everything.
    #[deserr(default)]
    pub listen: Option<String>,
    /// Over TCP besides. Default: not.
    #[deserr(default)]
    pub tcp: Option<Tcp>,
    /// Who may do what over TCP.
    #[deserr(default)]
    pub tokens: Vec<TokenTable>,
    #[deserr(default)]
    pub certificates: Vec<CertificateTable>,
}

#[derive(Debug, Deserr)]
#[deserr(error = Faults, deny_unknown_fields, validate = check_tcp -> Faults)]
pub(super) struct Tcp {
    /// `ip:port`; without a certificate on loopback only.
    #[deserr(try_from(String) = super::file::parse_address -> String)]
    pub address: SocketAddr,
    /// PEM: chain, leaf first. It and the following are read again when they change.
    #[deserr(default)]
    pub certificate_file: Option<String>,
    /// PEM, mode 0600.
    #[deserr(default)]
    pub key_file: Option<String>,
    /// PEM: the CA whose client certificates are believed.
    #[deserr(default)]
    pub client_ca_file: Option<String>,
    /// PEM: what it has taken back.
    #[deserr(default)]
    pub client_crl_file: Option<String>,
    /// No connection without a client certificate. Default false.
    #[deserr(default)]
    pub client_required: bool,
    /// From where connections are taken, at most 256. Default: anywhere.
    #[deserr(default)]
    pub networks: Vec<Network>,
}

#[derive(Debug, Deserr)]
#[deserr(error = Faults, deny_unknown_fields)]
pub(super) struct TokenTable {
    pub role: AdminRole,
    /// SHA-256 of the token, in hexadecimal.
    #[deserr(try_from(String) = hex32 -> String)]
    pub sha256: [u8; 32],
    #[deserr(default)]
    pub networks: Vec<Network>,
}

#[derive(Debug, Deserr)]
#[deserr(error = Faults, deny_unknown_fields, validate = check_certificate -> Faults)]
pub(super) struct CertificateTable {
    pub role: AdminRole,
    /// A URI of the certificate; with `*` at its end, all that begin so.
    #[deserr(default)]
    pub uri: Option<String>,
    /// Or its SHA-256, in hexadecimal.
    #[deserr(default)]
    pub sha256: Option<Sha256>,
    #[deserr(default)]
    pub networks: Vec<Network>,
}

/// Who may do what over TCP. Whoever opens the Unix socket may do everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserr)]
#[deserr(error = Faults, rename_all = lowercase)]
pub enum AdminRole {
    /// Everything.
    Operator,
    /// Sees what an operator sees, and changes nothing.
    Viewer,
}

impl AdminRole {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Viewer => "viewer",
        }
    }
}

#[derive(Debug, Clone, Copy, Deserr)]
#[deserr(error = Faults, try_from(String) = hex32_of -> String)]
pub(super) struct Sha256([u8; 32]);

#[derive(Debug, Clone, Deserr)]
#[deserr(error = Faults, try_from(String) = network -> String)]
pub(super) struct Network(IpNet);

/// What the admin API is built from.
#[derive(Debug, Clone)]
pub struct AdminConfig {
    pub socket: PathBuf,
    pub tcp: Option<AdminTcp>,
    pub tokens: Vec<Token<AdminRole>>,
    pub certificates: Vec<ClientCertificate<AdminRole>>,
}

#[derive(Debug, Clone)]
pub struct AdminTcp {
    pub address: SocketAddr,
    pub tls: Option<TlsFiles>,
    pub networks: Networks,
}

pub(super) fn resolve(admin: Admin, data_dir: &Path) -> Result<AdminConfig, ConfigError> {
    let socket = match admin.listen.as_deref().map(|listen| listen.strip_prefix("unix:").ok_or(listen)) {
        None => data_dir.join("admin.sock"),
        Some(Ok(path)) if !path.is_empty() => path.into(),
        Some(_) => return Err(ConfigError::Setting("admin.listen: expected unix:/path/to/admin.sock".into())),
    };
    let token =
        |token: TokenTable| Token { grant: token.role, sha256: token.sha256, networks: networks(token.networks) };
    let certificate = |certificate: CertificateTable| ClientCertificate {
        grant: certificate.role,
        known_by: match (certificate.uri, certificate.sha256) {
            (Some(uri), _) => match uri.strip_suffix('*') {
                Some(start) => KnownBy::UriStart(start.to_owned()),
                None => KnownBy::Uri(uri),
            },
            (None, sha256) => KnownBy::Sha256(sha256.map_or([0; 32], |Sha256(sha256)| sha256)),
        },
        networks: networks(certificate.networks),
    };
    Ok(AdminConfig {
        socket,
        tcp: admin.tcp.map(tcp).transpose()?,
        tokens: admin.tokens.into_iter().map(token).collect(),
        certificates: admin.certificates.into_iter().map(certificate).collect(),
    })
}

fn tcp(tcp: Tcp) -> Result<AdminTcp, ConfigError> {
    let tls = match (tcp.certificate_file, tcp.key_file) {
        (Some(certificate), Some(key)) => {
            // Read here only to say at once what can't be.
            read_text(&certificate)?;
            drop(read_private(&key)?);
            let client = match tcp.client_ca_file {
                Some(ca) => {
                    read_text(&ca)?;
                    tcp.client_crl_file.as_deref().map(read_text).transpose()?;
                    let crl = tcp.client_crl_file.map(PathBuf::from);
                    Some(ClientFiles { ca: ca.into(), crl, required: tcp.client_required })
                }
                None => None,
            };
            Some(TlsFiles { certificate: certificate.into(), key: key.into(), client })
        }
        _ => None,
    };
    Ok(AdminTcp { address: tcp.address, tls, networks: networks(tcp.networks) })
}

fn networks(networks: Vec<Network>) -> Networks {
    Networks(networks.into_iter().map(|Network(network)| network).collect())
}

const NETWORKS_MAX: usize = 256;

fn check_tcp(tcp: Tcp, location: ValuePointerRef<'_>) -> Result<Tcp, Faults> {
    let mut wrong = Vec::new();
    let has_tls = tcp.certificate_file.is_some() && tcp.key_file.is_some();
    if tcp.certificate_file.is_some() != tcp.key_file.is_some() {
        wrong.push(("key_file", "certificate_file and key_file come together".to_owned()));
    }
    if !has_tls && !tcp.address.ip().is_loopback() {
        let says = format!(
            "{} is not loopback and needs certificate_file and key_file: tokens would cross the network in clear",
            tcp.address
        );
        wrong.push(("address", says));
    }
    if !has_tls && (tcp.client_ca_file.is_some() || tcp.client_required) {
        wrong.push(("client_ca_file", "client certificates need certificate_file and key_file".to_owned()));
    }
    if tcp.client_ca_file.is_none() && (tcp.client_crl_file.is_some() || tcp.client_required) {
        wrong.push(("client_ca_file", "client_crl_file and client_required need it".to_owned()));
    }
    if tcp.networks.len() > NETWORKS_MAX {
        wrong.push(("networks", format!("{} networks, at most {NETWORKS_MAX} are accepted", tcp.networks.len())));
    }
    let faults = wrong.into_iter().map(|(name, says)| Faults::at(location.push_key(name), says, None));
    faults.reduce(Faults::and).map_or(Ok(tcp), Err)
}

fn check(admin: Admin, location: ValuePointerRef<'_>) -> Result<Admin, Faults> {
    let says = match &admin.tcp {
        None if admin.tokens.is_empty() && admin.certificates.is_empty() => return Ok(admin),
        None => "tokens and certificates are for `admin.tcp`; whoever opens the Unix socket needs none",
        Some(_) if admin.tokens.is_empty() && admin.certificates.is_empty() => {
            "it needs `[[admin.tokens]]` or `[[admin.certificates]]`: nobody could use it"
        }
        Some(tcp) if !admin.certificates.is_empty() && tcp.client_ca_file.is_none() => {
            "`[[admin.certificates]]` need the CA that they are of: admin.tcp.client_ca_file (`latchkey pki init` makes one)"
        }
        Some(_) => return Ok(admin),
    };
    Err(Faults::at(location.push_key("tcp"), says, None))
}

fn check_certificate(table: CertificateTable, location: ValuePointerRef<'_>) -> Result<CertificateTable, Faults> {
    let says = match (&table.uri, &table.sha256) {
        (Some(uri), None) if uri.strip_suffix('*').is_some_and(|start| start.len() < 3) => {
            "it would be nearly any certificate; name more of its URI"
        }
        (Some(_), None) | (None, Some(_)) => return Ok(table),
        _ => "give either `uri` or `sha256`: by what is the certificate known?",
    };
    Err(Faults::at(location.push_key("uri"), says, None))
}

fn hex32(text: String) -> Result<[u8; 32], String> {
    let says = || format!("`{}` is not a SHA-256 in 64 hexadecimal digits", text.chars().take(80).collect::<String>());
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(says());
    }
    let mut bytes = [0; 32];
    for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
        *byte = text.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok()).ok_or_else(says)?;
    }
    Ok(bytes)
}

fn hex32_of(text: String) -> Result<Sha256, String> {
    hex32(text).map(Sha256)
}

fn network(text: String) -> Result<Network, String> {
    let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    let says =
        || format!("`{text}` is neither a network nor an address, such as 10.0.0.0/8, 2001:db8::/32 or 192.0.2.7");
    network.map(|network| Network(network.trunc())).map_err(|_| says())
}

#[cfg(test)]
mod tests {
    use contract::document::{read_toml, render};

    use super::*;

    fn shown(text: &str) -> String {
        render(&read_toml::<Admin>(text).unwrap_err(), "f")
    }

    #[test]
    fn an_address_is_taken_only_with_somebody_who_may_use_it() {
        let hash = "0".repeat(64);
        let tokens = format!("[[tokens]]\nrole = 'viewer'\nsha256 = '{hash}'\n");
        let good = format!("[tcp]\naddress = '127.0.0.1:1'\n{tokens}");
        assert!(read_toml::<Admin>(&good).is_ok());
        assert!(read_toml::<Admin>("").is_ok());
        assert!(shown("[tcp]\naddress = '127.0.0.1:1'\n").contains("nobody could use it"));
        assert!(shown(&tokens).contains("whoever opens the Unix socket needs none"));
        assert!(shown(&good.replace("127.0.0.1", "10.0.0.1")).contains("f:2:11: 10.0.0.1:1 is not loopback"));
        assert!(shown(&good.replace("viewer", "root")).contains("unknown value `root`"));
        assert!(shown(&good.replace(&hash, "12")).contains("64 hexadecimal digits"));
        let certificates = "[[certificates]]\nrole = 'operator'\nuri = 'urn:a'\n";
        assert!(shown(&format!("{good}{certificates}")).contains("client_ca_file"));
        assert!(shown(&format!("{good}networks = ['10.0.0.0/33']\n")).contains("neither a network nor an address"));
    }

    #[test]
    fn a_certificate_is_known_by_one_thing() {
        let table = |more: &str| read_toml::<CertificateTable>(&format!("role = 'viewer'\n{more}")).is_ok();
        let sha256 = format!("sha256 = '{}'\n", "0".repeat(64));
        assert!(table("uri = 'urn:latchkey:*'\n") && table(&sha256));
        assert!(!table("") && !table("uri = '*'\n") && !table(&format!("uri = 'urn:a'\n{sha256}")));
    }
}
