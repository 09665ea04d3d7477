//! Two links and whoever lies between them: frames delivered, lost, doubled, changed, swapped and made up, on a virtual
//! clock. Messages arrive as they were queued or not at all, an error is the end, and what is held is bounded.
#![no_main]

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use dwell_fuzz::{Script, Seeded, identity, is_control, pattern};
use dwell_messages::StreamId;
use dwell_messages::kinds::OuterKind;
use dwell_relay::link::{EVENTS_PENDING_MAX, HANDSHAKE_TIMEOUT, RenewAfter, SEND_WINDOW_INITIAL_BYTES};
use dwell_relay::outer::{OUTER_HEADER_BYTES, payload_bounds};
use dwell_relay::record::SealLimits;
use dwell_relay::{
    Dialer, EnqueueProblem, Lane, Link, LinkEvent, LinkOptions, OuterDecoder, OuterFrame, Outgoing, Preamble,
    PreambleDecoder, Reset, ResetCode,
};
use libfuzzer_sys::fuzz_target;

const STREAM: StreamId = StreamId([7; 16]);
/// Queued by one input, both ends together.
const QUEUED_MAX_BYTES: usize = 320 * 1024;
/// Of answers to pings, and of a handshake, a window and a reset besides.
const CLEAR_MAX_BYTES: usize = 32 * 1024 + 2 * 1024 + 17 * 1024;

/// What was queued in one channel of one lane and did not arrive, by what the link is told and by what it holds.
#[derive(Default)]
struct Channel {
    arriving: VecDeque<Bytes>,
    cutting: VecDeque<u32>,
}

struct End {
    link: Link<u32>,
    /// Towards the other end.
    under_way: VecDeque<OuterFrame>,
    said: HashMap<(Lane, u32), Channel>,
    established: bool,
    asked: bool,
    over: bool,
    windowed: bool,
    data_bytes: u64,
    limit: u64,
}

impl End {
    fn new(link: Link<u32>) -> Self {
        Self {
            link,
            under_way: VecDeque::new(),
            said: HashMap::new(),
            established: false,
            asked: false,
            over: false,
            windowed: false,
            data_bytes: 0,
            limit: SEND_WINDOW_INITIAL_BYTES,
        }
    }

    /// An error, a close or a reset: nothing happens here any more.
    fn check_over(&mut self) {
        assert!(self.link.is_over() && !self.link.is_up());
        assert!(self.link.poll_timeout().is_none(), "nothing is due any more");
        self.over = true;
    }

    fn transmit(&mut self, now: Instant, max_bytes: usize) -> bool {
        let mut out = BytesMut::new();
        let can = self.link.can_transmit();
        let outcome = self.link.poll_transmit(now, &mut out, max_bytes);
        let written = out.len();
        let mut decoder = OuterDecoder::new();
        decoder.feed(out);
        let (mut data_bytes, mut clear_bytes) = (0, 0);
        while let Some(frame) = decoder.next_frame().expect("what a link writes is frames") {
            let bytes = OUTER_HEADER_BYTES + frame.payload.len();
            assert_eq!((frame.stream, frame.stamp_us), (STREAM, 0));
            match frame.kind {
                OuterKind::Data => data_bytes += bytes,
                _ => clear_bytes += bytes,
            }
            self.under_way.push_back(frame);
        }
        assert_eq!(decoder.buffered(), 0, "and whole ones");
        assert!(clear_bytes <= CLEAR_MAX_BYTES, "{clear_bytes} clear bytes waited");
        self.data_bytes += data_bytes as u64;
        assert!(
            !self.windowed || self.data_bytes <= self.limit,
            "more than the window allows"
        );
        let Ok(report) = outcome else {
            self.check_over();
            return false;
        };
        assert_eq!((report.wire_bytes, report.data_bytes), (written, data_bytes));
        assert!(can || written == 0, "it said that nothing could leave");
        for message in report.finished {
            let channel = self
                .said
                .get_mut(&(message.lane, message.channel))
                .expect("it was queued");
            assert_eq!(
                channel.cutting.pop_front(),
                Some(message.token),
                "each token once, in order"
            );
        }
        true
    }
}

