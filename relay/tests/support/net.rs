//! A relay with executors and harnesses around it, on a virtual clock, single-stepped by the test.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "shared with whoever needs a part"
)]

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use dwell_messages::kinds::OuterKind;
use dwell_messages::{PublicKey, StreamId};
use dwell_relay::opening::{Attestation, split_open};
use dwell_relay::registration::{AwaitingRegistered, AwaitingRelay, Registrant};
use dwell_relay::rendezvous::Report;
use dwell_relay::{
    Admission, Command, ConnId, Dialer, Link, LinkOptions, OuterDecoder, OuterFrame, Preamble, Refusal,
    Rendezvous, Source, StaticKeypair,
};

use crate::support::{End, Seeded, drain, keypair};

pub enum Registering {
    AwaitingRelay(Box<AwaitingRelay>),
    AwaitingRegistered(AwaitingRegistered),
    Done,
}

pub struct ExecutorEnd {
    pub identity: Arc<StaticKeypair>,
    pub registering: Registering,
    pub registered: bool,
    pub refused: Option<Refusal>,
    pub links: HashMap<StreamId, End>,
    pub link_options: LinkOptions,
    pub clear_frames: Vec<OuterFrame>,
    /// What the relay said about those it opened streams for.
    pub attested: HashMap<StreamId, Attestation>,
}

pub enum Party {
    Executor(Box<ExecutorEnd>),
    Harness(Box<End>),
    /// Speaks by hand.
    Raw,
}

pub struct Conn {
    pub party: Party,
    decoder: OuterDecoder,
    /// Written by the relay and not yet taken.
    pub unread: Vec<Bytes>,
    /// Frames that arrived: their kinds, and the streams of those with data.
    pub kinds: Vec<OuterKind>,
    pub data_streams: Vec<StreamId>,
    pub frames: Vec<OuterFrame>,
    /// Takes nothing.
    pub stuck: bool,
}

pub struct Net {
    pub now: Instant,
    pub relay: Rendezvous,
    pub conns: HashMap<ConnId, Conn>,
    pub closed: HashSet<ConnId>,
    pub reports: Vec<Report>,
    next: u64,
    pub rng: Seeded,
    pub unread_max: usize,
    /// Where the next connections come from.
    pub source: Source,
}

impl Net {
    pub fn new(admission: Admission) -> Self {
        Self {
            now: Instant::now(),
            relay: Rendezvous::new(admission, keypair(1000), Box::new(Seeded(1001))),
            conns: HashMap::new(),
            closed: HashSet::new(),
            reports: Vec::new(),
            next: 0,
            rng: Seeded(1002),
            unread_max: 0,
            source: Source::V4([127, 0, 0, 1]),
        }
    }

    fn connect(&mut self, party: Party) -> ConnId {
        let id = ConnId(self.next);
        self.next += 1;
        self.relay.connected(self.now, id, self.source);
        let conn = Conn {
            party,
            decoder: OuterDecoder::new(),
            unread: Vec::new(),
            kinds: Vec::new(),
            data_streams: Vec::new(),
            frames: Vec::new(),
            stuck: false,
        };
        self.conns.insert(id, conn);
        id
    }

    pub fn raw(&mut self) -> ConnId {
        self.connect(Party::Raw)
    }

    pub fn send(&mut self, conn: ConnId, bytes: &[u8]) {
        self.relay.received(self.now, conn, BytesMut::from(bytes));
    }

    pub fn executor_named(&mut self, identity: &Arc<StaticKeypair>, named: PublicKey) -> ConnId {
        let stream = StreamId(u128::from(self.next + 10_000).to_be_bytes());
        let preamble = Preamble::new(Dialer::Executor, named, stream, b"").unwrap();
        let (waiting, bytes) = Registrant::start(identity, &preamble, b"", &mut self.rng).unwrap();
        let id = self.connect(Party::Executor(Box::new(ExecutorEnd {
            identity: identity.clone(),
            registering: Registering::AwaitingRelay(Box::new(waiting)),
            registered: false,
            refused: None,
            links: HashMap::new(),
            link_options: crate::support::unpaced_relayed(),
            clear_frames: Vec::new(),
            attested: HashMap::new(),
        })));
        self.send(id, &bytes);
        id
    }

    pub fn executor(&mut self, identity: &Arc<StaticKeypair>) -> ConnId {
        let id = self.executor_named(identity, identity.public());
        self.drive();
        id
    }

    pub fn harness_with(
        &mut self,
        executor: PublicKey,
        stream: u128,
        token: &[u8],
        options: LinkOptions,
    ) -> ConnId {
        let client = StaticKeypair::generate(&mut self.rng).unwrap();
        let stream = StreamId(stream.to_be_bytes());
        let preamble = Preamble::new(Dialer::Harness, executor, stream, token).unwrap();
        let link = Link::dial(
            self.now,
            &client,
            &preamble,
            token,
            b"hello",
            options,
            &mut self.rng,
        )
        .unwrap();
        self.connect(Party::Harness(Box::new(End::new(link))))
    }

    pub fn harness(&mut self, executor: PublicKey, stream: u128) -> ConnId {
        let id = self.harness_with(executor, stream, b"", crate::support::unpaced_relayed());
        self.drive();
        id
    }

