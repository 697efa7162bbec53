//! What requests read: one immutable value, swapped whole.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use contract::api::Fault;

use crate::accept::ConnectionPolicy;
use crate::http::Routes;
use crate::observe::METRICS;
use crate::upstream::Upstream;
use crate::wasm::{Binding, Digest, Shadow, Terms};

pub struct Snapshot {
    /// Grows with each applied configuration; 0 is the empty one of a new edge.
    pub revision: u64,
    /// The configuration as it was given.
    pub document: Arc<str>,
    pub routes: Routes,
    pub listeners: HashMap<String, Arc<ConnectionPolicy>>,
    pub upstreams: HashMap<String, Arc<Upstream>>,
    /// So that the next snapshot keeps what did not change.
    pub(super) bindings: HashMap<BindingKey, Arc<Binding>>,
    pub(super) shadows: HashMap<ShadowKey, Placed>,
    /// What plugins remark about settings that they accept.
    pub(super) warnings: Vec<Fault>,
    pub(super) _alive: Alive,
}

/// All that a binding is made of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct BindingKey {
    pub(super) plugin: Digest,
    pub(super) config: String,
    /// Name → digest.
    pub(super) tables: BTreeMap<String, String>,
    pub(super) callouts: Granted,
    pub(super) terms: Terms,
}

/// Whom a binding may ask. By the serial of each upstream: one that has changed is another, and what was remembered of its
/// answers goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Granted {
    pub(super) to: BTreeMap<String, u64>,
    pub(super) timeout_ms: u32,
}

/// A shadow that is the same goes on counting in the next snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct ShadowKey {
    /// As the configuration calls the live one's plugin, and the shadow's.
    pub(super) names: [String; 2],
    pub(super) live: BindingKey,
    pub(super) shadow: BindingKey,
    /// The bits of `percent`.
    pub(super) share: u64,
}

/// A shadow, and where it stands.
#[derive(Clone)]
pub(super) struct Placed {
    pub(super) shadow: Arc<Shadow>,
    pub(super) percent: f64,
    pub(super) places: u64,
    /// The first of them.
    pub(super) examples: Vec<String>,
}

impl Placed {
    pub(super) fn report(&self) -> contract::admin::Shadow {
        let (percent, places, examples) = (self.percent, self.places, self.examples.clone());
        contract::admin::Shadow { percent, places, examples, report: self.shadow.report() }
    }
}

/// Counts the snapshots in memory: the running one and those that requests under way began with.
pub(super) struct Alive(());

impl Alive {
    pub(super) fn new() -> Self {
        METRICS.config_snapshots.inc();
        Self(())
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        METRICS.config_snapshots.dec();
    }
}

impl Snapshot {
    pub fn empty() -> Self {
        Self {
            revision: 0,
            document: "{}".into(),
            routes: Routes::default(),
            listeners: HashMap::new(),
            upstreams: HashMap::new(),
            bindings: HashMap::new(),
            shadows: HashMap::new(),
            warnings: Vec::new(),
            _alive: Alive::new(),
        }
    }
}

impl Snapshot {
    /// Of all bindings; those that stand on one plan share theirs.
    pub fn dataset_bytes(&self) -> usize {
        let mut counted = std::collections::HashSet::new();
        let bindings = self.bindings.iter().filter(|(key, _)| counted.insert((key.plugin, &key.config, &key.tables)));
        bindings.map(|(_, binding)| binding.dataset_bytes()).sum()
    }
}

/// The snapshot in force.
pub struct Current(ArcSwap<Snapshot>);

impl Current {
    pub fn new(snapshot: Snapshot) -> Arc<Self> {
        Arc::new(Self(ArcSwap::from_pointee(snapshot)))
    }

    /// For a short look.
    pub fn load(&self) -> Guard<Arc<Snapshot>> {
        self.0.load()
    }

    /// To be kept for a whole request.
    pub fn get(&self) -> Arc<Snapshot> {
        self.0.load_full()
    }

    pub(super) fn publish(&self, snapshot: Snapshot) {
        METRICS.config_revision.set(i64::try_from(snapshot.revision).unwrap_or(i64::MAX));
        self.0.store(Arc::new(snapshot));
    }
}
