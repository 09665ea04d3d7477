//! A relay and up to eight connections that say what they like, cut as they like, at any time. No frame reaches a stream
//! that it is not of, none of a live stream is missing, what is held is within windows, and the counts add up.
#![no_main]

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use dwell_fuzz::{Constant, Script, is_control, keypair};
use dwell_messages::kinds::OuterKind;
use dwell_messages::{PublicKey, StreamId};
use dwell_relay::first_message::{FIRST_MESSAGE_MIN_BYTES, MAC_BYTES, MacKey};
use dwell_relay::link::SEND_WINDOW_INITIAL_BYTES;
use dwell_relay::outer::{DATA_MAX_BYTES, OPEN_MAX_BYTES, OUTER_HEADER_BYTES};
use dwell_relay::registration::{Registrant, Registrar};
use dwell_relay::rendezvous::{
    CLOSING_TIMEOUT, FlowTotals, Report, SOCKET_MAX_BYTES, TokenHash, WINDOW_MAX_BYTES,
};
use dwell_relay::{
    Admission, Command, ConnId, Dialer, OuterDecoder, OuterFrame, Preamble, PreambleDecoder, Rendezvous,
    Reset, ResetCode, Source, encode_outer,
};
use libfuzzer_sys::fuzz_target;

const CONNECTIONS: usize = 8;
const EXECUTORS: usize = 2;
/// DATA of one input.
const SENT_MAX_BYTES: u64 = 2 * 1024 * 1024;
const TOKEN: &[u8] = b"token";
/// In front of every payload: who sent it, on what connection, and which it is.
const MARK_BYTES: usize = 16;

/// What an executor says to register, and then to prove itself to a relay that draws the same every time.
struct Transcript {
    key: PublicKey,
    opening: Bytes,
    proof: Bytes,
}

fn relay_randomness() -> Constant {
    Constant(77)
}

fn transcripts() -> &'static [Transcript] {
    static TRANSCRIPTS: OnceLock<Vec<Transcript>> = OnceLock::new();
    TRANSCRIPTS.get_or_init(|| (0..EXECUTORS as u64).map(transcript).collect())
}

fn transcript(number: u64) -> Transcript {
    let identity = keypair(10 + number);
    let stream = StreamId([200; 16]);
    let preamble =
        Preamble::new(Dialer::Executor, identity.public(), stream, &[]).expect("no token is short");
    let (waiting, opening) = Registrant::start(&identity, &preamble, &[], &mut Constant(number))
        .expect("the generator never fails");
    let mut decoder = PreambleDecoder::new();
    decoder.feed(BytesMut::from(&opening[..]));
    let (preamble, _) = decoder.decode().expect("ours is a preamble").expect("and whole");
    let first = decoder
        .into_frames()
        .next_frame()
        .expect("ours is a frame")
        .expect("and whole");
    let (_, answer) = Registrar::read_first(&keypair(9), &preamble, &first.payload, &mut relay_randomness())
        .expect("an honest message is read");
    let kind = OuterKind::Handshake;
    let answer = OuterFrame {
        kind,
        stream,
        stamp_us: 0,
        payload: BytesMut::from(&answer[..]),
    };
    let (_, proof) = waiting.handle_frame(&answer).expect("an honest answer is read");
    Transcript {
        key: identity.public(),
        opening,
        proof,
    }
}

/// Four streams of each executor, so that an id says whose it is.
fn stream_id(number: u8) -> StreamId {
    StreamId([number & 7; 16])
}

/// One direction of a pairing, as its receiver sees it.
#[derive(Default)]
struct Way {
    /// The mark that comes next, once there was one.
    next: Option<u32>,
    frames: u64,
    bytes: u64,
}

struct Pairing {
    harness: ConnId,
    executor: ConnId,
    up: Way,
    down: Way,
    is_over: bool,
}

struct Conn {
    /// Not yet said to be in the socket.
    unread: usize,
    written: OuterDecoder,
    /// How many frames were sent on each stream, the mark of the next.
    marks: HashMap<StreamId, u32>,
    /// Of each stream: DATA sent, and the most that may have been.
    windows: HashMap<StreamId, (u64, u64)>,
    is_executor: bool,
}

