//! What an executor holds for sessions in which nothing happens, and what it keeps of those that are over.
//!
//! The executor is this binary again, in a process of its own, so that every byte its allocator has given out is the
//! executor's. Bytes are counted as they were asked for: what an allocator makes of them is measured by `dwell bench`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::print_stdout, reason = "figures are for whoever runs this")]
#![allow(
    clippy::print_stderr,
    reason = "the executor's voice: standard output is the test runner's"
)]

mod counting;
mod ended;
mod executor;
mod idle;

use std::time::Duration;

use dwell_relay::{OsRandomness, StaticKeypair};

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

/// The longest a test may take.
pub(crate) const BOUND: Duration = Duration::from_secs(240);

pub(crate) fn keypair() -> StaticKeypair {
    StaticKeypair::generate(&mut OsRandomness::new()).unwrap()
}
