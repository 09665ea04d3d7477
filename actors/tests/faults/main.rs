//! What goes wrong: bad input, bytes changed on the way, and ends that come at the wrong time.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod access;
mod accounts;
mod commands;
mod eavesdrop;
mod flips;
mod garbage;
mod lifecycle;
mod limits;
mod processes;
mod replays;
mod runtimes;
mod strangers;
mod streams;
mod support;
