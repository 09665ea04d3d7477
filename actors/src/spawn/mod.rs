//! How the executor starts a command by pipes or a terminal, watches its end and signals it: without fork, and without ever
//! blocking the thread the actors live on.
//!
//! * [`Spawner`] owns the one thread on which everything that blocks happens.
//! * [`SpawnRequest`] and [`Environment`] say what to start; [`SpawnError`] says why it was not.
//! * [`ProcessGroup`] owns the process that was started; [`ExitWatcher`] tells its end.
//! * [`OutputPipe`] and [`InputPipe`] are its pipes, for tokio, or its [`Terminal`].
//!
//! Commands are started by the [guard](crate::guard) where there is one, and otherwise here; both by the same `launch`.

mod environment;
mod error;
mod exit;
mod graveyard;
mod group;
pub(crate) mod launch;
mod lookup;
mod pipes;
pub(crate) mod procfs;
mod pty;
mod request;
mod spawner;
mod start;
pub(crate) mod sys;

pub use environment::{Environment, EnvironmentPolicy, Inherit, ResolvedEnvironment};
pub(crate) use environment::{looks_secret, matches as pattern_fits};
pub use error::{Place, SpawnError, SpawnErrorKind};
pub(crate) use exit::register;
pub use exit::{Exit, ExitStatus, ExitWatcher, TreeReport};
pub use group::{Enforcer, ProcessGroup, Reap, SignalError};
pub use pipes::{InputPipe, OutputPipe, READ_CHUNK_MAX_BYTES, StdinError};
pub use procfs::{Member, members};
pub use pty::Terminal;
pub use request::{
    ARGUMENT_MAX_BYTES, LimitName, Limits, SpawnRequest, StdinMode, TERMINAL_SIDE_MAX, TerminalSize,
};
pub use spawner::{
    GUARD_RESTART_WINDOW, GUARD_RESTARTS_MAX, GuardState, Rejected, RejectedReason, Reply,
    SPAWN_QUEUE_MAX_REQUESTS, SpawnOutcome, Spawner,
};
pub use start::{PIPE_BYTES, PipeSizes, Spawned};
