//! From a document to a snapshot: everything is checked, every fault is reported, nothing is published by halves.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use contract::api::Fault;
use contract::document::{Document, did_you_mean, in_order, pointer};

use super::document::{Attached as AttachedDocument, OnFailure, RuntimeConfig};
use super::plugins::Plugins;
use super::snapshot::{Alive, BindingKey, Snapshot};
use super::tables::Tables;
use crate::accept::ConnectionPolicy;
use crate::http::{Attached, Pattern, Routes, Site};
use crate::upstream::{Upstream, UpstreamError, UpstreamSettings};
use crate::wasm::{self, BindError, Binding, Class, Diagnostic, Host, Plugin, Severity};

/// Largest document, in bytes.
pub(super) const DOCUMENT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Most remarks of plugins that are told.
const WARNINGS_MAX: usize = 100;

/// What a snapshot is built from.
pub(super) struct Inputs<'a> {
    pub host: &'a Host,
    pub plugins: &'a Plugins,
    pub tables: &'a Tables,
    pub listeners: &'a [String],
    /// Unchanged upstreams and bindings are kept from it.
    pub previous: &'a Snapshot,
    /// An upstream that does not resolve is a fault when a person applies, not when a restart restores.
    pub must_resolve: bool,
}

pub(super) async fn build(text: &str, revision: u64, inputs: &Inputs<'_>) -> Result<Snapshot, Vec<Fault>> {
    let document = Document::json(text)?;
    let config: RuntimeConfig = document.read()?;
    let mut builder =
        Builder { document: &document, inputs, faults: Vec::new(), warnings: Vec::new(), bindings: HashMap::new() };
    let plugins = builder.plugins(&config);
    builder.tables(&config);
    let upstreams = builder.upstreams(&config).await;
    let routes = builder.sites(&config, &plugins, &upstreams);
    let listeners = builder.listeners(&config, &plugins);
    if !builder.faults.is_empty() {
        return Err(in_order(builder.faults));
    }
    let (bindings, warnings) = (builder.bindings, builder.warnings);
    let document = text.into();
    Ok(Snapshot { revision, document, routes, listeners, upstreams, bindings, warnings, _alive: Alive::new() })
}

struct Builder<'a> {
    document: &'a Document,
    inputs: &'a Inputs<'a>,
    faults: Vec<Fault>,
    warnings: Vec<Fault>,
    bindings: HashMap<BindingKey, Arc<Binding>>,
}