struct World {
    begun: Instant,
    now: Instant,
    relay: Rendezvous,
    next: u64,
    conns: BTreeMap<ConnId, Conn>,
    pairings: HashMap<(ConnId, StreamId), Pairing>,
    /// The executor's side of the same: which harness is at the other end.
    behind: HashMap<(ConnId, StreamId), ConnId>,
    registered: HashMap<PublicKey, ConnId>,
    opened: usize,
    closed: usize,
    sent_bytes: u64,
    sent_frames: u64,
    arrived_frames: u64,
    /// Sent bytes that are no operation's, and may have made frames without a mark of them.
    wild: HashSet<ConnId>,
}

impl World {
    fn new(listed: bool) -> Self {
        let admission = if listed {
            Admission::Listed {
                executors: vec![transcripts()[0].key],
                harness_tokens: vec![TokenHash::of(TOKEN)],
            }
        } else {
            Admission::Open
        };
        let now = Instant::now();
        Self {
            begun: now,
            now,
            relay: Rendezvous::new(admission, keypair(9), Box::new(relay_randomness())),
            next: 0,
            conns: BTreeMap::new(),
            pairings: HashMap::new(),
            behind: HashMap::new(),
            registered: HashMap::new(),
            opened: 0,
            closed: 0,
            sent_bytes: 0,
            sent_frames: 0,
            arrived_frames: 0,
            wild: HashSet::new(),
        }
    }

    fn connect(&mut self) {
        if self.conns.len() == CONNECTIONS {
            return;
        }
        let id = ConnId(self.next);
        self.next += 1;
        let conn = Conn {
            unread: 0,
            written: OuterDecoder::new(),
            marks: HashMap::new(),
            windows: HashMap::new(),
            is_executor: false,
        };
        self.conns.insert(id, conn);
        self.relay.connected(self.now, id, Source::Local);
        self.obey();
    }

    fn pick(&self, script: &mut Script<'_>) -> Option<ConnId> {
        let place = script.below(CONNECTIONS);
        self.conns.keys().nth(place % self.conns.len().max(1)).copied()
    }

    fn send_wild(&mut self, script: &mut Script<'_>, conn: ConnId, bytes: &[u8]) {
        self.wild.insert(conn);
        self.sent_frames += bytes.len() as u64;
        self.send(script, conn, bytes);
    }

    fn send(&mut self, script: &mut Script<'_>, conn: ConnId, bytes: &[u8]) {
        let shape = script.byte();
        let cut = if shape & 3 == 0 {
            usize::from(shape)
        } else {
            bytes.len()
        };
        let (head, tail) = bytes.split_at(cut.min(bytes.len()));
        for piece in [head, tail] {
            if !piece.is_empty() && self.conns.contains_key(&conn) {
                self.relay.received(self.now, conn, BytesMut::from(piece));
                self.obey();
            }
        }
    }

    fn open(&mut self, script: &mut Script<'_>, conn: ConnId) {
        let shape = script.byte();
        let token = if shape & 1 == 0 { TOKEN } else { b"" };
        let number = shape >> 1 & 1;
        let executor = transcripts()[usize::from(number)].key;
        let dialer = if shape >> 2 == 63 {
            Dialer::Inquirer
        } else {
            Dialer::Harness
        };
        let stream = stream_id(number << 2 | script.byte() & 3);
        let preamble = Preamble::new(dialer, executor, stream, token).expect("a short token");
        let clear = preamble.encode();
        let mut bytes = BytesMut::from(&clear[..]);
        bytes.put_slice(token);
        // The relay looks at the MAC and at nothing else of it.
        let mut first = vec![1; FIRST_MESSAGE_MIN_BYTES - MAC_BYTES];
        MacKey::of(&executor).append(&clear, &mut first);
        encode_outer(&mut bytes, OuterKind::Handshake, stream, 0, &first);
        self.send(script, conn, &bytes);
    }

