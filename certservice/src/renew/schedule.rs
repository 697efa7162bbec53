//! When a certificate is replaced: pure. Two aims: long before it ends, and as many each day as on any other.

use std::collections::BTreeMap;

use contract::{Hostname, Validity};

const DAY: u64 = 86_400;
/// Days with fewer renewals than this are not worth evening out.
const EVEN_MIN: u64 = 100;
/// Nobody plans further.
const CATCH_UP_DAYS_MAX: u64 = 366;
/// From one replacement to the next.
const REPLACED_SECONDS_MIN: u64 = 6 * 3600;
/// No certificate is reckoned with more than once an hour.
const PERIOD_SECONDS_MIN: u64 = 3600;
/// One a minute: fleets that renew less than that need no pacing.
const PACE_MIN: u64 = 1440;

/// What is left of a certificate when it is to be replaced.
fn left(lifetime: u64) -> u64 {
    Validity { not_before: 0, not_after: lifetime }.left_at_renewal()
}

/// When to renew at the latest; earlier by up to a tenth of what is left, by name, so that certificates of one day don't
/// renew in one minute.
pub fn renew_at(domain: &Hostname, not_before: u64, not_after: u64) -> u64 {
    let left = left(not_after.saturating_sub(not_before));
    let jitter = part(domain, left / 10);
    not_after.saturating_sub(left + jitter).max(not_before)
}

/// When a renewal goes before all that can wait: half of what [`renew_at`] leaves is over.
pub fn urgent_at(not_before: u64, not_after: u64) -> u64 {
    not_after.saturating_sub(left(not_after.saturating_sub(not_before)) / 2)
}

/// What a CA suggests (RFC 9773). Unix seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    pub start: u64,
    pub end: u64,
}

/// The instant for a window: the chosen one stays while the window holds it, so that asking again changes nothing. A
/// window that is over means now. `None` where it is no window (RFC 9773 section 4.2).
pub fn within(domain: &Hostname, chosen: Option<u64>, window: Window, now: u64) -> Option<u64> {
    let Window { start, end } = window;
    match chosen {
        _ if end <= start => None,
        _ if end <= now => Some(now),
        Some(chosen) if (start..end).contains(&chosen) => Some(chosen),
        _ => Some((start + part(domain, end - start)).max(now)),
    }
}

/// Until when a CA's word does not replace a certificate that has itself replaced one: a CA that wants each one replaced at
/// once would be asked for ever new ones, and what replaces takes from no limit.
pub fn rests_until(revision: u64, not_before: u64) -> u64 {
    if revision > 1 { not_before.saturating_add(REPLACED_SECONDS_MIN) } else { 0 }
}

/// Up to `whole`, by name: the same each time.
fn part(domain: &Hostname, whole: u64) -> u64 {
    let digest = contract::bundle::sha256(domain.as_str().as_bytes());
    let part = u128::from(u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]));
    u64::try_from((u128::from(whole) * part) >> 32).unwrap_or(whole)
}

/// Certificates of one issuer, counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Planned {
    /// Since 1970; when they are to be renewed.
    pub day: u64,
    /// From their beginning to their end.
    pub lifetime_seconds: u64,
    pub count: u64,
}

/// How many renewals of one issuer are planned for which day, and how many a day it takes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Load {
    days: BTreeMap<u64, u64>,
    /// What the fleet needs by its lifetimes, whatever is planned: an outage or a crowded day does not change it.
    per_day: u64,
}

impl Load {
    pub fn new(planned: impl IntoIterator<Item = Planned>) -> Self {
        let (mut days, mut per_day): (BTreeMap<u64, u64>, f64) = Default::default();
        for Planned { day, lifetime_seconds, count } in planned {
            *days.entry(day).or_default() += count;
            let period = lifetime_seconds.saturating_sub(left(lifetime_seconds)).max(PERIOD_SECONDS_MIN);
            per_day += count as f64 * DAY as f64 / period as f64;
        }
        Self { days, per_day: per_day as u64 }
    }

    pub fn add(&mut self, at: u64) {
        *self.days.entry(at / DAY).or_default() += 1;
    }

    pub fn remove(&mut self, at: u64) {
        if let Some(count) = self.days.get_mut(&(at / DAY)) {
            *count = count.saturating_sub(1);
        }
    }

    /// The last day before `latest` with room: less than a tenth above the share of each day until then. Certificates that
    /// were made on one day must not renew on one day for ever: after a mass revocation they spread over the whole period.
    pub fn even(&self, now: u64, latest: u64) -> u64 {
        let (today, last) = (now / DAY, latest / DAY);
        // Not in the first tenth: renewing what has just been made costs the CA for nothing.
        let first = today + (last.saturating_sub(today) / 10).max(1);
        if last <= first {
            return latest;
        }
        let planned: u64 = self.days.range(first..=last).map(|(_, count)| count).sum();
        let room = (planned * 11).div_ceil((last - first + 1) * 10).max(EVEN_MIN);
        let has_room = |day: &u64| self.days.get(day).is_none_or(|count| *count < room);
        (first..=last).rev().find(has_room).unwrap_or(last) * DAY + latest % DAY
    }

    /// Most that begin in a day while they can wait: what the fleet needs, and a sixth more.
    pub fn pace(&self) -> u64 {
        (self.per_day * 7 / 6).max(PACE_MIN)
    }

    pub fn per_day(&self) -> u64 {
        self.per_day
    }

    /// Renewals that are planned for before a day.
    pub fn before(&self, day: u64) -> u64 {
        self.days.range(..day).map(|(_, count)| count).sum()
    }

    /// Days that it takes to catch up with what has waited until `day`; what comes meanwhile included.
    pub fn catch_up_days(&self, day: u64) -> u64 {
        let done = |days: &u64| self.before(day + days) <= self.pace() * days;
        (0..CATCH_UP_DAYS_MAX).find(done).unwrap_or(CATCH_UP_DAYS_MAX)
    }

    /// How many renewals that can wait may begin after `since` and until `now`. What an outage held up is caught up with
    /// over days, not in a storm.
    pub fn allowance(&self, since: u64, now: u64) -> u64 {
        let pace = self.pace();
        // Counted from 1970, so that nothing is lost to rounding.
        (now * pace / DAY).saturating_sub(since * pace / DAY)
    }
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
