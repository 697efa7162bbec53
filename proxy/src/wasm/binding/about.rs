//! What a call is about, and what of it datasets are asked for.

use std::net::IpAddr;

use crate::wasm::dataset::{Subject, Wanted};
use crate::wasm::types::{RequestView, ResponseView};

/// What a call is about.
#[derive(Clone, Copy)]
pub(super) enum About<'a> {
    Request(&'a dyn RequestView),
    Response(&'a dyn RequestView, &'a dyn ResponseView),
    Connection { peer: IpAddr, client: Option<IpAddr> },
}

impl<'a> About<'a> {
    pub(super) fn subject(self, subject: Subject) -> Option<Wanted<'a>> {
        match (self, subject) {
            (Self::Request(request) | Self::Response(request, _), Subject::Host) => {
                Some(Wanted::Name { host: request.host(), path: "" })
            }
            (Self::Request(request) | Self::Response(request, _), Subject::Path) => {
                Some(Wanted::Name { host: "", path: request.path() })
            }
            (Self::Request(request) | Self::Response(request, _), Subject::Route) => {
                Some(Wanted::Name { host: request.host(), path: request.path() })
            }
            (Self::Connection { peer, .. }, Subject::Peer) => Some(Wanted::Address(peer)),
            (Self::Connection { client, .. }, Subject::Client) => client.map(Wanted::Address),
            _ => None,
        }
    }
}

/// For people: host, path and query.
pub(in crate::wasm) fn about_request(request: &dyn RequestView) -> String {
    let query = request.query().map_or_else(String::new, |query| format!("?{query}"));
    format!("{}{}{query}", request.host(), request.path())
}
