//! One token bucket as one number: when it will be full again (GCRA, which Let's Encrypt uses itself). Pure.

/// `count` in `seconds`, refilled evenly: `count` at once, then one per `seconds / count`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    pub count: u64,
    pub seconds: u64,
}

/// Milliseconds since 1970; a bucket that was never used is full.
pub type FullAt = u64;

impl Limit {
    pub fn new(count: u64, seconds: u64) -> Self {
        Self { count: count.max(1), seconds: seconds.max(1) }
    }

    /// One more each.
    pub fn interval_ms(self) -> u64 {
        (self.seconds * 1000 / self.count).max(1)
    }

    fn window_ms(self) -> u64 {
        self.interval_ms() * self.count
    }

    /// No bucket takes longer than its window to fill: one that says so was charged while a clock was wrong.
    fn believed(self, full_at: FullAt, now_ms: u64) -> FullAt {
        full_at.min(now_ms.saturating_add(self.window_ms()))
    }

    pub fn left(self, full_at: FullAt, now_ms: u64) -> u64 {
        self.window_ms().saturating_sub(self.believed(full_at, now_ms).saturating_sub(now_ms)) / self.interval_ms()
    }

    /// When at least one is there.
    pub fn free_at(self, full_at: FullAt, now_ms: u64) -> u64 {
        self.turn_at(self.believed(full_at, now_ms), now_ms)
    }

    /// The same where those who wait have taken theirs already.
    pub fn turn_at(self, full_at: FullAt, now_ms: u64) -> u64 {
        full_at.saturating_add(self.interval_ms()).saturating_sub(self.window_ms()).max(now_ms)
    }

    /// One less, whether or not one was there: what the CA has counted is counted.
    pub fn charge(self, full_at: FullAt, now_ms: u64) -> FullAt {
        (full_at.max(now_ms) + self.interval_ms()).min(now_ms + self.window_ms())
    }

    /// One that was taken and not used.
    pub fn give_back(self, full_at: FullAt) -> FullAt {
        full_at.saturating_sub(self.interval_ms())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000_000;

    #[test]
    fn a_full_bucket_gives_all_at_once_and_then_one_by_one() {
        let limit = Limit::new(300, 3 * 3600);
        assert_eq!(limit.interval_ms(), 36_000);
        let mut full_at = 0;
        for taken in 0..300 {
            assert_eq!((limit.left(full_at, NOW), limit.free_at(full_at, NOW)), (300 - taken, NOW));
            full_at = limit.charge(full_at, NOW);
        }
        assert_eq!((limit.left(full_at, NOW), limit.free_at(full_at, NOW)), (0, NOW + 36_000));
        assert_eq!(limit.left(full_at, NOW + 35_999), 0);
        assert_eq!(limit.left(full_at, NOW + 36_000), 1);
        assert_eq!(limit.left(full_at, NOW + 3 * 3_600_000), 300);
        assert_eq!(limit.left(limit.give_back(full_at), NOW), 1);
    }

    #[test]
    fn a_clock_that_ran_ahead_empties_a_bucket_for_one_window_only() {
        let limit = Limit::new(300, 3 * 3600);
        let full_at = limit.charge(0, NOW + 10 * 365 * 86_400_000);
        assert_eq!((limit.left(full_at, NOW), limit.free_at(full_at, NOW)), (0, NOW + 36_000));
        assert_eq!(limit.left(limit.charge(full_at, NOW), NOW + 3 * 3_600_000), 300);
    }

    #[test]
    fn no_window_ever_holds_more_than_the_burst_and_its_refill() {
        let limit = Limit::new(5, 3600);
        let (mut full_at, mut taken) = (0, Vec::new());
        for now in (NOW..NOW + 7_200_000).step_by(1000) {
            if limit.left(full_at, now) > 0 {
                full_at = limit.charge(full_at, now);
                taken.push(now);
            }
        }
        // 5 at once and one each 12 minutes.
        assert_eq!(taken.len(), 5 + 9);
        assert!(taken[5..].windows(2).all(|pair| pair[1] - pair[0] == 720_000), "{taken:?}");
    }

    #[test]
    fn what_is_charged_beyond_the_limit_is_bounded() {
        let limit = Limit::new(5, 3600);
        let full_at = (0..100).fold(0, |full_at, _| limit.charge(full_at, NOW));
        assert_eq!(limit.free_at(full_at, NOW), NOW + 720_000);
    }
}
