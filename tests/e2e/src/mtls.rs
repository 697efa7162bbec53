//! CertService's API behind client certificates of a private CA that `latchkey pki` made.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use openssl::asn1::Asn1Time;
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::ssl::{SslConnector, SslFiletype, SslMethod, SslStream};
use openssl::x509::X509;
use openssl::x509::extension::SubjectAlternativeName;
use support::certservice::{Issuer, Setup};
use support::edge::{self, Edge};
use support::folder::Folder;
use support::process::Process;
use support::visitor::Visitor;
use support::wait::{PATIENCE, until};
use support::{fail, port, program};

use crate::world::{output, run, stderr, stdout};

/// A CA, a CertService that believes it, and what was issued.
struct Guarded {
    folder: Folder,
    address: SocketAddr,
    certservice: Process,
    setup: Setup,
}

const DAY: i64 = 86_400;
const ROLES: &str = "[[certificates]]\nrole = \"edge\"\nuri = \"latchkey:edge/*\"\n\
     [[certificates]]\nrole = \"operator\"\nuri = \"latchkey:operator/ann\"\nnetworks = [\"127.0.0.0/8\"]\n\
     [[certificates]]\nrole = \"viewer\"\nuri = \"latchkey:viewer/away\"\nnetworks = [\"10.0.0.0/8\"]\n\
     [[certificates]]\nrole = \"viewer\"\nuri = \"latchkey:viewer/late\"\n";

