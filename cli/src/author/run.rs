//! `latchkey plugin run`: a whole edge on loopback with the author's plugin in it, which is compiled, checked and put in
//! force anew each time that a file is saved, and tells each call of it.

use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use support::fleet::{Fleet, Plan};
use support::upstream::Upstream;
use support::wait::{PATIENCE, until};
use support::{fail, port};
use tokio::signal::unix::{SignalKind, signal};

use crate::Failure;
use crate::args::{RunArgs, THE_UPSTREAM};
use crate::author;
use crate::client::{Admin, Order};
use crate::command::push_file;

const HTTPS_PORT: u16 = 8443;
const HTTP_PORT: u16 = 8080;
/// Resolves to this machine by itself.
const HOST: &str = "plugin.localhost";
const LOOK_EVERY: Duration = Duration::from_millis(300);
/// What the edge calls its lines about calls.
const CALLS: &str = "latchkey::calls";
/// Not an author's work.
const MADE: [&str; 3] = ["target", "built", ".git"];

struct Running {
    fleet: Fleet,
    admin: Admin,
    /// Where requests go that the plugin lets pass.
    upstream: String,
    _sample: Option<Upstream>,
    source: Source,
    /// How much of the edge's log has been looked at.
    seen: u64,
}

/// Where the plugin and its configuration come from.
struct Source {
    folder: PathBuf,
    component: Option<PathBuf>,
    config: PathBuf,
    tables: Vec<(String, PathBuf)>,
    /// Servers that it may ask: name, URL.
    callouts: Vec<(String, String)>,
}

/// Ends everything that it started, however it ends.
pub(crate) async fn run(args: &RunArgs) -> Result<(), Failure> {
    let (mut interrupted, mut terminated) = (on(SignalKind::interrupt())?, on(SignalKind::terminate())?);
    let mut running = Running::start(args).await?;
    let outcome = tokio::select! {
        outcome = running.go_on() => outcome,
        _ = interrupted.recv() => Ok(()),
        _ = terminated.recv() => Ok(()),
    };
    running.fleet.stop().await;
    outcome
}

fn on(kind: SignalKind) -> Result<tokio::signal::unix::Signal, Failure> {
    signal(kind).map_err(|error| Failure::Outcome(format!("signals can't be waited for: {error}")))
}

impl Running {
    async fn start(args: &RunArgs) -> Result<Self, Failure> {
        let source = Source::new(args)?;
        println!("starting an edge on loopback …");
        let plan = Plan {
            https_port: Some(HTTPS_PORT),
            http_port: Some(HTTP_PORT),
            edge_log: Some("info,latchkey::calls=trace"),
            ..Plan::default()
        };
        let fleet = Fleet::start(plan).await?;
        let sample = match args.upstream {
            Some(_) => None,
            None => Some(Upstream::start("a sample server", port::free()?).await?),
        };
        let upstream = args.upstream.clone().or_else(|| sample.as_ref().map(Upstream::url)).unwrap_or_default();
        let admin = Admin::local(fleet.edge_setup.admin_socket())?;
        let running = Self { fleet, admin, upstream, _sample: sample, source, seen: 0 };
        running.certify().await?;
        Ok(running)
    }

    async fn certify(&self) -> Result<(), Failure> {
        let (operator, path) = (self.fleet.certservice.as_operator(), format!("/v1/domains/{HOST}"));
        operator.put(&path, "{}").await?.expect(201)?;
        let live = until("a certificate", PATIENCE, async || {
            let domain = operator.get(&path).await?.json()?;
            if domain["state"] == "live" { Ok(()) } else { fail(domain.to_string()) }
        });
        Ok(live.await?)
    }

