//! Questions to other servers while a request waits for its verdict. A policy that calls [`send`] is of the world
//! `waiting-http-plugin`; whom it may ask is the operator's to grant (`callouts` of the binding).
//!
//! Natively, [`testing`] grants and answers.

use std::net::IpAddr;

pub use crate::bindings::callout::Error;
pub use crate::http::Header;

/// A question. `path` is absolute, with its query, percent-encoded.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Request {
    pub upstream: String,
    pub method: String,
    pub path: String,
    pub headers: Vec<Header>,
    pub body: Vec<u8>,
    /// 0: as long as the call may still wait.
    pub timeout_ms: u32,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct Response {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<Header>,
    pub body: Vec<u8>,
}

/// What no other plugin is told. A verdict that follows from it must not be given again ([`crate::http::Verdict::holds`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Visitor {
    pub method: String,
    pub address: Option<IpAddr>,
}

impl Request {
    pub fn get(upstream: &str, path: &str) -> Self {
        Self { upstream: upstream.to_owned(), method: "GET".to_owned(), path: path.to_owned(), ..Self::default() }
    }
}

impl Response {
    /// All of that name, in their order.
    pub fn values<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.headers.iter().filter(move |header| header.name == name).map(|header| header.value.as_slice())
    }
}

/// Names of the upstreams that the binding is granted. In `plan` too, so that it can refuse a name that is not.
pub fn granted() -> Vec<String> {
    #[cfg(target_arch = "wasm32")]
    return crate::bindings::callout::granted();
    #[cfg(not(target_arch = "wasm32"))]
    testing::granted()
}

/// In `on_request` only.
pub fn visitor() -> Visitor {
    #[cfg(target_arch = "wasm32")]
    {
        use crate::bindings::callout::{self as wit, Ip};
        let wit::Visitor { method, address } = wit::who();
        let address = address.map(|address| match address {
            Ip::V4(v4) => IpAddr::V4(v4.into()),
            Ip::V6((upper, lower)) => IpAddr::V6((u128::from(upper) << 64 | u128::from(lower)).into()),
        });
        Visitor { method, address }
    }
    #[cfg(not(target_arch = "wasm32"))]
    Visitor { method: "GET".to_owned(), address: None }
}

/// Asks, and waits for the answer. In `on_request` only.
pub fn send(request: Request) -> Result<Response, Error> {
    #[cfg(target_arch = "wasm32")]
    {
        use crate::bindings::callout as wit;
        let Request { upstream, method, path, headers, body, timeout_ms } = request;
        let headers = headers.into_iter().map(|Header { name, value }| wit::Header { name, value }).collect();
        let wit::Response { status, headers, body } =
            wit::send(&wit::Request { upstream, method, path, headers, body, timeout_ms })?;
        let headers = headers.into_iter().map(|wit::Header { name, value }| Header { name, value }).collect();
        Ok(Response { status, headers, body })
    }
    #[cfg(not(target_arch = "wasm32"))]
    testing::send(&request)
}

/// In place of the proxy, for native tests.
#[cfg(not(target_arch = "wasm32"))]
pub mod testing {
    use std::cell::RefCell;

    use super::{Error, Request, Response};

    type Answer = Box<dyn Fn(&Request) -> Result<Response, Error>>;

    thread_local! {
        static GRANTED: RefCell<Option<(Vec<String>, Answer)>> = const { RefCell::new(None) };
    }

    /// Grants these upstreams on this thread, and answers for them.
    pub fn grant(names: &[&str], answer: impl Fn(&Request) -> Result<Response, Error> + 'static) {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        GRANTED.set(Some((names, Box::new(answer))));
    }

    pub(super) fn granted() -> Vec<String> {
        GRANTED.with_borrow(|granted| granted.as_ref().map(|(names, _)| names.clone()).unwrap_or_default())
    }

    pub(super) fn send(request: &Request) -> Result<Response, Error> {
        GRANTED.with_borrow(|granted| match granted {
            Some((names, answer)) if names.contains(&request.upstream) => answer(request),
            _ => Err(Error::NotGranted),
        })
    }
}
