//! A trace as a picture: one row a span, its place in time as a bar, and the account of the call below.
//!
//! Pure: a [`Trace`](crate::trace_file::Trace) in, text or JSON out. What other machines wrote into it is shown with
//! control characters replaced, so that a span's name cannot steer a terminal.

mod account;
mod bar;
mod json;
mod model;
mod place;
mod text;
mod tree;

pub use json::to_json;
pub use text::{Options, WIDTH_MAX, WIDTH_MIN, render};
