use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep};

/// Wakes the task at some instant. Armed late and moved seldom: a wake-up too early costs less than a timer set for each
/// read.
#[derive(Default)]
pub(super) struct Timer(Option<(Instant, Pin<Box<Sleep>>)>);

impl Timer {
    /// Ready once `deadline` has passed.
    pub(super) fn poll(&mut self, deadline: Instant, context: &mut Context<'_>) -> Poll<()> {
        loop {
            let (armed, sleep) = match &mut self.0 {
                Some((armed, sleep)) if *armed <= deadline => (armed, sleep),
                other => {
                    let sleep = Box::pin(tokio::time::sleep_until(deadline));
                    let (armed, sleep) = other.insert((deadline, sleep));
                    (armed, sleep)
                }
            };
            ready!(sleep.as_mut().poll(context));
            if *armed >= deadline {
                self.0 = None;
                return Poll::Ready(());
            }
            // The deadline has moved on since it was armed.
            self.0 = None;
        }
    }
}
