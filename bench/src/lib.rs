//! Measures the edge beside its peers: one run, in turns, processor time per unit of work.
//!
//! Each of [`parts`] starts [`peers`] with the same [`names`], behind them what [`standin`] and [`ca`] offer, and in front of them a
//! [`load`]; [`cpu`] says what it cost them, [`stats`] what many samples say, and [`report`] keeps it. [`cores`] keeps
//! servers and load apart, [`machine`] says where numbers come from.

pub mod parts;

pub mod ca;
pub mod load;
pub mod names;
pub mod peers;
pub mod standin;

pub mod cores;
pub mod cpu;
pub mod machine;
pub mod report;
pub mod stats;
