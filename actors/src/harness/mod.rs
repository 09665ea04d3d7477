//! The harness: asks an executor to run commands, from any runtime.

mod builder;
mod command;
mod dial;
mod error;
pub(crate) mod foreign;
mod handle;
mod refusal;
mod run;
mod session;
mod sessions;
mod shared;
mod signal;
mod start_up;
mod target;
mod text;
mod timings;
mod turn;
mod workspace;

pub use builder::{HarnessBuilder, RESUME_FOR};
pub use error::{ConnectError, RefusedBy};
pub(crate) use handle::{Connected, START};
pub use handle::{Harness, SPANS_WAIT};
pub(crate) use run::Asker;
pub use target::Target;
pub(crate) use workspace::{First, loads_at_once};

pub use command::{Command, GRACE, Inherit, TERM};
pub use refusal::INQUIRY_TIMEOUT;
pub(crate) use run::{Ended, Terminator};
pub use run::{Finished, Run, RunError, RunEvent, RunStdin};
pub use sessions::{
    LIST_PAGES_MAX, Observed, ProcessInfo, ProcessState, SessionInfo, StartedProcess, TakeUp,
};
pub(crate) use shared::RunShared;
pub use signal::{signal_name, signal_number};
pub use start_up::{StageGuard, StartUp, StartUpStage};
pub use text::TextDecoder;
pub use timings::CallTimings;
pub use turn::{Turn, TurnGuard};

#[cfg(test)]
mod dispatch_tests;
#[cfg(test)]
mod panic_tests;
