//! Which ticket keys there are to be: a pure function of those there are and of the time.

use contract::TicketKeys;
use contract::tickets::{TICKET_KEYS_MAX, TicketKey};

/// How long every edge is given to fetch a key before its time, in seconds: twice the longest pause between its looks,
/// and a clock that is a minute ahead.
const LEAD_SECONDS: u64 = 180;

#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// From one key's time to the next one's.
    pub rotation_seconds: u64,
    /// How long a session may be resumed.
    pub lifetime_seconds: u32,
}

/// When a key is good for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Time {
    pub encrypts_from: u64,
    pub accepts_until: u64,
}

#[derive(Debug, PartialEq)]
pub(super) struct Plan {
    pub(super) revision: u64,
    pub(super) keep: Vec<TicketKey>,
    pub(super) make: Vec<Time>,
}

/// What is to replace `stored`, if anything.
pub(super) fn next(stored: Option<&TicketKeys>, pace: &Pace, edges: &[&str], now: u64) -> Option<Plan> {
    let lead = LEAD_SECONDS.min(pace.rotation_seconds);
    let mut keep: Vec<_> = stored.map_or(&[][..], |stored| &stored.keys).to_vec();
    // What opens nothing any more; what was made by a clock that was far ahead; what some edge can't open or one that is
    // gone can, as long as no edge encrypts with it.
    keep.retain(|key| {
        let waits = key.encrypts_from > now;
        now < key.accepts_until
            && !(waits && (key.encrypts_from > now + pace.rotation_seconds + lead || !sealed_to(key, edges)))
    });
    keep.sort_by_key(|key| key.encrypts_from);

    let mut make = Vec::new();
    let newest = keep.last().map(|key| (key.encrypts_from, sealed_to(key, edges)));
    let mut times = match newest {
        None => vec![now, now + pace.rotation_seconds],
        Some((from, _)) if from > now => vec![],
        Some((from, true)) => vec![(from + pace.rotation_seconds).max(now + lead)],
        // An edge was added, which can't open it, or one was removed, which can.
        Some((_, false)) => vec![now + lead],
    };
    make.extend(times.drain(..).map(|from| pace.time(from)));

    let same_lifetime = stored.is_some_and(|stored| stored.lifetime_seconds == pace.lifetime_seconds);
    if make.is_empty() && same_lifetime && stored.is_some_and(|stored| stored.keys.len() == keep.len()) {
        return None;
    }
    let surplus = (keep.len() + make.len()).saturating_sub(TICKET_KEYS_MAX);
    keep.drain(..surplus);
    let revision = stored.map_or(0, |stored| stored.revision + 1).max(now);
    Some(Plan { revision, keep, make })
}

impl Pace {
    fn time(&self, encrypts_from: u64) -> Time {
        let accepts_until = encrypts_from + self.rotation_seconds + u64::from(self.lifetime_seconds);
        Time { encrypts_from, accepts_until }
    }
}

/// Whether exactly these edges open it.
fn sealed_to(key: &TicketKey, edges: &[&str]) -> bool {
    let recipients = &key.secret.recipients;
    recipients.len() == edges.len() && recipients.iter().all(|recipient| edges.contains(&&*recipient.header.kid))
}

#[cfg(test)]
mod tests {
    use contract::sealed::{RecipientHeader, Sealed, SealedRecipient};
    use contract::tickets::KeyName;

    use super::*;

    const NOW: u64 = 1_800_000_000;
    const HOUR: u64 = 3600;
    const PACE: Pace = Pace { rotation_seconds: 12 * HOUR, lifetime_seconds: 24 * 3600 };

    fn key(time: Time, edges: &[&str]) -> TicketKey {
        let empty = String::new;
        let recipient =
            |kid: &&str| SealedRecipient { header: RecipientHeader { kid: (*kid).to_owned() }, encrypted_key: empty() };
        let secret = Sealed {
            protected: empty(),
            recipients: edges.iter().map(recipient).collect(),
            aad: empty(),
            iv: empty(),
            ciphertext: empty(),
            tag: empty(),
        };
        let (encrypts_from, accepts_until) = (time.encrypts_from, time.accepts_until);
        let mut name = [0; 16];
        name[..8].copy_from_slice(&encrypts_from.to_be_bytes());
        TicketKey { name: KeyName(name), encrypts_from, accepts_until, secret }
    }

