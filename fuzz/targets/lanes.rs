//! Cutting and putting together again: what is queued comes out at the other end, whole, once and in its order.
#![no_main]

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use dwell_fuzz::{Script, is_control, pattern};
use dwell_relay::chunk::{CHUNK_HEADER_BYTES, ChunkHeader};
use dwell_relay::fuzzing::{Chunks, Cutter};
use dwell_relay::lanes::{LANE_QUEUE_MAX_BYTES, MESSAGE_MAX_BYTES, TRAILER_BYTES};
use dwell_relay::record::RECORD_PLAINTEXT_MAX_BYTES;
use dwell_relay::{EnqueueProblem, Lane, Outgoing, TrailerStamps};
use libfuzzer_sys::fuzz_target;

/// Queued by one input.
const QUEUED_MAX_BYTES: usize = 256 * 1024;
/// The least that a link lets a record have.
const RECORD_MIN_BYTES: usize = 1_024;

struct Queued {
    token: u32,
    bytes: Bytes,
    trailer: Option<TrailerStamps>,
}

#[derive(Default)]
struct World {
    cutter: Cutter<u32>,
    chunks: Chunks,
    /// What is under way, by lane and channel; the second number counts those cut to their end.
    under_way: HashMap<(Lane, u32), (VecDeque<Queued>, VecDeque<u32>)>,
    queued: HashMap<Lane, usize>,
    next_token: u32,
    queued_in_all: usize,
    plaintext: u64,
    finished_sealed: u64,
}

impl World {
    fn enqueue(&mut self, now: Instant, script: &mut Script<'_>) {
        let lane = Lane::ALL[script.below(Lane::ALL.len())];
        let channel = u32::from(script.byte() & 3);
        let shape = script.byte();
        let length = match shape >> 6 {
            0 => usize::from(shape & 15),
            1 => script.below(256),
            2 => usize::from(script.u16()),
            _ => 1_000 + script.below(64),
        };
        let length = length.min(QUEUED_MAX_BYTES - self.queued_in_all);
        let trailer = (shape & 16 != 0).then_some(TrailerStamps {
            arrived: now,
            enqueued: now + Duration::from_millis(u64::from(script.byte())),
        });
        let token = self.next_token;
        let bytes = Bytes::from(pattern(length, u64::from(token)));
        let outgoing = Outgoing {
            lane,
            channel,
            bytes: bytes.clone(),
            trailer,
            token,
        };
        match self.cutter.enqueue(outgoing) {
            Ok(()) => {
                self.next_token += 1;
                self.queued_in_all += length;
                *self.queued.entry(lane).or_default() += length;
                let (messages, _) = self.under_way.entry((lane, channel)).or_default();
                messages.push_back(Queued {
                    token,
                    bytes,
                    trailer,
                });
            }
            Err(refused) => {
                let fits = match refused.problem {
                    EnqueueProblem::Empty => length > 0,
                    EnqueueProblem::NoRoomForTrailer { actual } => {
                        actual != length || trailer.is_none() || length >= TRAILER_BYTES
                    }
                    EnqueueProblem::TooLong { .. } => length <= MESSAGE_MAX_BYTES,
                    EnqueueProblem::LaneFull { queued_bytes, .. } => {
                        queued_bytes + length <= LANE_QUEUE_MAX_BYTES
                    }
                    EnqueueProblem::LinkOver => true,
                };
                assert!(!fits, "refused for nothing: {}", refused.problem);
                assert!(refused.message.bytes == bytes && refused.message.token == token);
            }
        }
    }

    /// One record, from cut to delivery.
    fn cut(&mut self, now: Instant, record_bytes: usize, bulk_bytes: usize) {
        let mut record = BytesMut::new();
        let urgent = Lane::ALL
            .into_iter()
            .any(|lane| !lane.is_bulk() && self.cutter.queued_bytes(lane) > 0);
        let waits = Lane::ALL
            .into_iter()
            .any(|lane| self.cutter.queued_bytes(lane) > 0);
        let (bulk, finished) = self.cutter.cut(now, record_bytes, bulk_bytes, &mut record);
        assert!(record.len() <= record_bytes && bulk <= bulk_bytes && bulk <= record.len());
        let may_move = urgent || (waits && bulk_bytes >= RECORD_MIN_BYTES);
        assert!(!record.is_empty() || !may_move, "what may leave leaves");
        assert_eq!(bulk, self.inspect(&record), "bulk is counted as it is");
        self.plaintext += record.len() as u64;
        for message in finished {
            let key = (message.lane, message.channel);
            let (_, done) = self.under_way.get_mut(&key).expect("it was queued");
            done.push_back(message.token);
            self.finished_sealed += message.sealed_bytes;
        }
        if is_control() && record.len() > 2_000 {
            let last = record.len() - 1;
            record[last] ^= 1;
        }
        self.deliver(now, record);
    }