/// A dial and its answer, and message 1 under way.
fn dialled(now: Instant, harness: LinkOptions, executor: LinkOptions) -> [End; 2] {
    let mut rng = Seeded(1);
    let (client, server) = (identity(2), Arc::clone(identity(3)));
    let preamble = Preamble::new(Dialer::Harness, server.public(), STREAM, &[]).expect("no token is short");
    let mut harness =
        Link::dial(now, client, &preamble, &[], b"hello", harness, &mut rng).expect("an honest dial begins");
    let mut out = BytesMut::new();
    let report = harness.poll_transmit(now, &mut out, usize::MAX);
    assert_eq!(report.expect("message 1 is written").data_bytes, 0);
    let mut decoder = PreambleDecoder::new();
    decoder.feed(out);
    let (preamble, _) = decoder.decode().expect("ours is a preamble").expect("and whole");
    let mut frames = decoder.into_frames();
    let executor =
        Link::answer(now, server, &preamble, executor, &mut rng).expect("an honest dial is answered");
    let mut ends = [harness, executor].map(End::new);
    while let Some(frame) = frames.next_frame().expect("what a link writes is frames") {
        ends[0].under_way.push_back(frame);
    }
    ends
}

struct World {
    now: Instant,
    ends: [End; 2],
    next_token: u32,
    queued: usize,
    /// Nothing was done to the bytes, and nobody was told to stop.
    honest: bool,
    serves: bool,
    paced: bool,
}

impl World {
    fn new(script: &mut Script<'_>) -> Self {
        let now = Instant::now();
        let shape = script.byte();
        let mut options = if shape & 1 == 0 {
            LinkOptions::direct()
        } else {
            LinkOptions::relayed()
        };
        options.grants = options.windowed && shape & 2 == 0;
        if shape & 4 != 0 {
            options.seal_limits = SealLimits {
                records_max: 8,
                bytes_max: 64 * 1024,
            };
        }
        if shape & 64 != 0 {
            options.renew_after = RenewAfter {
                records: 2,
                bytes: 4 * 1024,
                ..RenewAfter::default()
            };
        }
        options.paced = shape & 128 == 0;
        // One that does not keep to the windows that it is granted.
        let greedy = options.grants && shape & 32 != 0;
        let mut dialler = options;
        dialler.windowed &= !greedy;
        // A handshake costs as much as all the rest, so one in eight has it.
        let ends = if script.byte() & 7 == 7 {
            dialled(now, dialler, options)
        } else {
            let peers = [2, 3].map(identity);
            let [first, second] = Link::past_handshake(now, STREAM, peers, [dialler, options]);
            let [mut harness, mut executor] = [(first, 4), (second, 5)]
                .map(|(link, seed)| End::new(link.drawing_from(Box::new(Seeded(seed)))));
            (harness.established, executor.asked) = (true, true);
            [harness, executor]
        };
        let mut world = Self {
            now,
            ends,
            next_token: 0,
            queued: 0,
            honest: !greedy,
            serves: shape & 8 == 0,
            paced: options.paced,
        };
        world.ends[0].windowed = dialler.windowed;
        world.ends[1].windowed = options.windowed;
        if shape & 16 == 0 {
            world.settle();
        }
        world
    }

    fn lies(&mut self) {
        self.honest = false;
    }

    fn enqueue(&mut self, script: &mut Script<'_>, from: usize) {
        let lane = Lane::ALL[script.below(Lane::ALL.len())];
        let channel = u32::from(script.byte() & 1);
        let length = match script.byte() {
            shape if shape < 192 => 1 + usize::from(shape & 63),
            shape if shape < 248 => 1 + usize::from(script.u16() & 0x1fff),
            shape if shape < 252 => 1 + usize::from(script.u16()),
            _ => 280_000,
        };
        if self.queued + length > QUEUED_MAX_BYTES {
            return;
        }
        let token = self.next_token;
        let bytes = Bytes::from(pattern(length, u64::from(token)));
        let end = &mut self.ends[from];
        let outgoing = Outgoing {
            lane,
            channel,
            bytes: bytes.clone(),
            trailer: None,
            token,
        };
        match end.link.enqueue(outgoing) {
            Ok(()) => {
                assert!(!end.over, "a link that is over takes nothing");
                let channel = end.said.entry((lane, channel)).or_default();
                channel.arriving.push_back(bytes);
                channel.cutting.push_back(token);
                self.next_token += 1;
                self.queued += length;
            }
            Err(refused) => {
                assert_eq!((refused.message.token, refused.message.bytes), (token, bytes));
                assert!(
                    end.over && refused.problem == EnqueueProblem::LinkOver,
                    "{}",
                    refused.problem
                );
            }
        }
    }

