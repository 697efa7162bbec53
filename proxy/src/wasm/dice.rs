//! Chance, for samples and for how long an instance lives. Evenly spread, and not to be guessed by visitors; nothing secret
//! hangs on it.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::ops::RangeInclusive;

pub(super) fn throw() -> u32 {
    thread_local! {
        static STATE: Cell<u64> = Cell::new(RandomState::new().hash_one(0_u8) | 1);
    }
    // xorshift64*, Marsaglia 2003 and Vigna 2016.
    let mut state = STATE.get();
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    STATE.set(state);
    (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
}

pub(super) fn within(range: &RangeInclusive<u32>) -> u32 {
    let width = range.end().saturating_sub(*range.start()).saturating_add(1);
    range.start().saturating_add(throw() % width)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dice_fall_evenly() {
        let low = (0..100_000).filter(|_| throw() < u32::MAX / 10).count();
        assert!((9_000..11_000).contains(&low), "{low} of 100,000 throws are in the first tenth");
        let mut seen: Vec<_> = (0..1000).map(|_| within(&(3..=5))).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, [3, 4, 5]);
    }
}