    fn data(&mut self, script: &mut Script<'_>, conn: ConnId) {
        let shape = script.byte();
        let stream = stream_id(shape);
        let length = if shape & 0xc0 == 0xc0 {
            DATA_MAX_BYTES
        } else {
            MARK_BYTES + usize::from(shape >> 2)
        };
        let wire = (OUTER_HEADER_BYTES + length) as u64;
        if self.sent_bytes + wire > SENT_MAX_BYTES {
            return;
        }
        self.sent_bytes += wire;
        self.sent_frames += 1;
        let Some(end) = self.conns.get_mut(&conn) else {
            return;
        };
        let mark = end.marks.entry(stream).or_default();
        let mut payload = BytesMut::with_capacity(length);
        payload.put_u64(conn.0);
        payload.put_u32(*mark);
        payload.put_u32(length as u32);
        payload.resize(length, 0xda);
        *mark += 1;
        if is_control() && *mark == 3 {
            payload[11] ^= 1;
        }
        if let Some((sent, _)) = end.windows.get_mut(&stream) {
            *sent += wire;
        }
        let mut bytes = BytesMut::new();
        encode_outer(&mut bytes, OuterKind::Data, stream, 0, &payload);
        self.send(script, conn, &bytes);
    }

    fn other_frame(&mut self, script: &mut Script<'_>, conn: ConnId) {
        let Some(kind) = OuterKind::from_wire(1 + script.byte() % 9) else {
            return;
        };
        let stream = stream_id(script.byte());
        let mut bytes = BytesMut::new();
        match kind {
            OuterKind::Reset => {
                let mut payload = BytesMut::new();
                let code = match ResetCode::from_wire(u16::from(script.byte())) {
                    // That one is the relay's to say.
                    ResetCode::WindowOverrun => ResetCode::Closed,
                    code => code,
                };
                Reset::new(code).encode(&mut payload);
                encode_outer(&mut bytes, kind, stream, 0, &payload);
            }
            // Sent by their own operation, with a mark.
            OuterKind::Data => return,
            _ => {
                let (least, _) = dwell_relay::outer::payload_bounds(kind);
                encode_outer(&mut bytes, kind, stream, 0, &vec![script.byte(); least]);
            }
        }
        self.send(script, conn, &bytes);
    }

    /// Does what the relay says.
    fn obey(&mut self) {
        while let Some(command) = self.relay.poll_command() {
            match command {
                Command::Write { conn, bytes } => self.written(conn, &bytes),
                Command::Close { conn } => self.gone(conn),
                Command::Proven { conn } => assert!(self.conns.contains_key(&conn), "it is there"),
                Command::Report(report) => self.report(report),
            }
        }
    }

    fn gone(&mut self, conn: ConnId) {
        self.conns.remove(&conn).expect("a connection is closed once");
    }

    fn written(&mut self, conn: ConnId, bytes: &Bytes) {
        let end = self
            .conns
            .get_mut(&conn)
            .expect("nothing is written to who is gone");
        end.unread += bytes.len();
        let most = SOCKET_MAX_BYTES + OUTER_HEADER_BYTES + DATA_MAX_BYTES.max(OPEN_MAX_BYTES);
        assert!(end.unread < most, "{} bytes in one socket", end.unread);
        end.written.buffer_mut().extend_from_slice(bytes);
        let frame = end
            .written
            .next_frame()
            .expect("a relay writes frames")
            .expect("whole ones");
        assert_eq!(end.written.buffered(), 0, "one at a time");
        self.arrived(conn, &frame);
    }

