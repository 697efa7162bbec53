//! A new process in the place of the running one, and the end of one: no visitor notices.

mod load;

use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use support::api::Api;
use support::fleet::Plan;
use support::process::{Process, Signal};
use support::visitor::Visitor;
use support::wait::{PATIENCE, until};
use support::{fail, folder, port, program};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::world::{World, output, stderr, stdout};
use load::Load;

const HOST: &str = "shop.example";
const UPGRADES: usize = 3;

struct Running {
    world: World,
}

impl Running {
    async fn start() -> Self {
        let world = World::start(Plan::default()).await;
        world.issue(HOST).await;
        world.still_serves(HOST).await;
        Self { world }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(program::own("latchkey-proxy").unwrap());
        command.arg("upgrade").arg("--config").arg(self.world.fleet.edge_setup.boot_file_path());
        command
    }

    async fn upgrade(&self) -> Output {
        output(self.command()).await
    }

    async fn upgrade_succeeds(&mut self) -> String {
        let upgraded = self.upgrade().await;
        assert!(upgraded.status.success(), "{}{}", stdout(&upgraded), stderr(&upgraded));
        // A new connection to the admin socket: the new process.
        self.world.fleet.edge.admin = Api::unix(&self.world.fleet.edge_setup.admin_socket()).unwrap();
        stdout(&upgraded)
    }

    async fn upgrade_fails(&self) -> String {
        let refused = self.upgrade().await;
        assert_eq!(refused.status.code(), Some(1), "{}{}", stdout(&refused), stderr(&refused));
        stderr(&refused)
    }

    /// Asked on a connection of its own.
    async fn ready(&self) -> serde_json::Value {
        let admin = Api::unix(&self.world.fleet.edge_setup.admin_socket()).unwrap();
        let ready = admin.get("/readyz").await.unwrap();
        ready.expect(200).unwrap();
        ready.json().unwrap()
    }

    async fn pid(&self) -> u32 {
        let pid = self.ready().await["pid"].as_u64().unwrap() as u32;
        assert_eq!(folder::read(&self.data_file("proxy.pid")).unwrap().trim(), pid.to_string());
        pid
    }

    fn data_file(&self, name: &str) -> PathBuf {
        self.world.fleet.edge_setup.data_folder().join(name)
    }

    /// The file that a new process begins with.
    async fn newest_revision(&self) -> PathBuf {
        let number = self.world.metric("latchkey_config_revision", "").await;
        self.data_file(&format!("revisions/{number}.revision"))
    }

    async fn still_the_same(&self, pid: u32) {
        assert_eq!(self.pid().await, pid);
        self.world.still_serves(HOST).await;
        self.world.fleet.edge.apply(&self.world.config()).await.unwrap();
    }
}

