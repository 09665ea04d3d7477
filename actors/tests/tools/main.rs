//! The parts around the actors: keys, trace files, the waterfall, the run store, and where they live.
#![expect(
    clippy::unwrap_used,
    reason = "the lint spares test functions but not what helps them"
)]

mod config;
mod golden;
mod keys;
#[cfg(feature = "store")]
mod metadata_store;
mod spans;
mod trace_export;
mod trace_file;
mod trace_why;
mod trust;
mod waterfall;
