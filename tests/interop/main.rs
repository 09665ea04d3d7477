//! A stock Codex CLI on dwell: turns of a client that nobody here wrote. The model is a mock; the CLI, what it says and
//! what it does with the answers are its own.
//!
//! `DWELL_CODEX` names the CLI's binary; without it the npm package is fetched once, into a cache folder. Everything runs
//! in a network namespace that has a loopback and nothing else.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![cfg(feature = "system-tests")]

mod bench;
mod conformance;
mod environment;
mod mock;
mod turns;
mod world;
