//! What strangers may cost: whether a message 1 is worth a Diffie-Hellman, how many handshakes are under way, and who
//! makes room when there are too many.
//!
//! Pure: time is an argument, and a source is whatever tells one stranger from another. Nothing here says who is served.

mod bucket;
mod governor;
mod openings;
mod pending;
mod repeats;
mod rush;
mod sources;

pub use self::bucket::Rate;
pub use self::governor::{Admitted, Governor, HandshakeCounts, Rates, Turned, Vouching};
pub use self::openings::{Openings, OpeningsLimits};
pub use self::pending::{PENDING_MAX, Ticket};
pub use self::repeats::REPEATS_MAX;
pub use self::rush::{RUSH_RATE, RUSH_SOURCE_RATE, RUSH_SOURCES_MAX, Rush};
pub use self::sources::{
    FAILURES_MAX, FAMILIAR_FOR, PENALISED_RATE, PENALTY_FOR, SOURCE_IDLE_FOR, SOURCE_RATE, SOURCES_MAX,
};
