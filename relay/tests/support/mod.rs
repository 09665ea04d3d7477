//! A seeded, virtual-clock pair of links, and the bytes between them in the test's hands.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test binary uses its part"
)]

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use dwell_messages::kinds::OuterKind;
use dwell_messages::{PublicKey, StreamId};
use dwell_relay::random::RandomnessFailed;
use dwell_relay::{
    Dialer, Incoming, Lane, Link, LinkError, LinkEvent, LinkOptions, OuterDecoder, OuterFrame, Outgoing,
    Preamble, PreambleDecoder, Randomness, StaticKeypair,
};

/// A small seeded generator (splitmix64): the same seed, the same keys.
#[derive(Clone, Debug)]
pub struct Seeded(pub u64);

impl Seeded {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl Randomness for Seeded {
    fn fill(&mut self, dest: &mut [u8]) -> Result<(), RandomnessFailed> {
        for chunk in dest.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
        Ok(())
    }
}

/// A generator that has nothing.
#[derive(Debug)]
pub struct Broken;

impl Randomness for Broken {
    fn fill(&mut self, _: &mut [u8]) -> Result<(), RandomnessFailed> {
        Err(RandomnessFailed)
    }
}

pub fn keypair(seed: u64) -> StaticKeypair {
    StaticKeypair::generate(&mut Seeded(seed)).unwrap()
}

pub const STREAM: StreamId = StreamId([7; 16]);

pub fn harness_preamble(executor: PublicKey) -> Preamble {
    Preamble::new(Dialer::Harness, executor, STREAM, &[]).unwrap()
}

pub fn message(lane: Lane, channel: u32, bytes: impl Into<Bytes>) -> Outgoing<u32> {
    Outgoing {
        lane,
        channel,
        bytes: bytes.into(),
        trailer: None,
        token: channel,
    }
}

/// One endpoint: its link, what came out of it, and what goes to the other side.
pub struct End {
    pub link: Link<u32>,
    pub events: Vec<LinkEvent>,
    pub received: Vec<Incoming>,
    pub error: Option<LinkError>,
    pub finished: Vec<u32>,
    pub records_sealed: u32,
    pub serve_clients: bool,
}

impl End {
    pub fn new(link: Link<u32>) -> Self {
        Self {
            link,
            events: Vec::new(),
            received: Vec::new(),
            error: None,
            finished: Vec::new(),
            records_sealed: 0,
            serve_clients: true,
        }
    }

    pub fn take_events(&mut self) {
        while let Some(event) = self.link.poll_event() {
            match event {
                LinkEvent::Message(message) => self.received.push(message),
                LinkEvent::AuthorizationNeeded { .. } => {
                    self.events.push(event);
                    if self.serve_clients {
                        self.link.welcome(b"welcome").unwrap();
                    } else {
                        self.link.refuse();
                    }
                }
                LinkEvent::Established(_) | LinkEvent::PeerClosed { .. } => self.events.push(event),
            }
        }
    }

    pub fn handle(&mut self, now: Instant, frame: OuterFrame) {
        if let Err(error) = self.link.handle_frame(now, frame) {
            self.error = Some(error);
        }
        self.take_events();
    }

    pub fn transmit(&mut self, now: Instant, max_bytes: usize) -> BytesMut {
        let mut out = BytesMut::new();
        match self.link.poll_transmit(now, &mut out, max_bytes) {
            Ok(report) => {
                self.records_sealed += report.records;
                self.finished
                    .extend(report.finished.iter().map(|message| message.token));
            }
            Err(error) => self.error = Some(error),
        }
        out
    }

    pub fn is_established(&self) -> bool {
        self.events
            .iter()
            .any(|event| matches!(event, LinkEvent::Established(_)))
    }

