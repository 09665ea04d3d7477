//! Files of another machine: every operation through a real link, what goes wrong with them, and walks.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::print_stdout, reason = "seeds and figures are for whoever runs this")]

mod atomic;
mod denied;
mod faults;
mod ignored;
mod links;
mod lost;
mod operations;
mod place;
mod sessions;
mod spans;
#[allow(dead_code, reason = "another binary uses the rest of it")]
#[path = "../faults/support.rs"]
mod support;
mod trees;
mod walks;
mod watches;
#[allow(dead_code, reason = "another binary uses the rest of it")]
#[path = "../links/world.rs"]
mod world;
