//! A CA that does what a test tells it to: refuses, stalls, lies, hangs up. Speaks ACME as far as CertService needs it; believes
//! every signature and finds every challenge met.

use std::collections::{HashMap, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Barrier, Mutex};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use openssl::ssl::{SslAcceptor, SslFiletype, SslMethod};
use rcgen::{BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};

use crate::ca::write_certificates;

/// What it does in place of an answer of its own.
#[derive(Clone)]
pub enum Script {
    Answer {
        status: u16,
        headers: &'static str,
        body: String,
    },
    /// Hangs up before it has done anything.
    Lost,
    /// Does it and hangs up.
    LostAfter,
    /// Kills a process before it has done anything, as `kill -9` does.
    Kill(u32),
    /// Does it first.
    KillAfter(u32),
    /// Signs another key, for another name.
    Impostor,
    /// So many looks find the certificate in the making.
    Slow(u32),
    /// Does it, and answers when the test has come to the barrier twice.
    Held(Arc<Barrier>),
}

impl Script {
    pub fn problem(status: u16, kind: &str, headers: &'static str, detail: &str) -> Self {
        let problem = json!({"type": format!("urn:ietf:params:acme:error:{kind}"), "detail": detail, "status": status});
        Self::Answer { status, headers, body: problem.to_string() }
    }
}

#[derive(Default)]
struct State {
    orders: Vec<Order>,
    /// By the first part of a path; each is used once.
    scripts: HashMap<String, VecDeque<Script>>,
    /// Of renewal information, Unix seconds.
    window: Option<(i64, i64)>,
    /// The challenge that new orders have to meet.
    wants: Option<&'static str>,
    revoked: usize,
    signed: usize,
    /// Most orders without a certificate at once.
    open_most: usize,
}

#[derive(Clone)]
pub struct Order {
    pub name: String,
    pub replaces: Option<String>,
    /// The challenge that is not met yet.
    wants: Option<&'static str>,
    looks_left: u32,
    chain: Option<String>,
}

#[derive(Clone)]
pub struct Ca {
    base: String,
    root: std::path::PathBuf,
    state: Arc<Mutex<State>>,
    key: Arc<Issuer<'static, KeyPair>>,
}

