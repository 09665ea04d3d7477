//! Being built.
pub mod spawn;
