//! A trace as a picture: one row a span, its place in time as a bar, and the account of the call below.
//!
//! Pure: a [`Trace`](crate::trace_file::Trace) in, text or JSON out. What other machines wrote into it is shown with
//! control characters replaced, so that a span's name cannot steer a terminal.

mod account;
mod bar;
mod critical;
mod json;
mod model;
mod place;
mod text;
mod tree;
pub(crate) mod units;

pub use json::to_json;
pub(crate) use model::{Class, call_span, clean, critical_shares, placed};
pub(crate) use place::Placement;
pub use text::{Options, WIDTH_MAX, WIDTH_MIN, render};