impl Guarded {
    async fn start(listen: &str) -> Self {
        let folder = Folder::new().unwrap();
        let key = edge::generate_key(folder.path()).unwrap();
        let setup = Setup::new(folder.path(), &[edge::public_key(&key)], &[Issuer::Internal]).unwrap();
        let address = setup.address;
        pki(&folder, "pki", &["init"]).await;
        pki(&folder, "pki", &["issue", "server", "--host", "localhost", "--host", "127.0.0.1"]).await;
        for (name, role) in [("fra1", "edge"), ("ann", "operator"), ("away", "viewer"), ("stranger", "operator")] {
            pki(&folder, "pki", &["issue", name, "--role", role]).await;
        }
        let boot_file = format!(
            "data_dir = {:?}\n[listen]\naddress = \"{address}\"\n{listen}\n[listen.tls]\ncertificate_file = \"pki/server.pem\"\n\
             key_file = \"pki/server.key\"\nclient_ca_file = \"pki/ca.pem\"\nclient_crl_file = \"pki/crl.pem\"\n{ROLES}\
             [edges]\nprivate_keys_in_reach = true\npublic_keys = [\"edge.pem.pub\"]\n[[issuers]]\nname = \"internal\"\nkind = \"internal\"\n",
            setup.data_folder(),
        );
        let boot_file = folder.write("certservice.toml", boot_file).unwrap();
        let program = program::own("latchkey-certservice").unwrap();
        let start = |command: &mut Command| {
            command.arg("--config").arg(&boot_file);
        };
        let mut certservice = Process::start("certservice", &program, folder.path(), start).unwrap();
        certservice.until_ready(async || Ok(TcpStream::connect(address)?)).await.unwrap();
        Self { folder, address, certservice, setup }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    /// The status of a request with a certificate; 0 where there was no answer.
    async fn status(&self, certificate: Option<&str>, path: &str) -> u16 {
        let answer = run("curl", |command| {
            command.args(["-sS", "--noproxy", "*", "--max-time", "30", "-o", "/dev/null", "-w", "%{http_code}"]);
            command.arg("--cacert").arg(self.file("pki/ca.pem")).arg(format!("{}{path}", self.url()));
            if let Some(name) = certificate {
                command.arg("--cert").arg(self.file(&format!("{name}.pem")));
                command.arg("--key").arg(self.file(&format!("{name}.key")));
            }
        });
        stdout(&answer.await).parse().unwrap()
    }

    async fn until_status(&self, certificate: &str, path: &str, wanted: u16) {
        let changed = until(format!("{certificate} to get {wanted}"), PATIENCE, async || {
            let status = self.status(Some(certificate), path).await;
            if status == wanted { Ok(()) } else { fail(format!("{certificate} gets {status} for {path}")) }
        });
        changed.await.unwrap();
    }

    fn stream(&self, certificate: &str) -> SslStream<TcpStream> {
        let mut connector = SslConnector::builder(SslMethod::tls()).unwrap();
        connector.set_ca_file(self.file("pki/ca.pem")).unwrap();
        connector.set_certificate_chain_file(self.file(&format!("{certificate}.pem"))).unwrap();
        connector.set_private_key_file(self.file(&format!("{certificate}.key")), SslFiletype::PEM).unwrap();
        let tcp = TcpStream::connect(self.address).unwrap();
        tcp.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        connector.build().connect("localhost", tcp).unwrap()
    }

    /// A certificate of our own CA's key that is over at that second.
    fn write_ending(&self, file: &str, ends: i64) {
        let pem = |name: &str| std::fs::read(self.file(name)).unwrap();
        let ca = X509::from_pem(&pem("pki/ca-1.pem")).unwrap();
        let (ca_key, key) =
            (PKey::private_key_from_pem(&pem("pki/ca-1.key")).unwrap(), PKey::ec_gen("prime256v1").unwrap());
        let mut certificate = X509::builder().unwrap();
        certificate.set_version(2).unwrap();
        certificate.set_issuer_name(ca.subject_name()).unwrap();
        certificate.set_pubkey(&key).unwrap();
        certificate.set_not_before(&Asn1Time::from_unix(ends - 2 * DAY).unwrap()).unwrap();
        certificate.set_not_after(&Asn1Time::from_unix(ends).unwrap()).unwrap();
        let names = SubjectAlternativeName::new()
            .uri("latchkey:operator/ann")
            .build(&certificate.x509v3_context(Some(&ca), None));
        certificate.append_extension(names.unwrap()).unwrap();
        certificate.sign(&ca_key, MessageDigest::sha256()).unwrap();
        std::fs::write(self.file(&format!("{file}.pem")), certificate.build().to_pem().unwrap()).unwrap();
        std::fs::write(self.file(&format!("{file}.key")), key.private_key_to_pem_pkcs8().unwrap()).unwrap();
    }
}

fn now() -> i64 {
    i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap()
}

async fn pki(folder: &Folder, ca: &str, arguments: &[&str]) -> serde_json::Value {
    let mut command = Command::new(program::own("latchkey").unwrap());
    command.args(["--json", "pki", "--dir"]).arg(folder.path().join(ca)).args(arguments);
    let output = output(command).await;
    assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test]
async fn a_certificate_gives_its_role_and_nothing_else() {
    let guarded = Guarded::start("networks = [\"127.0.0.1\", \"::1\"]").await;
    for (caller, domains, bundle) in [
        (Some("pki/ann"), 200, 403),
        (Some("pki/fra1"), 403, 404),
        // Of our CA, and no entry names it.
        (Some("pki/stranger"), 401, 401),
        // From another network than the entry takes.
        (Some("pki/away"), 403, 403),
        (None, 401, 401),
    ] {
        assert_eq!(guarded.status(caller, "/v1/domains").await, domains, "{caller:?}");
        assert_eq!(guarded.status(caller, "/v1/bundles/none.example").await, bundle, "{caller:?}");
    }
    // The handshake ends for what our CA has not signed, and for what is over.
    pki(&guarded.folder, "other", &["init", "--name", "Latchkey CA"]).await;
    pki(&guarded.folder, "other", &["issue", "ann", "--role", "operator"]).await;
    guarded.write_ending("expired", now() - DAY);
    for refused in ["other/ann", "expired"] {
        assert_eq!(guarded.status(Some(refused), "/v1/domains").await, 0, "{refused}");
    }
    let mut command = Command::new(program::own("latchkey").unwrap());
    command.args(["domain", "ls", "--certservice", &guarded.url(), "--ca-file"]).arg(guarded.file("pki/ca.pem"));
    command.arg("--cert-file").arg(guarded.file("pki/ann.pem")).arg("--key-file").arg(guarded.file("pki/ann.key"));
    let listed = output(command).await;
    assert!(stdout(&listed).contains("0 domains"), "{}{}", stdout(&listed), stderr(&listed));
}

#[tokio::test]
async fn who_is_revoked_is_out_within_seconds_and_others_stay() {
    let guarded = Guarded::start("").await;
    let (mut kept, mut other) = (guarded.stream("pki/fra1"), guarded.stream("pki/ann"));
    let ask = |stream: &mut SslStream<TcpStream>, path: &str| {
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        String::from_utf8(answer.to_vec()).unwrap()
    };
    assert_eq!(ask(&mut kept, "/v1/changes"), "HTTP/1.1 200");
    let old = std::fs::read(guarded.file("pki/fra1.pem")).unwrap();
    let old_key = std::fs::read(guarded.file("pki/fra1.key")).unwrap();
    pki(&guarded.folder, "pki", &["rotate", "fra1"]).await;
    std::fs::write(guarded.file("old.pem"), old).unwrap();
    std::fs::write(guarded.file("old.key"), old_key).unwrap();
    assert_eq!(guarded.status(Some("pki/fra1"), "/v1/changes").await, 200);
    assert_eq!(guarded.status(Some("old"), "/v1/changes").await, 200, "it is replaced, and not revoked");
    let issued = pki(&guarded.folder, "pki", &["ls"]).await;
    let serials: Vec<_> = issued["certificates"].as_array().unwrap().iter().filter(|c| c["name"] == "fra1").collect();
    pki(&guarded.folder, "pki", &["revoke", "fra1", "--serial", serials[0]["serial"].as_str().unwrap()]).await;
    guarded.until_status("old", "/v1/changes", 0).await;
    assert_eq!(guarded.status(Some("pki/fra1"), "/v1/changes").await, 200);
    // A connection that was open is over, too.
    let mut rest = Vec::new();
    let end = kept.read_to_end(&mut rest).map_err(|error| error.kind());
    assert_ne!(end, Err(std::io::ErrorKind::WouldBlock), "still open");
    let _ = other.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    // A new key of the CA, beside the old one.
    pki(&guarded.folder, "pki", &["rotate", "--ca"]).await;
    pki(&guarded.folder, "pki", &["issue", "late", "--role", "viewer"]).await;
    guarded.until_status("pki/late", "/v1/domains", 200).await;
    assert_eq!(guarded.status(Some("pki/ann"), "/v1/domains").await, 200);
    assert_eq!(guarded.status(Some("old"), "/v1/changes").await, 0);
    // What can't be used changes nothing.
    std::fs::write(guarded.file("pki/crl.pem"), "nonsense").unwrap();
    guarded.certservice.says(&["stays in force"]).await.unwrap();
    assert_eq!(guarded.status(Some("pki/ann"), "/v1/domains").await, 200);
    assert_eq!(guarded.status(Some("old"), "/v1/changes").await, 0);
}

#[tokio::test]
async fn a_connection_that_is_used_all_the_time_ends_with_its_certificate() {
    let guarded = Guarded::start("").await;
    let ends = now() + 6;
    guarded.write_ending("soon", ends);
    let mut stream = guarded.stream("soon");
    let began = std::time::Instant::now();
    let mut answered = 0;
    loop {
        let asked = stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let mut answer = [0; 4096];
        match asked.and_then(|()| stream.read(&mut answer)) {
            Ok(1..) => answered += 1,
            _ => break,
        }
        assert!(began.elapsed() < PATIENCE, "it goes on");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert!(answered > 0 && now() >= ends, "{answered} answers until {} s before the end", ends - now());
    assert_eq!(guarded.status(Some("pki/ann"), "/v1/domains").await, 200);
}

#[tokio::test]
async fn who_comes_from_elsewhere_is_not_spoken_to() {
    let guarded = Guarded::start("networks = [\"10.0.0.0/8\", \"2001:db8::/32\"]").await;
    assert_eq!(guarded.status(Some("pki/ann"), "/v1/domains").await, 0);
    guarded.certservice.says(&["outside of the networks that the boot file names", "127.0.0.1"]).await.unwrap();
}

#[tokio::test]
async fn an_edge_serves_by_its_certificate() {
    let guarded = Guarded::start("").await;
    let key = guarded.file("edge.pem");
    let (https, http) = (port::free().unwrap(), port::free().unwrap());
    let mut setup = edge::Setup::new(guarded.folder.path(), key, &guarded.setup, https, http).unwrap();
    setup.certservice = Some(format!(
        "url = {:?}\nca_file = {:?}\ncertificate_file = {:?}\nkey_file = {:?}",
        guarded.url(),
        guarded.file("pki/ca.pem"),
        guarded.file("pki/fra1.pem"),
        guarded.file("pki/fra1.key"),
    ));
    let _edge = Edge::start(&setup).await.unwrap();
    let put = run("curl", |command| {
        command.args(["-sS", "--noproxy", "*", "-X", "PUT", "--cacert"]).arg(guarded.file("pki/ca.pem"));
        command.arg("--cert").arg(guarded.file("pki/ann.pem")).arg("--key").arg(guarded.file("pki/ann.key"));
        command.arg(format!("{}/v1/domains/shop.example", guarded.url()));
    });
    assert!(stdout(&put.await).contains("shop.example"));
    let root = guarded.setup.internal_root();
    let served = until("the edge to serve shop.example", PATIENCE, async || {
        let visitor = Visitor::to(https).trusting(&support::folder::read(&root)?)?;
        visitor.https("shop.example").await.map(drop)
    });
    served.await.unwrap();
}
