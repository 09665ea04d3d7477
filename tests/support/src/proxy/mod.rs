//! A TCP proxy that does to bytes what networks do, to the byte.
//!
//! [`Lane`] decides, without a socket and without a clock; [`TcpFaultProxy`] carries it out.

mod driver;
mod lane;

pub use driver::{CAPTURE_MAX_BYTES, Cut, TcpFaultProxy};
pub(crate) use lane::next_random;
pub use lane::{Direction, Fault, Lane, Plan, Step};
