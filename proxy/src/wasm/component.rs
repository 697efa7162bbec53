//! From the bytes that an operator uploads to a plugin that can be bound: every refusal says what to do about it.

use std::sync::Arc;

use wasmtime::Store;
use wasmtime::component::{Component, InstancePre};

use super::callout::Callouts;
use super::compile::CompileError;
use super::engine::Inner;
use super::guest::{COMPATIBLE_VERSIONS, PACKAGE, VERSION, body, connection, control, http};
use super::instance::fault;
use super::limits::{self, State};
use super::planning::{Furnished, Planning, Tables};
use super::types::{Class, Digest, Fault};
use super::verify::shown;
use super::waiting::{WaitingPre, at_once};

pub const COMPONENT_BYTES_MAX: usize = 16 << 20;
/// Interfaces of the package that a component may import; which of them its class has, linking tells.
const IMPORTS: [&str; 6] = ["log", "datasets", "rates", "rules", "callout", "types"];
const NAME_BYTES_MAX: usize = 64;
const SCHEMA_BYTES_MAX: usize = 64 << 10;

/// The preamble of a binary component, and of a core module (component model, "Binary format").
const COMPONENT_PREAMBLE: [u8; 8] = *b"\0asm\x0d\0\x01\0";
const MODULE_PREAMBLE: [u8; 8] = *b"\0asm\x01\0\0\0";

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("component is {0} bytes, at most {COMPONENT_BYTES_MAX} are accepted")]
    TooLarge(usize),
    #[error("not a WebAssembly component: it starts with {0}; upload the .wasm file of a component")]
    NotWasm(String),
    #[error("this is a core module, not a component; wrap it first (plugins/README.md)")]
    CoreModule,
    #[error(transparent)]
    Compile(#[from] CompileError),
    #[error(
        "component speaks {PACKAGE} {found}, this proxy speaks {COMPATIBLE_VERSIONS}; build it against this proxy's wit/"
    )]
    Version { found: String },
    #[error("component does not export {PACKAGE}/{missing}; implement a world of wit/")]
    MissingExport { missing: &'static str },
    #[error("component exports both connection and http-policy; a plugin is of one class")]
    TwoClasses,
    #[error(
        "component imports {0}, which is not granted; a plugin may import log, datasets, rates, rules and callout of {PACKAGE} only"
    )]
    Import(String),
    #[error(
        "component was built against another {PACKAGE} than this proxy's, though both call it {VERSION} ({0}); build it again with the wit/ or the SDK of this proxy's release"
    )]
    Mismatch(String),
    #[error("component could not say what it is: {0}")]
    Describe(Fault),
    #[error("manifest of the component: {0}")]
    Manifest(String),
}

/// A compiled component that implements one of our worlds.
pub struct Plugin {
    digest: Digest,
    manifest: Manifest,
    interfaces: Interfaces,
    control: control::ControlPre<State>,
    pub(super) policy: PolicyPre,
    /// Where it sees bodies.
    pub(super) body: Option<body::BodyPre<State>>,
}

/// As the component names them: `package/name@version`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interfaces {
    pub imports: Vec<String>,
    pub exports: Vec<String>,
}

impl Interfaces {
    /// Whether this interface of ours is among the imports.
    fn imports(&self, name: &str) -> bool {
        self.imports.iter().map(|import| Interface::parse(import)).any(|import| import.is_ours() && import.name == name)
    }
}

/// What it takes to start an instance for traffic.
pub(super) enum PolicyPre {
    Connection(connection::ConnectionPre<State>),
    Http(http::HttpPre<State>),
    /// Of http, and it may ask other servers.
    Waiting(WaitingPre),
}

struct Manifest {
    name: Arc<str>,
    /// What stands in the log before what it says as a shadow.
    name_as_shadow: Arc<str>,
    version: String,
    config_schema: String,
    fail_open_safe: bool,
}

impl Plugin {
    pub(super) fn load(host: &Inner, bytes: &[u8]) -> Result<Self, LoadError> {
        check_preamble(bytes)?;
        let digest = Digest::of(bytes);
        let component = compiled(host, &digest, bytes)?;
        let class = class(host, &component)?;
        let pre = host.linker.instantiate_pre(&component).map_err(mismatch)?;
        let control = control::ControlPre::new(pre.clone()).map_err(mismatch)?;
        let sees_bodies = exports_body(host, &component);
        if sees_bodies && class != Class::Http {
            return Err(LoadError::MissingExport { missing: "http-policy, which http-body stands beside" });
        }
        let body = sees_bodies.then(|| body::BodyPre::new(pre.clone())).transpose().map_err(mismatch)?;
        let interfaces = interfaces(host, &component);
        let policy = match class == Class::Http && interfaces.imports("callout") {
            true => PolicyPre::waiting(host, &component).map_err(mismatch)?,
            false => PolicyPre::new(class, pre).map_err(mismatch)?,
        };
        policy.fits(host)?;
        if let Some(body) = &body {
            fits(host, |store| body.instantiate(store).map(drop))?;
        }
        let manifest = describe(host, &control)?;
        Ok(Self { digest, manifest, interfaces, control, policy, body })
    }

    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    pub fn name(&self) -> &str {
        &self.manifest.name
    }

