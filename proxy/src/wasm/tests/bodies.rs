//! Bodies as they pass through guests.

use super::super::binding::under_way_here;
use super::super::shelf::kept_here;
use super::*;

const PIECE: usize = 8 << 10;

fn bodies() -> Arc<Binding> {
    hostile("bodies").expect("is accepted")
}

fn begun(binding: &Arc<Binding>, path: &'static str) -> Result<Option<Body>, Fault> {
    binding.begin(&FACTS, &get(path), Some(&get(path)), None, true)
}

fn body(binding: &Arc<Binding>, path: &'static str) -> Body {
    begun(binding, path).expect("no fault").expect("is shown")
}

fn text(passed: Result<Passed, Fault>) -> String {
    match passed {
        Ok(Passed::Replaced(bytes)) => String::from_utf8(bytes).expect("is text"),
        other => panic!("{other:?}"),
    }
}

fn reason<T>(result: Result<T, Fault>) -> Option<&'static str> {
    result.err().map(|fault| fault.reason())
}

#[test]
fn a_configuration_says_which_bodies_it_sees() {
    let hooks = bodies().hooks();
    assert!(hooks.request_body && hooks.response_body && !hooks.request);
    let hooks = bind("rewrite", r#"{"replace": [{"find": "a", "with": "b"}]}"#).hooks();
    assert!(hooks.request && hooks.response_body && !hooks.request_body);
    assert!(!bind("hsts", r#"{"max_age": 1}"#).hooks().response_body);
    assert!(matches!(hostile("bodies-trap"), Err(BindError::Fault(Fault::Trap(_)))));
}

#[test]
fn a_text_is_replaced_wherever_what_is_pushed_ends() {
    let binding = bind("rewrite", r#"{"replace": [{"find": "saas.test", "with": "{host}"}]}"#);
    let answer = Exchange { response: BTreeMap::from([("content-type", "text/html; charset=utf-8")]), ..get("/") };
    for bytes in [1, 2, 3, 100] {
        let mut body =
            binding.begin(&FACTS, &get("/"), Some(&answer), Some(20), true).expect("no fault").expect("is shown");
        let mut out = Vec::new();
        for (at, piece) in b"at saas.test, saas.tes".chunks(bytes).enumerate() {
            match body.push(piece, (at + 1) * bytes >= 22).expect("no fault") {
                Passed::AsItIs => out.extend_from_slice(piece),
                Passed::Replaced(with) => out.extend(with),
                Passed::Refused(status) => panic!("{status}"),
            }
        }
        assert_eq!(String::from_utf8_lossy(&out), "at shop.example, saas.tes", "{bytes}");
        assert!(body.usage().instructions > 0);
    }
    let image = Exchange { response: BTreeMap::from([("content-type", "image/png")]), ..get("/") };
    assert!(binding.begin(&FACTS, &get("/"), Some(&image), None, true).expect("no fault").is_none());
    let zipped = BTreeMap::from([("content-type", "text/html"), ("content-encoding", "gzip")]);
    let zipped = Exchange { response: zipped, ..get("/") };
    assert!(binding.begin(&FACTS, &get("/"), Some(&zipped), None, true).expect("no fault").is_none());
}

#[test]
fn what_is_pushed_comes_in_pieces_that_a_call_can_bear() {
    let binding = bodies();
    let mut long = body(&binding, "/change/sizes");
    assert_eq!(text(long.push(&[b'x'; 2 * PIECE + 1], false)), format!("{PIECE},{PIECE},1,"));
    assert_eq!(long.push(b"", false), Ok(Passed::AsItIs), "nothing is no piece");
    assert_eq!(text(long.push(b"", true)), "0,", "but its end is");
    assert_eq!(reason(long.push(b"x", true)), Some("unavailable"), "nothing comes after the end");
    let mut exact = body(&binding, "/change/sizes");
    assert_eq!(text(exact.push(&[b'x'; PIECE], true)), format!("{PIECE},"));
}

#[test]
fn what_passes_beside_what_is_replaced_stays_in_its_place() {
    let binding = bind("rewrite", r#"{"replace": [{"find": "zz", "with": "-"}]}"#);
    let answer = Exchange { response: BTreeMap::from([("content-type", "text/plain")]), ..get("/") };
    let mut body = binding.begin(&FACTS, &get("/"), Some(&answer), None, true).expect("no fault").expect("is shown");
    let pushed = [vec![b'a'; PIECE], b"zz".to_vec(), vec![b'b'; PIECE], vec![b'c'; PIECE]].concat();
    let wanted = [vec![b'a'; PIECE], b"-".to_vec(), vec![b'b'; PIECE], vec![b'c'; PIECE]].concat();
    assert_eq!(body.push(&pushed, true), Ok(Passed::Replaced(wanted)));
}

#[test]
fn each_misdeed_ends_its_body_and_harms_no_other() {
    let binding = bodies();
    let mut other = body(&binding, "/change/shout");
    for (path, kind) in [
        ("/watch/trap", "trap"),
        ("/change/spin", "deadline"),
        ("/watch/eat", "memory"),
        ("/watch/shout", "output"),
        ("/change/huge", "output"),
        ("/change/vast", "output"),
        ("/watch/status", "output"),
        ("/watch/drop-trap", "trap"),
        ("/watch/drop-spin", "deadline"),
    ] {
        let mut body = body(&binding, path);
        assert_eq!(reason(body.push(b"x", true)), Some(kind), "{path}");
        assert_eq!(reason(body.push(b"x", true)), Some("unavailable"), "{path}");
        assert_eq!(text(other.push(b"x", false)), "X", "{path}");
    }
    assert_eq!(reason(begun(&binding, "/watch/begin")), Some("trap"));
    assert_eq!(text(body(&binding, "/change/most").push(b"x", true)).len(), 128 << 10);
    assert_eq!(body(&binding, "/watch/refuse").push(b"x", false), Ok(Passed::Refused(418)));
    assert_eq!(text(other.push(b"x", true)), "X");
}

#[test]
fn a_body_that_was_touched_is_known() {
    let binding = bodies();
    let mut watched = body(&binding, "/watch/nothing");
    assert_eq!(watched.push(b"x", false), Ok(Passed::AsItIs));
    assert!(watched.is_as_it_was() && !watched.changes());
    let mut held = body(&binding, "/change/hold");
    assert!(held.is_as_it_was() && held.changes());
    assert_eq!(held.push(b"ab", false), Ok(Passed::Replaced(Vec::new())));
    assert!(!held.is_as_it_was());
    assert_eq!(text(held.push(b"c", true)), "abc");
}

#[test]
fn an_instance_serves_one_body_after_another_and_never_two() {
    let binding = bodies();
    let (mut first, mut second) = (body(&binding, "/change/count"), body(&binding, "/change/count"));
    assert_eq!([text(first.push(b"x", false)), text(second.push(b"x", false))], ["1,", "1,"]);
    assert_eq!(text(first.push(b"x", true)), "2,");
    assert_eq!(text(body(&binding, "/change/count").push(b"x", true)), "3,", "the first one's instance");
    assert!(body(&binding, "/change/count").let_go().is_ok());
    assert_eq!(text(body(&binding, "/change/count").push(b"x", true)), "4,", "also after one that had a head only");
    // Who leaves half-way leaves a body behind that nobody sees.
    drop(second);
    let each = Arc::new(binding.on_terms(Terms::isolated(Isolation::Request)));
    let said = [(); 2].map(|()| text(body(&each, "/change/count").push(b"x", true)));
    assert_eq!(said, ["1,", "1,"]);
}

#[test]
fn where_nothing_may_change_a_body_is_left_alone_or_watched() {
    let binding = bodies();
    let begin = |path| binding.begin(&FACTS, &get(path), None, None, false).expect("no fault");
    assert!(begin("/change/shout").is_none());
    assert!(begin("/watch/nothing").is_some());
    assert!(begin("/").is_none());
}

#[test]
fn one_domain_can_not_have_all_places_and_each_is_given_back() {
    let settings = Settings { bodies_per_thread_max: 3, bodies_per_tenant_max: 2, ..Settings::default() };
    let host = Host::new(settings).expect("starts");
    let plugin = host.load(&guest("hostile")).expect("is a plugin");
    let binding = host.bind(&plugin, r#"{"behaviour": "bodies"}"#, &Tables::default()).expect("is accepted");
    let begin = |tenant: u128| {
        let facts = RequestFacts { tenant: Tenant(tenant), ..FACTS };
        binding.begin(&facts, &get("/watch/nothing"), None, None, true)
    };
    let mut held = vec![begin(1), begin(1)];
    let refused = begin(1).err().map(|fault| fault.to_string()).unwrap_or_default();
    assert!(refused.contains("2 of them of this domain (at most 2)"), "{refused}");
    held.push(begin(2));
    assert_eq!(reason(begin(3)), Some("unavailable"), "the thread's are all taken");
    assert!(held.iter().all(Result::is_ok) && under_way_here() == [3, 0]);
    held.clear();
    assert_eq!(under_way_here(), [0, 0]);
    assert!(begin(3).is_ok() && kept_here() <= 1);
}

#[test]
fn a_plugin_that_fails_at_body_after_body_is_left_alone_for_that_domain() {
    let host = Host::new(Settings::default()).expect("starts");
    let plugin = host.load(&guest("hostile")).expect("is a plugin");
    let binding = host.bind(&plugin, r#"{"behaviour": "bodies"}"#, &Tables::default()).expect("is accepted");
    let now_ms = crate::tls::now() * 1000;
    let begin = |tenant: u128, path, now_ms| {
        let facts = RequestFacts { tenant: Tenant(tenant), now_ms, ..FACTS };
        binding.begin(&facts, &get(path), None, None, true)
    };
    let failed = || begin(1, "/watch/trap", now_ms).and_then(|body| body.expect("is shown").push(b"x", true));
    assert!((0..20).all(|_| reason(failed()) == Some("trap")));
    assert_eq!(reason(failed()), Some("resting"));
    assert!(matches!(begin(2, "/watch/nothing", now_ms), Ok(Some(_))), "others are served");
    // Later it is tried again, and one that ends well takes all back.
    let later = now_ms + 60_000;
    assert_eq!(
        begin(1, "/watch/nothing", later).expect("is tried").expect("is shown").push(b"x", true),
        Ok(Passed::AsItIs)
    );
    assert!(matches!(begin(1, "/watch/nothing", later), Ok(Some(_))));
}
