//! Watches for paths that are missing, through the kernel's inotify.
//!
//! `rule` says what an event means, and is pure; `place` puts a watch in place, which blocks; `live` is one that is in place,
//! and waits; `remote` is the client's side, as an API.
//!
//! A watch sees once, and may see what nobody asked for: what it tells is that it is time to look again. What it must never
//! do is to miss something. So a place where not everything is told is not watched at all.

mod live;
mod place;
mod remote;
mod rule;

pub(crate) use live::{Placed, Watcher};
pub(super) use place::place;
pub use remote::RemoteWatch;

/// Among an environment's capabilities: it watches for paths that are missing.
pub(crate) const WATCHES: &str = "watch";
/// Watches of one session.
pub const WATCHES_MAX: usize = 4;
/// Watches of all sessions of an executor, each with an inotify instance: half of what Linux gives one user by default.
pub const WATCHES_IN_ALL_MAX: usize = 64;
/// Names in one watched path.
pub const WATCH_NAMES_MAX: usize = 64;
