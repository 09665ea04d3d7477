//! Message 1s of every kind.

use dwell_messages::{Hello, PublicKey, StreamId};
use dwell_relay::first_message::{FIRST_MESSAGE_MIN_BYTES, MAC_BYTES, MacKey};
use dwell_relay::handshake::Initiator;
use dwell_relay::{Dialer, OsRandomness, Preamble, Randomness as _, StaticKeypair};

/// A preamble and the message 1 that belongs to it.
#[derive(Clone)]
pub(crate) struct Opening {
    pub(crate) preamble: Preamble,
    pub(crate) message: Vec<u8>,
}

/// What a flood is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// The right length, any bytes.
    WrongMac,
    /// Real messages of clients that are not listed.
    Strangers,
    /// A message of a listed client that was answered once.
    Replay,
}

pub(crate) fn keypair() -> StaticKeypair {
    StaticKeypair::generate(&mut OsRandomness::new()).unwrap()
}

pub(crate) fn preamble(executor: PublicKey) -> Preamble {
    let mut stream = StreamId::default();
    OsRandomness::new().fill(&mut stream.0).unwrap();
    Preamble::new(Dialer::Harness, executor, stream, &[]).unwrap()
}

pub(crate) fn hello() -> Vec<u8> {
    let hello = Hello {
        timestamp_ms: 1,
        authorization: serde_bytes::ByteBuf::new(),
    };
    hello.encode().unwrap()
}

/// A real one.
pub(crate) fn opening(client: &StaticKeypair, executor: PublicKey) -> Opening {
    let preamble = preamble(executor);
    let clear = preamble.encode();
    let (_, message) =
        Initiator::start(client, executor, &clear, &hello(), &mut OsRandomness::new()).unwrap();
    Opening {
        preamble,
        message: message.to_vec(),
    }
}

/// Some of a kind, to be sent over and over: what was refused is not remembered. A replay's first is the recorded one.
pub(crate) fn some(kind: Kind, client: &StaticKeypair, executor: PublicKey) -> Vec<Opening> {
    match kind {
        Kind::WrongMac => (0..64)
            .map(|_| {
                let mut message = vec![0; FIRST_MESSAGE_MIN_BYTES + hello().len()];
                OsRandomness::new().fill(&mut message).unwrap();
                Opening {
                    preamble: preamble(executor),
                    message,
                }
            })
            .collect(),
        Kind::Strangers => (0..64).map(|_| opening(&keypair(), executor)).collect(),
        Kind::Replay => vec![opening(client, executor)],
    }
}

/// With any bytes under a right MAC: what it costs nothing to make.
pub(crate) fn under_a_right_mac(executor: PublicKey) -> Opening {
    let preamble = preamble(executor);
    let mut message = vec![0; FIRST_MESSAGE_MIN_BYTES - MAC_BYTES];
    OsRandomness::new().fill(&mut message).unwrap();
    MacKey::of(&executor).append(&preamble.encode(), &mut message);
    Opening { preamble, message }
}
