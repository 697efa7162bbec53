//! Bindings for many sites, chosen by tags, or for several listeners.

use std::collections::HashMap;
use std::sync::Arc;

use contract::document::{did_you_mean, pointer};

use super::super::document::{Bindings, RuntimeConfig};
use super::{Builder, shown};
use crate::accept::ConnectionPolicy;
use crate::http::Attached;
use crate::wasm::Plugin;

const TAGS_MAX: usize = 32;
const TAG_BYTES_MAX: usize = 64;

/// Built once for all.
pub(super) enum Wide {
    /// Those that have any of these tags, or all.
    Sites(Vec<String>, Vec<Attached>),
    Listener(String, Arc<ConnectionPolicy>),
}

/// In the order in which they stand.
pub(super) fn of_site(wide: &[Wide], tags: &[String]) -> Vec<Attached> {
    let chains = wide.iter().filter_map(|wide| match wide {
        Wide::Sites(of, chain) => covers(of, tags).then_some(chain),
        Wide::Listener(..) => None,
    });
    chains.flatten().cloned().collect()
}

pub(super) fn of_listeners(wide: &[Wide]) -> HashMap<String, Arc<ConnectionPolicy>> {
    let policies = wide.iter().filter_map(|wide| match wide {
        Wide::Listener(name, policy) => Some((name.clone(), policy.clone())),
        Wide::Sites(..) => None,
    });
    policies.collect()
}

/// Without a tag it is for all.
fn covers(of: &[String], tags: &[String]) -> bool {
    of.is_empty() || of.iter().any(|tag| tags.contains(tag))
}

impl Builder<'_> {
    pub(super) fn wide(&mut self, config: &RuntimeConfig, plugins: &HashMap<String, Arc<Plugin>>) -> Vec<Wide> {
        let mut wide = Vec::new();
        for (index, bindings) in config.bindings.iter().enumerate() {
            let at = pointer(&pointer("", "bindings"), index);
            let chain = pointer(&at, "plugins");
            if !bindings.listeners.is_empty() && !bindings.tags.is_empty() {
                let hint = Some("write two entries of `bindings`".to_owned());
                self.fault(at, "bindings are for sites (`tags`) or for `listeners`, not for both", hint);
            } else if bindings.listeners.is_empty() {
                self.tags(&bindings.tags, &pointer(&at, "tags"));
                self.unused(bindings, &pointer(&at, "tags"), config);
                let chain = self.chain(&bindings.plugins, &chain, plugins, config);
                wide.push(Wide::Sites(bindings.tags.clone(), chain));
            } else {
                self.wide_listeners(bindings, &at, config, plugins, &mut wide);
            }
        }
        wide
    }

    fn wide_listeners(
        &mut self,
        bindings: &Bindings,
        at: &str,
        config: &RuntimeConfig,
        plugins: &HashMap<String, Arc<Plugin>>,
        wide: &mut Vec<Wide>,
    ) {
        let [document] = &bindings.plugins[..] else {
            return self.fault(pointer(at, "plugins"), "a listener takes one connection plugin", None);
        };
        let policy = self.connection_policy(document, &pointer(&pointer(at, "plugins"), 0), plugins, config);
        for (index, name) in bindings.listeners.iter().enumerate() {
            let at = pointer(&pointer(at, "listeners"), index);
            self.listener(name, at.clone());
            if of_listeners(wide).contains_key(name) {
                self.fault(at, "a listener takes one connection plugin, and has one already", None);
            }
            wide.extend(policy.clone().map(|policy| Wide::Listener(name.clone(), policy)));
        }
    }

    pub(super) fn tags(&mut self, tags: &[String], at: &str) {
        if tags.len() > TAGS_MAX {
            self.fault(at.to_owned(), format!("{} tags, at most {TAGS_MAX} are accepted", tags.len()), None);
        }
        let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
        for (index, tag) in tags.iter().enumerate() {
            if tag.is_empty() || tag.len() > TAG_BYTES_MAX || !tag.bytes().all(legal) {
                let says = format!(
                    "`{}` is not a tag: 1 to {TAG_BYTES_MAX} lower-case letters, digits, `-`, `_` and `.` are accepted",
                    shown(tag)
                );
                self.fault(pointer(at, index), says, None);
            }
        }
    }

    /// A tag that nobody has is most likely misspelt.
    fn unused(&mut self, bindings: &Bindings, at: &str, config: &RuntimeConfig) {
        for (index, tag) in bindings.tags.iter().enumerate() {
            if !config.sites.iter().any(|site| site.tags.contains(tag)) {
                let mut known: Vec<&str> =
                    config.sites.iter().flat_map(|site| &site.tags).map(String::as_str).collect();
                known.sort_unstable();
                known.dedup();
                known.truncate(20);
                let says = format!("no site has the tag `{}`", shown(tag));
                let warning = self.document.fault(pointer(at, index), says, did_you_mean(tag, &known));
                self.warnings.push(warning);
            }
        }
    }
}
