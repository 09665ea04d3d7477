//! The executor: runs what listed clients ask, on this machine.

mod builder;
mod directory;
mod door;
mod error;
mod gate;
mod handle;
mod past;
mod port;
mod session;
mod shared;

use std::time::Duration;

pub use dwell_relay::strangers::HandshakeCounts;

pub use builder::{Executor, ExecutorBuilder};
pub use directory::LIST_TIMEOUT;
pub(crate) use directory::{Directory, Facts};
pub use door::{UNPROVEN_MAX, UNPROVEN_PER_SOURCE_MAX};
pub use error::ServeError;
pub(crate) use handle::Registration;
pub use handle::{ExecutorHandle, SHUTDOWN_GRACE, Strangers};
pub(crate) use shared::{Found, SessionId, Shared};

/// How long a session without a link waits for its client unless the builder says otherwise: a day.
pub const DETACHED_LIFE: Duration = Duration::from_secs(24 * 3_600);
/// What an executor says it can whose sessions outlive their links.
pub const DETACHES: &str = "detach";
/// Among an environment's capabilities: commands are confined that ask for it, or refused.
pub const CONFINES: &str = "confine";
/// What an executor says it can that remembers the last seconds of calls which are not sampled.
pub const FLIGHT: &str = "flight";
/// Sessions of one executor.
pub const SESSIONS_MAX: usize = 1_024;
