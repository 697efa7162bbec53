//! Runs plugins: WebAssembly components of the worlds in `wit/`.
//!
//! Off the request path, a component is compiled and asked what it is ([`Host::load`]), then given a configuration to
//! check ([`Host::bind`]). On it, a [`Binding`] is asked for verdicts, which are plain values that have been checked.
//!
//! ```text
//! component ──load──> Plugin ──bind(config)──> Binding ──on_request, on_response──> Action, edits
//!                                                      └─expect, judge────────────> Outcome
//! ```
//!
//! This room must never name Pingora, or run a guest without a deadline, a memory limit and a bound on what it returns.
//! It is the only room that names wasmtime.

mod binding; // a plugin with a configuration, and the calls
mod breaker; // leaves alone what fails again and again
mod callout; // questions to other servers
mod clock; // advances deadlines while guests run
mod component; // bytes → checked, compiled plugin
mod compile; // bytes → machine code, in a process apart
mod count; // where answers came from
mod dataset; // look-ups for plugins: exact, prefix, suffix, networks, expressions
mod compiled; // machine code on disk
mod dice; // chance
mod precompiled; // why it is believed; the one call that is unsafe
mod engine; // pool, linker
mod guest; // generated from wit/
mod host_functions; // what guests may call
mod instance; // one running guest
mod limits; // time, memory, output
mod memo; // answers that may be given again
mod peer; // a connection, as plugins are told of it
mod planning; // what `plan` reads and makes: tables, datasets
mod rates; // how often something may happen
mod rules; // which rules are in use
mod says; // how much goes into the log
mod shadow; // a binding beside a live one: compared, never applied
mod shelf; // idle instances, per thread
mod terms; // how a binding's instances are used
mod trace; // a line for each call, for authors
mod types; // values that cross to the other rooms
mod waiting; // guests that may wait
mod verify; // checks of all that guests return

#[cfg(test)]
mod tests;

pub use binding::{Asked, BindError, Binding, Body, Passed};
pub use callout::{
    Asking, Callee, Callout, CalloutReply, CalloutRequest, Callouts, NoReply,
    REPLY_BODY_BYTES_MAX as CALLOUT_BODY_BYTES_MAX,
};
pub use compile::{COMMAND, CompileError, CompileLimits, compile_standard_input};
pub use component::{COMPONENT_BYTES_MAX, Interfaces, LoadError, Plugin};
pub use count::Answers;
pub use engine::{Compile, Host, HostError, Settings};
pub use planning::Tables;
pub use rules::{History, Rules, Unused};
pub use shadow::{Beside, BodySample, Live, Sample, Shadow};
pub use shelf::keep_nothing_here;
pub use terms::{Isolation, Role, Terms};
pub use types::*;
