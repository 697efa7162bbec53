//! Says that a listener can't accept, and that it can again: once, however long it takes and however often it goes to and fro.

use std::io::Error;
use std::time::{Duration, Instant};

/// Between two times that it is said.
const TELL_EVERY: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(super) struct Failing {
    told: Option<Instant>,
    /// It has been said that it fails, and not that it is over.
    open: bool,
}

impl Failing {
    pub(super) fn begins(&mut self, listener: &str, error: &Error, now: Instant) {
        if self.tells(now) {
            let advice = match rustix::io::Errno::from_io_error(error) {
                Some(rustix::io::Errno::MFILE) => "raise the limit of open files (LimitNOFILE= of the unit)",
                Some(rustix::io::Errno::NFILE) => "raise fs.file-max",
                _ => "memory may be short",
            };
            tracing::error!(listener, %error, "no connection can be accepted: {advice}; those that wait are accepted when others end");
        }
    }

    pub(super) fn over(&mut self, listener: &str) {
        if std::mem::take(&mut self.open) {
            tracing::info!(listener, "connections are accepted again");
        }
    }

    fn tells(&mut self, now: Instant) -> bool {
        let tells = self.told.is_none_or(|told| now >= told + TELL_EVERY);
        if tells {
            (self.told, self.open) = (Some(now), true);
        }
        tells
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_once_in_a_while_also_where_it_goes_to_and_fro() {
        let (mut failing, now) = (Failing::default(), Instant::now());
        assert!(failing.tells(now) && !failing.tells(now));
        failing.over("https");
        assert!(!failing.open);
        assert!(!failing.tells(now + TELL_EVERY / 2));
        assert!(!failing.open, "what was not said is not taken back");
        assert!(failing.tells(now + TELL_EVERY));
    }
}
