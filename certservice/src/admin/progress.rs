//! How far each edge has read the feed of changes, as it tells with each poll. In memory only: a restart learns it anew
//! within one poll.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use schemars::JsonSchema;
use serde::Serialize;

/// As many as there are edge keys: nobody else is taken down.
#[derive(Default)]
pub struct Progress {
    edges: Mutex<BTreeMap<String, Seen>>,
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
    /// An edge has applied all changes up to `cursor`; `false` if there is no such edge among `known`, the key IDs that are
    /// active. What is no longer is forgotten.
    pub fn saw(&self, known: &[&str], edge: &str, cursor: u64, now: u64) -> bool {
        let mut edges = self.edges.lock().unwrap_or_else(PoisonError::into_inner);
        edges.retain(|seen, _| known.contains(&seen.as_str()));
        let is_known = known.contains(&edge);
        if is_known {
            edges.insert(edge.to_owned(), Seen { cursor, at: now });
        }
        is_known
    }

    /// Those that were seen since the start; `head` is the cursor of the newest change.
    pub fn list(&self, head: u64) -> Vec<Edge> {
        let edges = self.edges.lock().unwrap_or_else(PoisonError::into_inner);
        let shown = edges.iter().map(|(edge, Seen { cursor, at })| Edge {
            edge: edge.clone(),
            cursor: *cursor,
            behind: head.saturating_sub(*cursor),
            seen_at: *at,
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
        let (progress, known) = (Progress::default(), ["b", "a", "never"]);
        assert_eq!((progress.list(9), progress.behind_max(9)), (vec![], 0));
        assert!(
            progress.saw(&known, "b", 2, 100) && progress.saw(&known, "a", 9, 101) && progress.saw(&known, "b", 5, 102)
        );
        let edge = |edge: &str, cursor, behind, seen_at| Edge { edge: edge.into(), cursor, behind, seen_at };
        assert_eq!(progress.list(9), [edge("a", 9, 0, 101), edge("b", 5, 4, 102)]);
        assert_eq!(progress.behind_max(9), 4);
        // Ahead of a database that was put back to an earlier day.
        assert_eq!(progress.behind_max(3), 0);
    }

    #[test]
    fn nobody_else_is_taken_down() {
        let progress = Progress::default();
        assert!(progress.saw(&["a", "b"], "b", 1, 1));
        assert!((0..2000).all(|n| !progress.saw(&["a"], &format!("made-up-{n}"), 1, 1)));
        // Nor is a key that was retired.
        assert_eq!(progress.list(9), []);
    }
}
