//! `RpcQueue`: who asked what, and who gets the answer.
//!
//! On the harness (`caller`) it owns request ids, the in-flight window, deadlines, cancellation and the pending table;
//! on the executor (`server`) inbound admission and deduplication. Both write the RPC's own span, which ends with
//! the response: nothing that lives longer hangs below it.

mod admission;
mod cancellation;
mod pending;

pub(crate) mod caller;
pub(crate) mod server;

pub use admission::{ADMITTED_MAX, CANCELLED_MAX};
pub(crate) use cancellation::Cancellation;
pub use pending::{IN_FLIGHT_MAX, WAITING_MAX};

/// Calls and responses that may lie in one `RpcQueue`'s mailbox.
pub const RPC_MAILBOX_MAX: usize = 256;
