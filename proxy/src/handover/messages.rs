//! What the processes say to each other. Old and new may be of different versions: names stay, fields are only added.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// From the command to the running process.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Request {
    Who,
    Upgrade,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Reply {
    Owner(Owner),
    Upgraded { pid: u32 },
    Failed { why: String },
}

/// Who accepts on which sockets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Owner {
    pub(super) pid: u32,
    pub(super) version: String,
    pub(super) listeners: Vec<Owned>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Owned {
    pub(super) name: String,
    pub(super) address: SocketAddr,
    /// The kernel's number of the socket: the same before and after a hand-over.
    pub(super) inode: u64,
}

/// Between the incumbent and its successor, in this order.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Step {
    /// With the listening sockets.
    Sockets {
        pid: u32,
    },
    Serving,
    Yours,
    /// The names in the file system lead to the successor, or never will. Older successors don't say it.
    Named,
}
