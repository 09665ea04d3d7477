//! What is unfinished, as it is seen from outside: the table, the watchdog's warnings, the flight recorder, the metrics.
//!
//! Each fault is made in real roles, and looked for in the answer that `dwell inspect` gets.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod answers;
mod flight;
mod metrics;
mod stuck;
mod support;
