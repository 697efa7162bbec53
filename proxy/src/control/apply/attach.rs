//! Attaches a plugin: checks what the binding names, has the plugin plan where nothing is kept of before, and puts a shadow
//! beside it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use contract::document::{did_you_mean, pointer};

use super::super::document::{
    Attached as AttachedDocument, Isolation, OnFailure, RuntimeConfig, Shadow as ShadowDocument,
};
use super::super::snapshot::{BindingKey, Placed, ShadowKey};
use super::{Builder, callouts, shown};
use crate::wasm::{self, BindError, Binding, Class, Diagnostic, Plugin, Role, Severity, Shadow, Terms};

/// Most remarks of plugins that are told.
const WARNINGS_MAX: usize = 100;
/// Most shadows of a configuration: each keeps examples and groups of failures.
const SHADOWS_MAX: usize = 16;
const EXAMPLES_MAX: usize = 10;

pub(super) struct Attachment {
    pub(super) binding: Arc<Binding>,
    pub(super) fail_open: bool,
    pub(super) shadow: Option<Arc<Shadow>>,
}

impl Builder<'_> {
    pub(super) fn attach(
        &mut self,
        document: &AttachedDocument,
        at: &str,
        plugins: &HashMap<String, Arc<Plugin>>,
        config: &RuntimeConfig,
        class: Class,
    ) -> Option<Attachment> {
        let plugin = self.named(&document.plugin, &pointer(at, "plugin"), plugins, config, class)?;
        let fail_open = match document.on_failure {
            Some(OnFailure::Open) if !plugin.fail_open_safe() => {
                let says = format!("`{}` is not safe to be skipped; it can only fail `closed`", document.plugin);
                self.fault(pointer(at, "on_failure"), says, None);
                return None;
            }
            Some(on_failure) => on_failure == OnFailure::Open,
            None => class == Class::Http && plugin.fail_open_safe(),
        };
        self.of_connection(document, at, class)?;
        let tables = self.granted(&document.tables, &pointer(at, "tables"), config)?;
        let terms = Terms::isolated(match document.isolation {
            Isolation::Shared => wasm::Isolation::Shared,
            Isolation::Tenant => wasm::Isolation::Tenant,
            Isolation::Request => wasm::Isolation::Request,
        });
        let callouts = self.callouts(document, &plugin, at, config)?;
        let config_text = document.config.0.to_string();
        let key = BindingKey { plugin: *plugin.digest(), config: config_text, tables, callouts, terms };
        let binding = self.bind(&plugin, key.clone(), &pointer(at, "config"))?;
        let shadow = match &document.shadow {
            Some(shadow) => {
                let at = pointer(at, "shadow");
                let (key, other, name) = self.key_of_shadow(document, shadow, &key, &at, plugins, config, class)?;
                if self.shadow_hears_nobody(&plugin, &other, &at) {
                    return None;
                }
                Some(self.shadow(key, &other, &name, shadow.percent, &at)?)
            }
            None => None,
        };
        Some(Attachment { binding, fail_open, shadow })
    }

    /// Before TLS no host is known, so no domain.
    fn of_connection(&mut self, document: &AttachedDocument, at: &str, class: Class) -> Option<()> {
        let wrong = match class {
            Class::Connection if document.percent < 100.0 => "percent",
            Class::Connection if document.isolation == Isolation::Tenant => "isolation",
            _ => return Some(()),
        };
        let says = "this goes by the registered domain, and a connection plugin is asked before there is one";
        self.fault(pointer(at, wrong), says, None);
        None
    }

    fn named(
        &mut self,
        name: &str,
        at: &str,
        plugins: &HashMap<String, Arc<Plugin>>,
        config: &RuntimeConfig,
        class: Class,
    ) -> Option<Arc<Plugin>> {
        let Some(plugin) = plugins.get(name) else {
            if !config.plugins.0.contains_key(name) {
                let known: Vec<&str> = config.plugins.0.keys().map(String::as_str).collect();
                self.fault(at.to_owned(), format!("no plugin is named `{}`", shown(name)), did_you_mean(name, &known));
            }
            return None;
        };
        if plugin.class() != class {
            let says = format!("`{name}` is a {} plugin; a {class} plugin is needed here", plugin.class());
            self.fault(at.to_owned(), says, None);
            return None;
        }
        Some(plugin.clone())
    }

    /// What the shadow leaves open is as in the binding.
    #[allow(clippy::too_many_arguments)]
    fn key_of_shadow(
        &mut self,
        live: &AttachedDocument,
        document: &ShadowDocument,
        live_key: &BindingKey,
        at: &str,
        plugins: &HashMap<String, Arc<Plugin>>,
        config: &RuntimeConfig,
        class: Class,
    ) -> Option<(ShadowKey, Arc<Plugin>, String)> {
        let name = document.plugin.as_ref().unwrap_or(&live.plugin);
        let plugin = self.named(name, &pointer(at, "plugin"), plugins, config, class)?;
        let names = document.tables.as_ref().unwrap_or(&live.tables);
        let tables = self.granted(names, &pointer(at, "tables"), config)?;
        let settings = document.config.as_ref().unwrap_or(&live.config).0.to_string();
        let terms = Terms { role: Role::Shadow, ..live_key.terms };
        let callouts = live_key.callouts.clone();
        let shadow = BindingKey { plugin: *plugin.digest(), config: settings, tables, callouts, terms };
        if shadow == (BindingKey { terms, ..live_key.clone() }) {
            let hint = "name another `plugin`, or give another `config` or other `tables`".to_owned();
            self.fault(at.to_owned(), "the shadow is what the binding is already", Some(hint));
            return None;
        }
        let names = [live.plugin.clone(), name.clone()];
        let key = ShadowKey { names, live: live_key.clone(), shadow, share: document.percent.to_bits() };
        Some((key, plugin, name.clone()))
    }

    fn shadow(
        &mut self,
        key: ShadowKey,
        plugin: &Arc<Plugin>,
        name: &str,
        percent: f64,
        at: &str,
    ) -> Option<Arc<Shadow>> {
        let binding = self.bind(plugin, key.shadow.clone(), &pointer(at, "config"))?;
        if self.shadows.len() >= SHADOWS_MAX && !self.shadows.contains_key(&key) {
            let says = format!("there are more than {SHADOWS_MAX} different shadows; promote or drop some first");
            self.fault(at.to_owned(), says, None);
            return None;
        }
        let previous = self.inputs.previous.shadows.get(&key).map(|placed| placed.shadow.clone());
        let placed = self.shadows.entry(key).or_insert_with(|| {
            let now = std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
            let shadow = previous.unwrap_or_else(|| Arc::new(Shadow::new(name, binding, percent, now)));
            Placed { shadow, percent, places: 0, examples: Vec::new() }
        });
        placed.places += 1;
        if placed.examples.len() < EXAMPLES_MAX {
            placed.examples.push(at.trim_end_matches("/shadow").to_owned());
        }
        Some(placed.shadow.clone())
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

    /// The binding of before, or one that stands on the plan of another.
    fn kept(&self, key: &BindingKey) -> Option<Arc<Binding>> {
        let find =
            |key: &BindingKey| self.bindings.get(key).or_else(|| self.inputs.previous.bindings.get(key)).cloned();
        if let Some(same) = find(key) {
            return Some(same);
        }
        let other = Terms::all().find_map(|terms| find(&BindingKey { terms, ..key.clone() }))?;
        Some(Arc::new(other.on_terms(key.terms)))
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
        let bound = match self.kept(&key) {
            Some(binding) => Ok(binding),
            None => {
                let file = |(name, digest): (&String, &String)| Some((name.clone(), self.inputs.tables.find(digest)?));
                let tables = wasm::Tables(key.tables.iter().filter_map(file).collect());
                let callouts = callouts::resolved(&key.callouts, &self.callees);
                self.inputs.host.bind_on(plugin, &key.config, &tables, callouts, key.terms)
            }
        };
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