    /// Walks over the record's chunks: sizes, and that nothing overtook what is more urgent. Gives the bulk bytes.
    fn inspect(&mut self, record: &BytesMut) -> usize {
        let mut rest = &record[..];
        let mut bulk = 0;
        while !rest.is_empty() {
            let header = ChunkHeader::decode(&mut rest).expect("a chunk of ours is one");
            let length = usize::from(header.length);
            rest = &rest[length..];
            if header.lane.is_bulk() {
                bulk += CHUNK_HEADER_BYTES + length;
            }
            *self
                .queued
                .get_mut(&header.lane)
                .expect("something was queued in its lane") -= length;
            let more_urgent = Lane::ALL.into_iter().take_while(|lane| *lane < header.lane);
            for lane in more_urgent {
                assert_eq!(
                    self.cutter.queued_bytes(lane),
                    0,
                    "{:?} overtook {lane:?}",
                    header.lane
                );
            }
        }
        for lane in Lane::ALL {
            assert_eq!(
                self.cutter.queued_bytes(lane),
                self.queued.get(&lane).copied().unwrap_or(0)
            );
        }
        bulk
    }

    fn deliver(&mut self, now: Instant, record: BytesMut) {
        let (whole, outcome) = self.chunks.accept(now, 0, record);
        assert_eq!(outcome, Ok(()), "what we cut we take");
        for message in whole {
            let key = (message.lane, message.channel);
            let (queue, done) = self.under_way.get_mut(&key).expect("it was queued");
            let queued = queue.pop_front().expect("no more comes out than went in");
            assert_eq!(
                done.pop_front(),
                Some(queued.token),
                "its token came back before it arrived"
            );
            let (body, stamps) = match queued.trailer {
                None => (queued.bytes.len(), None),
                Some(stamps) => (queued.bytes.len() - TRAILER_BYTES, Some(stamps)),
            };
            assert_eq!(message.bytes.len(), queued.bytes.len());
            assert!(
                message.bytes[..body] == queued.bytes[..body],
                "other bytes came out than went in"
            );
            if let Some(stamps) = stamps {
                let micros = |then: Instant| now.saturating_duration_since(then).as_micros() as u32;
                let expected = [micros(stamps.arrived), micros(stamps.enqueued)].map(u32::to_be_bytes);
                assert_eq!(message.bytes[body..], expected.concat());
            }
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let mut script = Script::new(data);
    let mut now = Instant::now();
    let mut world = World::default();
    for _ in 0..256 {
        if script.is_over() {
            break;
        }
        match script.below(5) {
            0..=2 => world.enqueue(now, &mut script),
            3 => {
                let record_bytes =
                    (RECORD_MIN_BYTES + usize::from(script.u16())).min(RECORD_PLAINTEXT_MAX_BYTES);
                // A link counts less than its smallest record as none.
                let bulk_bytes = match usize::from(script.u16()) {
                    bytes if bytes < RECORD_MIN_BYTES => 0,
                    bytes => bytes,
                };
                world.cut(now, record_bytes, bulk_bytes);
            }
            _ => now += Duration::from_micros(u64::from(script.u16())),
        }
    }
    let mut records = 0;
    while Lane::ALL
        .into_iter()
        .any(|lane| world.cutter.queued_bytes(lane) > 0)
    {
        world.cut(now, RECORD_PLAINTEXT_MAX_BYTES, usize::MAX);
        records += 1;
        assert!(
            records <= 16 + QUEUED_MAX_BYTES / RECORD_MIN_BYTES,
            "cutting comes to an end"
        );
    }
    assert!(
        world
            .under_way
            .values()
            .all(|(queue, done)| queue.is_empty() && done.is_empty())
    );
    assert_eq!(
        world.finished_sealed, world.plaintext,
        "every sealed byte is somebody's"
    );
});
