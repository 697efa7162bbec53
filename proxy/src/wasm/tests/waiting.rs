//! Plugins that ask other servers, with servers that are played here.

use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use futures_util::FutureExt;

use super::*;
use crate::wasm::shelf::kept_here;

type Answer = Box<dyn Fn(&CalloutRequest) -> Asking + Send + Sync>;

/// Answers as it is told, and remembers what it was asked and how long it had.
pub(super) struct Server {
    answer: Answer,
    asked: Mutex<Vec<(CalloutRequest, Duration)>>,
}

impl Server {
    fn new(answer: impl Fn(&CalloutRequest) -> Asking + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { answer: Box::new(answer), asked: Mutex::default() })
    }

    pub(super) fn at_once(reply: Result<CalloutReply, NoReply>) -> Arc<Self> {
        Self::new(move |_| {
            let reply = reply.clone();
            Box::pin(async { reply })
        })
    }

    fn hanging() -> Arc<Self> {
        Self::new(|_| Box::pin(pending()))
    }

    pub(super) fn asked(&self) -> Vec<(CalloutRequest, Duration)> {
        self.asked.lock().unwrap().clone()
    }
}

impl Callee for Server {
    fn ask(self: Arc<Self>, request: CalloutRequest, within: Duration) -> Asking {
        let asking = (self.answer)(&request);
        self.asked.lock().unwrap().push((request, within));
        asking
    }
}

pub(super) fn reply(status: u16) -> Result<CalloutReply, NoReply> {
    let headers = vec![Header { name: "x-user".to_owned(), value: b"7".to_vec() }];
    Ok(CalloutReply { status, headers, body: b"hello".to_vec() })
}

