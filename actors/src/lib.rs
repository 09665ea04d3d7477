//! Being built.

pub mod keys;
