//! How far each edge has read the feed of changes, as it tells with each poll. In memory only: a restart learns it anew
//! within one poll.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use schemars::JsonSchema;
use serde::Serialize;

/// As many as there are edge keys in the boot file: nobody else is taken down.
pub struct Progress {
    edges: Mutex<BTreeMap<String, Option<Seen>>>,
}

#[derive(Clone, Copy)]
struct Seen {
    cursor: u64,
    at: u64,
}

/// An edge, as it was seen last.
#[derive(Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Edge {
    /// Its key ID.
    pub edge: String,
    /// Of the last change that it has applied.
    pub cursor: u64,
    /// How many changes are newer than that.
    pub behind: u64,
    /// Unix seconds.
    pub seen_at: u64,
}

impl Progress {
    /// Of edges with these key IDs.
    pub fn new<'a>(edges: impl IntoIterator<Item = &'a str>) -> Self {
        let never_seen = |edge: &str| (edge.to_owned(), None);
        Self { edges: Mutex::new(edges.into_iter().map(never_seen).collect()) }
    }

    /// An edge has applied all changes up to `cursor`; `false` if there is no such edge.
    pub fn saw(&self, edge: &str, cursor: u64, now: u64) -> bool {
        let mut edges = self.edges.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(seen) = edges.get_mut(edge) else {
            return false;
        };
        *seen = Some(Seen { cursor, at: now });
        true
    }

    /// Those that were seen since the start; `head` is the cursor of the newest change.
    pub fn list(&self, head: u64) -> Vec<Edge> {
        let edges = self.edges.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = edges.iter().filter_map(|(edge, seen)| Some((edge, (*seen)?)));
        let shown = seen.map(|(edge, Seen { cursor, at })| Edge {
            edge: edge.clone(),
            cursor,
            behind: head.saturating_sub(cursor),
            seen_at: at,
        });
        shown.collect()
    }

    /// Of the edge that is furthest behind.
    pub fn behind_max(&self, head: u64) -> u64 {
        self.list(head).into_iter().map(|edge| edge.behind).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_are_shown_as_they_were_seen_last() {
        let progress = Progress::new(["b", "a", "never"]);
        assert_eq!((progress.list(9), progress.behind_max(9)), (vec![], 0));
        assert!(progress.saw("b", 2, 100) && progress.saw("a", 9, 101) && progress.saw("b", 5, 102));
        let edge = |edge: &str, cursor, behind, seen_at| Edge { edge: edge.into(), cursor, behind, seen_at };
        assert_eq!(progress.list(9), [edge("a", 9, 0, 101), edge("b", 5, 4, 102)]);
        assert_eq!(progress.behind_max(9), 4);
        // Ahead of a database that was put back to an earlier day.
        assert_eq!(progress.behind_max(3), 0);
    }

    #[test]
    fn nobody_else_is_taken_down() {
        let progress = Progress::new(["a"]);
        assert!((0..2000).all(|n| !progress.saw(&format!("made-up-{n}"), 1, 1)));
        assert_eq!(progress.list(9), []);
    }
}
