//! For fuzz targets only: a pair of links whose handshake is over, for a hundredth of what one costs.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use dwell_messages::StreamId;
use zeroize::Zeroizing;

use crate::handshake::Established;
use crate::keys::StaticKeypair;
use crate::preamble::WIRE_VERSION_MAX;
use crate::record::{Opener, Sealer};

use super::{Link, LinkOptions, State};

impl<T> Link<T> {
    /// Both ends behind message 2, under keys that everybody knows: the initiator is up and has told its owner; the
    /// responder waits for the first record.
    pub fn past_handshake(
        now: Instant,
        stream: StreamId,
        [initiator, responder]: [&Arc<StaticKeypair>; 2],
        options: [LinkOptions; 2],
    ) -> [Self; 2] {
        let established = |ours: u8, theirs: u8, peer, options: &LinkOptions| {
            Box::new(Established {
                sealer: Sealer::new(&Zeroizing::new([ours; 32]), options.seal_limits),
                opener: Opener::new(&Zeroizing::new([theirs; 32]), options.seal_limits),
                welcome: Bytes::new(),
                peer,
                handshake_hash: [0; 32],
                version: WIRE_VERSION_MAX,
            })
        };
        let up = State::Up(established(1, 2, responder.public(), &options[0]));
        let waiting = State::AwaitingFirstRecord(established(2, 1, initiator.public(), &options[1]));
        let mut first = Self::new(now, stream, options[0], up, (Arc::clone(initiator), true));
        first.renewal.begin(now, [0; 32]);
        first.deadline = None;
        let second = Self::new(now, stream, options[1], waiting, (Arc::clone(responder), false));
        [first, second]
    }
}
