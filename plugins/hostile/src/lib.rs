//! Misbehaves on request, for the host's tests: `{"behaviour": "…"}`. A behaviour that starts with `plan-` or `start-`
//! shows before any request.

mod bodies;

use latchkey_sdk::config::Value;
use latchkey_sdk::datasets::{Dataset, Entry, Kind, Subject};
use latchkey_sdk::http::{Action, Changes, Depends, Edit, Facts, Header, HttpPolicy, LocalResponse, Plan, Redirect};
use latchkey_sdk::http::{RedirectStatus, Request, Response, Verdict, header};
use latchkey_sdk::log::{self, Level};
use latchkey_sdk::{Manifest, export_http_body};
use serde::{Deserialize, Deserializer, Serialize};

const FAR_ROUNDS: u32 = 200_000;
const FAR_BYTES: usize = 1 << 20;

#[derive(Debug, Serialize)]
struct Hostile {
    behaviour: String,
}

export_http_body!(Hostile);

impl HttpPolicy for Hostile {
    const MANIFEST: Manifest = Manifest {
        name: "hostile",
        version: env!("CARGO_PKG_VERSION"),
        config_schema: r#"{"type": "object"}"#,
        fail_open_safe: false,
    };

    fn plan(config: &Value<'_>) -> Option<Plan<Self>> {
        let behaviour = config.object(&["behaviour"])?.required("behaviour", Value::text)?.to_owned();
        match behaviour.as_str() {
            "plan-spin" => spin(),
            "plan-eat" => eat(),
            "plan-trap" => trap(),
            "plan-silent" => return None,
            "plan-many" => return (0..1000).find_map(|n| config.refuse(format!("fault {n}\r\n"), None)),
            "plan-dataset" => dataset_without_end(),
            "plan-expressions" => expressions(),
            "plan-big" => return Some(Plan::new(Self { behaviour: "x".repeat(2 << 20) })),
            _ => {}
        }
        let sees_heads = !behaviour.starts_with("bodies");
        let plan = Plan::new(Self { behaviour });
        Some(if sees_heads { plan.on_request().on_response() } else { plan })
    }

    fn on_request(&self, facts: &Facts, request: &Request<'_>) -> Verdict {
        match self.behaviour.as_str() {
            "memo" => Verdict::from(Action::Deny(400 + count())).holds(Depends::PATH, 60),
            "memo-nothing" => Verdict::from(Action::Deny(400 + count())).holds(Depends::empty(), 60),
            "memo-many" => memo_many(facts),
            _ => self.answer(request).into(),
        }
    }

    fn on_response(&self, _facts: &Facts, _response: &Response<'_>) -> Changes {
        let set = |name: &str, value: &str| vec![Edit::Set(header(name, value))];
        let edits = match self.behaviour.as_str() {
            "edit-crlf" => set("x-a", "1\r\nx-b: 2"),
            "edit-nul" => set("x-a", "\0"),
            "edit-name" => set("x a", "1"),
            "edit-framing" => set("Transfer-Encoding", "chunked"),
            "edit-hop" => vec![Edit::Remove("Connection".to_owned())],
            "edit-limit" => vec![Edit::Append(header("X-A", "1")); 64],
            "edit-many" => vec![Edit::Append(header("X-A", "1")); 65],
            "edit-huge" => vec![Edit::Set(Header { name: "x-a".to_owned(), value: vec![b'x'; 64 << 10] })],
            _ => Vec::new(),
        };
        edits.into()
    }
}

impl Hostile {
    fn answer(&self, request: &Request<'_>) -> Action {
        match self.behaviour.as_str() {
            "by-path" => return by_path(request.path),
            "leak" => std::mem::forget(vec![1u8; 64 << 10]),
            "log" => log_flood(),
            "start-spin-far" | "start-touch-far" => trap(),
            "deny-200" => return Action::Deny(200),
            "respond-100" => return respond(100, vec![], vec![]),
            "respond-204-body" => return respond(204, vec![], b"x".to_vec()),
            "respond-framing" => return respond(200, vec![header("Content-Length", "0")], vec![]),
            "respond-limit" => return respond(200, vec![], vec![b'x'; 64 << 10]),
            "respond-huge" => return respond(200, vec![], vec![b'x'; (64 << 10) + 1]),
            "respond-vast" => return respond(200, vec![], vec![b'x'; 512 << 10]),
            "redirect-crlf" => return redirect("/a\r\nSet-Cookie: x=1"),
            "redirect-script" => return redirect("javascript:alert(1)"),
            "redirect-slashes" => return redirect("//evil.example/"),
            "redirect-nowhere" => return redirect("https:///path"),
            _ => {}
        }
        Action::Next
    }
}

