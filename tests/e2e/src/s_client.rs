//! `openssl s_client`: keeps its session in a file, speaks one version only, names and offers anything.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use openssl::x509::X509;

pub(crate) const VERSIONS: [Version; 2] = [Version::Tls12, Version::Tls13];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    Tls12,
    Tls13,
}

impl Version {
    /// As the proxy's metrics have it.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Tls12 => "version=\"1.2\"",
            Self::Tls13 => "version=\"1.3\"",
        }
    }
}

/// One visit: a handshake, and `GET /` of the host.
#[derive(Clone)]
pub(crate) struct Visit {
    to: SocketAddr,
    version: Version,
    host: String,
    /// Whether the handshake names it.
    named: bool,
    protocols: Option<String>,
    begins_with: Option<PathBuf>,
    ends_with: Option<PathBuf>,
    more: Vec<String>,
}

pub(crate) struct Seen {
    pub(crate) resumed: bool,
    pub(crate) text: String,
}

impl Visit {
    pub(crate) fn to(to: SocketAddr, version: Version, host: &str) -> Self {
        let (host, named, more) = (host.to_owned(), true, Vec::new());
        Self { to, version, host, named, protocols: None, begins_with: None, ends_with: None, more }
    }

    pub(crate) fn nameless(self) -> Self {
        Self { named: false, ..self }
    }

    pub(crate) fn offering(self, protocols: &str) -> Self {
        Self { protocols: Some(protocols.to_owned()), ..self }
    }

    /// Presents the session in this file.
    pub(crate) fn resuming(self, session: &Path) -> Self {
        Self { begins_with: Some(session.to_owned()), ..self }
    }

    /// Keeps the newest session that it was given.
    pub(crate) fn keeping(self, session: &Path) -> Self {
        Self { ends_with: Some(session.to_owned()), ..self }
    }

    pub(crate) fn with(mut self, argument: &str) -> Self {
        self.more.push(argument.to_owned());
        self
    }

    pub(crate) async fn go(&self) -> Seen {
        let mut command = Command::new(support::program::other("openssl").unwrap());
        command.args(["s_client", "-ign_eof", "-connect", &self.to.to_string()]);
        command.arg(if self.version == Version::Tls12 { "-tls1_2" } else { "-tls1_3" });
        if self.named {
            command.args(["-servername", &self.host]);
        } else {
            command.arg("-noservername");
        }
        for (option, value) in [("-sess_in", &self.begins_with), ("-sess_out", &self.ends_with)] {
            if let Some(value) = value {
                command.arg(option).arg(value);
            }
        }
        if let Some(protocols) = &self.protocols {
            command.args(["-alpn", protocols]);
        }
        command.args(&self.more);
        let request = format!("GET / HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.host);
        let text = tokio::task::spawn_blocking(move || talk(command, &request)).await.unwrap();
        Seen { resumed: text.contains("\nReused, TLS"), text }
    }
}

fn talk(mut command: Command, request: &str) -> String {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // It may have ended already, where the handshake was refused.
    let _ = child.stdin.take().unwrap().write_all(request.as_bytes());
    let output = child.wait_with_output().unwrap();
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

impl Seen {
    pub(crate) fn finished(&self) -> bool {
        // Where nothing came back it tells of the session that it presented.
        let answered = !self.text.contains("SSL handshake has read 0 bytes");
        answered && self.alert().is_none() && (self.resumed || self.text.contains("\nNew, TLS"))
    }

    pub(crate) fn status(&self) -> Option<u16> {
        let (_, status) = self.text.split_once("HTTP/1.1 ")?;
        status.get(..3)?.parse().ok()
    }

    /// The number of the alert that the server sent (RFC 8446 section 6).
    pub(crate) fn alert(&self) -> Option<u8> {
        let (_, number) = self.text.split_once("SSL alert number ")?;
        number.lines().next()?.trim().parse().ok()
    }

    /// What the session's ticket calls its key: the ticket's first 16 bytes, as they are printed.
    pub(crate) fn ticket_key(&self) -> Option<String> {
        let (_, ticket) = self.text.rsplit_once("TLS session ticket:\n")?;
        Some(ticket.lines().next()?.split_once(" - ")?.1.get(..47)?.to_owned())
    }

    pub(crate) fn certificate(&self) -> X509 {
        X509::from_pem(self.text.as_bytes()).unwrap()
    }

    /// The names that the server's certificate covers.
    pub(crate) fn names(&self) -> Vec<String> {
        let names = self.certificate().subject_alt_names();
        names.iter().flatten().filter_map(|name| name.dnsname().map(str::to_owned)).collect()
    }
}
