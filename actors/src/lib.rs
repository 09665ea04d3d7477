//! Being built.

pub mod config;
pub mod keys;
pub mod run_store;
pub mod trace_file;
pub mod waterfall;