    pub fn disconnect(&mut self, conn: ConnId) {
        self.conns.remove(&conn);
        self.relay.disconnected(self.now, conn);
        self.drive();
    }

    pub fn end(&mut self, conn: ConnId) -> &mut End {
        match &mut self.conns.get_mut(&conn).unwrap().party {
            Party::Harness(end) => end,
            Party::Executor(_) | Party::Raw => panic!("not a harness"),
        }
    }

    pub fn exec(&mut self, conn: ConnId) -> &mut ExecutorEnd {
        match &mut self.conns.get_mut(&conn).unwrap().party {
            Party::Executor(end) => end,
            Party::Harness(_) | Party::Raw => panic!("not an executor"),
        }
    }

    pub fn link(&mut self, conn: ConnId, stream: u128) -> &mut End {
        self.exec(conn)
            .links
            .get_mut(&StreamId(stream.to_be_bytes()))
            .unwrap()
    }

    /// Carries out commands and moves bytes until nothing moves any more; bounded.
    pub fn drive(&mut self) {
        for _ in 0..200_000 {
            let mut moved = self.commands();
            let ids: Vec<ConnId> = self.conns.keys().copied().collect();
            for id in ids {
                moved |= self.receive(id);
                moved |= self.transmit(id);
            }
            if !moved {
                return;
            }
            self.now += Duration::from_micros(10);
        }
        panic!("the net does not come to rest");
    }

    pub fn commands(&mut self) -> bool {
        let mut moved = false;
        while let Some(command) = self.relay.poll_command() {
            moved = true;
            match command {
                Command::Write { conn, bytes } => {
                    if let Some(conn) = self.conns.get_mut(&conn) {
                        conn.unread.push(bytes);
                        let unread = conn.unread.iter().map(Bytes::len).sum();
                        self.unread_max = self.unread_max.max(unread);
                    }
                }
                Command::Proven { .. } => {}
                Command::Close { conn } => {
                    assert!(self.closed.insert(conn), "a connection is closed once");
                }
                Command::Report(report) => self.reports.push(report),
            }
        }
        moved
    }

    fn receive(&mut self, id: ConnId) -> bool {
        let conn = self.conns.get_mut(&id).unwrap();
        if conn.stuck || conn.unread.is_empty() {
            return false;
        }
        let mut written = 0;
        for bytes in std::mem::take(&mut conn.unread) {
            written += bytes.len();
            conn.decoder.feed(BytesMut::from(&bytes[..]));
        }
        let frames = drain(&mut conn.decoder);
        conn.kinds.extend(frames.iter().map(|frame| frame.kind));
        for frame in frames {
            if frame.kind == OuterKind::Data {
                conn.data_streams.push(frame.stream);
            }
            if matches!(conn.party, Party::Raw) {
                conn.frames.push(frame.clone());
            }
            let answer = conn.party.handle(self.now, frame, &mut self.rng);
            if let Some(bytes) = answer {
                self.relay.received(self.now, id, BytesMut::from(&bytes[..]));
            }
        }
        self.relay.drained(self.now, id, written);
        true
    }

    fn transmit(&mut self, id: ConnId) -> bool {
        let conn = self.conns.get_mut(&id).unwrap();
        let mut out = BytesMut::new();
        match &mut conn.party {
            Party::Harness(end) => out = end.transmit(self.now, usize::MAX),
            Party::Executor(end) => {
                for link in end.links.values_mut() {
                    out.extend_from_slice(&link.transmit(self.now, usize::MAX));
                }
            }
            Party::Raw => {}
        }
        if out.is_empty() {
            return false;
        }
        self.relay.received(self.now, id, out);
        true
    }
}

impl Party {
    fn handle(&mut self, now: Instant, frame: OuterFrame, rng: &mut Seeded) -> Option<Bytes> {
        match self {
            Self::Harness(end) => {
                end.handle(now, frame);
                None
            }
            Self::Executor(end) => end.handle(now, frame, rng),
            Self::Raw => None,
        }
    }
}

impl ExecutorEnd {
    fn handle(&mut self, now: Instant, frame: OuterFrame, rng: &mut Seeded) -> Option<Bytes> {
        if frame.kind == OuterKind::Refused {
            self.refused = Some(Refusal::decode(&frame.payload).unwrap());
            return None;
        }
        match std::mem::replace(&mut self.registering, Registering::Done) {
            Registering::AwaitingRelay(waiting) => {
                // What is no answer has ended it.
                let Ok((next, bytes)) = waiting.handle_frame(&frame) else {
                    return None;
                };
                self.registering = Registering::AwaitingRegistered(next);
                return Some(bytes);
            }
            Registering::AwaitingRegistered(waiting) => {
                waiting.handle_frame(&frame).unwrap();
                self.registered = true;
                return None;
            }
            Registering::Done => {}
        }
        if frame.kind == OuterKind::Open {
            let (preamble, attested, _) = split_open(frame.payload.clone()).unwrap();
            self.attested.insert(frame.stream, attested);
            let link = Link::answer(now, self.identity.clone(), &preamble, self.link_options, rng).unwrap();
            self.links.insert(frame.stream, End::new(link));
        }
        match self.links.get_mut(&frame.stream) {
            Some(link) => link.handle(now, frame),
            None => self.clear_frames.push(frame),
        }
        None
    }
}