async fn gone(pid: u32) {
    let gone = until(format!("process {pid} to end"), PATIENCE, async || {
        let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // A successor whose parent has ended belongs to whoever adopts it, who may not be quick to look.
        if state.is_empty() || state.contains(") Z ") { Ok(()) } else { fail("it runs") }
    });
    gone.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upgrades_under_load_fail_no_request() {
    let mut running = Running::start().await;
    let setup = running.world.fleet.edge_setup.clone();
    let load = Load::start(&running.world.visitor().await, &running.world.plain(), setup.https);
    load.goes_on(1).await;
    let mut pids = vec![running.pid().await];
    for _ in 0..UPGRADES {
        let told = running.upgrade_succeeds().await;
        for (name, address) in [("https", setup.https), ("http", setup.http)] {
            assert!(told.contains(&format!("{name} {address}: handed over")), "{told}");
        }
        pids.push(running.pid().await);
        // The operator reaches the new process, and what was applied is in force in it.
        let revision = running.ready().await["revision"].as_u64().unwrap();
        running.world.fleet.edge.apply(&running.world.config()).await.unwrap();
        // It is the same configuration, which makes no new revision.
        assert_eq!(running.ready().await["revision"], revision);
        load.goes_on(1).await;
    }
    let answered = load.ends_without_failure().await;
    assert!(answered > 100, "{answered} answers");
    let distinct: std::collections::BTreeSet<_> = pids.iter().collect();
    assert_eq!(distinct.len(), UPGRADES + 1);
    assert!(running.world.fleet.edge.process.ended().await.unwrap().success());
    for pid in &pids[..UPGRADES] {
        gone(*pid).await;
    }
    running.world.says(&["stopped: every connection finished"]).await;
}

#[tokio::test]
async fn a_websocket_outlives_the_upgrade() {
    let mut running = Running::start().await;
    let echo = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = running.world.config();
    config["upstreams"]["sample"]["url"] = format!("http://{}", echo.local_addr().unwrap()).into();
    running.world.fleet.edge.apply(&config).await.unwrap();
    let upstream = tokio::spawn(async move {
        let (mut stream, _) = echo.accept().await.unwrap();
        let mut seen = Vec::new();
        while !seen.ends_with(b"\r\n\r\n") {
            seen.push(stream.read_u8().await.unwrap());
        }
        let answer = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
        stream.write_all(answer).await.unwrap();
        let mut piece = [0; 16];
        while let Ok(read @ 1..) = stream.read(&mut piece).await {
            stream.write_all(&piece[..read]).await.unwrap();
        }
    });
    let mut connection = running.world.https(HOST).await;
    let ask = format!(
        "GET /socket HTTP/1.1\r\nhost: {HOST}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    assert_eq!(connection.raw(ask.as_bytes(), 12).await.unwrap(), b"HTTP/1.1 101");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.extend(connection.raw(b"", 1).await.unwrap());
    }
    assert_eq!(connection.raw(b"before", 6).await.unwrap(), b"before");
    running.upgrade_succeeds().await;
    assert_eq!(connection.raw(b"after", 5).await.unwrap(), b"after");
    drop(connection);
    assert!(running.world.fleet.edge.process.ended().await.unwrap().success());
    upstream.await.unwrap();
}

#[tokio::test]
async fn a_new_process_that_cannot_serve_changes_nothing() {
    let mut running = Running::start().await;
    let (setup, pid) = (running.world.fleet.edge_setup.clone(), running.pid().await);

    // A boot file that is wrong: not even a process is started.
    folder::write(&setup.boot_file_path(), format!("threds = 2\n{}", setup.boot_file())).unwrap();
    let told = running.upgrade_fails().await;
    assert!(
        told.contains("nothing was changed") && told.contains("proxy.toml:1:1: unknown setting `threds`"),
        "{told}"
    );
    running.still_the_same(pid).await;

    // A port that somebody else has.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listener = format!(
        "[[listeners]]\nname = \"third\"\naddress = \"{}\"\nprotocol = \"http\"\n",
        taken.local_addr().unwrap()
    );
    folder::write(&setup.boot_file_path(), format!("{}{listener}", setup.boot_file())).unwrap();
    let told = running.upgrade_fails().await;
    assert!(told.contains("ended before it served (exit status: 1)"), "{told}");
    running.world.says(&["listener `third` can't listen"]).await;
    running.still_the_same(pid).await;

    // Damaged data: found out after the sockets have been received.
    folder::write(&setup.boot_file_path(), setup.boot_file()).unwrap();
    let newest = running.newest_revision().await;
    let applied = folder::read(&newest).unwrap();
    folder::write(&newest, "{").unwrap();
    let told = running.upgrade_fails().await;
    assert!(told.contains("ended before it served (exit status: 1)"), "{told}");
    folder::write(&newest, applied).unwrap();
    running.still_the_same(pid).await;

    running.upgrade_succeeds().await;
    assert_ne!(running.pid().await, pid);
    running.world.still_serves(HOST).await;
}

