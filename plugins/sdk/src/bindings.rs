//! Generated from `wit/`: one world an interface, so that both classes of plugins share `control`. wit-component merges
//! the worlds that a plugin exports, and `control` with `http-policy` is just world `http-plugin`.

pub mod control {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "package latchkey:sdk; world control { import latchkey:edge/log@0.2.1; import latchkey:edge/datasets@0.2.1; import latchkey:edge/rules@0.2.1; export latchkey:edge/control@0.2.1; }",
        generate_all,
        additional_derives: [PartialEq],
        pub_export_macro: true,
        export_macro_name: "export_control",
        default_bindings_module: "latchkey_sdk::bindings::control",
    });
    pub use exports::latchkey::edge::control::*;
    pub use latchkey::edge::{datasets, log, rules};
}

/// Shared by both classes, and by policies that do not count at all: what is not called is not imported.
pub mod rates {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "package latchkey:sdk; world rates { import latchkey:edge/rates@0.2.1; }",
        generate_all,
    });
    pub use latchkey::edge::rates::*;
}

pub mod connection {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "package latchkey:sdk; world connection { export latchkey:edge/connection@0.2.1; }",
        generate_all,
        additional_derives: [PartialEq],
        pub_export_macro: true,
        export_macro_name: "export_connection_policy",
        default_bindings_module: "latchkey_sdk::bindings::connection",
    });
    pub use exports::latchkey::edge::connection::*;
    pub use latchkey::edge::types::{Endpoint, Ip};
}

pub mod http {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "package latchkey:sdk; world http { export latchkey:edge/http-policy@0.2.1; }",
        generate_all,
        additional_derives: [PartialEq],
        pub_export_macro: true,
        export_macro_name: "export_http_policy",
        default_bindings_module: "latchkey_sdk::bindings::http",
    });
    pub use exports::latchkey::edge::http_policy::*;
    pub use latchkey::edge::types::Header;
}

pub mod body {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "package latchkey:sdk; world body { export latchkey:edge/http-body@0.2.1; }",
        generate_all,
        pub_export_macro: true,
        export_macro_name: "export_http_body",
        default_bindings_module: "latchkey_sdk::bindings::body",
    });
    pub use exports::latchkey::edge::http_body::*;
}

/// What a policy that never asks does not import.
pub mod callout {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "package latchkey:sdk; world callout { import latchkey:edge/callout@0.2.1; }",
        generate_all,
        additional_derives: [PartialEq],
    });
    pub use latchkey::edge::callout::*;
    pub use latchkey::edge::types::{Header, Ip};
}
