//! HTTP requests that an executor makes for its client: through a real link, to a server that does what servers do.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod bounds;
mod ends;
mod exchanges;
mod site;
mod spans;
#[allow(dead_code, reason = "another binary uses the rest of it")]
#[path = "../faults/support.rs"]
mod support;
mod words;
#[allow(
    dead_code,
    clippy::print_stdout,
    reason = "another binary uses the rest of it"
)]
#[path = "../links/world.rs"]
mod world;