impl Ca {
    /// Its files go into `folder`.
    pub fn start(folder: &Path) -> Self {
        write_certificates(folder);
        let mut tls = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls()).unwrap();
        tls.set_private_key_file(folder.join("ca-server.key"), SslFiletype::PEM).unwrap();
        tls.set_certificate_chain_file(folder.join("ca-server.pem")).unwrap();
        let tls = Arc::new(tls.build());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("https://{}", listener.local_addr().unwrap());
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = Arc::new(Issuer::new(params, KeyPair::generate().unwrap()));
        let ca = Self { base, root: folder.join("ca-root.pem"), state: Arc::default(), key };
        let served = ca.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (tls, ca) = (tls.clone(), served.clone());
                std::thread::spawn(move || {
                    let Ok(stream) = tls.accept(stream.unwrap()) else { return };
                    let mut stream = BufReader::new(stream);
                    while let Some((path, body)) = read_request(&mut stream) {
                        let Some(answer) = ca.answer(&path, &body) else { return };
                        if stream.get_mut().write_all(answer.as_bytes()).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        ca
    }

    /// Its settings as an issuer.
    pub fn issuer(&self, extra: &str) -> String {
        self.issuer_named("ca", extra)
    }

    pub fn issuer_named(&self, name: &str, extra: &str) -> String {
        let (base, root) = (&self.base, self.root.display());
        format!(
            "[[issuers]]\nname = \"{name}\"\nkind = \"acme\"\ndirectory = \"{base}/dir\"\nroot_file = \"{root}\"\n\
             precheck = false\n{extra}"
        )
    }

    /// What the next request of a kind (`new-order`, `finalize`, …) gets.
    pub fn script(&self, path: &str, script: Script) {
        self.state.lock().unwrap().scripts.entry(path.to_owned()).or_default().push_back(script);
    }

    pub fn orders(&self) -> Vec<Order> {
        self.state.lock().unwrap().orders.clone()
    }

    /// Finds a challenge of this type met as soon as it is told that it is.
    pub fn want(&self, challenge: &'static str) {
        self.state.lock().unwrap().wants = Some(challenge);
    }

    pub fn signed(&self) -> usize {
        self.state.lock().unwrap().signed
    }

    /// Most orders that were open at once.
    pub fn open_most(&self) -> usize {
        self.state.lock().unwrap().open_most
    }

    pub fn revoked(&self) -> usize {
        self.state.lock().unwrap().revoked
    }

    pub fn suggest(&self, window: (i64, i64)) {
        self.state.lock().unwrap().window = Some(window);
    }

    fn answer(&self, path: &str, body: &[u8]) -> Option<String> {
        let mut parts = path.trim_start_matches('/').split('/');
        let kind = parts.next().unwrap_or_default();
        let number = parts.next().and_then(|n| n.parse::<usize>().ok()).unwrap_or_default();
        let script = self.state.lock().unwrap().scripts.get_mut(kind).and_then(VecDeque::pop_front);
        match script {
            Some(Script::Answer { status, headers, body }) => {
                Some(http(status, &format!("Content-Type: application/problem+json\r\n{headers}"), &body))
            }
            Some(Script::Lost) => None,
            Some(Script::Kill(process)) => {
                kill(process);
                None
            }
            script => {
                let answer = self.obey(kind, number, body, script.as_ref());
                if let Some(Script::Held(barrier)) = &script {
                    barrier.wait();
                    barrier.wait();
                }
                if let Some(Script::KillAfter(process)) = script {
                    kill(process);
                    return None;
                }
                (!matches!(script, Some(Script::LostAfter))).then_some(answer)
            }
        }
    }

    fn obey(&self, kind: &str, number: usize, body: &[u8], script: Option<&Script>) -> String {
        let base = &self.base;
        let payload = payload(body);
        let mut state = self.state.lock().unwrap();
        match kind {
            "dir" => {
                let urls = json!({
                    "newNonce": format!("{base}/nonce"), "newAccount": format!("{base}/account"),
                    "newOrder": format!("{base}/new-order"), "revokeCert": format!("{base}/revoke"),
                    "renewalInfo": format!("{base}/renewal-info"), "meta": {},
                });
                http(200, "", &urls.to_string())
            }
            "account" => http(201, &format!("Location: {base}/account/1\r\n"), "{}"),
            "new-order" => {
                let name = payload["identifiers"][0]["value"].as_str().unwrap().to_owned();
                let replaces = payload["replaces"].as_str().map(str::to_owned);
                let wants = state.wants;
                state.orders.push(Order { name, replaces, wants, looks_left: 0, chain: None });
                let number = state.orders.len() - 1;
                let open = state.orders.iter().filter(|order| order.chain.is_none()).count();
                state.open_most = state.open_most.max(open);
                let location = format!("Location: {base}/order/{number}\r\n");
                http(201, &location, &self.shown(&state.orders[number], number))
            }
            "order" => {
                let order = &mut state.orders[number];
                order.looks_left = order.looks_left.saturating_sub(1);
                let order = order.clone();
                http(200, "", &self.shown(&order, number))
            }
            "authz" => http(200, "", &self.authorization(&state.orders[number], number, state.wants)),
            "challenge" => {
                let order = &mut state.orders[number];
                let challenge = self.challenge(order.wants.take(), number, "valid");
                http(200, "", &challenge.to_string())
            }
            "finalize" => {
                let csr = URL_SAFE_NO_PAD.decode(payload["csr"].as_str().unwrap()).unwrap();
                let order = &mut state.orders[number];
                let impostor = matches!(script, Some(Script::Impostor));
                order.chain = Some(self.sign(&csr, if impostor { "evil.example" } else { &order.name }, impostor));
                order.looks_left = if let Some(Script::Slow(looks)) = script { *looks } else { 0 };
                let order = order.clone();
                state.signed += 1;
                http(200, "", &self.shown(&order, number))
            }
            "cert" => {
                let chain = state.orders[number].chain.clone().unwrap_or_default();
                http(200, "Content-Type: application/pem-certificate-chain\r\n", &chain)
            }
            "renewal-info" => match state.window {
                Some((start, end)) => {
                    let window = json!({"suggestedWindow": {"start": rfc3339(start), "end": rfc3339(end)}});
                    http(200, "Retry-After: 21600\r\n", &window.to_string())
                }
                None => http(404, "", "{}"),
            },
            "revoke" => {
                state.revoked += 1;
                http(200, "", "")
            }
            _ => http(200, "", ""),
        }
    }

    fn shown(&self, order: &Order, number: usize) -> String {
        let base = &self.base;
        let status = match &order.chain {
            None if order.wants.is_some() => "pending",
            None => "ready",
            Some(_) if order.looks_left > 0 => "processing",
            Some(_) => "valid",
        };
        let mut shown = json!({
            "status": status, "identifiers": [{"type": "dns", "value": order.name}], "authorizations": [],
            "finalize": format!("{base}/finalize/{number}"),
        });
        if order.wants.is_some() {
            shown["authorizations"] = json!([format!("{base}/authz/{number}")]);
        }
        if let Some(replaces) = &order.replaces {
            shown["replaces"] = json!(replaces);
        }
        if status == "valid" {
            shown["certificate"] = json!(format!("{base}/cert/{number}"));
        }
        shown.to_string()
    }

    fn authorization(&self, order: &Order, number: usize, wants: Option<&'static str>) -> String {
        let status = if order.wants.is_some() { "pending" } else { "valid" };
        let challenge = self.challenge(order.wants.or(wants), number, status);
        let identifier = json!({"type": "dns", "value": order.name});
        json!({"identifier": identifier, "status": status, "challenges": [challenge]}).to_string()
    }

    fn challenge(&self, kind: Option<&'static str>, number: usize, status: &str) -> Value {
        let url = format!("{}/challenge/{number}", self.base);
        json!({"type": kind.unwrap_or("http-01"), "url": url, "status": status, "token": format!("token{number}")})
    }

    fn sign(&self, csr: &[u8], name: &str, other_key: bool) -> String {
        let request = CertificateSigningRequestParams::from_der(&csr.into()).unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.use_authority_key_identifier_extension = true;
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        let now = std::time::UNIX_EPOCH.elapsed().unwrap();
        params.not_before = epoch + now - std::time::Duration::from_secs(60);
        params.not_after = epoch + now + std::time::Duration::from_secs(45 * 86_400);
        let leaf = match other_key {
            true => params.signed_by(&KeyPair::generate().unwrap(), &*self.key),
            false => params.signed_by(&request.public_key, &*self.key),
        };
        leaf.unwrap().pem()
    }
}

pub fn kill(process: u32) {
    let done = std::process::Command::new("kill").args(["-9", &process.to_string()]).status().unwrap();
    assert!(done.success());
}

fn http(status: u16, headers: &str, body: &str) -> String {
    let head = format!("HTTP/1.1 {status} X\r\nReplay-Nonce: nonce\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
    head + body
}

fn payload(body: &[u8]) -> Value {
    let jws: Value = serde_json::from_slice(body).unwrap_or_default();
    let payload = URL_SAFE_NO_PAD.decode(jws["payload"].as_str().unwrap_or_default()).unwrap_or_default();
    serde_json::from_slice(&payload).unwrap_or_default()
}

fn rfc3339(unix: i64) -> String {
    let time = openssl::asn1::Asn1Time::from_unix(unix).unwrap().to_string();
    // `Nov 23 05:00:00 2026 GMT`
    let words: Vec<&str> = time.split_whitespace().collect();
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = months.iter().position(|month| *month == words[0]).unwrap() + 1;
    format!("{}-{month:02}-{:02}T{}Z", words[3], words[1].parse::<u8>().unwrap(), words[2])
}

fn read_request(stream: &mut impl BufRead) -> Option<(String, Vec<u8>)> {
    let mut line = String::new();
    stream.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut length = 0;
    loop {
        let mut header = String::new();
        stream.read_line(&mut header).ok()?;
        if header.trim().is_empty() {
            break;
        }
        if let Some(value) = header.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some((path, body))
}
