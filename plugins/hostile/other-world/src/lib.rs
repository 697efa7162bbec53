//! A component that has nothing to do with Latchkey, for the host's tests.
#![cfg(target_arch = "wasm32")]

// The exports that the macro generates are unsafe functions.
#[allow(unsafe_code)]
mod world {
    wit_bindgen::generate!({
        inline: "package example:greeter; world greeter { export greet: func() -> string; }",
    });

    struct Greeter;

    export!(Greeter);

    impl Guest for Greeter {
        fn greet() -> String {
            "hello".to_owned()
        }
    }
}
