//! Where it listens, and who may do what: tokens, client certificates, networks.

use std::net::{IpAddr, SocketAddr};

use contract::document::pointer;
use ipnet::IpNet;

use super::check::{Check, TENANT_RULE, hex32, is_tenant};
use super::file::{CertificateTable, ListenTable, RoleWord, TlsTable, TokenTable};
use super::*;

const NETWORKS_MAX: usize = 256;

impl Check<'_> {
    pub(super) fn listen(&mut self, table: &ListenTable, nobody_known: bool) -> Option<Listen> {
        let networks = self.networks(&table.networks, "/listen");
        if let Some(path) = table.address.strip_prefix("unix:") {
            if table.tls.is_some() {
                self.fault("/listen/tls", "a Unix socket has no TLS; remove it or listen on host:port");
            }
            if !table.networks.is_empty() {
                self.fault("/listen/networks", "who comes over a Unix socket has no address; remove it");
            }
            return Some(Listen::Unix(self.path(path)));
        }
        let Ok(address) = table.address.parse::<SocketAddr>() else {
            let says = format!("`{}` is neither unix:/path nor an IP address with a port", table.address);
            self.hinted("/listen/address", says, "such as unix:/run/latchkey/certservice.sock or 127.0.0.1:8443");
            return None;
        };
        if nobody_known {
            let says =
                "a TCP address needs [[tokens]] or [[certificates]]: whoever reaches the port could register domains";
            self.fault("/listen/address", says);
        }
        if !address.ip().is_loopback() && table.tls.is_none() {
            self.fault(
                "/listen/address",
                format!("{address} is not loopback and needs `tls`: tokens would cross the network in clear"),
            );
        }
        let tls = table.tls.as_ref().map(|tls| self.tls(tls));
        Some(Listen::Tcp { address, tls, networks })
    }

    fn tls(&mut self, tls: &TlsTable) -> TlsFiles {
        self.file(&tls.certificate_file, "/listen/tls/certificate_file");
        self.secret_file(&tls.key_file, "/listen/tls/key_file");
        if let Some(file) = &tls.client_crl_file {
            self.file(file, "/listen/tls/client_crl_file");
        }
        let without_ca = tls.client_ca_file.is_none() && (tls.client_crl_file.is_some() || tls.client_required);
        if without_ca {
            self.fault("/listen/tls", "client_crl_file and client_required need client_ca_file");
        }
        let client = tls.client_ca_file.as_ref().map(|ca| {
            self.file(ca, "/listen/tls/client_ca_file");
            let crl = tls.client_crl_file.as_ref().map(|file| self.path(file));
            ClientFiles { ca: self.path(ca), crl, required: tls.client_required }
        });
        TlsFiles { certificate: self.path(&tls.certificate_file), key: self.path(&tls.key_file), client }
    }

    pub(super) fn token(&mut self, index: usize, table: &TokenTable) -> Option<Token> {
        let at = pointer("/tokens", index);
        let sha256 = hex32(&table.sha256);
        if sha256.is_none() {
            self.hinted(
                &pointer(&at, "sha256"),
                "not a SHA-256 in 64 hexadecimal digits",
                "printf %s \"$TOKEN\" | sha256sum",
            );
        }
        let grant = self.grant(&at, table.role, table.tenant.as_ref());
        let networks = self.networks(&table.networks, &at);
        Some(Token { grant: grant?, sha256: sha256?, networks })
    }

    pub(super) fn certificates(&mut self, tables: &[CertificateTable], listen: &ListenTable) -> Vec<ClientCertificate> {
        if !tables.is_empty() && listen.tls.as_ref().is_none_or(|tls| tls.client_ca_file.is_none()) {
            let says = "[[certificates]] need the CA that they are of: listen.tls.client_ca_file";
            self.hinted("/certificates", says, "latchkey pki init makes one");
        }
        tables.iter().enumerate().filter_map(|(index, table)| self.certificate(index, table)).collect()
    }

    fn certificate(&mut self, index: usize, table: &CertificateTable) -> Option<ClientCertificate> {
        let at = pointer("/certificates", index);
        let known_by = match (&table.uri, &table.sha256) {
            (Some(uri), None) => match uri.strip_suffix('*') {
                Some(start) if start.len() < 3 => {
                    self.fault(
                        &pointer(&at, "uri"),
                        format!("`{uri}` would be nearly any certificate; name more of it"),
                    );
                    None
                }
                Some(start) => Some(KnownBy::UriStart(start.to_owned())),
                None => Some(KnownBy::Uri(uri.clone())),
            },
            (None, Some(sha256)) => {
                let sha256 = hex32(sha256);
                if sha256.is_none() {
                    let hint = "latchkey pki ls --json shows those that it issued";
                    self.hinted(&pointer(&at, "sha256"), "not a SHA-256 in 64 hexadecimal digits", hint);
                }
                sha256.map(KnownBy::Sha256)
            }
            _ => {
                self.fault(&at, "give either `uri` or `sha256`: by what is the certificate known?");
                None
            }
        };
        let grant = self.grant(&at, table.role, table.tenant.as_ref());
        let networks = self.networks(&table.networks, &at);
        Some(ClientCertificate { grant: grant?, known_by: known_by?, networks })
    }

    fn grant(&mut self, at: &str, role: RoleWord, tenant: Option<&String>) -> Option<Grant> {
        match (role, tenant) {
            (RoleWord::Edge, None) => Some(Grant::Edge),
            (RoleWord::Operator, None) => Some(Grant::Operator),
            (RoleWord::Viewer, None) => Some(Grant::Viewer),
            (RoleWord::App, Some(tenant)) if is_tenant(tenant) => Some(Grant::App { tenant: tenant.clone() }),
            (RoleWord::App, Some(_)) => {
                self.fault(&pointer(at, "tenant"), TENANT_RULE);
                None
            }
            (RoleWord::App, None) => {
                self.fault(&pointer(at, "role"), "role `app` needs a `tenant`");
                None
            }
            (RoleWord::Edge | RoleWord::Operator | RoleWord::Viewer, Some(_)) => {
                self.fault(&pointer(at, "tenant"), "only role `app` has a tenant");
                None
            }
        }
    }

    fn networks(&mut self, written: &[String], at: &str) -> Networks {
        let at = pointer(at, "networks");
        if written.len() > NETWORKS_MAX {
            self.fault(&at, format!("{} networks, at most {NETWORKS_MAX} are accepted", written.len()));
        }
        let mut networks = Vec::new();
        for (index, text) in written.iter().enumerate() {
            let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
            match network {
                Ok(network) => networks.push(network.trunc()),
                Err(_) => {
                    let says = format!("`{text}` is neither a network nor an address");
                    self.hinted(&pointer(&at, index), says, "such as 10.0.0.0/8, 2001:db8::/32 or 192.0.2.7");
                }
            }
        }
        Networks(networks)
    }
}
