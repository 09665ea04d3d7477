//! `dwell inspect`: what is unfinished in a live process, over a local socket of its own.
//!
//! A thread answers from the table, so that the answer needs no actor: a wedged one is just what it is asked about. The
//! socket lies in a directory that only its owner can enter, and both ends look whose process the other one is.

mod ask;
mod place;
mod serve;
mod snapshot;

pub use crate::in_flight::view;
pub use ask::{ANSWER_TIMEOUT, Answer, Answered, Candidate, InspectError, ask, candidates};
pub(crate) use place::Place;
pub use place::{PlaceError, SOCKETS_MAX};
pub(crate) use serve::Server;
pub use serve::{ANSWER_MAX_BYTES, QUESTION_MAX_BYTES};

/// What is asked; a line.
const QUESTION: &str = "{\"version\":1,\"ask\":\"table\"}\n";