#[tokio::test]
async fn one_upgrade_at_a_time_and_a_killed_one_changes_nothing() {
    let mut running = Running::start().await;
    let pid = running.pid().await;
    let applied = running.newest_revision().await;
    let content = folder::read(&applied).unwrap();
    // The new process waits for somebody to write into it.
    std::fs::remove_file(&applied).unwrap();
    assert!(Command::new("mkfifo").arg(&applied).status().unwrap().success());
    let first = tokio::spawn(output(running.command()));
    let child = until("the new process", PATIENCE, async || {
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        let of_threads = std::fs::read_dir(format!("/proc/{pid}/task"))?
            .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("children")).ok());
        let all = of_threads.fold(children, |all, more| all + " " + &more);
        let child = all.split_whitespace().next().and_then(|child| child.parse::<i32>().ok());
        child.map_or_else(|| fail("none yet"), Ok)
    });
    let child = child.await.unwrap();

    let told = running.upgrade_fails().await;
    assert!(told.contains("another upgrade is under way"), "{told}");
    // A change waits until it is known who is to keep it.
    let change = running.world.fleet.edge.admin.clone();
    let mut config = running.world.config();
    config["sites"][0]["plugins"][0]["config"]["max_age"] = 7.into();
    let config = config.to_string();
    let mut change = tokio::spawn(async move { change.put("/v1/config", config).await.unwrap() });
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut change).await.is_err());
    running.world.still_serves(HOST).await;

    let killed = Command::new("kill").args(["-9", &child.to_string()]).status().unwrap();
    assert!(killed.success());
    let first = first.await.unwrap();
    assert_eq!(first.status.code(), Some(1), "{}", stdout(&first));
    assert!(stderr(&first).contains("ended before it served (signal: 9"), "{}", stderr(&first));
    change.await.unwrap().expect(200).unwrap();
    std::fs::remove_file(&applied).unwrap();
    folder::write(&applied, content).unwrap();
    let kept = running.newest_revision().await;
    assert!(kept != applied && kept.exists(), "kept by the process that goes on");
    running.still_the_same(pid).await;
    running.upgrade_succeeds().await;
    running.world.still_serves(HOST).await;
}

#[tokio::test]
async fn listeners_may_come_and_go() {
    let mut running = Running::start().await;
    let mut setup = running.world.fleet.edge_setup.clone();
    let mut config = running.world.config();
    config.as_object_mut().unwrap().remove("listeners");
    running.world.fleet.edge.apply(&config).await.unwrap();
    let (old, new) = (setup.http, port::free().unwrap());
    setup.http = new;
    folder::write(&setup.boot_file_path(), setup.boot_file()).unwrap();
    let told = running.upgrade_succeeds().await;
    for line in
        [format!("https {}: handed over", setup.https), format!("http {new}: new"), format!("http {old}: closed")]
    {
        assert!(told.contains(&line), "{told}");
    }
    assert_eq!(running.ready().await["listeners"][1]["address"], new.to_string());
    assert_eq!(Visitor::to(new).http().await.unwrap().get(HOST, "/").await.unwrap().status, 301);
    running.world.still_serves(HOST).await;
    let closed = until("the old listener to be closed", PATIENCE, async || match Visitor::to(old).dial().await {
        Err(_) => Ok(()),
        Ok(_) => fail("it is open"),
    });
    closed.await.unwrap();
}

