//! How the executor starts a command by pipes, watches its end and signals it: without fork, and without ever
//! blocking the thread the actors live on.
//!
//! * [`Spawner`] owns the one thread on which everything that blocks happens.
//! * [`SpawnRequest`] and [`Environment`] say what to start; [`SpawnError`] says why it was not.
//! * [`ProcessGroup`] owns the process that was started; [`ExitWatcher`] tells its end.
//! * [`OutputPipe`] and [`InputPipe`] are its pipes, for tokio.
//!
//! A resource usage (`wait4`) cannot be had here without unsafe code: the fields for it are `None` on this path.

mod environment;
mod error;
mod exit;
mod graveyard;
mod group;
mod lookup;
mod pipes;
mod procfs;
mod request;
mod spawner;
mod start;
#[cfg(test)]
mod start_tests;

pub use environment::{Environment, EnvironmentPolicy, Inherit, ResolvedEnvironment};
pub use error::{Place, SpawnError, SpawnErrorKind};
pub use exit::{Exit, ExitStatus, ExitWatcher};
pub use group::{ProcessGroup, Reap, SignalError};
pub use pipes::{InputPipe, OutputPipe, READ_CHUNK_MAX_BYTES, StdinError};
pub use procfs::{Member, members};
pub use request::{ARGUMENT_MAX_BYTES, SpawnRequest, StdinMode};
pub use spawner::{Rejected, RejectedReason, Reply, SPAWN_QUEUE_MAX_REQUESTS, SpawnOutcome, Spawner};
pub use start::{PIPE_BYTES, PipeSizes, Spawned};