    fn arrived(&mut self, conn: ConnId, frame: &OuterFrame) {
        let is_executor = self.conns.get(&conn).is_some_and(|end| end.is_executor);
        let bytes = (OUTER_HEADER_BYTES + frame.payload.len()) as u64;
        let harness = if is_executor {
            self.behind.get(&(conn, frame.stream)).copied()
        } else {
            Some(conn)
        };
        let pairing = harness.and_then(|harness| self.pairings.get_mut(&(harness, frame.stream)));
        match frame.kind {
            OuterKind::Data => {
                let pairing = pairing.expect("DATA of a stream that nobody opened");
                let (sender, way) = if is_executor {
                    (pairing.harness, &mut pairing.up)
                } else {
                    (pairing.executor, &mut pairing.down)
                };
                assert!(!pairing.is_over, "DATA behind the end of its stream");
                if !self.wild.contains(&sender) {
                    let mut mark = &frame.payload[..MARK_BYTES];
                    let (from, number, length) = (mark.get_u64(), mark.get_u32(), mark.get_u32());
                    assert_eq!(
                        ConnId(from),
                        sender,
                        "a frame crossed to a stream that is not its own"
                    );
                    assert_eq!(length as usize, frame.payload.len());
                    let next = way.next.get_or_insert(number);
                    assert_eq!(*next, number, "a record of a live stream is missing");
                    *next += 1;
                }
                way.frames += 1;
                way.bytes += bytes;
                self.arrived_frames += 1;
            }
            OuterKind::Open | OuterKind::Handshake => {
                if let Some(pairing) = pairing {
                    let way = if is_executor {
                        &mut pairing.up
                    } else {
                        &mut pairing.down
                    };
                    way.frames += 1;
                    way.bytes += bytes;
                }
            }
            OuterKind::Window => {
                let limit = u64::from_be_bytes(frame.payload[..].try_into().expect("a window has 8 bytes"));
                let end = self.conns.get_mut(&conn).expect("it was written to");
                let (sent, most) = end.windows.get_mut(&frame.stream).expect("a window of a stream");
                assert!(
                    limit > *most && limit <= *sent + WINDOW_MAX_BYTES,
                    "{limit} after {most}"
                );
                *most = limit;
            }
            OuterKind::Reset | OuterKind::Refused | OuterKind::Registered | OuterKind::Pong => {}
            OuterKind::Ping => panic!("a relay pings nobody"),
        }
    }

    fn report(&mut self, report: Report) {
        match report {
            Report::Registered { conn, executor } => {
                self.registered.insert(executor, conn);
                self.conns.get_mut(&conn).expect("it is there").is_executor = true;
            }
            Report::StreamOpened {
                harness,
                executor,
                stream,
            } => {
                let executor = *self.registered.get(&executor).expect("it is registered");
                self.opened += 1;
                for conn in [harness, executor] {
                    let end = self.conns.get_mut(&conn).expect("both ends are there");
                    end.windows.insert(stream, (0, SEND_WINDOW_INITIAL_BYTES));
                }
                self.behind.insert((executor, stream), harness);
                let (up, down) = (Way::default(), Way::default());
                let pairing = Pairing {
                    harness,
                    executor,
                    up,
                    down,
                    is_over: false,
                };
                let before = self.pairings.insert((harness, stream), pairing);
                assert!(before.is_none(), "a harness has one stream, once");
            }
            Report::StreamClosed {
                stream,
                code,
                up,
                down,
            } => self.stream_closed(stream, code, up, down),
            Report::Superseded { .. }
            | Report::Unregistered { .. }
            | Report::RegistrationRefused { .. }
            | Report::StreamUnavailable { .. }
            | Report::ConnectionFault { .. } => {}
        }
    }

    fn stream_closed(&mut self, stream: StreamId, code: ResetCode, up: FlowTotals, down: FlowTotals) {
        self.closed += 1;
        let elapsed = (self.now - self.begun).as_micros() as u64;
        let matches =
            |way: &Way, totals: &FlowTotals| (way.frames, way.bytes) == (totals.frames, totals.bytes);
        let mut candidates: Vec<&mut Pairing> = (self.pairings.iter_mut())
            .filter(|((_, id), pairing)| {
                *id == stream && !pairing.is_over && matches(&pairing.up, &up) && matches(&pairing.down, &down)
            })
            .map(|(_, pairing)| pairing)
            .collect();
        assert!(!candidates.is_empty(), "the relay's counts are what arrived");
        // An executor that registered again may have two of a name; which of them ended is not said.
        if let [pairing] = &mut candidates[..] {
            pairing.is_over = true;
        }
        let ends: Vec<ConnId> = (candidates.iter())
            .flat_map(|pairing| [pairing.harness, pairing.executor])
            .collect();
        for totals in [up, down] {
            assert!(u64::from(totals.residence_us_max) <= elapsed);
            assert!(totals.residence_us_total <= totals.frames * elapsed);
        }
        if code == ResetCode::WindowOverrun && ends.iter().all(|conn| !self.wild.contains(conn)) {
            let sent_too_much = |conn: &ConnId| {
                let end = self.conns.get(conn);
                end.and_then(|end| end.windows.get(&stream))
                    .is_none_or(|(sent, most)| sent > most)
            };
            assert!(ends.iter().any(sent_too_much), "an overrun of nobody");
        }
    }

