use std::thread;
use std::time::Instant;

use super::super::shelf::kept_here;
use super::*;

fn asked(binding: &Binding, path: &'static str) -> Result<Action, Fault> {
    binding.on_request(&FACTS, &get(path))
}

fn reason<T>(result: Result<T, Fault>) -> Option<&'static str> {
    result.err().map(|fault| fault.reason())
}

fn healthy() -> Arc<Binding> {
    bind("hsts", r#"{"max_age": 1}"#)
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux has it");
    let pages: usize = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("is a number");
    pages * 4096
}

#[test]
fn each_misdeed_is_a_fault_of_its_own_kind() {
    let binding = hostile("by-path").expect("is accepted");
    for (path, kind) in
        [("/spin", "deadline"), ("/eat", "memory"), ("/touch", "memory"), ("/trap", "trap"), ("/recurse", "trap")]
    {
        assert_eq!(reason(asked(&binding, path)), Some(kind), "{path}");
        assert_eq!(healthy().on_response(&FACTS, &get("/"), &get("/")).map(|edits| edits.len()), Ok(1), "{path}");
    }
}

#[test]
fn an_instance_is_kept_until_it_fails() {
    let binding = hostile("by-path").expect("is accepted");
    // The guest counts its calls up to 199.
    for calls in 1..=10_000 {
        assert_eq!(asked(&binding, "/"), Ok(Action::Deny(400 + calls.min(199))));
    }
    // The last two answer, with what is refused.
    for path in ["/trap", "/spin", "/eat", "/crlf", "/edits"] {
        assert!(asked(&binding, path).is_err());
        assert_eq!(asked(&binding, "/"), Ok(Action::Deny(401)), "{path}");
    }
}

#[test]
fn an_endless_loop_is_stopped_in_time() {
    let binding = hostile("by-path").expect("is accepted");
    let begun = Instant::now();
    for _ in 0..20 {
        assert_eq!(asked(&binding, "/spin"), Err(Fault::Deadline));
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[test]
fn a_call_is_stopped_by_its_count_of_instructions_on_a_machine_of_any_speed() {
    // Time would never stop it.
    let host = Host::new(Settings { call_time: Duration::from_secs(3600), breaker: false, ..Settings::default() });
    let host = host.expect("the engine starts");
    let plugin = host.load(&guest("hostile")).expect("is a plugin");
    let binding = host.bind(&plugin, r#"{"behaviour": "by-path"}"#, &Tables::default()).expect("is accepted");
    let begun = Instant::now();
    for _ in 0..100 {
        assert_eq!(asked(&binding, "/spin"), Err(Fault::Deadline));
    }
    println!("{:?} for each of 100 endless loops", begun.elapsed() / 100);
}

#[test]
fn the_clock_of_deadlines_sleeps_while_no_guest_runs_and_wakes_for_the_next() {
    // Without a count of instructions that would stop it first.
    let http_instructions = i64::MAX as u64;
    let settings = Settings { http_instructions, plan_time: Duration::from_millis(200), ..Settings::default() };
    let host = Host::new(settings).expect("the engine starts");
    let plugin = host.load(&guest("hostile")).expect("is a plugin");
    let binding = host.bind(&plugin, r#"{"behaviour": "by-path"}"#, &Tables::default()).expect("is accepted");
    for _ in 0..3 {
        let begun = Instant::now();
        while !host.0.clock.sleeps() {
            assert!(begun.elapsed() < Duration::from_secs(60), "it never sleeps");
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(asked(&binding, "/spin"), Err(Fault::Deadline));
    }
}

/// Processor time of this thread.
fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// What a misdeed takes of the thread that serves, instance and all: told by `--nocapture`, and held far above it, since the
/// host is not optimised here.
#[test]
fn no_misdeed_holds_its_thread_for_long() {
    let host = Host::new(Settings { breaker: false, ..Settings::default() }).expect("the engine starts");
    let plugin = host.load(&guest("hostile")).expect("is a plugin");
    let bind = |behaviour| host.bind(&plugin, &format!(r#"{{"behaviour": "{behaviour}"}}"#), &Tables::default());
    let by_path = bind("by-path").expect("is accepted");
    let restarts = ["start-spin-far", "start-touch-far"].map(|name| (bind(name).expect("is accepted"), name));
    let paths = ["/spin", "/roots", "/eat", "/touch", "/recurse", "/trap", "/vast", "/edits", "/crlf", "/log"];
    let all = paths.iter().map(|path| (by_path.clone(), *path)).chain(restarts);
    for (binding, path) in all {
        let mut times: Vec<_> = (0..200)
            .map(|_| {
                let began = thread_time();
                let _ = asked(&binding, path);
                thread_time() - began
            })
            .collect();
        times.sort();
        println!("{path}: median {:?}, longest of 200 {:?}", times[100], times[199]);
        assert!(times[100] < Duration::from_millis(20), "{path}: {:?}", times[100]);
    }
}

/// Processor time, which its count of instructions would allow ten times as much of.
#[test]
fn a_guest_of_slow_instructions_is_stopped_by_its_time() {
    let call_time = Duration::from_millis(2);
    let settings = Settings { http_instructions: 200_000_000, call_time, breaker: false, ..Settings::default() };
    let host = Host::new(settings).expect("the engine starts");
    let plugin = host.load(&guest("hostile")).expect("is a plugin");
    let binding = host.bind(&plugin, r#"{"behaviour": "by-path"}"#, &Tables::default()).expect("is accepted");
    let mut times: Vec<_> = (0..50)
        .map(|_| {
            let began = thread_time();
            assert_eq!(asked(&binding, "/roots"), Err(Fault::Deadline));
            thread_time() - began
        })
        .collect();
    times.sort();
    println!("median {:?}, longest of 50 {:?}", times[25], times[49]);
    // By its instructions alone it would be a second. The clock is a thread too, which a busy machine may make wait.
    assert!(times[25] < Duration::from_millis(50), "{:?}", times[25]);
}

#[test]
fn what_guests_say_is_bounded_over_time_however_many_calls_there_are() {
    let binding = hostile("log").expect("is accepted");
    let captured = Captured::default();
    let writer = captured.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let began = Instant::now();
    tracing::subscriber::with_default(subscriber, || {
        (0..10_000).for_each(|_| assert_eq!(asked(&binding, "/"), Ok(Action::Next)))
    });
    let bytes = captured.0.lock().expect("is not poisoned").len() as u64;
    let most = (64 << 10) + began.elapsed().as_secs() * (4 << 10) + (4 << 10);
    assert!((1 << 10..most).contains(&bytes), "{bytes} bytes of 10,000 calls");
}

#[test]
fn memory_stays_flat_over_a_thousand_faults() {
    let binding = hostile("by-path").expect("is accepted");
    let fault = |path| assert!(asked(&binding, path).is_err());
    (0..100).for_each(|_| fault("/trap"));
    fault("/eat");
    let before = resident_bytes();
    (0..1000).for_each(|_| fault("/trap"));
    (0..20).for_each(|_| fault("/eat"));
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes more after 1,020 faults");
}

#[test]
fn a_guest_that_leaks_is_replaced_before_it_fails() {
    let binding = hostile("leak").expect("is accepted");
    for call in 0..1000 {
        assert_eq!(asked(&binding, "/"), Ok(Action::Next), "call {call}");
    }
}

#[test]
fn nothing_illegal_leaves_the_room() {
    for behaviour in [
        "deny-200",
        "respond-100",
        "respond-204-body",
        "respond-framing",
        "respond-huge",
        "respond-vast",
        "redirect-crlf",
        "redirect-script",
        "redirect-slashes",
        "redirect-nowhere",
    ] {
        let binding = hostile(behaviour).expect("is accepted");
        assert_eq!(reason(asked(&binding, "/")), Some("output"), "{behaviour}");
    }
    for behaviour in ["edit-crlf", "edit-nul", "edit-name", "edit-framing", "edit-hop", "edit-many", "edit-huge"] {
        let binding = hostile(behaviour).expect("is accepted");
        assert_eq!(reason(binding.on_response(&FACTS, &get("/"), &get("/"))), Some("output"), "{behaviour}");
    }
}

#[test]
fn output_at_the_limit_is_accepted() {
    let respond = hostile("respond-limit").expect("is accepted");
    assert!(matches!(asked(&respond, "/"), Ok(Action::Respond { body, .. }) if body.len() == 64 << 10));
    let edits = hostile("edit-limit").expect("is accepted").on_response(&FACTS, &get("/"), &get("/"));
    let edits = edits.expect("is accepted");
    assert_eq!(edits.len(), 64);
    assert_eq!(edits[0], Edit::Append { name: "x-a".to_owned(), value: b"1".to_vec() });
}

#[test]
fn a_plan_has_limits_too() {
    let refused = |behaviour| hostile(behaviour).err().expect("is refused");
    for (behaviour, kind) in [
        ("plan-spin", "deadline"),
        ("plan-eat", "memory"),
        ("plan-trap", "trap"),
        ("plan-big", "output"),
        ("start-spin", "deadline"),
        ("start-trap", "trap"),
    ] {
        match refused(behaviour) {
            BindError::Fault(fault) => assert_eq!(fault.reason(), kind, "{behaviour}"),
            other => panic!("{behaviour}: {other}"),
        }
    }
    match refused("plan-many") {
        BindError::Diagnostics(list) => {
            assert_eq!((list.len(), list[0].message.as_str()), (100, r"fault 0\r\n"));
        }
        other => panic!("{other}"),
    }
    assert!(matches!(refused("plan-silent"), BindError::Diagnostics(list) if list.len() == 1));
}

/// The log.
#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("is not poisoned").extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_flood_of_log_lines_is_cut_and_cannot_forge_one() {
    let captured = Captured::default();
    let writer = captured.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let binding = hostile("log").expect("is accepted");
    tracing::subscriber::with_default(subscriber, || assert_eq!(asked(&binding, "/"), Ok(Action::Next)));
    let text = String::from_utf8(captured.0.lock().expect("is not poisoned").clone()).expect("is text");
    assert!(text.contains(r"line 0\nforged") && text.contains("hostile"), "{text}");
    let lines = text.lines().count();
    assert!((2..150).contains(&lines), "{lines} of 200 lines were written");
}

#[test]
fn instances_of_a_dropped_binding_are_freed() {
    let (first, second) = (hostile("by-path").expect("is accepted"), healthy());
    let before = kept_here();
    asked(&first, "/").expect("is well");
    second.on_response(&FACTS, &get("/"), &get("/")).expect("is well");
    assert_eq!(kept_here(), before + 2);
    drop(first);
    assert_eq!(kept_here(), before + 1);
}

#[test]
fn a_thread_keeps_a_bounded_number_of_instances() {
    let host = Host::new(Settings { threads: 1, instances_per_thread_max: 2, ..Settings::default() }).expect("starts");
    let plugin = host.load(&guest("hostile")).expect("is a plugin");
    let bound = |_| host.bind(&plugin, r#"{"behaviour": "by-path"}"#, &Tables::default()).expect("is accepted");
    let bindings: Vec<_> = (0..3).map(bound).collect();
    thread::scope(|scope| {
        scope.spawn(|| {
            for binding in &bindings {
                assert_eq!(asked(binding, "/"), Ok(Action::Deny(401)));
                assert!(kept_here() <= 2);
            }
            // The first made room for the third; the other two are still there.
            assert_eq!(asked(&bindings[1], "/"), Ok(Action::Deny(402)));
            assert_eq!(asked(&bindings[2], "/"), Ok(Action::Deny(402)));
            assert_eq!(asked(&bindings[0], "/"), Ok(Action::Deny(401)));
        });
    });
}

/// Each thread fills its shelf with as many as it may; all at once, and with one configuration more than that.
#[test]
fn no_call_is_refused_for_what_other_threads_keep() {
    // The threads are so many that the pool has not what they were to keep.
    let (threads, kept) = (8, 20);
    let settings = Settings {
        threads,
        instances_per_thread_max: kept,
        instances_max: 80,
        waiting_per_thread_max: 0,
        ..Settings::default()
    };
    let host = Host::new(settings).expect("starts");
    let plugin = host.load(&guest("hsts")).expect("is a plugin");
    let bound = |_| host.bind(&plugin, r#"{"max_age": 1}"#, &Tables::default()).expect("is accepted");
    let bindings: Vec<_> = (0..=kept).map(bound).collect();
    let filled = std::sync::Barrier::new(threads);
    let asked_all = || {
        let ask = |binding: &Arc<Binding>| reason(binding.on_response(&FACTS, &get("/"), &get("/")));
        let faults: Vec<_> = bindings.iter().filter_map(ask).collect();
        let kept = kept_here();
        filled.wait();
        (faults, kept)
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(asked_all)).collect();
        for thread in threads {
            // Of the eight places of a thread four are for bodies, and one is for what shadows see of them.
            assert_eq!(thread.join().expect("does not panic"), (vec![], 3));
        }
    });
}

#[test]
fn an_exhausted_pool_is_a_fault_and_passes() {
    // Sixteen are spare: together with one thread's one, seventeen threads fit and the eighteenth does not.
    let few = Settings {
        threads: 1,
        instances_per_thread_max: 1,
        bodies_per_thread_max: 0,
        waiting_per_thread_max: 0,
        ..Settings::default()
    };
    let host = Host::new(few).expect("starts");
    let plugin = host.load(&guest("hsts")).expect("is a plugin");
    let binding = host.bind(&plugin, r#"{"max_age": 1}"#, &Tables::default()).expect("is accepted");
    let ask = || binding.on_response(&FACTS, &get("/"), &get("/"));
    let all_asked = std::sync::Barrier::new(18);
    let faults = thread::scope(|scope| {
        let threads: Vec<_> = (0..18)
            .map(|_| {
                scope.spawn(|| {
                    let fault = reason(ask());
                    all_asked.wait();
                    fault
                })
            })
            .collect();
        threads.into_iter().filter_map(|thread| thread.join().expect("does not panic")).collect::<Vec<_>>()
    });
    assert_eq!(faults, ["unavailable"]);
    assert_eq!(ask().map(|edits| edits.len()), Ok(1));
}

#[test]
fn threads_share_a_binding_and_no_instance() {
    let binding = hostile("by-path").expect("is accepted");
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (1..=199).for_each(|n| assert_eq!(asked(&binding, "/"), Ok(Action::Deny(400 + n)))));
        }
    });
}

#[test]
fn a_plugin_that_fails_again_and_again_is_left_alone_for_that_domain_only() {
    let host = Host::new(Settings::default()).expect("starts");
    let plugin = host.load(&guest("hostile")).expect("is a plugin");
    let binding = host.bind(&plugin, r#"{"behaviour": "by-path"}"#, &Tables::default()).expect("is accepted");
    let ask = |tenant, now_ms, path| {
        let facts = RequestFacts { tenant: Tenant(tenant), now_ms, ..FACTS };
        reason(binding.on_request(&facts, &get(path)))
    };
    for _ in 0..20 {
        assert_eq!(ask(1, 0, "/trap"), Some("trap"));
    }
    assert_eq!(ask(1, 0, "/"), Some("resting"));
    assert_eq!(ask(2, 0, "/"), None, "another domain");
    assert_eq!(ask(1, 999, "/"), Some("resting"));
    assert_eq!(ask(1, 1000, "/spin"), Some("deadline"), "a try");
    assert_eq!(ask(1, 2999, "/"), Some("resting"), "twice as long");
    assert_eq!((ask(1, 3000, "/"), ask(1, 3000, "/")), (None, None), "it is well again");
}