    fn carried_out(plan: Plan, edges: &[&str]) -> TicketKeys {
        let made = plan.make.into_iter().map(|time| key(time, edges));
        let keys = plan.keep.into_iter().chain(made).collect();
        TicketKeys { revision: plan.revision, lifetime_seconds: PACE.lifetime_seconds, keys }
    }

    fn turn(stored: Option<&TicketKeys>, edges: &[&str], now: u64) -> Option<TicketKeys> {
        next(stored, &PACE, edges, now).map(|plan| carried_out(plan, edges))
    }

    fn froms(keys: &TicketKeys) -> Vec<u64> {
        keys.keys.iter().map(|key| key.encrypts_from - NOW).collect()
    }

    #[test]
    fn the_first_document_has_this_key_and_the_next() {
        let first = turn(None, &["a"], NOW).unwrap();
        assert_eq!((froms(&first), first.revision), (vec![0, 12 * HOUR], NOW));
        assert_eq!(turn(Some(&first), &["a"], NOW + 12 * HOUR - 1), None);
    }

    #[test]
    fn looked_at_now_and_then_every_key_is_known_a_rotation_ahead() {
        let mut keys = turn(None, &["a"], NOW).unwrap();
        let mut now = NOW;
        for _ in 0..2000 {
            now += 600;
            if let Some(next) = turn(Some(&keys), &["a"], now) {
                assert!(next.revision > keys.revision);
                assert!(next.check().is_ok());
                // Whatever encrypts from now on was in the document before.
                for key in next.keys.iter().filter(|key| key.encrypts_from < now + LEAD_SECONDS) {
                    assert!(keys.keys.contains(key));
                }
                keys = next;
            }
            assert!(keys.is_current(now));
            let accepted_for = |key: &TicketKey| key.accepts_until - (key.encrypts_from + 12 * HOUR);
            assert!(keys.keys.iter().all(|key| accepted_for(key) == 24 * HOUR));
            assert!(keys.keys.len() <= 5, "{:?}", froms(&keys));
        }
    }

    #[test]
    fn after_an_outage_the_next_key_is_still_announced_before_its_time() {
        let keys = turn(None, &["a"], NOW).unwrap();
        let late = turn(Some(&keys), &["a"], NOW + 30 * HOUR).unwrap();
        assert_eq!(froms(&late), [0, 12 * HOUR, 30 * HOUR + LEAD_SECONDS]);
        // So long that nothing is left: as at the start.
        let gone = turn(Some(&keys), &["a"], NOW + 1000 * HOUR).unwrap();
        assert_eq!(froms(&gone), [1000 * HOUR, 1012 * HOUR]);
    }

    #[test]
    fn another_set_of_edges_gets_a_key_of_its_own_soon() {
        let keys = turn(None, &["a"], NOW).unwrap();
        for edges in [&["a", "b"][..], &["b"]] {
            let new = turn(Some(&keys), edges, NOW + HOUR).unwrap();
            // The key that waited was sealed to the wrong edges; the one in use goes on until the new one's time.
            assert_eq!(froms(&new), [0, HOUR + LEAD_SECONDS]);
            assert_eq!(turn(Some(&new), edges, NOW + HOUR + 1), None);
            let after = turn(Some(&new), edges, NOW + HOUR + LEAD_SECONDS).unwrap();
            assert_eq!(froms(&after), [0, HOUR + LEAD_SECONDS, 13 * HOUR + LEAD_SECONDS]);
        }
    }

    #[test]
    fn a_clock_that_was_far_ahead_leaves_nothing_behind() {
        let ahead = turn(None, &["a"], NOW + 1000 * HOUR).unwrap();
        let right = turn(Some(&ahead), &["a"], NOW).unwrap();
        assert_eq!(froms(&right), [0, 12 * HOUR]);
        assert!(right.revision > ahead.revision);
    }

    #[test]
    fn their_number_is_bounded_however_often_edges_change() {
        let mut keys = turn(None, &["0"], NOW).unwrap();
        for change in 1..200_u64 {
            let edge = change.to_string();
            keys = turn(Some(&keys), &[&edge], NOW + change * 200).unwrap();
            assert!(keys.check().is_ok());
        }
    }

    #[test]
    fn another_lifetime_is_told_at_once() {
        let keys = turn(None, &["a"], NOW).unwrap();
        let shorter = Pace { lifetime_seconds: 3600, ..PACE };
        let plan = next(Some(&keys), &shorter, &["a"], NOW + 1).unwrap();
        assert_eq!((plan.keep, plan.make), (keys.keys, vec![]));
    }
}