    pub fn version(&self) -> &str {
        &self.manifest.version
    }

    pub fn class(&self) -> Class {
        match self.policy {
            PolicyPre::Connection(_) => Class::Connection,
            PolicyPre::Http(_) | PolicyPre::Waiting(_) => Class::Http,
        }
    }

    /// Whether it may ask other servers, and wait for them.
    pub fn waits(&self) -> bool {
        matches!(self.policy, PolicyPre::Waiting(_))
    }

    /// Whether `on_failure = open` may be configured.
    pub fn fail_open_safe(&self) -> bool {
        self.manifest.fail_open_safe
    }

    pub fn interfaces(&self) -> &Interfaces {
        &self.interfaces
    }

    /// JSON Schema of the configuration.
    pub fn config_schema(&self) -> &str {
        &self.manifest.config_schema
    }

    pub(super) fn shared_name(&self) -> Arc<str> {
        self.manifest.name.clone()
    }

    pub(super) fn name_as_shadow(&self) -> Arc<str> {
        self.manifest.name_as_shadow.clone()
    }

    /// Runs `plan` in an instance of its own. Datasets come along where it accepts.
    pub(super) fn plan(
        &self,
        host: &Inner,
        config: &str,
        tables: &Tables,
        callouts: &Arc<Callouts>,
    ) -> Result<(Planned, Furnished), Fault> {
        let mut store = limits::store(host, self.shared_name(), host.plan_budget(tables.bytes()));
        let guest = self.control.instantiate(&mut store).map_err(|error| Fault::Unavailable(explained(&error)))?;
        store.data_mut().planning = Some(Box::new(Planning::new(tables)));
        store.data_mut().callouts = Some(callouts.clone());
        limits::start_call(&mut store);
        let planned = guest.latchkey_edge_control().call_plan(&mut store, config.as_bytes());
        let planned = planned.map_err(|error| fault(&store, &error))?;
        let made =
            store.data_mut().planning.take().map_or_else(|| Ok(Furnished::default()), |planning| planning.made());
        Ok((planned, made.map_err(Fault::Output)?))
    }
}

pub(super) type Planned = Result<control::CompiledPlan, Vec<control::Diagnostic>>;

impl PolicyPre {
    fn new(class: Class, pre: InstancePre<State>) -> wasmtime::Result<Self> {
        Ok(match class {
            Class::Connection => Self::Connection(connection::ConnectionPre::new(pre)?),
            Class::Http => Self::Http(http::HttpPre::new(pre)?),
        })
    }

    fn waiting(host: &Inner, component: &Component) -> wasmtime::Result<Self> {
        let pre = host.waiting_linker.instantiate_pre(component)?;
        Ok(Self::Waiting(WaitingPre::new(component, pre)?))
    }

    /// Starts the component once: only then the types of its functions are compared with the world's.
    fn fits(&self, host: &Inner) -> Result<(), LoadError> {
        match self {
            Self::Connection(pre) => fits(host, |store| pre.instantiate(store).map(drop)),
            Self::Http(pre) => fits(host, |store| pre.instantiate(store).map(drop)),
            Self::Waiting(pre) => {
                fits(host, |store| at_once(pre.fits(store)).unwrap_or_else(|fault| Err(fault.into())))
            }
        }
    }
}

fn fits(host: &Inner, start: impl FnOnce(&mut Store<State>) -> wasmtime::Result<()>) -> Result<(), LoadError> {
    let mut store = limits::store(host, "unnamed".into(), host.plan_budget(0));
    start(&mut store).map_err(|error| not_started(&store, error))
}

fn check_preamble(bytes: &[u8]) -> Result<(), LoadError> {
    if bytes.len() > COMPONENT_BYTES_MAX {
        return Err(LoadError::TooLarge(bytes.len()));
    }
    match bytes.first_chunk() {
        Some(&COMPONENT_PREAMBLE) => Ok(()),
        Some(&MODULE_PREAMBLE) => Err(LoadError::CoreModule),
        _ if bytes.is_empty() => Err(LoadError::NotWasm("nothing".to_owned())),
        _ => Err(LoadError::NotWasm(format!("`{}`", bytes.get(..8).unwrap_or(bytes).escape_ascii()))),
    }
}

fn compiled(host: &Inner, digest: &Digest, bytes: &[u8]) -> Result<Component, CompileError> {
    match &host.apart {
        Some(apart) => apart.component(&host.engine, host.reservation, digest, bytes),
        None => Component::from_binary(&host.engine, bytes).map_err(|error| CompileError::Invalid(explained(&error))),
    }
}

