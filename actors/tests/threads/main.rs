//! Threads: the format of their history, the order of their metadata, and what is kept.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod core;
mod ends;
mod failures;
mod gated;
mod hook;
mod log;
mod main_path;
mod model;
mod races;
mod rules;
mod spans;
