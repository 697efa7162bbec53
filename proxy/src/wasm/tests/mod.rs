//! The room with real guests in it: what `plugins/build.sh` built.

mod bodies;
mod connection;
mod hostile;
mod http;
mod isolation;
mod load;
mod returned;
mod shadows;
mod tables;
mod waiting;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use super::*;
use crate::tls::{Standing, Unwell};

/// Compiling is slow, so all tests share one host and each component is loaded once. Calls have more instructions and time
/// than by default, so that a guest that eats memory meets that limit first, on a slow machine too.
static HOST: LazyLock<Host> = LazyLock::new(|| {
    let settings = Settings {
        http_instructions: 50_000_000,
        start_instructions: 50_000_000,
        call_time: Duration::from_millis(500),
        start_time: Duration::from_millis(500),
        breaker: false,
        ..Settings::default()
    };
    Host::new(settings).expect("the engine starts")
});

const FACTS: RequestFacts = RequestFacts {
    now_ms: 1_700_000_000_000,
    https: true,
    ip_host: false,
    standing: Standing::Healthy,
    rollout_bucket: 2500,
    tenant: Tenant(1),
};

fn guest(name: &str) -> Vec<u8> {
    let built = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../plugins/built"));
    let folder = std::env::var_os("LATCHKEY_GUESTS_DIR").map_or_else(built, PathBuf::from);
    let path = folder.join(name).with_extension("wasm");
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}; run plugins/build.sh", path.display()))
}

fn plugin(name: &str) -> Arc<Plugin> {
    static LOADED: LazyLock<Mutex<HashMap<String, Arc<Plugin>>>> = LazyLock::new(Mutex::default);
    let mut loaded = LOADED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let load = || HOST.load(&guest(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    loaded.entry(name.to_owned()).or_insert_with(load).clone()
}

fn bind(name: &str, config: &str) -> Arc<Binding> {
    HOST.bind(&plugin(name), config, &Tables::default()).unwrap_or_else(|error| panic!("{config}: {error}"))
}

fn hostile(behaviour: &str) -> Result<Arc<Binding>, BindError> {
    HOST.bind(&plugin("hostile"), &format!(r#"{{"behaviour": "{behaviour}"}}"#), &Tables::default())
}

/// `at: message` of every diagnostic.
fn faults(name: &str, config: &str) -> Vec<String> {
    match HOST.bind(&plugin(name), config, &Tables::default()).err() {
        Some(BindError::Diagnostics(list)) => list.into_iter().map(|d| format!("{}: {}", d.at, d.message)).collect(),
        other => panic!("{config}: {other:?}"),
    }
}

#[derive(Default)]
struct Exchange {
    host: &'static str,
    path: &'static str,
    query: Option<&'static str>,
    request: BTreeMap<&'static str, &'static str>,
    response: BTreeMap<&'static str, &'static str>,
}

impl RequestView for Exchange {
    fn host(&self) -> &str {
        self.host
    }
    fn path(&self) -> &str {
        self.path
    }
    fn query(&self) -> Option<&str> {
        self.query
    }
    fn header(&self, name: &str) -> Option<&[u8]> {
        self.request.get(name).map(|value| value.as_bytes())
    }
}

impl ResponseView for Exchange {
    fn status(&self) -> u16 {
        200
    }
    fn header(&self, name: &str) -> Option<&[u8]> {
        self.response.get(name).map(|value| value.as_bytes())
    }
}

fn get(path: &'static str) -> Exchange {
    Exchange { host: "shop.example", path, ..Exchange::default() }
}
