//! One connection at the relay: what it has said, and what waits to be written to it.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use bytes::BytesMut;
use dwell_messages::{PublicKey, StreamId};

use crate::outer::OuterDecoder;
use crate::preamble::{Preamble, PreambleDecoder};
use crate::registration::AwaitingProof;
use crate::source::Source;
use crate::strangers::Admitted;

use super::StreamKey;

/// How far a connection's own bytes have been read.
pub(super) enum Input {
    Preamble(PreambleDecoder),
    Frames(OuterDecoder),
    /// What comes is not read any more.
    Ignored,
}

/// What a connection is.
pub(super) enum Phase {
    /// Its first 64 bytes and token are not complete.
    AwaitingPreamble,
    /// An executor that has not begun to prove itself.
    AwaitingRegistration(Preamble),
    /// An executor that has not finished proving itself.
    AwaitingProof(Box<(AwaitingProof, Admitted<Source>)>, Preamble),
    /// An executor in force.
    Executor(Registration),
    /// A harness whose first message has not come.
    AwaitingHello(Preamble, BytesMut),
    /// A harness in a stream.
    Harness(StreamKey, StreamId),
    /// Closed when everything has been handed to the socket.
    Closing,
}

pub(super) struct Registration {
    pub(super) key: PublicKey,
    pub(super) stream: StreamId,
    pub(super) streams: HashMap<StreamId, StreamKey>,
}

/// What waits to be written.
#[derive(Default)]
pub(super) struct Egress {
    /// The relay's own frames; they go first.
    pub(super) control: VecDeque<BytesMut>,
    /// Streams whose sender, this connection, gets a new limit.
    pub(super) windows: VecDeque<StreamKey>,
    /// Streams with something for this connection, in the order of their turns.
    pub(super) ready: VecDeque<StreamKey>,
    /// Bytes given to the driver and not yet written.
    pub(super) in_flight: usize,
    /// The answer to a ping.
    pub(super) pong: Option<BytesMut>,
}

impl Egress {
    pub(super) fn is_empty(&self) -> bool {
        self.control.is_empty() && self.pong.is_none() && self.windows.is_empty() && self.ready.is_empty()
    }
}

pub(super) struct Connection {
    pub(super) source: Source,
    /// It has not said what it is, or not proven it.
    pub(super) opening: bool,
    pub(super) input: Input,
    pub(super) phase: Phase,
    pub(super) egress: Egress,
    pub(super) deadline: Option<Instant>,
}

impl Connection {
    pub(super) fn new(source: Source, deadline: Instant) -> Self {
        Self {
            source,
            opening: true,
            input: Input::Preamble(PreambleDecoder::new()),
            phase: Phase::AwaitingPreamble,
            egress: Egress::default(),
            deadline: Some(deadline),
        }
    }

    /// It has proven what it is: longer frames may come.
    pub(super) fn is_known(&mut self) {
        match &mut self.input {
            Input::Frames(decoder) => decoder.set_stranger(false),
            Input::Preamble(_) | Input::Ignored => {}
        }
    }
}
