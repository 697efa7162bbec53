use super::*;

#[derive(Debug, PartialEq, Deserr)]
#[deserr(error = Faults, deny_unknown_fields)]
struct File {
    #[deserr(default)]
    listeners: Vec<Listener>,
    #[deserr(default)]
    threads: Option<u16>,
    #[deserr(default)]
    upstreams: Named<Upstream>,
    #[deserr(default)]
    store: Option<Store>,
}

#[derive(Debug, PartialEq, Deserr)]
#[deserr(error = Faults, deny_unknown_fields)]
struct Listener {
    name: String,
    #[deserr(try_from(String) = port -> String)]
    address: u16,
    #[deserr(default = Protocol::Https)]
    protocol: Protocol,
}

#[derive(Debug, PartialEq, Deserr)]
#[deserr(error = Faults, rename_all = lowercase)]
enum Protocol {
    Http,
    Https,
}

#[derive(Debug, PartialEq, Deserr)]
#[deserr(error = Faults, deny_unknown_fields)]
struct Upstream {
    url: String,
}

#[derive(Debug, PartialEq, Deserr)]
#[deserr(error = Faults, deny_unknown_fields, validate = in_range -> Faults)]
struct Store {
    min: u8,
    max: u8,
}

fn port(address: String) -> Result<u16, String> {
    let port = address.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    port.ok_or_else(|| format!("`{address}` has no port"))
}

fn in_range(store: Store, location: ValuePointerRef<'_>) -> Result<Store, Faults> {
    if store.min > store.max {
        return Err(Faults::at(location.push_key("min"), "`min` is more than `max`", Some("swap them".into())));
    }
    Ok(store)
}

type Shown<'a> = (&'a str, Option<u32>, Option<u32>, &'a str, Option<&'a str>);

fn shown(faults: &[Fault]) -> Vec<Shown<'_>> {
    faults.iter().map(|f| (&*f.at, f.line, f.column, &*f.says, f.hint.as_deref())).collect()
}

#[test]
fn reads_both_formats_to_the_same() {
    let toml = "threads = 2\n[[listeners]]\nname = 'a'\naddress = 'x:1'\n[upstreams.shop]\nurl = 'u'\n";
    let json = r#"{"threads":2,"listeners":[{"name":"a","address":"x:1"}],"upstreams":{"shop":{"url":"u"}}}"#;
    let file: File = read_toml(toml).unwrap();
    assert_eq!(file.upstreams.0["shop"].url, "u");
    assert_eq!(read_json::<File>(json).unwrap(), file);
}

#[test]
fn three_mistakes_in_toml_are_three_faults_with_their_places() {
    let text = "listner = 1\nthreads = 'two'\n\n[[listeners]]\nname = 'a'\naddress = 'a:1'\n[[listeners]]\naddress = 'b:2'\n  protocol = 'htps'\n";
    let faults = read_toml::<File>(text).unwrap_err();
    assert_eq!(
        shown(&faults),
        [
            ("/listner", Some(1), Some(1), "unknown setting `listner`", Some("did you mean `listeners`?")),
            ("/threads", Some(2), Some(11), "expected a whole number, found a string", None),
            ("/listeners/1/name", Some(7), Some(1), "setting `name` is missing", None),
            ("/listeners/1/protocol", Some(9), Some(14), "unknown value `htps`", Some("did you mean `https`?")),
        ]
    );
    assert_eq!(
        render(&faults[..2], "proxy.toml"),
        "proxy.toml:1:1: unknown setting `listner` (did you mean `listeners`?)\n\
         proxy.toml:2:11: expected a whole number, found a string\n"
    );
}

#[test]
fn three_mistakes_in_json_are_three_faults_with_their_places() {
    let text = "{\n  \"listeners\": [{\"name\": \"é\", \"address\": \"nowhere\"}],\n  \"threads\": -1,\n  \"upstreams\": {\"a/b\": {\"uri\": \"x\"}},\n  \"store\": {\"min\": 2, \"max\": 1}\n}";
    let faults = read_json::<File>(text).unwrap_err();
    assert_eq!(
        shown(&faults),
        [
            ("/listeners/0/address", Some(2), Some(42), "`nowhere` has no port", None),
            ("/threads", Some(3), Some(14), "expected a whole number, found -1", None),
            ("/upstreams/a~1b/url", Some(4), Some(24), "setting `url` is missing", None),
            ("/upstreams/a~1b/uri", Some(4), Some(25), "unknown setting `uri`", Some("did you mean `url`?")),
            ("/store/min", Some(5), Some(20), "`min` is more than `max`", Some("swap them")),
        ]
    );
}

