//! The mailbox layer: bounded, traced, synchronous turns on actix.
//!
//! Every actor is hosted by one generic actix actor (`host`). What it receives is a `Delivery`: the envelope, the tick
//! at which it was enqueued and the permit that its sender's handle acquired. That permit is the bound, since actix's
//! own does not hold. `ARCHITECTURE.md` has the rules that keep it free of deadlock.

mod actor;
mod ask;
mod bound;
mod delivery;
mod handle;
mod host;
mod options;
mod outbox;
mod shared;
mod start;
mod supervise;

pub use actor::{Actor, BulkResidence, Message, Residence, Room, TimerGuard, Turn};
pub use ask::{AskError, Reply};
pub use handle::{CONTROL_QUEUE_MAX, ControlFull, Mailbox, Slot, Stopped, TellError};
pub use host::{Host, TURNS_PER_SLICE};
pub use options::HostOptions;
pub use start::{start_here, start_on};
pub use supervise::{Failure, RESTARTS_MAX, RESTARTS_WITHIN};
