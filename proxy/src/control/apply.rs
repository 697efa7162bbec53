//! From a document to a snapshot: everything is checked, every fault is reported, nothing is published by halves.

mod attach; // a plugin to a site or a listener, with its shadow
mod callouts; // whom a plugin may ask
mod wide; // bindings for many of them

use std::collections::HashMap;
use std::sync::Arc;

use contract::api::Fault;
use contract::document::{Document, did_you_mean, in_order, pointer};

use self::attach::Attachment;
use self::wide::Wide;
use super::document::{Attached as AttachedDocument, RuntimeConfig};
use super::plugins::Plugins;
use super::snapshot::{Alive, BindingKey, Placed, ShadowKey, Snapshot};
use super::tables::Tables;
use crate::accept::ConnectionPolicy;
use crate::http::{Attached, Pattern, Routes, Site};
use crate::upstream::{Upstream, UpstreamError, UpstreamSettings};
use crate::wasm::{BUCKETS, Binding, Class, Host, Plugin};

/// Largest document, in bytes.
pub(super) const DOCUMENT_BYTES_MAX: usize = 64 * 1024 * 1024;

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
    let mut builder = Builder {
        document: &document,
        inputs,
        faults: Vec::new(),
        warnings: Vec::new(),
        bindings: HashMap::new(),
        shadows: HashMap::new(),
        callees: HashMap::new(),
    };
    let plugins = builder.plugins(&config);
    builder.tables(&config);
    let upstreams = builder.upstreams(&config).await;
    builder.callees.clone_from(&upstreams);
    let wide = builder.wide(&config, &plugins);
    let routes = builder.sites(&config, &plugins, &upstreams, &wide);
    let listeners = builder.listeners(&config, &plugins, &wide);
    if !builder.faults.is_empty() {
        return Err(in_order(builder.faults));
    }
    let Builder { bindings, shadows, warnings, .. } = builder;
    let document = text.into();
    Ok(Snapshot { revision, document, routes, listeners, upstreams, bindings, shadows, warnings, _alive: Alive::new() })
}

struct Builder<'a> {
    document: &'a Document,
    inputs: &'a Inputs<'a>,
    faults: Vec<Fault>,
    warnings: Vec<Fault>,
    bindings: HashMap<BindingKey, Arc<Binding>>,
    shadows: HashMap<ShadowKey, Placed>,
    /// The upstreams, for those who may be asked.
    callees: HashMap<String, Arc<Upstream>>,
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
        wide: &[Wide],
    ) -> Routes {
        let mut routes = Routes::default();
        for (index, site) in config.sites.iter().enumerate() {
            let at = pointer(&pointer("", "sites"), index);
            self.tags(&site.tags, &pointer(&at, "tags"));
            let mut attached = wide::of_site(wide, &site.tags);
            attached.extend(self.chain(&site.plugins, &pointer(&at, "plugins"), plugins, config));
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
            let Attachment { binding, fail_open, shadow } =
                self.attach(document, &pointer(at, index), plugins, config, Class::Http)?;
            let buckets = buckets(document.percent);
            Some(Attached { plugin: document.plugin.as_str().into(), binding, buckets, fail_open, shadow })
        };
        attached.iter().enumerate().filter_map(bind).collect()
    }

    fn listeners(
        &mut self,
        config: &RuntimeConfig,
        plugins: &HashMap<String, Arc<Plugin>>,
        wide: &[Wide],
    ) -> HashMap<String, Arc<ConnectionPolicy>> {
        let mut policies = wide::of_listeners(wide);
        for (name, listener) in &config.listeners.0 {
            let at = pointer(&pointer("", "listeners"), name);
            self.listener(name, at.clone());
            let at = pointer(&at, "plugins");
            for (index, document) in listener.plugins.iter().enumerate() {
                let at = pointer(&at, index);
                if policies.contains_key(name) {
                    self.fault(at.clone(), "a listener takes one connection plugin, and has one already", None);
                }
                if let Some(policy) = self.connection_policy(document, &at, plugins, config) {
                    policies.insert(name.clone(), policy);
                }
            }
        }
        policies
    }

    /// That the boot file has it.
    fn listener(&mut self, name: &str, at: String) {
        if !self.inputs.listeners.iter().any(|known| known == name) {
            let known: Vec<&str> = self.inputs.listeners.iter().map(String::as_str).collect();
            let says = format!("the boot file has no listener named `{}`", shown(name));
            self.fault(at, says, did_you_mean(name, &known));
        }
    }

    fn connection_policy(
        &mut self,
        document: &AttachedDocument,
        at: &str,
        plugins: &HashMap<String, Arc<Plugin>>,
        config: &RuntimeConfig,
    ) -> Option<Arc<ConnectionPolicy>> {
        let Attachment { binding, fail_open, shadow } =
            self.attach(document, at, plugins, config, Class::Connection)?;
        Some(Arc::new(ConnectionPolicy { plugin: document.plugin.clone(), binding, fail_open, shadow }))
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
}

/// How many of the buckets of registered domains a share of them is.
pub(super) fn buckets(percent: f64) -> u16 {
    (percent / 100.0 * f64::from(BUCKETS)).round() as u16
}

/// A word from the document, for an error.
fn shown(text: &str) -> String {
    text.chars().take(100).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;
