//! Being built.

pub mod keys;
pub mod trace_file;
pub mod waterfall;