impl Builder<'_> {
    fn fault(&mut self, at: String, says: impl Into<String>, hint: Option<String>) {
        self.faults.push(self.document.fault(at, says, hint));
    }

    fn plugins(&mut self, config: &RuntimeConfig) -> HashMap<String, Arc<Plugin>> {
        let mut found = HashMap::new();
        for (name, plugin) in &config.plugins.0 {
            match self.inputs.plugins.find(&plugin.digest) {
                Some(component) => drop(found.insert(name.clone(), component)),
                None => {
                    let at = pointer(&pointer(&pointer("", "plugins"), name), "digest");
                    let hint = "upload it first: PUT /v1/plugins/sha256:<hex>, or `latchkey plugin push`".to_owned();
                    self.fault(
                        at,
                        format!("no plugin with the digest `{}` was uploaded", shown(&plugin.digest)),
                        Some(hint),
                    );
                }
            }
        }
        found
    }

    async fn upstreams(&mut self, config: &RuntimeConfig) -> HashMap<String, Arc<Upstream>> {
        let mut built = HashMap::new();
        for (name, settings) in &config.upstreams.0 {
            match self.upstream(name, settings).await {
                Ok(upstream) => drop(built.insert(name.clone(), upstream)),
                Err(errors) => {
                    let at = pointer(&pointer("", "upstreams"), name);
                    for error in errors {
                        self.fault(format!("{at}{}", error.at), error.says, error.hint.map(str::to_owned));
                    }
                }
            }
        }
        built
    }

    /// The one in force where nothing changed: it knows which of its peers are well.
    async fn upstream(&self, name: &str, settings: &UpstreamSettings) -> Result<Arc<Upstream>, Vec<UpstreamError>> {
        let upstream = Upstream::new(name, settings.clone())?;
        if let Some(kept) = self.inputs.previous.upstreams.get(name).filter(|kept| kept.is_as(&upstream)) {
            return Ok(kept.clone());
        }
        match upstream.resolve().await {
            Err(errors) if self.inputs.must_resolve => return Err(errors),
            Err(errors) => {
                for error in errors {
                    tracing::warn!(upstream = name, "{error}; it will be tried again");
                }
            }
            Ok(()) => {}
        }
        Ok(Arc::new(upstream))
    }

    fn sites(
        &mut self,
        config: &RuntimeConfig,
        plugins: &HashMap<String, Arc<Plugin>>,
        upstreams: &HashMap<String, Arc<Upstream>>,
    ) -> Routes {
        let mut routes = Routes::default();
        for (index, site) in config.sites.iter().enumerate() {
            let at = pointer(&pointer("", "sites"), index);
            let attached = self.chain(&site.plugins, &pointer(&at, "plugins"), plugins, config);
            let upstream = upstreams.get(&site.upstream).cloned();
            if upstream.is_none() && !config.upstreams.0.contains_key(&site.upstream) {
                let known: Vec<&str> = config.upstreams.0.keys().map(String::as_str).collect();
                let hint = did_you_mean(&site.upstream, &known);
                self.fault(pointer(&at, "upstream"), format!("no upstream is named `{}`", shown(&site.upstream)), hint);
            }
            let built = upstream.map(|upstream| Arc::new(Site { upstream, plugins: attached }));
            self.hosts(&site.hosts, &pointer(&at, "hosts"), built, &mut routes);
        }
        routes
    }

    fn hosts(&mut self, hosts: &[String], at: &str, site: Option<Arc<Site>>, routes: &mut Routes) {
        if hosts.is_empty() {
            self.fault(at.to_owned(), "a site needs at least one host", Some("`*` stands for all others".into()));
        }
        for (index, host) in hosts.iter().enumerate() {
            let added =
                Pattern::parse(host).map(|pattern| site.as_ref().is_none_or(|site| routes.add(pattern, site.clone())));
            match added {
                Ok(true) => {}
                Ok(false) => {
                    let says = format!("the host `{}` belongs to another site already", shown(host));
                    self.fault(pointer(at, index), says, None);
                }
                Err(why) => self.fault(pointer(at, index), why, None),
            }
        }
    }

    fn chain(
        &mut self,
        attached: &[AttachedDocument],
        at: &str,
        plugins: &HashMap<String, Arc<Plugin>>,
        config: &RuntimeConfig,
    ) -> Vec<Attached> {
        let bind = |(index, document): (usize, &AttachedDocument)| {
            let (binding, fail_open) = self.attach(document, &pointer(at, index), plugins, config, Class::Http)?;
            Some(Attached { plugin: document.plugin.clone(), binding, fail_open })
        };
        attached.iter().enumerate().filter_map(bind).collect()
    }

    fn listeners(
        &mut self,
        config: &RuntimeConfig,
        plugins: &HashMap<String, Arc<Plugin>>,
    ) -> HashMap<String, Arc<ConnectionPolicy>> {
        let mut policies = HashMap::new();
        for (name, listener) in &config.listeners.0 {
            let at = pointer(&pointer("", "listeners"), name);
            if !self.inputs.listeners.contains(name) {
                let known: Vec<&str> = self.inputs.listeners.iter().map(String::as_str).collect();
                self.fault(
                    at.clone(),
                    format!("the boot file has no listener named `{}`", shown(name)),
                    did_you_mean(name, &known),
                );
            }
            let at = pointer(&at, "plugins");
            if listener.plugins.len() > 1 {
                self.fault(at.clone(), "a listener takes one connection plugin", None);
            }
            for (index, document) in listener.plugins.iter().enumerate() {
                if let Some((binding, fail_open)) =
                    self.attach(document, &pointer(&at, index), plugins, config, Class::Connection)
                {
                    let policy = ConnectionPolicy { plugin: document.plugin.clone(), binding, fail_open };
                    policies.insert(name.clone(), Arc::new(policy));
                }
            }
        }
        policies
    }

    fn attach(
        &mut self,
        document: &AttachedDocument,
        at: &str,
        plugins: &HashMap<String, Arc<Plugin>>,
        config: &RuntimeConfig,
        class: Class,
    ) -> Option<(Arc<Binding>, bool)> {
        let Some(plugin) = plugins.get(&document.plugin) else {
            if !config.plugins.0.contains_key(&document.plugin) {
                let known: Vec<&str> = config.plugins.0.keys().map(String::as_str).collect();
                let says = format!("no plugin is named `{}`", shown(&document.plugin));
                self.fault(pointer(at, "plugin"), says, did_you_mean(&document.plugin, &known));
            }
            return None;
        };
        if plugin.class() != class {
            let says = format!("`{}` is a {} plugin; a {class} plugin is needed here", document.plugin, plugin.class());
            self.fault(pointer(at, "plugin"), says, None);
            return None;
        }
        let fail_open = match document.on_failure {
            Some(OnFailure::Open) if !plugin.fail_open_safe() => {
                let says = format!("`{}` is not safe to be skipped; it can only fail `closed`", document.plugin);
                self.fault(pointer(at, "on_failure"), says, None);
                return None;
            }
            Some(on_failure) => on_failure == OnFailure::Open,
            None => class == Class::Http && plugin.fail_open_safe(),
        };
        let tables = self.granted(&document.tables, &pointer(at, "tables"), config)?;
        let key = BindingKey { plugin: *plugin.digest(), config: document.config.0.to_string(), tables };
        self.bind(plugin, key, &pointer(at, "config")).map(|binding| (binding, fail_open))
    }

    /// Digests of the tables that a binding names.
    fn granted(&mut self, names: &[String], at: &str, config: &RuntimeConfig) -> Option<BTreeMap<String, String>> {
        let mut granted = BTreeMap::new();
        for (index, name) in names.iter().enumerate() {
            match config.tables.0.get(name) {
                Some(table) => drop(granted.insert(name.clone(), table.digest.to_ascii_lowercase())),
                None => {
                    let known: Vec<&str> = config.tables.0.keys().map(String::as_str).collect();
                    let hint = did_you_mean(name, &known);
                    self.fault(pointer(at, index), format!("no table is named `{}`", shown(name)), hint);
                }
            }
        }
        let uploaded = granted.values().all(|digest| self.inputs.tables.find(digest).is_some());
        // Those that were not are told where they are named.
        (granted.len() == names.len() && uploaded).then_some(granted)
    }

    fn tables(&mut self, config: &RuntimeConfig) {
        for (name, table) in &config.tables.0 {
            if self.inputs.tables.find(&table.digest).is_none() {
                let at = pointer(&pointer(&pointer("", "tables"), name), "digest");
                let hint = "upload it first: PUT /v1/tables/sha256:<hex>, or `latchkey table push`".to_owned();
                let says = format!("no table with the digest `{}` was uploaded", shown(&table.digest));
                self.fault(at, says, Some(hint));
            }
        }
    }

    /// One remark for each place that it is about.
    fn warn(&mut self, binding: &Binding, at: &str) {
        for Diagnostic { at: within, message, hint, .. } in binding.warnings() {
            match self.warnings.len() {
                ..WARNINGS_MAX => {
                    let warning = self.document.fault(format!("{at}{within}"), message, hint.clone());
                    self.warnings.push(warning);
                }
                WARNINGS_MAX => {
                    let says = format!("there are more remarks of plugins; {WARNINGS_MAX} are shown");
                    self.warnings.push(self.document.fault("", says, None));
                }
                _ => return,
            }
        }
    }

    fn bind(&mut self, plugin: &Arc<Plugin>, key: BindingKey, at: &str) -> Option<Arc<Binding>> {
        let known = self.bindings.get(&key).or_else(|| self.inputs.previous.bindings.get(&key)).cloned();
        let file = |(name, digest): (&String, &String)| Some((name.clone(), self.inputs.tables.find(digest)?));
        let tables = wasm::Tables(key.tables.iter().filter_map(file).collect());
        // It may take seconds where there are tables: the other things that this thread does go elsewhere meanwhile.
        let bind = || tokio::task::block_in_place(|| self.inputs.host.bind(plugin, &key.config, &tables));
        let bound = known.map_or_else(bind, Ok);
        match bound {
            Ok(binding) => {
                self.warn(&binding, at);
                self.bindings.insert(key, binding.clone());
                Some(binding)
            }
            Err(BindError::Diagnostics(diagnostics)) => {
                for diagnostic in diagnostics.into_iter().filter(|d| d.severity == Severity::Error) {
                    self.fault(format!("{at}{}", diagnostic.at), diagnostic.message, diagnostic.hint);
                }
                None
            }
            Err(error) => {
                self.fault(
                    at.to_owned(),
                    format!("the plugin `{}` failed to read its configuration: {error}", plugin.name()),
                    None,
                );
                None
            }
        }
    }
}

/// A word from the document, for an error.
fn shown(text: &str) -> String {
    text.chars().take(100).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;