    async fn go_on(&mut self) -> Result<(), Failure> {
        let mut stamp = self.source.stamp();
        self.put_in_force().await;
        self.introduce();
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            self.fleet.edge.process.check_running()?;
            let now = self.source.stamp();
            if now != stamp {
                stamp = now;
                println!("saved; compiling and checking anew …");
                self.put_in_force().await;
            }
            self.tell_calls();
        }
    }

    fn introduce(&self) {
        let port = self.fleet.edge_setup.https.port();
        let root = self.fleet.certservice_setup.internal_root();
        println!("requests that it lets pass go to {}. Try:", self.upstream);
        println!("  curl --cacert {} https://{HOST}:{port}/", root.display());
        println!("each call of the plugin is told here; save a file to reload; Ctrl-C ends it");
    }

    /// What is wrong is told, and what is in force stays.
    async fn put_in_force(&self) {
        match self.load().await {
            Ok(told) => println!("{told}"),
            Err(failure) => {
                failure.tell(false);
                println!("not in force; what was before stays");
            }
        }
    }

    async fn load(&self) -> Result<String, Failure> {
        let component = self.source.component().await?;
        let config = self.source.config()?;
        let digest = self.fleet.edge.push(&component).await?;
        let listed = self.admin.plugins().await?.into_iter().find(|plugin| plugin.digest == digest);
        let Some(plugin) = listed else { return Err(Failure::Outcome(format!("{digest} was not kept"))) };
        let mut tables = serde_json::Map::new();
        for (name, file) in &self.source.tables {
            let digest = push_file(&self.admin, file).await?.0;
            tables.insert(name.clone(), json!({ "digest": digest }));
        }
        let names: Vec<&String> = tables.keys().collect();
        let mut upstreams = json!({THE_UPSTREAM: {"url": self.upstream}});
        for (name, url) in &self.source.callouts {
            upstreams[name] = json!({ "url": url });
        }
        let callees: Vec<&String> = self.source.callouts.iter().map(|(name, _)| name).collect();
        let binding = json!([{"plugin": "mine", "tables": names, "callouts": callees, "config": config}]);
        let (sites, listeners) = match plugin.class.as_str() {
            "connection" => (json!([]), json!({"https": {"plugins": binding}, "http": {"plugins": binding}})),
            _ => (binding, json!({})),
        };
        let document = json!({
            "plugins": {"mine": {"digest": digest}},
            "tables": tables,
            "upstreams": upstreams,
            "sites": [{"hosts": ["*"], "upstream": THE_UPSTREAM, "plugins": sites}],
            "listeners": listeners,
        });
        let applied = self.admin.apply(document.to_string(), Order::APPLY).await?;
        for warning in &applied.plan.warnings {
            println!("warning: {}: {}", warning.at, warning.says);
        }
        Ok(format!("in force: {} {}, revision {}", plugin.name, plugin.version, applied.revision))
    }

    /// What the edge has logged of calls, and of anything that went wrong.
    fn tell_calls(&mut self) {
        let Ok(mut log) = std::fs::File::open(self.fleet.edge.process.log_file()) else { return };
        let mut text = String::new();
        if log.seek(SeekFrom::Start(self.seen)).and_then(|_| log.read_to_string(&mut text)).is_err() {
            return;
        }
        let Some(whole) = text.rfind('\n') else { return };
        self.seen += whole as u64 + 1;
        for line in text[..whole].lines() {
            match line.split_once(CALLS) {
                Some((_, call)) => println!("{}", call.trim_start_matches(": ")),
                None if line.contains(" WARN ") || line.contains(" ERROR ") || line.contains("plugin=") => {
                    println!("{}", line.trim());
                }
                None => {}
            }
        }
    }
}

impl Source {
    fn new(args: &RunArgs) -> Result<Self, Failure> {
        let config = args.config.clone().unwrap_or_else(|| args.folder.join("config.json"));
        let source = Self {
            folder: args.folder.clone(),
            component: args.plugin.clone(),
            config,
            tables: args.tables.clone(),
            callouts: args.callouts.clone(),
        };
        if source.component.is_none() && !source.folder.join("Cargo.toml").is_file() {
            let folder = source.folder.display();
            let says = format!(
                "{folder} has no Cargo.toml; run it in a folder that `latchkey plugin new` made, or name a component: --plugin FILE"
            );
            return Err(Failure::Outcome(says));
        }
        Ok(source)
    }

    /// Compiled now, where it is not one that somebody else compiles.
    async fn component(&self) -> Result<PathBuf, Failure> {
        let Some(component) = &self.component else {
            let folder = self.folder.clone();
            let built = tokio::task::spawn_blocking(move || author::build(&folder)).await;
            return built.map_err(|error| Failure::Outcome(error.to_string()))?;
        };
        Ok(component.clone())
    }

    fn config(&self) -> Result<Value, Failure> {
        let text = match std::fs::read_to_string(&self.config) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => "{}".to_owned(),
            read => read.map_err(|error| Failure::File { file: self.config.clone(), error })?,
        };
        serde_json::from_str(&text).map_err(|error| Failure::Outcome(format!("{}: {error}", self.config.display())))
    }

    /// Changes when a file is saved, made or removed.
    fn stamp(&self) -> Vec<(PathBuf, SystemTime)> {
        let mut files = vec![self.config.clone()];
        files.extend(self.tables.iter().map(|(_, file)| file.clone()));
        match &self.component {
            Some(component) => files.push(component.clone()),
            None => collect(&self.folder, &mut files),
        }
        files.sort();
        files.dedup();
        let stamped = files.into_iter().filter_map(|file| {
            let saved = file.metadata().and_then(|about| about.modified()).ok()?;
            Some((file, saved))
        });
        stamped.collect()
    }
}

/// An author's files; the lock file is Cargo's.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        if path.is_dir() {
            if !MADE.iter().any(|made| name == *made) {
                collect(&path, files);
            }
        } else if name != "Cargo.lock" {
            files.push(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_compiled_is_no_change_and_what_is_saved_is() {
        let folder = std::env::temp_dir().join(format!("latchkey-run-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("src")).unwrap();
        std::fs::create_dir_all(folder.join("target")).unwrap();
        std::fs::write(folder.join("src/lib.rs"), "").unwrap();
        let source = Source {
            folder: folder.clone(),
            component: None,
            config: folder.join("config.json"),
            tables: vec![],
            callouts: vec![],
        };
        let before = source.stamp();
        std::fs::write(folder.join("target/x"), "").unwrap();
        std::fs::write(folder.join("Cargo.lock"), "").unwrap();
        assert_eq!(source.stamp(), before);
        std::fs::write(folder.join("config.json"), "{}").unwrap();
        assert_ne!(source.stamp(), before);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
