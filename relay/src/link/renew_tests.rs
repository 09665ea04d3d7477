//! Counters that no test reaches by sending.

use bytes::{Bytes, BytesMut};

use super::*;
use crate::link::{Link, LinkEvent, LinkOptions, State};
use crate::random::RandomnessFailed;
use crate::{Dialer, Lane, OuterDecoder, Outgoing, Preamble};

struct Counting(u8);

impl Randomness for Counting {
    fn fill(&mut self, dest: &mut [u8]) -> Result<(), RandomnessFailed> {
        self.0 = self.0.wrapping_add(1);
        dest.fill(self.0);
        Ok(())
    }
}

struct Pair {
    now: Instant,
    /// The end that dialled, then the other.
    ends: [Link<()>; 2],
    received: [Vec<Bytes>; 2],
}

impl Pair {
    fn up() -> Self {
        let now = Instant::now();
        let rng = &mut Counting(0);
        let client = StaticKeypair::generate(rng).unwrap();
        let server = Arc::new(StaticKeypair::generate(rng).unwrap());
        let stream = dwell_messages::StreamId([7; 16]);
        let preamble = Preamble::new(Dialer::Harness, server.public(), stream, &[]).unwrap();
        let options = LinkOptions::direct();
        let dialled = Link::dial(now, &client, &preamble, &[], b"", options, rng).unwrap();
        let answers = Link::answer(now, server, &preamble, options, rng).unwrap();
        let mut pair = Self {
            now,
            ends: [dialled, answers],
            received: [Vec::new(), Vec::new()],
        };
        let mut first = BytesMut::new();
        let _ = pair.ends[0].poll_transmit(now, &mut first, usize::MAX).unwrap();
        pair.deliver(1, first.split_off(crate::preamble::PREAMBLE_BYTES));
        pair.drive();
        assert!(pair.ends.iter().all(Link::is_up));
        pair
    }

    fn deliver(&mut self, to: usize, bytes: BytesMut) {
        let mut decoder = OuterDecoder::new();
        decoder.feed(bytes);
        while let Some(frame) = decoder.next_frame().unwrap() {
            self.ends[to].handle_frame(self.now, frame).unwrap();
            while let Some(event) = self.ends[to].poll_event() {
                match event {
                    LinkEvent::AuthorizationNeeded { .. } => self.ends[to].welcome(b"").unwrap(),
                    LinkEvent::Message(message) => self.received[to].push(message.bytes),
                    LinkEvent::Established(_) => {}
                    LinkEvent::PeerClosed { reason } => panic!("{reason:?}"),
                }
            }
        }
    }

    fn drive(&mut self) {
        while self.ends.iter().any(Link::can_transmit) {
            for from in 0..2 {
                let mut out = BytesMut::new();
                let _ = self.ends[from]
                    .poll_transmit(self.now, &mut out, usize::MAX)
                    .unwrap();
                self.deliver(1 - from, out);
            }
        }
    }

    fn say(&mut self, from: usize, text: &'static str) {
        let message = Outgoing {
            lane: Lane::Control,
            channel: 0,
            bytes: Bytes::from_static(text.as_bytes()),
            trailer: None,
            token: (),
        };
        self.ends[from].enqueue(message).unwrap();
        self.drive();
    }

    /// As if so many records had gone from one end to the other.
    fn skip(&mut self, from: usize, records: u64) {
        for (end, link) in self.ends.iter_mut().enumerate() {
            let State::Up(keys) = &mut link.state else {
                panic!("it is up")
            };
            if end == from {
                keys.sealer.skip_to(records);
            } else {
                keys.opener.skip_to(records);
            }
        }
    }

    fn records(&self, of: usize) -> u64 {
        match &self.ends[of].state {
            State::Up(keys) => keys.sealer.records(),
            _ => panic!("it is up"),
        }
    }
}

#[test]
fn keys_are_renewed_before_either_direction_has_2_to_the_32_records() {
    for from in 0..2 {
        let mut pair = Pair::up();
        pair.skip(from, RENEW_AFTER_RECORDS - 2);
        pair.say(from, "one");
        assert_eq!(pair.ends[0].renewals(), 0, "positive control: one is left");
        pair.say(from, "two");
        pair.say(from, "three");
        pair.say(1 - from, "back");
        assert_eq!(pair.received[1 - from], ["one", "two", "three"]);
        assert_eq!(pair.received[from], ["back"]);
        assert_eq!([pair.ends[0].renewals(), pair.ends[1].renewals()], [1, 1]);
        assert!(pair.records(from) <= 2, "the counters began anew");
    }
}

#[test]
fn an_end_that_waits_for_an_answer_has_as_many_records_again() {
    let mut pair = Pair::up();
    pair.skip(0, RENEW_AFTER_RECORDS);
    let mut lost = BytesMut::new();
    let _ = pair.ends[0]
        .poll_transmit(pair.now, &mut lost, usize::MAX)
        .unwrap();
    assert!(!lost.is_empty(), "the renewal was asked for");
    for records in [RENEW_AFTER_RECORDS + 5, 2 * RENEW_AFTER_RECORDS - 1] {
        pair.skip(0, records);
        let message = || Outgoing {
            lane: Lane::Control,
            channel: 0,
            bytes: Bytes::from_static(b"x"),
            trailer: None,
            token: (),
        };
        let link = &mut pair.ends[0];
        link.enqueue(message()).unwrap();
        let report = link.poll_transmit(pair.now, &mut lost, usize::MAX).unwrap();
        assert_eq!(report.records, 1);
        link.enqueue(message()).unwrap();
        if records + 1 == 2 * RENEW_AFTER_RECORDS {
            let end = link.poll_transmit(pair.now, &mut lost, usize::MAX);
            assert!(end.is_err() && link.is_over(), "the hard limit");
        }
    }
}
