//! Links that die and sessions that do not: every byte once and in order, every request at most once.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::print_stdout, reason = "seeds and figures are for whoever runs this")]

mod away;
mod bytes;
mod cancel;
mod floods;
mod hostile;
mod outages;
mod relays;
mod renewals;
mod replies;
#[allow(dead_code, reason = "another binary uses the rest of it")]
#[path = "../faults/support.rs"]
mod support;
mod takeover;
mod world;
