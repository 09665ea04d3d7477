//! `Dispatcher`: which environment and method a call goes to, and when.
//!
//! On the harness (`client`) it owns readiness, the serial/parallel lock and the dispatch timing; on the executor
//! (`server`) the one place where a method meets its scope and its service.

mod lock;
mod timing;

pub(crate) mod client;
pub(crate) mod server;

pub use lock::{Mode, WAITING_MAX};
pub use timing::DispatchTimings;
pub(crate) use timing::{Begun, DispatchGuard, DispatchOutcome};

/// Calls that may lie in one dispatcher's mailbox.
pub const DISPATCHER_MAILBOX_MAX: usize = 1_024;
