//! Who may do what on an executor, decided in one place and written down.
//!
//! `pairing` and `audit` are pure: time is an argument. `gate` holds the list, the open pairing and the live sessions
//! of one executor, `pass` is one session's share of it, `review` closes what is no longer allowed, and `writer` keeps
//! the audit file.

mod audit;
mod gate;
mod pairing;
mod pass;
mod review;
mod writer;

pub use audit::{AUDIT_BURST_LINES, AUDIT_LINES_PER_S};
pub(crate) use gate::{Clients, Gate, Verdict};
pub use pairing::{ClaimRefused, PAIRING_LIFE, PAIRING_TRIES_MAX, PairingOffer};
pub(crate) use pass::{Pass, ProcessSlot, SessionPass};
pub use review::REVIEW_INTERVAL;
pub(crate) use review::watch;
pub(crate) use writer::AuditLog;
pub use writer::{AUDIT_FILE_MAX_BYTES, AUDIT_FILES_KEPT, AUDIT_LINES_WAITING_MAX};
