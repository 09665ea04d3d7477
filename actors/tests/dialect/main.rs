//! The JSON dialect as a client meets it: an executor, and plain WebSockets. Each case is named after a fact that clients
//! depend on.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod beside;
mod bridge;
mod client;
mod connections;
mod ending;
mod files;
mod foreign;
mod handshake;
mod held;
mod http;
mod isolation;
mod links;
mod messages;
mod processes;
mod reading;
mod sessions;
mod traces;
mod watching;
mod writing;
