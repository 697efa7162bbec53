//! Asks other servers, well or ill, for the host's tests: `{"behaviour": "…"}`. It has a crate of its own, since a plugin that
//! can ask runs in another way than one that can't.

use latchkey_sdk::callout::{self, Error, Header, Request as Question};
use latchkey_sdk::config::Value;
use latchkey_sdk::http::{Action, Changes, Depends, Edit, Facts, HttpPolicy, LocalResponse, Plan, Request, Response};
use latchkey_sdk::http::{Verdict, header};
use latchkey_sdk::{Manifest, export_http};
use serde::{Deserialize, Deserializer, Serialize};

const UPSTREAM: &str = "auth";

#[derive(Debug, Serialize)]
struct Hostile {
    behaviour: String,
}

export_http!(Hostile);

impl HttpPolicy for Hostile {
    const MANIFEST: Manifest = Manifest {
        name: "hostile-waiting",
        version: env!("CARGO_PKG_VERSION"),
        config_schema: r#"{"type": "object"}"#,
        fail_open_safe: true,
    };

    fn plan(config: &Value<'_>) -> Option<Plan<Self>> {
        let behaviour = config.object(&["behaviour"])?.required("behaviour", Value::text)?.to_owned();
        match behaviour.as_str() {
            "plan-ask" => drop(callout::send(Question::get(UPSTREAM, "/"))),
            "plan-who" => drop(callout::visitor()),
            "granted" => return config.refuse(callout::granted().join(" "), None),
            _ => {}
        }
        Some(Plan::new(Self { behaviour }).on_request().on_response())
    }

    fn on_request(&self, _facts: &Facts, request: &Request<'_>) -> Verdict {
        let question = || Question::get(UPSTREAM, request.path);
        match self.behaviour.as_str() {
            "count" => told(question(), Some(count())),
            "memo" => told(question(), Some(count())).holds(Depends::PATH, 60),
            "short" => told(Question { timeout_ms: 20, ..question() }, None),
            "storm" => loop {
                let _ = callout::send(question());
            },
            "five" => Action::Deny(400 + (0..5).filter(|_| callout::send(question()).is_ok()).count() as u16).into(),
            "lines" => Action::Deny(400 + lines()).into(),
            "elsewhere" => told(Question::get("elsewhere", "/"), None),
            "long" => told(Question { body: vec![b'x'; (64 << 10) + 1], ..question() }, None),
            "vast" => told(Question { body: vec![b'x'; 1 << 20], ..question() }, None),
            "spin-after" => {
                let _ = callout::send(question());
                spin()
            }
            "trap-after" => {
                let _ = callout::send(question());
                trap()
            }
            "none" => Action::Next.into(),
            "post" => {
                let headers = vec![header("content-type", "text/x-test"), header("x-from-plugin", "1")];
                let (method, body) = ("POST".to_owned(), b"asked".to_vec());
                told(Question { method, headers, body, ..question() }, None)
            }
            "who" => {
                let visitor = callout::visitor();
                answer(200, format!("{} {:?}", visitor.method, visitor.address).into_bytes(), vec![])
            }
            _ => told(question(), None),
        }
    }

    fn on_response(&self, _facts: &Facts, response: &Response<'_>) -> Changes {
        match self.behaviour.as_str() {
            "response-ask" => drop(callout::send(Question::get(UPSTREAM, response.path))),
            "none" => return vec![Edit::Set(header("x-waiting", "1"))].into(),
            _ => {}
        }
        Vec::new().into()
    }
}

/// What came of it, as the answer to the visitor.
fn told(question: Question, count: Option<u16>) -> Verdict {
    match callout::send(question) {
        Ok(reply) => {
            let counted = count.map(|count| header("x-count", &count.to_string()));
            let fields = reply.headers.into_iter().filter(|field| field.name != "content-type").chain(counted);
            answer(reply.status, reply.body, fields.collect())
        }
        Err(error) => Action::Deny(match error {
            Error::NotGranted => 403,
            Error::Illegal(_) => 400,
            Error::Spent => 429,
            Error::TimedOut => 504,
            Error::Unreachable => 502,
            Error::Broken => 500,
            Error::TooLarge => 413,
        })
        .into(),
    }
}

fn answer(status: u16, body: Vec<u8>, headers: Vec<Header>) -> Verdict {
    Action::Respond(LocalResponse { status, headers, body }).into()
}

/// How many of these are called illegal.
fn lines() -> u16 {
    let with =
        |name: &str, value: &str| Question { headers: vec![header(name, value)], ..Question::get(UPSTREAM, "/") };
    let asked = [
        Question { method: "GET / HTTP/1.1\r\nx-a: 1\r\n\r\nGET".to_owned(), ..Question::get(UPSTREAM, "/") },
        Question::get(UPSTREAM, "/\r\nx-a: 1"),
        Question::get(UPSTREAM, "http://elsewhere.example/"),
        with("x-a", "1\r\nx-b: 2"),
        with("x-a: 1\r\nx-b", "2"),
        with("host", "elsewhere.example"),
        with("content-length", "0"),
        with("transfer-encoding", "chunked"),
        with("cdn-loop", "none"),
    ];
    asked.into_iter().filter(|question| matches!(callout::send(question.clone()), Err(Error::Illegal(_)))).count()
        as u16
}

/// The constructor decodes the policy, so what it does here is what the constructor does.
impl<'de> Deserialize<'de> for Hostile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let behaviour = String::deserialize(deserializer)?;
        if behaviour == "start-ask" {
            let _ = callout::send(Question::get(UPSTREAM, "/"));
        }
        Ok(Self { behaviour })
    }
}

fn spin() -> ! {
    let mut n = 0u32;
    loop {
        n = std::hint::black_box(n).wrapping_add(1);
    }
}

#[allow(clippy::panic)]
fn trap() -> ! {
    panic!("asked to");
}

/// How many calls this instance has seen, up to 99.
fn count() -> u16 {
    use std::sync::atomic::{AtomicU16, Ordering};
    static CALLS: AtomicU16 = AtomicU16::new(0);
    CALLS.fetch_add(1, Ordering::Relaxed).min(98) + 1
}