    fn pass_time(&mut self, by: Duration) {
        self.now += by;
        self.relay.handle_timeout(self.now);
        self.obey();
        assert!(
            self.relay.poll_timeout().is_none_or(|at| at > self.now),
            "who was late is closed"
        );
    }

    fn step(&mut self, script: &mut Script<'_>) {
        let operation = script.below(16);
        if operation == 0 {
            return self.connect();
        }
        if operation == 1 {
            let milliseconds = u64::from(script.byte()) * 64;
            return self.pass_time(Duration::from_millis(milliseconds));
        }
        let Some(conn) = self.pick(script) else {
            return self.connect();
        };
        match operation {
            2 => {
                let executor = script.below(EXECUTORS);
                self.send(script, conn, &transcripts()[executor].opening);
            }
            3 => {
                let executor = script.below(EXECUTORS);
                self.send(script, conn, &transcripts()[executor].proof);
            }
            4 | 5 => self.open(script, conn),
            6..=9 => self.data(script, conn),
            10 => self.other_frame(script, conn),
            11 => {
                let count = script.below(64);
                let bytes = script.bytes(count);
                self.send_wild(script, conn, bytes);
            }
            12 => {
                self.conns.remove(&conn);
                self.relay.disconnected(self.now, conn);
                self.obey();
            }
            13 => {
                let open = script.flag();
                if open {
                    self.relay.set_admission(Admission::Open);
                }
            }
            _ => {
                let unread = self.conns.get(&conn).map_or(0, |end| end.unread);
                let count = (usize::from(script.byte()) << 10).min(unread);
                if let Some(end) = self.conns.get_mut(&conn) {
                    end.unread -= count;
                }
                self.relay.drained(self.now, conn, count);
                self.obey();
            }
        }
        self.check();
    }

    fn check(&self) {
        let census = self.relay.census();
        assert_eq!(census.connections, self.conns.len());
        assert!(census.executors <= EXECUTORS);
        assert_eq!(
            (census.streams, census.reports_left_out),
            (self.opened - self.closed, 0)
        );
        // Whatever arrived twice, or arrived and was counted as dropped, would show here.
        assert!(self.arrived_frames <= self.sent_frames);
    }

    /// Everybody leaves: then the relay holds nothing.
    fn finish(&mut self, script: &mut Script<'_>) {
        while let Some(conn) = self.pick(script) {
            self.conns.remove(&conn);
            self.relay.disconnected(self.now, conn);
            self.obey();
        }
        self.pass_time(CLOSING_TIMEOUT);
        self.check();
        let census = self.relay.census();
        assert_eq!((census.connections, census.executors, census.streams), (0, 0, 0));
        assert_eq!(self.relay.poll_timeout(), None, "nothing is due for nobody");
    }
}

fuzz_target!(|data: &[u8]| {
    let mut script = Script::new(data);
    let shape = script.byte();
    let mut world = World::new(shape & 1 == 1);
    if shape & 2 == 0 {
        // An executor in force, so that the interesting part comes soon.
        world.connect();
        for bytes in [&transcripts()[0].opening, &transcripts()[0].proof] {
            world
                .relay
                .received(world.now, ConnId(0), BytesMut::from(&bytes[..]));
            world.obey();
        }
        assert_eq!(world.relay.census().executors, 1);
    }
    for _ in 0..256 {
        if script.is_over() {
            break;
        }
        world.step(&mut script);
    }
    world.finish(&mut script);
});