    /// One frame arrives at an end.
    fn deliver(&mut self, to: usize, frame: OuterFrame) {
        let end = &mut self.ends[to];
        if frame.kind == OuterKind::Window
            && let Some(limit) = frame.payload.first_chunk::<8>()
        {
            end.limit = end.limit.max(u64::from_be_bytes(*limit));
        }
        let was_over = end.over;
        match end.link.handle_frame(self.now, frame) {
            Ok(()) => {}
            Err(error) => {
                assert!(!was_over, "a link that is over has no opinion");
                self.honest_until(&error.to_string());
                self.ends[to].check_over();
            }
        }
        self.take_events(to, was_over);
        let end = &mut self.ends[to];
        if end.link.is_over() {
            end.check_over();
        }
    }

    /// Errors are for those who lie, or for keys that tests have made short.
    fn honest_until(&mut self, error: &str) {
        assert!(!self.honest, "nobody interfered, and all the same: {error}");
    }

    fn take_events(&mut self, to: usize, was_over: bool) {
        let mut events = 0;
        while let Some(event) = self.ends[to].link.poll_event() {
            events += 1;
            assert!(!was_over && events <= EVENTS_PENDING_MAX);
            match event {
                LinkEvent::AuthorizationNeeded { client, hello, .. } => {
                    let end = &mut self.ends[to];
                    assert!(to == 1 && !end.asked && !end.established, "a client asks once");
                    assert_eq!((client, &hello[..]), (identity(2).public(), &b"hello"[..]));
                    end.asked = true;
                    if self.serves {
                        end.link.welcome(b"welcome").expect("somebody asked");
                    } else {
                        end.link.refuse();
                        self.honest = false;
                    }
                }
                LinkEvent::Established(established) => {
                    let end = &mut self.ends[to];
                    assert!(!end.established && (to == 0 || end.asked));
                    end.established = true;
                    let expected: &[u8] = if to == 0 { b"welcome" } else { b"" };
                    assert_eq!(established.welcome, expected);
                    assert_eq!(established.peer, identity(if to == 0 { 3 } else { 2 }).public());
                }
                LinkEvent::Message(message) => {
                    assert!(
                        self.ends[to].established,
                        "nothing is done before the peer is proven"
                    );
                    let said = &mut self.ends[1 - to].said;
                    let channel = said
                        .get_mut(&(message.lane, message.channel))
                        .expect("somebody said it");
                    let expected = channel.arriving.pop_front().expect("once");
                    assert!(
                        message.bytes == expected,
                        "whole, and in the order of its channel"
                    );
                }
                LinkEvent::PeerClosed { .. } => self.honest_until("a reset"),
            }
        }
    }

    fn transmit(&mut self, from: usize, max_bytes: usize) {
        if !self.ends[from].transmit(self.now, max_bytes) {
            // Keys that were made short are at their end.
            self.lies();
        }
    }

    /// Everything is delivered until nothing moves any more.
    fn settle(&mut self) {
        for round in 0.. {
            assert!(round < 4_096, "it comes to rest");
            for from in [0, 1] {
                self.transmit(from, usize::MAX);
            }
            if self.ends.iter().all(|end| end.under_way.is_empty()) {
                return;
            }
            for from in [0, 1] {
                while let Some(frame) = self.ends[from].under_way.pop_front() {
                    self.deliver(1 - from, frame);
                }
            }
        }
    }

    fn pass_time(&mut self, by: Duration) {
        self.now += by;
        for index in [0, 1] {
            let end = &mut self.ends[index];
            let due = end.link.poll_timeout().is_some_and(|at| at <= self.now);
            match end.link.handle_timeout(self.now) {
                Err(_) => {
                    assert!(due, "nothing was due");
                    end.check_over();
                    self.lies();
                }
                // What was due was a fresh key, and that has been seen to.
                Ok(()) => assert!(
                    end.link.poll_timeout().is_none_or(|at| at > self.now),
                    "what is due is done"
                ),
            }
        }
    }