/// The constructor decodes the policy, so what it does here is what the constructor does.
impl<'de> Deserialize<'de> for Hostile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let behaviour = String::deserialize(deserializer)?;
        match behaviour.as_str() {
            "start-spin" => spin(),
            "start-trap" => trap(),
            // As far as a start may go; the first call then fails, so that each one needs another start.
            "start-spin-far" => spin_for(FAR_ROUNDS),
            "start-touch-far" => touch(FAR_BYTES),
            _ => {}
        }
        Ok(Self { behaviour })
    }
}

/// One policy that is well or ill by request, to see what a fault leaves behind.
fn by_path(path: &str) -> Action {
    match path {
        "/spin" => spin(),
        "/eat" => eat(),
        "/trap" => trap(),
        "/recurse" => return Action::Deny(recurse(0)),
        "/touch" => touch(usize::MAX),
        "/roots" => roots(),
        "/log" => log_flood(),
        "/vast" => return respond(200, vec![], vec![b'x'; 512 << 10]),
        "/crlf" => return redirect("/a\r\nSet-Cookie: x=1"),
        "/edits" => return Action::Edit(vec![Edit::Append(header("X-A", "1")); 5000]),
        _ => {}
    }
    Action::Deny(400 + count())
}

/// Depends on something else each time.
fn memo_many(facts: &Facts) -> Verdict {
    let bits = u8::try_from(facts.now_ms % 64).unwrap_or_default();
    Verdict::from(Action::Deny(400 + count())).holds(Depends::from_bits_truncate(bits), u32::MAX)
}

/// Adds entries until it is stopped.
fn dataset_without_end() {
    let dataset = Dataset::new("endless", Kind::Exact, Subject::Path);
    for number in 0u64.. {
        let entry = |n: u64| Entry { key: format!("/{number}/{n}"), value: vec![b'x'; 8000] };
        dataset.add(&(0..64).map(entry).collect::<Vec<_>>());
    }
}

/// Each is small to write and large to compile.
fn expressions() {
    let dataset = Dataset::new("costly", Kind::Regex, Subject::Path);
    for number in 0..1000 {
        // What of each has been seen so far multiplies what the others need.
        let key = format!("^/.*{number}.*[a-z]{{20}}.*x");
        dataset.add(&[Entry { key, value: Vec::new() }]);
    }
}

fn log_flood() {
    (0..200).for_each(|n| log::write(Level::Error, || format!("line {n}\nforged")));
}

fn respond(status: u16, headers: Vec<Header>, body: Vec<u8>) -> Action {
    Action::Respond(LocalResponse { status, headers, body })
}

fn redirect(location: &str) -> Action {
    let (status, location) = (RedirectStatus::Found, location.to_owned());
    Action::Redirect(Redirect { status, location, edits: Vec::new() })
}

fn spin() {
    let mut n = 0u32;
    while std::hint::black_box(n) < u32::MAX {
        n = (n + 1) % 1000;
    }
}

fn spin_for(rounds: u32) {
    let mut n = 0u32;
    while std::hint::black_box(n) < rounds {
        n += 1;
    }
}

/// Few instructions, of the slowest kind, each of which waits for the one before.
fn roots() {
    let mut n = 2.0f64;
    while std::hint::black_box(n) > 0.0 {
        n = (n + 1.0).sqrt().sqrt().sqrt().sqrt().sqrt().sqrt().sqrt().sqrt().sqrt().sqrt().sqrt().sqrt();
        n = n.sqrt().sqrt().sqrt().sqrt().sqrt().sqrt().sqrt().sqrt().sqrt().sqrt().sqrt().sqrt().sqrt();
    }
}

/// Makes the system give real memory, which asking for it does not.
fn touch(bytes: usize) {
    let mut touched = 0;
    while touched < bytes {
        let mut piece = Vec::<u8>::with_capacity(64 << 10);
        piece.spare_capacity_mut().iter_mut().step_by(4096).for_each(|byte| {
            std::hint::black_box(byte.write(1));
        });
        touched += piece.capacity();
        std::mem::forget(piece);
    }
}

fn eat() {
    let mut eaten = Vec::new();
    loop {
        eaten.push(std::hint::black_box(Vec::<u8>::with_capacity(1 << 20)));
    }
}

#[allow(clippy::panic)]
fn trap() {
    panic!("asked to");
}

#[allow(unconditional_recursion)]
fn recurse(depth: u16) -> u16 {
    std::hint::black_box([depth; 64])[0] + recurse(depth.wrapping_add(1))
}

/// How many calls this instance has seen, up to 199.
fn count() -> u16 {
    use std::sync::atomic::{AtomicU16, Ordering};
    static CALLS: AtomicU16 = AtomicU16::new(0);
    CALLS.fetch_add(1, Ordering::Relaxed).min(198) + 1
}
