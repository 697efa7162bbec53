//! The private CA of CertService's API.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};

use crate::pki::{CA_DAYS, DAYS};

#[derive(Debug, Subcommand)]
pub enum PkiAction {
    /// Make a CA: ca.pem and crl.pem for CertService and edges, its key (0600) for nobody else.
    Init {
        /// What it calls itself.
        #[arg(long, default_value = "Latchkey CA")]
        name: String,
        #[arg(long, default_value_t = CA_DAYS, value_parser = clap::value_parser!(u32).range(1..=7300))]
        days: u32,
    },
    /// Make a key (NAME.key, 0600) and its certificate (NAME.pem): for a client with a role, or for CertService's own listener.
    Issue {
        name: String,
        /// What its holder may do; CertService's boot file has to say so, too: [[certificates]] with the URI that is printed.
        #[arg(long, value_enum, conflicts_with = "hosts", required_unless_present = "hosts")]
        role: Option<Role>,
        /// Of role app.
        #[arg(long, required_if_eq("role", "app"))]
        tenant: Option<String>,
        /// A host name or IP address of CertService's listener; several times for several.
        #[arg(long = "host", value_name = "HOST")]
        hosts: Vec<String>,
        #[arg(long, default_value_t = DAYS, value_parser = clap::value_parser!(u32).range(1..=3650))]
        days: u32,
    },
    /// Another key and certificate in place of NAME's, or another key of the CA. What was valid stays so until it ends or is revoked.
    Rotate {
        #[arg(required_unless_present = "ca", conflicts_with = "ca")]
        name: Option<String>,
        /// The CA's own key. Give the new ca.pem and crl.pem to CertService and edges before certificates are issued by it.
        #[arg(long)]
        ca: bool,
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=7300))]
        days: Option<u32>,
    },
    /// Put all that is valid under NAME, or one serial number of it, on the revocation list crl.pem.
    Revoke {
        name: String,
        #[arg(long)]
        serial: Option<String>,
    },
    /// What was issued, until when, and what is revoked.
    Ls,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Role {
    Edge,
    App,
    Operator,
    Viewer,
}

#[derive(Debug, clap::Args)]
pub struct PkiArgs {
    /// The CA's folder. Not on the host of CertService, and not on an edge.
    #[arg(long, global = true, env = "LATCHKEY_PKI", default_value = "pki", value_name = "FOLDER")]
    pub dir: PathBuf,
}