/// Reads the class off the exports, and refuses imports that are not granted, before anything is linked.
fn class(host: &Inner, component: &Component) -> Result<Class, LoadError> {
    let types = component.component_type();
    let exports: Vec<_> = types.exports(&host.engine).map(|(name, _)| Interface::parse(name)).collect();
    let imports: Vec<_> = types.imports(&host.engine).map(|(name, _)| Interface::parse(name)).collect();
    if let Some(other) = exports.iter().chain(&imports).find(|item| item.is_ours() && !item.is_compatible()) {
        return Err(LoadError::Version { found: shown(other.version, NAME_BYTES_MAX) });
    }
    if let Some(import) = imports.iter().find(|item| !(item.is_ours() && IMPORTS.contains(&item.name))) {
        return Err(LoadError::Import(shown(import.full, 2 * NAME_BYTES_MAX)));
    }
    let exported = |name: &str| exports.iter().any(|item| item.is_ours() && item.name == name);
    match (exported("control"), exported("connection"), exported("http-policy")) {
        (false, _, _) => Err(LoadError::MissingExport { missing: "control" }),
        (true, true, false) => Ok(Class::Connection),
        (true, false, true) => Ok(Class::Http),
        (true, true, true) => Err(LoadError::TwoClasses),
        (true, false, false) => Err(LoadError::MissingExport { missing: "connection or http-policy" }),
    }
}

fn exports_body(host: &Inner, component: &Component) -> bool {
    let types = component.component_type();
    types
        .exports(&host.engine)
        .map(|(name, _)| Interface::parse(name))
        .any(|item| item.is_ours() && item.name == "http-body")
}

fn interfaces(host: &Inner, component: &Component) -> Interfaces {
    let types = component.component_type();
    Interfaces {
        imports: types.imports(&host.engine).map(|(name, _)| shown(name, 2 * NAME_BYTES_MAX)).collect(),
        exports: types.exports(&host.engine).map(|(name, _)| shown(name, 2 * NAME_BYTES_MAX)).collect(),
    }
}

/// `package/name@version`, the name of an import or export.
struct Interface<'a> {
    full: &'a str,
    package: &'a str,
    name: &'a str,
    version: &'a str,
}

impl<'a> Interface<'a> {
    fn parse(full: &'a str) -> Self {
        let (path, version) = full.split_once('@').unwrap_or((full, ""));
        let (package, name) = path.split_once('/').unwrap_or(("", path));
        Self { full, package, name, version }
    }

    fn is_ours(&self) -> bool {
        self.package == PACKAGE
    }

    fn is_compatible(&self) -> bool {
        self.version.strip_prefix(COMPATIBLE_VERSIONS).is_some_and(|patch| patch.starts_with('.'))
    }
}

fn describe(host: &Inner, control: &control::ControlPre<State>) -> Result<Manifest, LoadError> {
    let mut store = limits::store(host, "unnamed".into(), host.plan_budget(0));
    let guest = control.instantiate(&mut store).map_err(|error| not_started(&store, error))?;
    limits::start_call(&mut store);
    let described = guest.latchkey_edge_control().call_describe(&mut store);
    let manifest = described.map_err(|error| LoadError::Describe(fault(&store, &error)))?;
    check_manifest(manifest).map_err(LoadError::Manifest)
}

fn check_manifest(manifest: control::Manifest) -> Result<Manifest, String> {
    let control::Manifest { name, version, config_schema, fail_open_safe } = manifest;
    let named = |bytes: &[u8]| bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-');
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !named(name.as_bytes()) {
        let name = shown(&name, NAME_BYTES_MAX);
        return Err(format!(
            "name `{name}`: 1 to {NAME_BYTES_MAX} lower-case letters, digits and hyphens are accepted"
        ));
    }
    if version.is_empty() || version.len() > NAME_BYTES_MAX || !version.bytes().all(|b| b.is_ascii_graphic()) {
        let version = shown(&version, NAME_BYTES_MAX);
        return Err(format!("version `{version}`: 1 to {NAME_BYTES_MAX} printable ASCII characters are accepted"));
    }
    if config_schema.len() > SCHEMA_BYTES_MAX {
        return Err(format!("config-schema is {} bytes, at most {SCHEMA_BYTES_MAX} are accepted", config_schema.len()));
    }
    match serde_json::from_str(&config_schema) {
        Ok(serde_json::Value::Object(_)) => {
            let name_as_shadow = format!("{name} (shadow)").into();
            Ok(Manifest { name: name.into(), name_as_shadow, version, config_schema, fail_open_safe })
        }
        Ok(_) => Err("config-schema is not a JSON object".to_owned()),
        Err(error) => Err(format!("config-schema is not JSON: {error}")),
    }
}

/// What is neither a trap nor a limit is a type that is not the world's.
fn not_started(store: &Store<State>, error: wasmtime::Error) -> LoadError {
    match fault(store, &error) {
        Fault::Output(_) => mismatch(error),
        other => LoadError::Describe(other),
    }
}

fn mismatch(error: wasmtime::Error) -> LoadError {
    LoadError::Mismatch(explained(&error))
}

/// wasmtime's words, which may quote the component.
pub(super) fn explained(error: &wasmtime::Error) -> String {
    shown(&format!("{error:#}"), 512)
}