#[test]
fn json_is_taken_to_the_letter() {
    for (text, at, line, column) in [
        ("", "", None, None),
        ("{\"threads\": 1,}", "", Some(1), Some(14)),
        ("{\n // no\n}", "", Some(2), Some(2)),
        ("{\"threads\" 1}", "", Some(1), Some(12)),
        ("{'threads': 1}", "", Some(1), Some(2)),
        ("{\"threads\": 1} {}", "", Some(1), Some(16)),
        ("{\"store\": {\"min\": 1,\n\"min\": 2, \"max\": 3}}", "/store/min", Some(2), Some(1)),
    ] {
        let faults = read_json::<File>(text).unwrap_err();
        assert_eq!(faults.len(), 1, "{text}: {faults:?}");
        assert_eq!((&*faults[0].at, faults[0].line, faults[0].column), (at, line, column), "{text}: {faults:?}");
    }
    for text in ["{\"threads\": 01}", "{\"a\": \"\n\"}", "{\"threads\": 1e999}", "[", "nul", &"[".repeat(100_000)] {
        assert_eq!(read_json::<File>(text).unwrap_err().len(), 1, "{text}");
    }
}

#[test]
fn toml_syntax_errors_come_all_at_once() {
    let faults = read_toml::<File>("threads = \nname = 'a\nthreads = 1\n").unwrap_err();
    let lines: Vec<_> = faults.iter().map(|f| f.line).collect();
    assert!(lines.contains(&Some(1)) && lines.contains(&Some(2)), "{faults:?}");
    for text in ["threads = 1979-05-27", "threads = inf", "threads = 99999999999999999999", "threads = 1\nthreads = 2"]
    {
        let faults = read_toml::<File>(text).unwrap_err();
        assert!(faults.len() == 1 && faults[0].line.is_some(), "{text}: {faults:?}");
    }
}

#[test]
fn what_is_missing_at_the_top_has_no_place_and_comes_last() {
    #[derive(Debug, Deserr)]
    #[deserr(error = Faults, deny_unknown_fields)]
    #[allow(dead_code)]
    struct Needy {
        data_dir: String,
    }
    let faults = read_toml::<Needy>("\nother = 1").unwrap_err();
    assert_eq!(
        shown(&faults),
        [
            ("/other", Some(2), Some(1), "unknown setting `other`", Some("known here: `data_dir`")),
            ("/data_dir", None, None, "setting `data_dir` is missing", None),
        ]
    );
    assert!(render(&faults, "f").ends_with("f: setting `data_dir` is missing\n"));
}

#[test]
fn shows_the_limit_of_faults_and_counts_the_rest() {
    for (wrong, shown) in [(FAULTS_MAX, FAULTS_MAX), (FAULTS_MAX + 1, FAULTS_MAX + 1)] {
        let text: String = (0..wrong).map(|n| format!("wrong{n} = 1\n")).collect();
        let faults = read_toml::<File>(&text).unwrap_err();
        assert_eq!(faults.len(), shown);
        assert_eq!(faults.iter().any(|f| f.says.contains("and 1 more")), wrong > FAULTS_MAX);
    }
}

#[test]
fn a_string_in_the_wrong_place_is_not_shown() {
    let faults = read_toml::<File>("threads = 'hunter2'").unwrap_err();
    assert!(!format!("{faults:?}").contains("hunter2"));
}

#[test]
fn a_document_places_faults_found_after_reading() {
    let document = Document::json("{\"upstreams\": {\n \"shop\": {\"url\": \"x\"}}}").unwrap();
    assert!(document.read::<File>().is_ok());
    let fault = document.fault(pointer("/upstreams", "shop"), "nobody uses it", None);
    assert_eq!((fault.line, fault.column), (Some(2), Some(10)));
}