#[tokio::test]
async fn where_nothing_runs_there_is_nothing_to_upgrade() {
    let mut running = Running::start().await;
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(running.data_file("handover.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // Nor does a second process start beside the running one.
    let mut second = Command::new(program::own("latchkey-proxy").unwrap());
    let setup = &running.world.fleet.edge_setup;
    let mut other_ports = setup.clone();
    (other_ports.https, other_ports.http) = (port::free().unwrap(), port::free().unwrap());
    let boot_file = running.world.fleet.folder.write("second.toml", other_ports.boot_file()).unwrap();
    let second = output({
        second.arg("--config").arg(boot_file);
        second
    });
    let second = second.await;
    assert_eq!(second.status.code(), Some(1));
    assert!(stderr(&second).contains("another latchkey-proxy answers on"), "{}", stderr(&second));

    assert!(running.world.fleet.edge.process.stop().await.unwrap().success());
    assert!(!running.data_file("proxy.pid").exists());
    let told = running.upgrade_fails().await;
    assert!(told.contains("no latchkey-proxy answers on"), "{told}");
}

#[tokio::test]
async fn the_service_manager_is_told_who_serves() {
    let mut running = Running::start().await;
    let setup = running.world.fleet.edge_setup.clone();
    running.world.fleet.edge.process.stop().await.unwrap();
    let path = setup.folder.join("notify.sock");
    let manager = tokio::net::UnixDatagram::bind(&path).unwrap();
    let told = async || {
        let mut message = [0; 256];
        let length = tokio::time::timeout(PATIENCE, manager.recv(&mut message)).await.unwrap().unwrap();
        String::from_utf8_lossy(&message[..length]).trim_end().to_owned()
    };
    let program = program::own("latchkey-proxy").unwrap();
    let start = Process::start("proxy", &program, &setup.folder, |command| {
        command.arg("--config").arg(setup.boot_file_path()).env("NOTIFY_SOCKET", &path);
    });
    running.world.fleet.edge.process = start.unwrap();
    assert_eq!(told().await, "READY=1");
    running.upgrade_succeeds().await;
    // The new process' READY=1 is not heard by a manager that does not know it yet, and does no harm to one that does.
    let both = std::collections::BTreeSet::from([told().await, told().await]);
    let main = format!("MAINPID={}", running.pid().await);
    assert_eq!(both, [main, "READY=1".to_owned()].into());
    let stop = Command::new("kill").arg(running.pid().await.to_string()).status().unwrap();
    assert!(stop.success());
    assert_eq!(told().await, "STOPPING=1");
}

#[tokio::test]
async fn a_stop_lets_everything_open_finish() {
    let mut running = Running::start().await;
    let mut idle = running.world.https(HOST).await;
    assert_eq!(idle.get(HOST, "/").await.unwrap().status, 200);
    let mut uploading = running.world.https(HOST).await;
    let upload = tokio::spawn(async move {
        let pieces = [b"piece".as_slice(); 10];
        uploading.upload(HOST, "/slow", &pieces, Duration::from_millis(100)).await
    });
    let open = until("the upload to begin", PATIENCE, async || {
        let open = running.world.metric("latchkey_open_connections", "").await;
        if open >= 2.0 { Ok(()) } else { fail(format!("{open} are open")) }
    });
    open.await.unwrap();
    running.world.fleet.edge.process.signal(Signal::TERM);
    let refused =
        until("new connections to be refused", PATIENCE, async || match running.world.visitor().await.dial().await {
            Err(_) => Ok(()),
            Ok(_) => fail("accepted"),
        });
    refused.await.unwrap();
    // One more request is answered, and told to be the last.
    let answer = idle.get(HOST, "/").await.unwrap();
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    let answer = upload.await.unwrap().unwrap();
    assert_eq!((answer.status, answer.seen("body-bytes").as_deref()), (200, Some("50")));
    assert!(running.world.fleet.edge.process.ended().await.unwrap().success());
    running.world.says(&["stopped: every connection finished"]).await;
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let mut running = Running::start().await;
    let mut uploading = running.world.https(HOST).await;
    let head = format!("POST /never HTTP/1.1\r\nhost: {HOST}\r\ncontent-length: 10\r\nexpect: 100-continue\r\n\r\n");
    assert_eq!(uploading.raw(head.as_bytes(), 12).await.unwrap(), b"HTTP/1.1 100");
    let process = &mut running.world.fleet.edge.process;
    process.signal(Signal::TERM);
    let since = Instant::now();
    process.says(&["stopping: no new connections"]).await.unwrap();
    process.check_running().unwrap();
    process.signal(Signal::TERM);
    assert!(process.ended().await.unwrap().success());
    assert!(since.elapsed() < Duration::from_secs(20), "drain_seconds is 30");
    process.says(&["stopped: a further signal, connections were cut"]).await.unwrap();
}
