//! The three roles as three processes of the binary, each with a HOME of its own.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![cfg(feature = "cli")]

mod one_trace;
#[cfg(feature = "system-tests")]
mod otlp;
#[cfg(feature = "system-tests")]
mod processes;
mod roles;
mod terminal;
mod transports;
mod trust;
