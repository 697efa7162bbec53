//! The rollout and the kill switch as a browser sees them: Chromium, with what it keeps on disk of promises.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};
use support::authority::Authority;
use support::fleet::Plan;
use support::folder;

use super::{DAY, HOST};
use crate::world::{World, run, stderr, stdout};

const LOCAL_ANSWERS: &str = "latchkey_http_local_answers_total";

/// A browser with a home of its own, which trusts the fleet's root.
struct Browser {
    home: PathBuf,
    rules: String,
}

impl Browser {
    async fn new(world: &World) -> Self {
        let home = world.fleet.folder.subfolder("browser").unwrap();
        let (https, http) = (world.fleet.edge_setup.https, world.fleet.edge_setup.http);
        // Port 80 leads to the edge's own HTTPS port.
        let (to_port_80, to_https) = (format!("MAP {HOST}:80 {http}"), format!("MAP {HOST} {https}"));
        let browser = Self { home, rules: format!("{to_port_80}, {to_https}, MAP * ~NOTFOUND") };
        std::fs::create_dir_all(browser.store()).unwrap();
        browser.certutil(&["-N", "--empty-password"]).await;
        browser.trusts("fleet", world.fleet.root().await.unwrap().as_bytes()).await;
        browser
    }

    async fn trusts(&self, name: &str, root: &[u8]) {
        let file = self.home.join(name);
        folder::write(&file, root).unwrap();
        self.certutil(&["-A", "-n", name, "-t", "C,,", "-i", file.to_str().unwrap()]).await;
    }

    async fn certutil(&self, arguments: &[&str]) {
        let database = format!("sql:{}", self.store().display());
        let done = run("certutil", |command| {
            command.args(["-d", &database]).args(arguments);
        })
        .await;
        assert!(done.status.success(), "{}", stderr(&done));
    }

    fn store(&self) -> PathBuf {
        self.home.join(".pki/nssdb")
    }

    /// What the page says.
    async fn visits(&self, url: &str) -> String {
        let shown = run("chromium", |command| self.prepare(command, url)).await;
        let page = stdout(&shown);
        assert!(shown.status.success() && page.contains("upstream"), "{page}\n{}", stderr(&shown));
        page
    }

    fn prepare(&self, command: &mut Command, url: &str) {
        command.env("HOME", &self.home).arg("--headless").arg(format!("--user-data-dir={}", self.profile().display()));
        command.arg(format!("--host-resolver-rules={}", self.rules));
        command.args(["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]);
        command.args([
            "--disable-features=HttpsUpgrades,HttpsFirstModeV2",
            "--disable-background-networking",
            "--disable-component-update",
            "--dump-dom",
            url,
        ]);
    }

    fn profile(&self) -> PathBuf {
        self.home.join("profile")
    }

    /// For how many seconds it has been promised that the only host there is comes over HTTPS.
    fn promised(&self) -> Option<u64> {
        let kept = std::fs::read_to_string(self.profile().join("Default/TransportSecurity")).ok()?;
        let kept: Value = serde_json::from_str(&kept).unwrap();
        let [entry] = kept["sts"].as_array()?.as_slice() else { return None };
        let seconds = entry["expiry"].as_f64()? - entry["sts_observed"].as_f64()?;
        Some(seconds.round() as u64)
    }
}

/// One stage for everybody, since long.
fn promise(max_age: u64) -> Value {
    json!({"stages": [{"from": "2020-01-01", "percent": 100, "max_age": max_age}]})
}

#[tokio::test]
async fn chromium_sees_the_rollout_and_the_kill_switch() {
    let world = World::start(Plan { certservice_on_socket: true, ..Plan::default() }).await;
    world.issue(HOST).await;
    let browser = Browser::new(&world).await;
    let secure = format!("https://{HOST}/");
    // Each time another path: a browser keeps permanent redirects.
    let plain = |visit: u8| format!("http://{HOST}/{visit}");
    let on_port_80 = async || world.metric(LOCAL_ANSWERS, "to_https").await;

    // Nothing is promised: whoever types the name comes to port 80 first.
    world.promise_all(json!({"max_age": 300, "rollout_percent": 0})).await;
    browser.visits(&plain(1)).await;
    assert_eq!((on_port_80().await, browser.promised()), (1.0, None));

    // The ramp, stage by stage.
    for max_age in [300, 86_400, 31_536_000] {
        world.promise_all(promise(max_age)).await;
        browser.visits(&secure).await;
        assert_eq!(browser.promised(), Some(max_age));
    }
    browser.visits(&plain(2)).await;
    assert_eq!(on_port_80().await, 1.0, "the browser itself goes to HTTPS");

    // A certificate near its end: the promise shrinks to what is left of it.
    let authority = Authority::new("A CA that sells").unwrap();
    browser.trusts("own", &authority.root_pem().unwrap()).await;
    world.bring(&authority, 2 * DAY + 1800).await;
    world.promises("max-age=172800").await;
    browser.visits(&secure).await;
    assert_eq!(browser.promised(), Some(172_800));

    // The kill switch: one visit, and the browser has forgotten.
    let mut withdrawn = promise(31_536_000);
    withdrawn["withdraw"] = true.into();
    world.promise_all(withdrawn).await;
    browser.visits(&secure).await;
    assert_eq!(browser.promised(), None);
    browser.visits(&plain(3)).await;
    assert_eq!(on_port_80().await, 2.0, "and comes to port 80 again");
}
