//! What the README tells an operator to write is accepted.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use contract::signed::SigningKey;
use support::authority::Authority;
use support::folder::{Folder, read, write};
use support::{edge, program};

use crate::world::{output, repository, stderr};

#[tokio::test]
async fn the_boot_files_of_the_readme_are_good() {
    let folder = Folder::new().unwrap();
    let etc = folder.subfolder("etc").unwrap();
    make_files(&etc);
    let readme = std::fs::read_to_string(repository().join("README.md")).unwrap();
    let examples: Vec<&str> = readme.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(examples.len(), 2, "CertService's and the proxy's");
    for (example, program) in examples.into_iter().zip(["latchkey-certservice", "latchkey-proxy"]) {
        let text = example
            .replace("/etc/latchkey", &etc.display().to_string())
            .replace("\"…\"", &format!("{:?}", "0".repeat(64)));
        let boot_file = folder.write(&format!("{program}.toml"), text).unwrap();
        let mut command = Command::new(program::own(program).unwrap());
        command.arg("--config").arg(boot_file).arg("--check");
        let checked = output(command).await;
        assert!(checked.status.success(), "{program}: {}", stderr(&checked));
    }
}

/// The files that the examples name, in place of `/etc/latchkey`.
fn make_files(etc: &Path) {
    let edges = etc.join("edges");
    std::fs::create_dir(&edges).unwrap();
    for name in ["fra1", "ams1"] {
        let folder = Folder::new().unwrap();
        let key = edge::generate_key(folder.path()).unwrap();
        write(&edges.join(format!("{name}.pem.pub")), read(&edge::public_key(&key)).unwrap()).unwrap();
        std::fs::copy(&key, etc.join("edge.pem")).unwrap();
    }
    let authority = Authority::new("certs.internal").unwrap();
    let issued = authority.issue("certs.internal").unwrap();
    let (signing, _) = SigningKey::generate().unwrap();
    let (plugins, _) = SigningKey::generate().unwrap();
    for (name, content) in [
        ("edge.token", b"token".to_vec()),
        ("store.url", b"mysql://latchkey:secret@db.internal/latchkey".to_vec()),
        ("redis.url", b"rediss://:secret@redis.internal/0".to_vec()),
        ("signing.pub", signing.public_pem().into_bytes()),
        ("plugins.pub", plugins.public_pem().into_bytes()),
        ("certservice-ca.pem", authority.root_pem().unwrap()),
        ("certservice.pem", issued.certificate.to_pem().unwrap()),
        ("certservice.key", issued.key.private_key_to_pem_pkcs8().unwrap()),
    ] {
        let file = etc.join(name);
        write(&file, content).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
}
