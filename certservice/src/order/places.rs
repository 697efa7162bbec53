//! What this instance works on, and who is next where not all can be: no lane has all places while another waits, and no
//! tenant more than half of those for looks, which last for as long as its servers let them; nor of those for orders, while
//! another waits in the same lane. Pure.

use std::collections::{HashMap, HashSet};

use super::job::Lane;
use crate::store::Waiting;

/// Looks at domains for each order that is worked on at once: they mostly wait for somebody's DNS.
const LOOKS_PER_ORDER: usize = 8;
const LANES: usize = Lane::ALL.len();

/// What takes a place. Looks do not take the place of orders, nor orders that of looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    Order,
    Look,
}

pub(super) struct Places {
    orders: usize,
    taken: HashMap<String, Taken>,
    /// Who had a place last is last.
    turns: [Lane; LANES],
    /// Whether orders may wait for a place, as far as was looked.
    has_line: bool,
}

struct Taken {
    work: Work,
    lane: Lane,
    tenant: String,
}

impl Places {
    pub(super) fn new(concurrency: u32) -> Self {
        let orders = usize::try_from(concurrency).unwrap_or(usize::MAX);
        Self { orders, taken: HashMap::new(), turns: Lane::ALL, has_line: false }
    }

    fn of(&self, work: Work) -> usize {
        match work {
            Work::Order => self.orders,
            Work::Look => self.orders.saturating_mul(LOOKS_PER_ORDER),
        }
    }

    pub(super) fn free(&self, work: Work) -> usize {
        self.of(work).saturating_sub(self.of_work(work).count())
    }

    fn of_work(&self, work: Work) -> impl Iterator<Item = &Taken> {
        self.taken.values().filter(move |taken| taken.work == work)
    }

    /// Of those that one tenant may have, while others wait.
    fn of_tenant(&self, work: Work) -> usize {
        self.of(work).div_ceil(2)
    }

    fn tenants(&self, work: Work) -> HashMap<String, usize> {
        let mut tenants = HashMap::new();
        self.of_work(work).for_each(|taken| *tenants.entry(taken.tenant.clone()).or_default() += 1);
        tenants
    }

    /// Whether a tenant has as many as one may have: behind its orders others may wait.
    pub(super) fn are_crowded(&self, work: Work) -> bool {
        self.tenants(work).values().any(|count| *count >= self.of_tenant(work))
    }

    /// Names that are worked on.
    pub(super) fn names(&self) -> HashSet<String> {
        self.taken.keys().cloned().collect()
    }

    pub(super) fn take(&mut self, one: &Waiting, work: Work) {
        let (lane, tenant) = (one.lane, one.tenant.clone());
        self.taken.insert(one.name.clone(), Taken { work, lane, tenant });
    }

    pub(super) fn leave(&mut self, name: &str) {
        self.taken.remove(name);
    }

    /// Those in line have had their turn.
    pub(super) fn line_is_served(&mut self) {
        self.has_line = self.free(Work::Order) == 0;
    }

    /// Whether what was a look goes on as an order, in a place for one: not before those who wait for that.
    pub(super) fn promote(&mut self, name: &str) -> bool {
        let may = !self.has_line && self.free(Work::Order) > 0;
        match self.taken.get_mut(name) {
            Some(Taken { work: Work::Order, .. }) => return true,
            Some(taken) if may => taken.work = Work::Order,
            _ => {}
        }
        self.has_line |= !may;
        may
    }

    /// Of those that wait, in the order in which they go where all can, whom the free places are for.
    pub(super) fn next(&mut self, work: Work, waiting: Vec<Waiting>) -> Vec<Waiting> {
        let mut lines: [Vec<Waiting>; LANES] = Default::default();
        waiting.into_iter().for_each(|one| lines[one.lane as usize].push(one));
        let mut has = [0; LANES];
        self.of_work(work).for_each(|taken| has[taken.lane as usize] += 1);
        let (mut tenants, most) = (self.tenants(work), self.of_tenant(work));
        let mut next = Vec::new();
        for _ in 0..self.free(work) {
            let may = |one: &Waiting| tenants.get(&one.tenant).is_none_or(|count| *count < most);
            let first = |lane: Lane| {
                let line = &lines[lane as usize];
                // Looks wait for who has not so many; an order goes where nobody else of its lane does.
                let any = (work == Work::Order && !line.is_empty()).then_some(0);
                line.iter().position(may).or(any)
            };
            let lane = self.whose_turn(work, has, |lane| first(lane).is_some());
            let Some((lane, at)) = lane.and_then(|lane| Some((lane, first(lane)?))) else { break };
            let one = lines[lane as usize].remove(at);
            self.turns.sort_by_key(|turn| *turn == lane);
            has[lane as usize] += 1;
            *tenants.entry(one.tenant.clone()).or_default() += 1;
            next.push(one);
        }
        next
    }

    /// A lane that has less than is kept for it; then they go in their order.
    fn whose_turn(&self, work: Work, has: [usize; LANES], waits: impl Fn(Lane) -> bool) -> Option<Lane> {
        let most = self.of(work);
        let kept = |lane: &Lane| has[*lane as usize] < kept(*lane, most) && waits(*lane);
        // With a place for each, who goes first may go first; with fewer they take turns.
        let order = if most < LANES { self.turns } else { Lane::ALL };
        order.into_iter().find(kept).or_else(|| Lane::ALL.into_iter().find(|lane| waits(*lane)))
    }
}

/// Places that a lane gets whoever else waits.
fn kept(lane: Lane, most: usize) -> usize {
    match lane {
        Lane::Visitor | Lane::Renewal => (most / 4).max(1),
        Lane::New | Lane::Bulk => (most / 8).max(1),
    }
}

#[cfg(test)]
#[path = "tests/places.rs"]
mod tests;
