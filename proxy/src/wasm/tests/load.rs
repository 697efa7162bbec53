use super::*;

fn refused(bytes: &[u8]) -> String {
    HOST.load(bytes).err().expect("is refused").to_string()
}

/// The component with one name for another of the same length, everywhere in it.
fn renamed(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut out = bytes.to_vec();
    let places: Vec<_> = (0..out.len()).filter(|at| out[*at..].starts_with(from.as_bytes())).collect();
    assert!(!places.is_empty(), "{from} is not in the component");
    places.into_iter().for_each(|at| out[at..at + to.len()].copy_from_slice(to.as_bytes()));
    out
}

#[test]
fn plugins_say_what_they_are() {
    for (name, class, fail_open_safe) in
        [("hsts", Class::Http, true), ("redirects", Class::Http, true), ("proxy-policy", Class::Connection, false)]
    {
        let plugin = plugin(name);
        assert_eq!((plugin.name(), plugin.class(), plugin.fail_open_safe()), (name, class, fail_open_safe));
        assert_eq!(plugin.version(), "0.1.0");
        assert_eq!(*plugin.digest(), Digest::of(&guest(name)));
        assert!(plugin.config_schema().contains("\"properties\""), "{name}");
    }
}

#[test]
fn runs_without_a_pool_where_there_is_no_address_space_for_one() {
    let host = Host::new(Settings { plan_memory_bytes_max: 1 << 46, ..Settings::default() }).expect("starts");
    let plugin = host.load(&guest("hsts")).expect("is a plugin");
    let binding = host.bind(&plugin, r#"{"max_age": 1}"#, &Tables::default()).expect("is accepted");
    assert_eq!(binding.on_response(&FACTS, &get("/"), &get("/")).map(|edits| edits.len()), Ok(1));
}

#[test]
fn a_digest_is_written_like_a_container_registry_does() {
    let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    assert_eq!(Digest::of(b"").to_string(), empty);
}

#[test]
fn refuses_what_is_not_a_component_and_says_what_it_is() {
    assert!(refused(b"").contains("it starts with nothing"));
    assert!(refused(b"\x7fELF\x02\x01\x01\0").contains(r"it starts with `\x7fELF\x02\x01\x01\x00`"));
    assert!(refused(b"(component)").contains("it starts with `(compone`"));
    assert!(refused(b"\0asm\x01\0\0\0").contains("a core module, not a component"));
    assert!(refused(b"\0asm\x0d\0\x01\0garbage").starts_with("not a valid component: "));
    let whole = guest("hsts");
    assert!(refused(&whole[..whole.len() / 2]).starts_with("not a valid component: "));
}

#[test]
fn refuses_one_byte_more_than_the_limit() {
    let mut bytes = b"\0asm\x0d\0\x01\0".to_vec();
    bytes.resize(COMPONENT_BYTES_MAX, 0);
    assert!(refused(&bytes).starts_with("not a valid component: "));
    bytes.push(0);
    assert_eq!(refused(&bytes), "component is 16777217 bytes, at most 16777216 are accepted");
}

#[test]
fn refuses_a_component_of_another_world() {
    assert!(refused(&guest("other-world")).contains("does not export latchkey:edge/control"));
    let no_policy = renamed(&guest("hsts"), "latchkey:edge/http-policy@", "latchkey:edge/http-polity@");
    assert!(refused(&no_policy).contains("does not export latchkey:edge/connection or http-policy"));
}

#[test]
fn refuses_an_import_that_is_not_granted() {
    let wants_wasi = renamed(&guest("hsts"), "latchkey:edge/log@0.2.1", "wasi:cli/terminal@0.2.0");
    assert_eq!(
        refused(&wants_wasi),
        "component imports wasi:cli/terminal@0.2.0, which is not granted; a plugin may import log, datasets, rates, rules and callout of latchkey:edge only"
    );
}

#[test]
fn accepts_compatible_versions_and_refuses_others() {
    let later = renamed(&guest("hsts"), "@0.2.1", "@0.2.7");
    assert_eq!(HOST.load(&later).map(|plugin| plugin.name().to_owned()).ok().as_deref(), Some("hsts"));
    for other in ["@0.1.0", "@1.1.0", "@9.0.0"] {
        let error = refused(&renamed(&guest("hsts"), "@0.2.1", other));
        assert!(error.contains(&format!("speaks latchkey:edge {}, this proxy speaks 0.2", &other[1..])), "{error}");
    }
}

#[test]
fn says_when_a_component_was_built_against_another_state_of_the_world() {
    let says = "component was built against another latchkey:edge than this proxy's, though both call it 0.2.1";
    let todo = "build it again with the wit/ or the SDK of this proxy's release";
    for (name, ours, theirs) in [
        ("hsts", "[method]policy.on-request", "[method]policy.in-request"),
        ("redirects", "moved-permanently", "moved-permanentky"),
        ("proxy-policy", "require-checksum", "require-checkrum"),
        ("proxy-policy", "config-schema", "config-schemb"),
    ] {
        let error = refused(&renamed(&guest(name), ours, theirs));
        assert!(error.starts_with(says) && error.ends_with(todo), "{error}");
    }
}
