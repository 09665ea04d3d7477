//! `TerminalDelivery`: one process's events, in order, to whoever consumes them.
//!
//! On the executor (`push`) it numbers them and pushes them; on the harness (`receive`) it puts them back in order,
//! gives credit as they are consumed, and hands over the end. `exited` and `closed` are handed on when the bytes
//! before them have been.

mod collect;
mod order;

pub(crate) mod push;
pub(crate) mod receive;
pub(crate) mod record;
pub(crate) mod retained;
mod unconsumed;

pub use collect::{Captured, Collector, OUTPUT_LIMIT_BYTES};
pub use order::OUTPUT_WINDOW_BYTES;
pub use record::{READ_MAX_BYTES, READ_WAIT_MAX, READS_WAITING_MAX};
pub use retained::{RETAINED_EVENTS_MAX, RETENTION_BYTES, RETENTION_MAX_BYTES};
