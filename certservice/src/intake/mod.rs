//! Takes domains in: one by one, or a list at a time. Must never talk to a CA: what it makes are domains with an order.

mod lines;
mod list;
mod rules;

pub use self::lines::{Format, LINE_BYTES_MAX, Line};
pub use self::list::run;
pub use self::rules::{Entry, Refusal, Rules, Wanted, related, says_taken};
