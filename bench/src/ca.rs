//! An ACME CA (RFC 8555) that answers at once: believes every signature, finds every challenge met as soon as it is told, and
//! remembers nothing but its orders.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use openssl::ssl::{Ssl, SslAcceptor, SslMethod};
use openssl::x509::X509Req;
use serde_json::{Value, json};
use support::authority::Authority;
use support::http1::{Kind, read};
use support::{Context, Result, folder};
use tokio::io::{AsyncWriteExt, BufStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio_openssl::SslStream;

/// Ends with the value.
pub struct Ca {
    pub directory: String,
    /// Believed for its HTTPS.
    pub root: PathBuf,
    task: AbortHandle,
}

impl Drop for Ca {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Desk {
    base: String,
    authority: Authority,
    orders: Mutex<Vec<Order>>,
}

#[derive(Clone)]
struct Order {
    name: String,
    met: bool,
    certificate: Option<String>,
}

impl Ca {
    /// Its root goes into `files`.
    pub async fn start(files: &Path) -> Result<Self> {
        let authority = Authority::new("Benchmark CA")?;
        let issued = authority.issue("127.0.0.1")?;
        let mut tls = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls())?;
        tls.set_private_key(&issued.key)?;
        tls.set_certificate(&issued.certificate)?;
        let tls = Arc::new(tls.build());
        let root = files.join("ca-root.pem");
        folder::write(&root, authority.root_pem()?)?;
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        let base = format!("https://{}", listener.local_addr()?);
        let directory = format!("{base}/dir");
        let desk = Arc::new(Desk { base, authority, orders: Mutex::default() });
        let accept = async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                let (tls, desk) = (tls.clone(), desk.clone());
                tokio::spawn(async move { desk.serve(stream, &tls).await });
            }
        };
        Ok(Self { directory, root, task: tokio::spawn(accept).abort_handle() })
    }
}

impl Desk {
    async fn serve(&self, stream: TcpStream, tls: &SslAcceptor) -> Result<()> {
        let mut stream = SslStream::new(Ssl::new(tls.context())?, stream)?;
        Pin::new(&mut stream).accept().await?;
        let mut stream = BufStream::new(stream);
        while let Some(request) = read(&mut stream, Kind::Request).await? {
            let path = request.start_line.split(' ').nth(1).unwrap_or_default();
            let (status, headers, body) = self.answer(path, &request.body)?;
            let length = body.len();
            let head =
                format!("HTTP/1.1 {status} -\r\nreplay-nonce: nonce\r\n{headers}content-length: {length}\r\n\r\n");
            let head_only = request.start_line.starts_with("HEAD ");
            stream.write_all(&[head.as_bytes(), if head_only { b"" } else { body.as_bytes() }].concat()).await?;
            stream.flush().await?;
        }
        Ok(())
    }

    fn answer(&self, path: &str, body: &[u8]) -> Result<(u16, String, String)> {
        let mut parts = path.trim_start_matches('/').split('/');
        let (kind, number) = (parts.next().unwrap_or_default(), parts.next().and_then(|text| text.parse().ok()));
        let number: usize = number.unwrap_or_default();
        let base = &self.base;
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        let plain = |body: Value| Ok((200, String::new(), body.to_string()));
        match kind {
            "dir" => plain(json!({
                "newNonce": format!("{base}/nonce"), "newAccount": format!("{base}/account"),
                "newOrder": format!("{base}/new-order"), "meta": {},
            })),
            "account" => Ok((201, format!("location: {base}/account/1\r\n"), "{}".into())),
            "new-order" => {
                let payload = payload(body)?;
                let name = payload["identifiers"][0]["value"].as_str().context("an identifier")?.to_owned();
                let (order, number) = (Order { name, met: false, certificate: None }, orders.len());
                let shown = self.shown(&order, number);
                orders.push(order);
                Ok((201, format!("location: {base}/order/{number}\r\n"), shown.to_string()))
            }
            "nonce" => Ok((200, String::new(), String::new())),
            _ => {
                let order = orders.get_mut(number).context(path)?;
                match kind {
                    "order" => plain(self.shown(order, number)),
                    "authz" => plain(self.authorization(order, number)),
                    "challenge" => {
                        order.met = true;
                        plain(self.challenge(order, number))
                    }
                    "finalize" => {
                        order.certificate = Some(self.sign(&order.name, &payload(body)?)?);
                        plain(self.shown(order, number))
                    }
                    "cert" => Ok((200, String::new(), order.certificate.clone().unwrap_or_default())),
                    _ => Ok((404, String::new(), String::new())),
                }
            }
        }
    }

    fn shown(&self, order: &Order, number: usize) -> Value {
        let base = &self.base;
        let status = match (&order.certificate, order.met) {
            (Some(_), _) => "valid",
            (None, true) => "ready",
            (None, false) => "pending",
        };
        let mut shown = json!({
            "status": status, "identifiers": [{"type": "dns", "value": order.name}],
            "authorizations": [format!("{base}/authz/{number}")], "finalize": format!("{base}/finalize/{number}"),
        });
        if status == "valid" {
            shown["certificate"] = json!(format!("{base}/cert/{number}"));
        }
        shown
    }

    fn authorization(&self, order: &Order, number: usize) -> Value {
        let identifier = json!({"type": "dns", "value": order.name});
        json!({"identifier": identifier, "status": word(order), "challenges": [self.challenge(order, number)]})
    }

    fn challenge(&self, order: &Order, number: usize) -> Value {
        let url = format!("{}/challenge/{number}", self.base);
        json!({"type": "http-01", "url": url, "status": word(order), "token": format!("token-of-order-{number}")})
    }

    fn sign(&self, name: &str, payload: &Value) -> Result<String> {
        let csr = URL_SAFE_NO_PAD.decode(payload["csr"].as_str().context("a CSR")?).context("the CSR")?;
        let public_key = X509Req::from_der(&csr)?.public_key()?;
        let leaf = self.authority.certify(name, &public_key)?;
        Ok([leaf.to_pem()?, self.authority.root_pem()?].iter().map(|pem| String::from_utf8_lossy(pem)).collect())
    }
}

fn word(order: &Order) -> &'static str {
    if order.met { "valid" } else { "pending" }
}

/// Of a JWS whose signature is believed.
fn payload(body: &[u8]) -> Result<Value> {
    let jws: Value = serde_json::from_slice(body)?;
    let payload = URL_SAFE_NO_PAD.decode(jws["payload"].as_str().context("a payload")?).context("the payload")?;
    Ok(serde_json::from_slice(&payload)?)
}
