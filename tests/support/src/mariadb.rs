use std::path::Path;
use std::process::Command;

use crate::process::Process;
use crate::{Context, Result, fail, port, program};

const DATABASE: &str = "latchkey";
/// What MariaDB takes when nothing is set.
const MARIADB_DEFAULT_MIB: u32 = 128;
const PASSWORD: &str = "only-on-loopback";

pub struct MariaDb {
    pub process: Process,
    /// With user and password, for CertService.
    pub url: String,
}

impl MariaDb {
    pub async fn start(folder: &Path) -> Result<Self> {
        Self::sized(folder, MARIADB_DEFAULT_MIB).await
    }

    /// With so much memory for pages of its tables.
    pub async fn sized(folder: &Path, buffer_pool_mib: u32) -> Result<Self> {
        let data = folder.join("mariadb");
        let socket = folder.join("mariadb.sock");
        let address = port::free()?;
        initialise(&data, folder)?;
        let mut process = Process::start("mariadb", &program::other("mariadbd")?, folder, |command| {
            command.arg("--no-defaults").args(as_this_user()).arg("--skip-networking=0");
            command.args(["--bind-address=127.0.0.1", &format!("--port={}", address.port())]);
            command.arg(path_option("--datadir", &data)).arg(path_option("--socket", &socket));
            command.arg(format!("--innodb-buffer-pool-size={buffer_pool_mib}M"));
            command.arg(path_option("--pid-file", &folder.join("mariadb.pid"))).arg(path_option("--tmpdir", folder));
        })?;
        let statements = format!(
            "CREATE DATABASE IF NOT EXISTS {DATABASE};
             CREATE USER IF NOT EXISTS {DATABASE}@'127.0.0.1' IDENTIFIED BY '{PASSWORD}';
             GRANT ALL ON {DATABASE}.* TO {DATABASE}@'127.0.0.1';"
        );
        process.until_ready(async || execute(&socket, &statements)).await?;
        Ok(Self { process, url: format!("mysql://{DATABASE}:{PASSWORD}@{address}/{DATABASE}") })
    }
}

fn initialise(data: &Path, temporary: &Path) -> Result<()> {
    let mut command = Command::new(program::other("mariadb-install-db")?);
    command.arg("--no-defaults").args(as_this_user()).arg(path_option("--datadir", data));
    // One that starts removes what it takes for leftovers there, and they would be those of another.
    command.arg(path_option("--tmpdir", temporary));
    command.args(["--auth-root-authentication-method=normal", "--skip-test-db", "--force"]);
    run(command)
}

fn execute(socket: &Path, statements: &str) -> Result<()> {
    let mut command = Command::new(program::other("mariadb")?);
    command.arg("--no-defaults").arg(path_option("--socket", socket)).args(["--user=root", "--execute", statements]);
    run(command)
}

fn run(mut command: Command) -> Result<()> {
    let output = command.output().context(format!("{:?}", command.get_program()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    fail(format!("{:?} failed: {said}", command.get_program()))
}

fn path_option(option: &str, path: &Path) -> String {
    format!("{option}={}", path.display())
}

/// MariaDB refuses to run as root unless it is told to.
fn as_this_user() -> Option<&'static str> {
    rustix::process::geteuid().is_root().then_some("--user=root")
}