    /// Whoever lies between the two does something to what is under way.
    fn interfere(&mut self, script: &mut Script<'_>, from: usize) {
        let frames = &mut self.ends[from].under_way;
        if frames.is_empty() {
            return;
        }
        match script.below(6) {
            0 => drop(frames.pop_front()),
            1 => frames.push_front(frames[0].clone()),
            2 if frames.len() > 1 => frames.swap(0, 1),
            3 => {
                let payload = &mut frames[0].payload;
                // What was cut to nothing has no bit to turn.
                let Some(at) = usize::from(script.u16()).checked_rem(payload.len()) else {
                    return;
                };
                payload[at] ^= 1 << (script.byte() & 7);
            }
            4 => {
                let payload = &mut frames[0].payload;
                payload.truncate(usize::from(script.u16()) % (payload.len() + 1));
            }
            5 => frames[0].stamp_us = u32::from(script.u16()) << 16,
            _ => return,
        }
        self.lies();
    }

    /// A frame that nobody of the two has sent.
    fn make_up(&mut self, script: &mut Script<'_>, to: usize) {
        let Some(kind) = OuterKind::from_wire(1 + script.byte() % 9) else {
            return;
        };
        let (least, most) = payload_bounds(kind);
        let mut payload = BytesMut::from(script.bytes(most.min(64)));
        if script.byte() < 250 {
            payload.resize(payload.len().max(least), 0);
        }
        let stream = if script.byte() < 250 {
            STREAM
        } else {
            StreamId([8; 16])
        };
        if stream != STREAM || !matches!(kind, OuterKind::Ping | OuterKind::Pong) {
            self.lies();
        }
        let times = if kind == OuterKind::Ping {
            1 + usize::from(script.byte()) * 8
        } else {
            1
        };
        for _ in 0..times {
            self.deliver(
                to,
                OuterFrame {
                    kind,
                    stream,
                    stamp_us: 0,
                    payload: payload.clone(),
                },
            );
        }
    }

    fn step(&mut self, script: &mut Script<'_>) {
        let index = script.below(2);
        match script.below(16) {
            0..=3 => self.enqueue(script, index),
            4 | 5 => {
                let max_bytes = usize::from(script.u16());
                self.transmit(index, max_bytes);
            }
            6..=8 => {
                if let Some(frame) = self.ends[index].under_way.pop_front() {
                    if is_control() && frame.kind == OuterKind::Data {
                        // Lost, and nobody is told that it was.
                        return;
                    }
                    self.deliver(1 - index, frame);
                }
            }
            9 => self.settle(),
            10 | 11 => self.interfere(script, index),
            12 => self.make_up(script, index),
            13 => self.pass_time(HANDSHAKE_TIMEOUT.mul_f32(f32::from(script.byte()) / 128.0)),
            _ => {
                if script.byte() < 32 {
                    self.ends[index].link.close(&Reset::new(ResetCode::Closed));
                    self.ends[index].check_over();
                    self.lies();
                }
            }
        }
    }

    /// Nobody interfered: then nothing is missing.
    fn finish(&mut self) {
        self.settle();
        if !self.honest {
            return;
        }
        let held_back = |end: &End| end.windowed && end.link.window_left() < 2_048;
        for (end, other) in [(0, 1), (1, 0)].map(|(end, other)| (&self.ends[end], &self.ends[other])) {
            assert!(end.established && end.link.is_up());
            let left: usize = Lane::ALL
                .into_iter()
                .map(|lane| end.link.queued_bytes(lane))
                .sum();
            let arriving = end
                .said
                .values()
                .map(|channel| channel.arriving.len())
                .sum::<usize>();
            if left == 0 {
                assert_eq!(arriving, 0, "what was sent has arrived");
            } else {
                // A paced end waits for answers to its marks, and those need room in the other's window.
                assert!(
                    held_back(end) || (self.paced && held_back(other)),
                    "only a window holds it back: {left} bytes are left, and {} and {} of the windows",
                    end.link.window_left(),
                    other.link.window_left()
                );
            }
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let mut script = Script::new(data);
    let mut world = World::new(&mut script);
    for _ in 0..256 {
        if script.is_over() {
            break;
        }
        world.step(&mut script);
    }
    world.finish();
});
