//! What lets a session outlive its links: an order that survives them, a pulse, and when to dial again.
//!
//! [`Replay`] keeps what was sent until the peer has acknowledged it, [`Received`] tells a message from its repetition;
//! both outlive every link. [`Pulse`] finds a transport that is dead and does not say so, [`Redial`] says when to try again, and
//! [`Grants`] who may go on with a session.
//! Nothing in here reads a clock or sends anything.

mod grant;
mod order;
mod pulse;
mod redial;

pub use grant::{GRANT_BYTES, Grants};
pub use order::{
    Accepted, Kept, OrderError, REPLAY_MAX_BYTES, REPLAY_MAX_MESSAGES, Received, Replay, SEQUENCE_WINDOW,
};
pub use pulse::{Beat, DEAD_AFTER, PING_INTERVAL, Pings, Pulse, QUIET_AFTER};
pub use redial::{EAGER_FOR, RACE_AFTER, Redial};