    pub fn closed_code(&self) -> Option<dwell_relay::ResetCode> {
        self.events.iter().find_map(|event| match event {
            LinkEvent::PeerClosed { reason } => Some(reason.code),
            LinkEvent::Established(_) | LinkEvent::AuthorizationNeeded { .. } | LinkEvent::Message(_) => None,
        })
    }
}

/// A harness and an executor with nothing in between but the test.
pub struct Pair {
    pub now: Instant,
    pub harness: End,
    pub executor: End,
    pub to_executor: VecDeque<OuterFrame>,
    pub to_harness: VecDeque<OuterFrame>,
    pub write_max_bytes: usize,
}

/// How a pair differs from the usual one.
pub struct PairOptions {
    pub seed: u64,
    pub harness: LinkOptions,
    pub executor: LinkOptions,
    pub hello: Vec<u8>,
}

/// All that is queued leaves at once: what most tests want to see.
pub fn unpaced() -> LinkOptions {
    LinkOptions {
        paced: false,
        ..LinkOptions::direct()
    }
}

/// The same through a relay: what its windows do is seen only where the pace does not hold.
pub fn unpaced_relayed() -> LinkOptions {
    LinkOptions {
        paced: false,
        ..LinkOptions::relayed()
    }
}

impl Default for PairOptions {
    fn default() -> Self {
        Self {
            seed: 1,
            harness: unpaced(),
            executor: unpaced(),
            hello: b"hello".to_vec(),
        }
    }
}

impl Pair {
    pub fn new(options: &PairOptions) -> Self {
        let now = Instant::now();
        let mut rng = Seeded(options.seed);
        let client = StaticKeypair::generate(&mut rng).unwrap();
        let server = Arc::new(StaticKeypair::generate(&mut rng).unwrap());
        let preamble = harness_preamble(server.public());
        let link = Link::dial(
            now,
            &client,
            &preamble,
            &[],
            &options.hello,
            options.harness,
            &mut rng,
        )
        .unwrap();
        let mut harness = End::new(link);
        let mut first = PreambleDecoder::new();
        first.feed(harness.transmit(now, usize::MAX));
        let (preamble, _) = first.decode().unwrap().unwrap();
        let link = Link::answer(now, server, &preamble, options.executor, &mut rng).unwrap();
        let mut frames = first.into_frames();
        let mut pair = Self {
            now,
            harness,
            executor: End::new(link),
            to_executor: VecDeque::new(),
            to_harness: VecDeque::new(),
            write_max_bytes: usize::MAX,
        };
        pair.to_executor.extend(drain(&mut frames));
        pair
    }

    /// A pair whose handshake is over and whose confirmation has arrived.
    pub fn up(options: &PairOptions) -> Self {
        let mut pair = Self::new(options);
        pair.drive();
        assert!(pair.harness.is_established() && pair.executor.is_established());
        pair
    }

    pub fn transmit(&mut self) {
        let bytes = self.harness.transmit(self.now, self.write_max_bytes);
        self.to_executor.extend(frames_of(bytes));
        let bytes = self.executor.transmit(self.now, self.write_max_bytes);
        self.to_harness.extend(frames_of(bytes));
    }

    /// Until nothing moves any more; a bound instead of a hang.
    pub fn drive(&mut self) {
        for _ in 0..100_000 {
            self.transmit();
            if self.to_executor.is_empty() && self.to_harness.is_empty() {
                return;
            }
            while let Some(frame) = self.to_executor.pop_front() {
                self.executor.handle(self.now, frame);
            }
            while let Some(frame) = self.to_harness.pop_front() {
                self.harness.handle(self.now, frame);
            }
            self.now += Duration::from_micros(10);
        }
        panic!("the pair does not come to rest");
    }
}

pub fn drain(decoder: &mut OuterDecoder) -> Vec<OuterFrame> {
    std::iter::from_fn(|| decoder.next_frame().unwrap()).collect()
}

pub fn frames_of(bytes: BytesMut) -> Vec<OuterFrame> {
    let mut decoder = OuterDecoder::new();
    decoder.feed(bytes);
    let frames = drain(&mut decoder);
    assert_eq!(decoder.buffered(), 0, "a write ends with a whole frame");
    frames
}

/// Bytes that differ everywhere, so that a lost or moved piece shows.
pub fn pattern(length: usize, seed: u64) -> Bytes {
    let mut bytes = vec![0; length];
    Seeded(seed).fill(&mut bytes).unwrap();
    bytes.into()
}

pub fn is_data(frame: &OuterFrame) -> bool {
    frame.kind == OuterKind::Data
}
