//! Whom a binding's plugin may ask while a request waits: upstreams of the same configuration, by their names.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use contract::document::{did_you_mean, pointer};

use super::super::document::{Attached as AttachedDocument, RuntimeConfig};
use super::super::snapshot::Granted;
use super::{Builder, shown};
use crate::upstream::Upstream;
use crate::wasm::{Callee, Callouts, Plugin};

const CALLOUTS_MAX: usize = 16;
const TIMEOUT_MS: u32 = 500;

impl Builder<'_> {
    pub(super) fn callouts(
        &mut self,
        document: &AttachedDocument,
        plugin: &Plugin,
        at: &str,
        config: &RuntimeConfig,
    ) -> Option<Granted> {
        let (names, name) = (&document.callouts, &document.plugin);
        if !plugin.waits() {
            return self.asks_nobody(document, at).then(Granted::default);
        }
        if names.is_empty() {
            let hint = "grant it upstreams by their names: `callouts`".to_owned();
            let says = format!("`{name}` asks other servers, and none is granted to it: each callout will fail");
            self.warnings.push(self.document.fault(at, says, Some(hint)));
        }
        let at = pointer(at, "callouts");
        if names.len() > CALLOUTS_MAX {
            self.fault(at, format!("{} upstreams, at most {CALLOUTS_MAX} are granted", names.len()), None);
            return None;
        }
        let mut granted =
            Granted { timeout_ms: document.callout_timeout_ms.unwrap_or(TIMEOUT_MS), ..Granted::default() };
        let mut all_known = true;
        for (index, name) in names.iter().enumerate() {
            match self.callees.get(name) {
                Some(upstream) => drop(granted.to.insert(name.clone(), upstream.serial)),
                // What is wrong with it is told where it stands.
                None if config.upstreams.0.contains_key(name) => return None,
                None => {
                    let known: Vec<&str> = config.upstreams.0.keys().map(String::as_str).collect();
                    let hint = did_you_mean(name, &known);
                    self.fault(pointer(&at, index), format!("no upstream is named `{}`", shown(name)), hint);
                    all_known = false;
                }
            }
        }
        all_known.then_some(granted)
    }

    /// A setting without an effect is a mistake.
    fn asks_nobody(&mut self, document: &AttachedDocument, at: &str) -> bool {
        let given = [
            ("callouts", !document.callouts.is_empty()),
            ("callout_timeout_ms", document.callout_timeout_ms.is_some()),
        ];
        let given: Vec<_> = given.into_iter().filter(|(_, given)| *given).collect();
        for (setting, _) in &given {
            let says = format!("`{}` asks no other servers: it does not import `callout`", document.plugin);
            self.fault(pointer(at, setting), says, Some("leave the setting out".to_owned()));
        }
        given.is_empty()
    }

    /// It is told what the live one heard, so there must be one that hears something.
    pub(super) fn shadow_hears_nobody(&mut self, live: &Plugin, shadow: &Plugin, at: &str) -> bool {
        let alone = shadow.waits() && !live.waits();
        if alone {
            let says =
                "a shadow that asks other servers is told what its binding's plugin heard, and that one asks nobody";
            self.fault(at.to_owned(), says, Some("try it on one site, or with a small `percent`".to_owned()));
        }
        alone
    }
}

/// The upstreams that are meant.
pub(super) fn resolved(granted: &Granted, callees: &HashMap<String, Arc<Upstream>>) -> Callouts {
    let found = granted.to.keys().filter_map(|name| {
        let callee: Arc<dyn Callee> = callees.get(name)?.clone();
        Some((name.clone(), callee))
    });
    Callouts { to: found.collect(), timeout: Duration::from_millis(granted.timeout_ms.into()) }
}
