//! The relay's role: transports on one side, the pure core of the rendezvous on the other, one actor between them.
//!
//! Everything of one relay lives on one arbiter, so that nothing crosses threads between the read of a frame and its
//! write: the reader's task wakes the actor, the actor's turn fills the writer's queue and wakes its task, and all
//! three run in one round of the event loop.

mod allow;
mod builder;
mod connection;
mod error;
mod handle;
mod log;
mod server;
mod view;

pub use allow::{
    ALLOW_ENTRIES_MAX, ALLOW_FILE_MAX_BYTES, AllowError, LineProblem, TOKEN_MAX_BYTES, TOKEN_MIN_BYTES,
    load_allow_file, parse_allow_list,
};
pub use builder::{Relay, RelayBuilder};
pub use connection::{CLOSE_FLUSH_TIMEOUT, LINGER_TIMEOUT, RECEIVED_MAX};
pub use error::RelayError;
pub use handle::{RelayCensus, RelayHandle};
pub use server::{ENTRIES_MAX, MAILBOX_MAX};