pub(super) fn bound_on(
    host: &Host,
    behaviour: &str,
    server: &Arc<Server>,
    terms: Terms,
) -> Result<Arc<Binding>, BindError> {
    let callee: Arc<dyn Callee> = server.clone();
    let callouts = Callouts { to: [("auth".to_owned(), callee)].into(), timeout: Duration::from_millis(500) };
    let plugin = host.load(&guest("hostile-waiting")).unwrap();
    host.bind_on(&plugin, &format!(r#"{{"behaviour": "{behaviour}"}}"#), &Tables::default(), callouts, terms)
}

fn bound(behaviour: &str, server: &Arc<Server>) -> Arc<Binding> {
    bound_on(&HOST, behaviour, server, Terms::default()).unwrap_or_else(|error| panic!("{behaviour}: {error}"))
}

/// The status of what comes of it.
fn status(answer: &Result<Action, Fault>) -> u16 {
    match answer {
        Ok(Action::Deny(status) | Action::Respond { status, .. }) => *status,
        other => panic!("{other:?}"),
    }
}

fn asks(behaviour: &str, server: &Arc<Server>) -> Result<Action, Fault> {
    bound(behaviour, server).on_request(&FACTS, &get("/a"))
}

#[test]
fn a_plugin_that_asks_is_known_by_its_import_and_others_are_as_ever() {
    for (name, waits) in [("hostile-waiting", true), ("forward-auth", true), ("hostile", false), ("hsts", false)] {
        assert_eq!(plugin(name).waits(), waits, "{name}");
        assert_eq!(plugin(name).class(), Class::Http);
    }
}

#[test]
fn what_a_server_says_comes_back_to_the_guest() {
    let server = Server::at_once(reply(203));
    let Ok(Action::Respond { status, headers, body }) = asks("post", &server) else { panic!("no answer") };
    assert_eq!((status, body.as_slice(), headers[0].value.as_slice()), (203, &b"hello"[..], &b"7"[..]));
    let (asked, within) = server.asked().remove(0);
    assert_eq!((asked.method.as_str(), asked.path.as_str(), asked.body.as_slice()), ("POST", "/a", &b"asked"[..]));
    assert_eq!(asked.headers[1], Header { name: "x-from-plugin".to_owned(), value: b"1".to_vec() });
    assert!(within <= Duration::from_millis(500) && within > Duration::from_millis(300), "{within:?}");
    asks("short", &server).unwrap();
    assert_eq!(server.asked()[1].1, Duration::from_millis(20), "the plugin may be more impatient");
}

#[test]
fn each_failure_has_its_own_name() {
    for (why, told) in
        [(NoReply::TimedOut, 504), (NoReply::Unreachable, 502), (NoReply::Broken, 500), (NoReply::TooLarge, 413)]
    {
        assert_eq!(status(&asks("ask", &Server::at_once(Err(why)))), told, "{why:?}");
    }
    let vast = CalloutReply { status: 200, headers: vec![], body: vec![0; CALLOUT_BODY_BYTES_MAX + 1] };
    assert_eq!(status(&asks("ask", &Server::at_once(Ok(vast)))), 413);
}

#[test]
fn a_guest_reaches_nobody_but_whom_it_is_granted_and_forges_nothing() {
    let server = Server::at_once(reply(200));
    assert_eq!(status(&asks("elsewhere", &server)), 403);
    assert_eq!(status(&asks("lines", &server)), 409, "all nine are illegal");
    assert_eq!(status(&asks("long", &server)), 400);
    assert!(matches!(asks("vast", &server), Err(Fault::Output(_))), "more than is copied out of a guest");
    assert_eq!(server.asked().len(), 0);
    let ungranted = HOST.bind(&plugin("hostile-waiting"), r#"{"behaviour": "ask"}"#, &Tables::default()).unwrap();
    assert_eq!(status(&ungranted.on_request(&FACTS, &get("/a"))), 403);
}

#[test]
fn a_call_asks_four_times_and_no_more_however_often_it_tries() {
    let server = Server::at_once(reply(200));
    assert_eq!(status(&asks("five", &server)), 404);
    assert_eq!(server.asked().len(), 4);
    let binding = bound("storm", &server);
    let asked = binding.on_request_waiting(&FACTS, &get("/a"), false).now_or_never().unwrap();
    assert_eq!((asked.answer, server.asked().len()), (Err(Fault::Deadline), 8));
    assert_eq!(asked.callouts.len(), 16, "what it is refused is not counted for ever");
}

#[test]
fn nothing_can_ask_where_nothing_may_wait() {
    let server = Server::at_once(reply(200));
    for behaviour in ["plan-ask", "plan-who", "start-ask"] {
        let refused = bound_on(&HOST, behaviour, &server, Terms::default()).err().map(|error| error.to_string());
        let refused = refused.unwrap_or_else(|| panic!("{behaviour} is accepted"));
        assert!(refused.contains("`on-request`"), "{behaviour}: {refused}");
    }
    let told = bound("response-ask", &server).on_response(&FACTS, &get("/a"), &get("/a"));
    assert!(matches!(&told, Err(Fault::Output(says)) if says.contains("nothing waits in")), "{told:?}");
    assert_eq!(server.asked().len(), 0);
    let granted = bound_on(&HOST, "granted", &server, Terms::default()).err().map(|error| error.to_string());
    assert_eq!(granted.as_deref(), Some(": auth"), "in `plan` it knows whom it may ask");
    let edits = bound("none", &server).on_response(&FACTS, &get("/a"), &get("/a")).unwrap();
    assert_eq!(edits[0].to_string(), "set x-waiting: 1", "it decides about responses as others do");
}

#[test]
fn who_the_visitor_is_is_told() {
    let Ok(Action::Respond { body, .. }) = asks("who", &Server::hanging()) else { panic!("no answer") };
    assert_eq!(String::from_utf8_lossy(&body), "GET None");
}

#[test]
fn a_server_may_be_chosen_by_the_visitor_whose_request_waits() {
    struct Visit(std::net::IpAddr);
    impl RequestView for Visit {
        fn host(&self) -> &str {
            "shop.example"
        }
        fn path(&self) -> &str {
            "/a"
        }
        fn query(&self) -> Option<&str> {
            None
        }
        fn header(&self, _: &str) -> Option<&[u8]> {
            None
        }
        fn client(&self) -> Option<std::net::IpAddr> {
            Some(self.0)
        }
    }
    let server = Server::at_once(reply(200));
    let binding = bound("ask", &server);
    let visitors = ["203.0.113.7", "2001:db8::7"].map(|address| address.parse().unwrap());
    for visitor in visitors {
        binding.on_request(&FACTS, &Visit(visitor)).unwrap();
    }
    let told: Vec<_> = server.asked().into_iter().map(|(request, _)| request.client).collect();
    assert_eq!(told, visitors.map(Some));
}

#[test]
fn a_fault_after_an_answer_is_a_fault_and_drops_the_instance() {
    let server = Server::at_once(reply(200));
    let kept = kept_here();
    assert_eq!(asks("spin-after", &server), Err(Fault::Deadline));
    assert!(matches!(asks("trap-after", &server), Err(Fault::Trap(_))));
    assert_eq!(kept_here(), kept);
}

#[test]
fn what_the_thread_does_while_a_guest_waits_is_not_the_guests_time() {
    // 10 ms at most are a call's; the four servers here take the thread for 50 ms each.
    let host = Host::new(Settings { threads: 1, ..Settings::default() }).unwrap();
    let server = Server::new(|_| {
        Box::pin(async {
            let began = Instant::now();
            while began.elapsed() < Duration::from_millis(50) {
                std::hint::spin_loop();
            }
            reply(200)
        })
    });
    let binding = bound_on(&host, "five", &server, Terms::default()).unwrap();
    assert_eq!(status(&binding.on_request(&FACTS, &get("/a"))), 404);
}

#[tokio::test]
async fn while_one_waits_others_are_served_by_other_instances() {
    let server = Server::new(|request| match request.path.as_str() {
        "/hang" => Box::pin(pending()),
        _ => Box::pin(async { reply(200) }),
    });
    let binding = bound("count", &server);
    let count = async || match binding.on_request_waiting(&FACTS, &get("/a"), false).await.answer {
        Ok(Action::Respond { headers, .. }) => headers.iter().find(|h| h.name == "x-count").map(|h| h.value.clone()),
        other => panic!("{other:?}"),
    };
    assert_eq!(count().await, Some(b"1".to_vec()));
    let kept = kept_here();
    let (hang, facts) = (get("/hang"), FACTS);
    let mut hanging = Box::pin(binding.on_request_waiting(&facts, &hang, false));
    assert!((&mut hanging).now_or_never().is_none());
    assert_eq!((binding.under_way(), kept_here()), (1, kept - 1), "its instance is off the shelf");
    assert_eq!((count().await, count().await), (Some(b"1".to_vec()), Some(b"2".to_vec())), "another one");
    drop(hanging);
    assert_eq!(
        (binding.under_way(), kept_here()),
        (0, kept),
        "broken off: its instance is gone, and its place is free"
    );
    assert_eq!(count().await, Some(b"3".to_vec()));
}

#[tokio::test]
async fn so_many_wait_and_no_more_and_one_binding_leaves_half_to_others() {
    let host = Host::new(Settings { threads: 1, waiting_per_thread_max: 4, ..Settings::default() }).unwrap();
    let server = Server::hanging();
    let [one, other] = ["ask", "count"].map(|behaviour| bound_on(&host, behaviour, &server, Terms::default()).unwrap());
    let (request, facts) = (get("/a"), FACTS);
    let mut waiting = Vec::new();
    for binding in [&one, &one, &other, &other] {
        let mut asked = Box::pin(binding.on_request_waiting(&facts, &request, false));
        assert!((&mut asked).now_or_never().is_none());
        waiting.push(asked);
    }
    for binding in [&one, &other] {
        let full = binding.on_request_waiting(&facts, &request, false).await.answer;
        assert!(matches!(full, Err(Fault::Unavailable(_))), "{full:?}");
    }
    waiting.pop();
    assert!(other.on_request_waiting(&facts, &request, false).now_or_never().is_none(), "there is room again");
    waiting.clear();
    assert_eq!((one.under_way(), other.under_way()), (0, 0));
    for _ in 0..100 {
        assert!(one.on_request_waiting(&facts, &request, false).now_or_never().is_none());
    }
    assert_eq!(one.under_way(), 0, "stacks and instances come back to the pool");
}

#[test]
fn an_answer_that_is_given_again_asks_nobody() {
    let server = Server::at_once(reply(200));
    let binding = bound("memo", &server);
    let first = binding.on_request(&FACTS, &get("/a"));
    assert_eq!(binding.on_request(&FACTS, &get("/a")), first);
    assert_eq!(server.asked().len(), 1);
    binding.on_request(&FACTS, &get("/b")).unwrap();
    assert_eq!(server.asked().len(), 2);
}

#[test]
fn isolation_holds_for_those_who_wait() {
    let server = Server::at_once(reply(200));
    let of = |isolation, tenant: u128| {
        let binding = bound_on(&HOST, "count", &server, Terms::isolated(isolation)).unwrap();
        let facts = [Tenant(1), Tenant(tenant), Tenant(1)].map(|tenant| RequestFacts { tenant, ..FACTS });
        facts.map(|facts| match binding.on_request(&facts, &get("/a")) {
            Ok(Action::Respond { headers, .. }) => headers.last().map(|h| h.value[0] - b'0'),
            other => panic!("{other:?}"),
        })
    };
    assert_eq!(of(Isolation::Shared, 2), [Some(1), Some(2), Some(3)]);
    assert_eq!(of(Isolation::Tenant, 2), [Some(1), Some(1), Some(2)]);
    assert_eq!(of(Isolation::Request, 1), [Some(1), Some(1), Some(1)]);
}

#[test]
fn the_example_lets_in_sends_away_and_decides_for_itself_where_nobody_does() {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let plugin = plugin("forward-auth");
    let binding = |server: &Arc<Server>, config: &str| {
        let callee: Arc<dyn Callee> = server.clone();
        let callouts = Callouts { to: [("auth".to_owned(), callee)].into(), timeout: Duration::from_millis(500) };
        HOST.bind_on(&plugin, config, &Tables::default(), callouts, Terms::default())
    };
    let server = Server::new(|_| {
        COUNT.fetch_add(1, Ordering::Relaxed);
        Box::pin(async { reply(200) })
    });
    let allowed = binding(&server, r#"{"upstream": "auth", "copy": ["x-user"], "cache_seconds": 9}"#).unwrap();
    for _ in 0..3 {
        let Ok(Action::Edit(edits)) = allowed.on_request(&FACTS, &get("/a")) else { panic!("not let in") };
        assert_eq!(edits[0].to_string(), "set x-user: 7");
    }
    assert_eq!(COUNT.load(Ordering::Relaxed), 1);
    let sent = |name: &str| server.asked()[0].0.headers.iter().find(|h| h.name == name).map(|h| h.value.clone());
    assert_eq!((sent("x-forwarded-uri"), sent("x-forwarded-method")), (Some(b"/a".to_vec()), None));
    let late = Server::at_once(Err(NoReply::TimedOut));
    let [deny, allow] = ["deny", "allow"].map(|word| {
        let config = format!(r#"{{"upstream": "auth", "on_error": "{word}"}}"#);
        binding(&late, &config).unwrap().on_request(&FACTS, &get("/a"))
    });
    assert_eq!((status(&deny), allow), (503, Ok(Action::Next)));
    let refused = binding(&late, r#"{"upstream": "aut"}"#).err().map(|error| error.to_string()).unwrap();
    assert!(refused.contains("/upstream: the upstream `aut` is not granted"), "{refused}");
}

fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.try_into().unwrap())
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// `cargo test --workspace --lib -- --ignored --nocapture what_waiting_takes`
#[test]
#[ignore = "measures; by itself, on a quiet machine"]
fn what_waiting_takes() {
    const CALLS: u32 = 2000;
    const WAITING: u32 = 200;
    let server = Server::at_once(reply(200));
    let of = |name: &str, binding: &Arc<Binding>| {
        binding.on_request(&FACTS, &get("/a")).unwrap();
        let began = thread_time();
        (0..CALLS).for_each(|_| drop(binding.on_request(&FACTS, &get("/a")).unwrap()));
        let micros = (thread_time() - began).as_secs_f64() * 1e6 / f64::from(CALLS);
        println!("{name}: {micros:.2} µs of CPU, {} instructions", binding.usage().unwrap().instructions);
    };
    of("on the worker's stack", &hostile("nothing").unwrap());
    of("on a stack of its own, asks nobody", &bound("none", &server));
    of("asks a server that answers at once", &bound("ask", &server));
    let (hanging, request, facts) = (Server::hanging(), get("/a"), FACTS);
    let host = Host::new(Settings { threads: 2, ..Settings::default() }).unwrap();
    let binding = bound_on(&host, "ask", &hanging, Terms::default()).unwrap();
    let before = resident_kib();
    let mut waiting: Vec<_> =
        (0..WAITING).map(|_| Box::pin(binding.on_request_waiting(&facts, &request, false))).collect();
    waiting.iter_mut().for_each(|asked| assert!(asked.now_or_never().is_none()));
    let after = resident_kib();
    println!("{WAITING} calls that wait: {} KiB each", (after - before) / u64::from(WAITING));
    drop(waiting);
    println!("and when they are gone: {} KiB more than before", resident_kib().saturating_sub(before));
}
