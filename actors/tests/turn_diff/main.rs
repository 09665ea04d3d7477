//! A turn's diff: when it looks anything up, what it says, and what it costs.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod applier;
mod compose;
mod model;
mod rules;
mod spans;
mod support;
mod text;
