//! Idle instances, kept per thread for the next call: no lock, no sharing, and a bound.

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use hashbrown::HashMap;

use super::instance::Instance;
use super::types::{Fault, Tenant, Usage};

thread_local! {
    static SHELF: RefCell<Shelf> = RefCell::default();
    /// Of the last call, and at which place it was.
    static LAST: Cell<(u64, Option<Usage>)> = const { Cell::new((0, None)) };
}

/// Counts bindings that are gone. A thread whose count is behind clears its shelf of them.
static RETIRED: AtomicU64 = AtomicU64::new(0);
static NEXT_KEY: AtomicU64 = AtomicU64::new(1);

/// A binding's place on every thread's shelf. What is kept there goes when the place is dropped.
pub(super) struct Place {
    key: u64,
    alive: Arc<Alive>,
}

struct Alive;

impl Drop for Alive {
    fn drop(&mut self) {
        RETIRED.fetch_add(1, Ordering::Release);
    }
}

#[derive(Default)]
struct Shelf {
    kept: HashMap<(u64, Tenant), Kept>,
    retired_seen: u64,
    clock: u64,
}

struct Kept {
    instance: Instance,
    binding: Weak<Alive>,
    put_at: u64,
}

impl Place {
    pub(super) fn new() -> Self {
        Self { key: NEXT_KEY.fetch_add(1, Ordering::Relaxed), alive: Arc::new(Alive) }
    }

    /// Never that of another binding.
    pub(super) fn key(&self) -> u64 {
        self.key
    }

    /// Runs `call` on an instance that this thread kept for this tenant, or else on one that `start` makes. The instance is
    /// kept again only if all went well: after a fault its memory is in an unknown state.
    pub(super) fn with<T>(
        &self,
        tenant: Tenant,
        kept_max: usize,
        start: impl FnOnce() -> Result<Instance, Fault>,
        call: impl FnOnce(&mut Instance) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let mut instance = self.take(tenant, kept_max, start)?;
        let result = self.noted(&mut instance, call)?;
        self.keep(tenant, instance, kept_max);
        Ok(result)
    }

    /// The instance that this thread kept for this tenant, or else one that `start` makes. Nobody else has it.
    pub(super) fn take(
        &self,
        tenant: Tenant,
        kept_max: usize,
        start: impl FnOnce() -> Result<Instance, Fault>,
    ) -> Result<Instance, Fault> {
        SHELF.with_borrow_mut(|shelf| shelf.take((self.key, tenant), kept_max)).map_or_else(start, Ok)
    }

    /// For the next call. All must have gone well.
    pub(super) fn keep(&self, tenant: Tenant, instance: Instance, kept_max: usize) {
        if instance.may_be_kept() {
            SHELF.with_borrow_mut(|shelf| shelf.put(self, tenant, instance, kept_max));
        }
    }

    /// Runs `call` on an instance of its own, which nobody uses before or after.
    pub(super) fn once<T>(
        &self,
        kept_max: usize,
        start: impl FnOnce() -> Result<Instance, Fault>,
        call: impl FnOnce(&mut Instance) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        SHELF.with_borrow_mut(|shelf| shelf.make_room(kept_max));
        self.noted(&mut start()?, call)
    }

    fn noted<T>(
        &self,
        instance: &mut Instance,
        call: impl FnOnce(&mut Instance) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let result = call(instance);
        self.note(instance);
        result
    }

    /// What its last call used.
    pub(super) fn note(&self, instance: &Instance) {
        LAST.set((self.key, Some(instance.usage())));
    }

    /// What the last call on this thread used, if it was here.
    pub(super) fn usage(&self) -> Option<Usage> {
        let (key, usage) = LAST.get();
        usage.filter(|_| key == self.key)
    }
}

impl Shelf {
    /// Where there is none, there is room for it from here on: the one that is started next is one of `kept_max` too.
    fn take(&mut self, key: (u64, Tenant), kept_max: usize) -> Option<Instance> {
        self.clear_retired();
        let found = self.kept.remove(&key).map(|kept| kept.instance);
        if found.is_none() {
            self.make_room(kept_max);
        }
        found
    }

    /// Before another is started, not after: the pool has as many as all threads together may have at once.
    fn make_room(&mut self, kept_max: usize) {
        while self.kept.len() >= kept_max.max(1) {
            let oldest = self.kept.iter().min_by_key(|(_, kept)| kept.put_at).map(|(key, _)| *key);
            oldest.map(|key| self.kept.remove(&key));
        }
    }

    fn put(&mut self, place: &Place, tenant: Tenant, instance: Instance, kept_max: usize) {
        // Of a body, which others may have begun after.
        self.make_room(kept_max);
        self.clock += 1;
        let kept = Kept { instance, binding: Arc::downgrade(&place.alive), put_at: self.clock };
        self.kept.insert((place.key, tenant), kept);
    }

    fn clear_retired(&mut self) {
        let retired = RETIRED.load(Ordering::Acquire);
        if self.retired_seen != retired {
            self.retired_seen = retired;
            self.kept.retain(|_, kept| kept.binding.strong_count() > 0);
        }
    }
}

/// Gives back all that this thread keeps: for threads that come and go.
pub fn keep_nothing_here() {
    SHELF.with_borrow_mut(|shelf| shelf.kept.clear());
}

/// How many instances this thread keeps.
#[cfg(test)]
pub(super) fn kept_here() -> usize {
    SHELF.with_borrow_mut(|shelf| {
        shelf.clear_retired();
        shelf.kept.len()
    })
}
