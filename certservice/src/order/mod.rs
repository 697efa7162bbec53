//! Orders: from a registered domain to a stored bundle. [`next`] decides, the [`Runner`] stores what was decided and then
//! acts. Must never act on a state that is not stored.

mod act;
mod ari;
mod gate;
mod hex;
mod job;
mod kind;
mod machine;
mod made;
mod places;
mod prefer;
mod runner;
mod start;
mod steps;
mod tell;
mod visit;
#[cfg(test)]
mod tests;

pub use self::act::Hands;
pub use self::ari::run as ask_windows;
pub use self::gate::PAUSE_SECONDS_MAX;
pub use self::job::{Event, First, Held, Job, Lane, SealedKey, Stage, Status, Step, Task};
pub use self::machine::{POLL_SECONDS_MAX, Pace, next};
pub use self::runner::{Plan, Recorded, Runner};
pub use self::visit::{AWAITED, LOOK_AGAIN_SECONDS};
