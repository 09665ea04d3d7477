//! dwell's bytes on the wire.
//!
//! Pure cores: time and randomness are arguments, messages are opaque bytes, nothing blocks. A connection begins with a
//! [`preamble`] and goes on in [`outer`] frames; the [`handshake`] proves both ends, [`record`]s seal what the
//! [`lanes`] cut into [`chunk`]s, and a [`link::Link`] is all of that for one stream at one endpoint.
//! What lets a session outlive its links is in [`resume`]. An executor reaches a relay by [`registration`],
//! and the relay pairs streams in [`rendezvous`].
//! What strangers may cost before anything is proven is in [`first_message`] and [`strangers`].
//! Apart from the cores, [`driver`] has the transports.

pub mod chunk;
pub mod control;
pub mod driver;
pub mod first_message;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
pub mod handshake;
pub mod inquiry;
pub mod keys;
pub mod lanes;
pub mod link;
mod noise;
pub mod opening;
pub mod outer;
mod own;
pub mod pairing;
pub mod preamble;
pub mod random;
mod reassembly;
pub mod record;
pub mod registration;
pub mod rendezvous;
pub mod resume;
pub mod source;
pub mod strangers;

pub use control::{Refusal, RefusalReason, Reset, ResetCode};
pub use keys::{StaticKeypair, fingerprint, parse_public_key};
pub use lanes::{CutMessage, EnqueueError, EnqueueProblem, Lane, Outgoing, TrailerStamps};
pub use link::{Link, LinkError, LinkEstablished, LinkEvent, LinkOptions, TransmitReport};
pub use outer::{OuterDecoder, OuterFrame, RawFrame, encode_outer};
pub use preamble::{Dialer, Preamble, PreambleDecoder};
pub use random::{OsRandomness, Randomness};
pub use reassembly::{Incoming, REASSEMBLY_MAX_BYTES};
pub use rendezvous::{Admission, Command, ConnId, Rendezvous};
pub use source::Source;
