//! Guest bindings, generated from `wit/`. One host-side world per interface, so that a component is asked only for
//! what its class has, and `control` is one set of types for all classes.

/// The package whose worlds plugins implement.
pub(super) const PACKAGE: &str = "latchkey:edge";
/// Versions up to the next breaking one are compatible; before 1.0 that is the next minor (semver).
pub(super) const COMPATIBLE_VERSIONS: &str = "0.2";
/// What wit/ says it is.
pub(super) const VERSION: &str = "0.2.1";
/// For those who ask other servers.
pub(super) const CALLOUT: &str = "latchkey:edge/callout@0.2.1";
pub(super) const HTTP_POLICY: &str = "latchkey:edge/http-policy@0.2.1";
/// Types only; there is nothing in it to implement.
pub(super) const TYPES: &str = "latchkey:edge/types@0.2.1";

/// Calls into `control`: describe and plan.
pub(super) mod control {
    wasmtime::component::bindgen!({
        path: "../wit",
        inline: "package latchkey:host; world control { import latchkey:edge/log@0.2.1; import latchkey:edge/datasets@0.2.1; import latchkey:edge/rates@0.2.1; import latchkey:edge/rules@0.2.1; export latchkey:edge/control@0.2.1; }",
        imports: { "latchkey:edge/datasets": trappable, "latchkey:edge/rates": trappable, "latchkey:edge/rules": trappable },
        with: {
            "latchkey:edge/datasets.dataset": crate::wasm::planning::Made,
            "latchkey:edge/datasets.table": crate::wasm::planning::Opened,
        },
    });
    pub(in crate::wasm) use exports::latchkey::edge::control::*;
}

/// Calls into `connection`.
pub(super) mod connection {
    wasmtime::component::bindgen!({
        path: "../wit",
        inline: "package latchkey:host; world connection { export latchkey:edge/connection@0.2.1; }",
    });
    pub(in crate::wasm) use exports::latchkey::edge::connection::*;
    pub(in crate::wasm) use latchkey::edge::types::{Endpoint, Ip};
}

/// Calls into `http-policy`. Borrowed parameters: nothing is copied before it lands in the guest's memory.
pub(super) mod http {
    wasmtime::component::bindgen!({
        path: "../wit",
        inline: "package latchkey:host; world http { export latchkey:edge/http-policy@0.2.1; }",
        ownership: Borrowing { duplicate_if_necessary: false },
    });
    pub(in crate::wasm) use exports::latchkey::edge::http_policy::*;
}

/// Calls into `http-body`.
pub(super) mod body {
    wasmtime::component::bindgen!({
        path: "../wit",
        inline: "package latchkey:host; world body { export latchkey:edge/http-body@0.2.1; }",
        ownership: Borrowing { duplicate_if_necessary: true },
    });
    pub(in crate::wasm) use exports::latchkey::edge::http_body::*;
}

/// The types of `callout`; its functions are linked by hand, since one of them waits.
pub(super) mod callout {
    wasmtime::component::bindgen!({
        path: "../wit",
        inline: "package latchkey:host; world callout { import latchkey:edge/callout@0.2.1; }",
    });
    pub(in crate::wasm) use latchkey::edge::callout::{Error, Request, Response, Visitor};
    pub(in crate::wasm) use latchkey::edge::types::{Header, Ip};
}
