//! What outlives a session's links, each against the plainest model of it.
#![no_main]

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dwell_fuzz::{Constant, Script, is_control};
use dwell_messages::PublicKey;
use dwell_relay::Lane;
use dwell_relay::resume::{
    Accepted, Beat, DEAD_AFTER, EAGER_FOR, Grants, Kept, OrderError, PING_INTERVAL, Pings, Pulse,
    QUIET_AFTER, REPLAY_MAX_BYTES, REPLAY_MAX_MESSAGES, Received, Redial, Replay, SEQUENCE_WINDOW,
};
use libfuzzer_sys::fuzz_target;

/// The receiver's half, and every number that was ever taken above where it began.
struct Receiver {
    received: Received,
    began: u64,
    taken: BTreeSet<u64>,
    fresh: u32,
    stated: u64,
}

impl Receiver {
    fn new() -> Self {
        let received = if is_control() {
            Received::credulous()
        } else {
            Received::default()
        };
        Self {
            received,
            began: 0,
            taken: BTreeSet::new(),
            fresh: 0,
            stated: 0,
        }
    }

    fn floor(&self) -> u64 {
        let mut floor = self.began;
        for taken in self.taken.range(floor..) {
            if *taken > floor {
                if *taken - floor > 1 {
                    break;
                }
                floor = *taken;
            }
        }
        floor
    }

    fn accept(&mut self, sequence: u64) {
        let floor = self.floor();
        let expected = if sequence == 0 {
            Err(OrderError::NoSequence)
        } else if sequence <= floor || self.taken.contains(&sequence) {
            Ok(Accepted::Repeated)
        } else if sequence - floor > SEQUENCE_WINDOW {
            Err(OrderError::TooFarAhead { sequence, floor })
        } else {
            self.taken.insert(sequence);
            self.fresh += 1;
            Ok(Accepted::Fresh)
        };
        assert_eq!(self.received.accept(sequence), expected, "{sequence}");
    }

    fn step(&mut self, script: &mut Script<'_>) {
        let floor = self.floor();
        match script.below(8) {
            0 => {
                let first = if script.flag() {
                    script.u64()
                } else {
                    floor.saturating_add(script.u64() & 7)
                };
                self.received.skip_to(first);
                self.began = self.floor().max(first.saturating_sub(1));
            }
            1 => {
                assert_eq!((self.received.state(), self.received.fresh()), (floor, 0));
                (self.stated, self.fresh) = (floor, 0);
            }
            2 => self.accept(script.u64()),
            3 => self.accept(floor.saturating_add(u64::from(script.u16()))),
            _ => self.accept(
                floor
                    .saturating_add(u64::from(script.byte() & 7))
                    .saturating_sub(2),
            ),
        }
        assert_eq!(self.received.floor(), self.floor());
        assert_eq!(self.received.is_due(), self.floor() > self.stated);
        assert_eq!(self.received.fresh(), self.fresh);
    }
}

/// The sender's half, and what it was given.
#[derive(Default)]
struct Sender {
    replay: Replay<u64>,
    kept: BTreeMap<u64, usize>,
    said: u64,
}

impl Sender {
    fn step(&mut self, script: &mut Script<'_>) {
        match script.below(4) {
            0 => {
                let up_to = if script.flag() {
                    script.u64()
                } else {
                    self.said.saturating_sub(script.u64() & 7)
                };
                let mut released = Vec::new();
                let outcome = self.replay.acknowledge(up_to, |token| released.push(token));
                if up_to > self.said {
                    let error = OrderError::NeverSent {
                        acknowledged: up_to,
                        sent: self.said,
                    };
                    assert_eq!((outcome, released.len()), (Err(error), 0));
                } else {
                    let later = self.kept.split_off(&(up_to + 1));
                    let gone = std::mem::replace(&mut self.kept, later);
                    assert_eq!(outcome, Ok(()));
                    assert!(released.iter().eq(gone.keys()), "each token once, in order");
                }
            }
            _ => {
                let length = usize::from(script.byte()) << (script.byte() & 15);
                let bytes: usize = self.kept.values().sum();
                let full = self.kept.len() >= REPLAY_MAX_MESSAGES
                    || (!self.kept.is_empty() && bytes + length > REPLAY_MAX_BYTES);
                assert_eq!(self.replay.is_full(length), full);
                if full {
                    return;
                }
                self.said += 1;
                assert_eq!(self.replay.next_sequence(), self.said);
                self.kept.insert(self.said, length);
                self.replay.keep(Kept {
                    sequence: self.said,
                    lane: Lane::Control,
                    channel: 0,
                    bytes: Bytes::from_static(&[0; 255 << 15]).slice(..length),
                    trailer: None,
                    token: self.said,
                });
            }
        }
        let again = self
            .replay
            .unacknowledged()
            .map(|kept| (kept.sequence, kept.bytes.len()));
        assert!(again.eq(self.kept.iter().map(|(sequence, length)| (*sequence, *length))));
        assert_eq!(
            self.replay.first_kept(),
            self.kept.keys().next().map_or(self.said + 1, |first| *first)
        );
        assert_eq!(
            (self.replay.messages(), self.replay.bytes()),
            (self.kept.len(), self.kept.values().sum())
        );
        // One message may pass the bound, and no second one.
        assert!(self.kept.len() <= 1 || self.replay.bytes() <= REPLAY_MAX_BYTES);
    }
}

/// A pulse, and when what it goes by happened.
struct Heart {
    pulse: Pulse,
    pings: bool,
    now: Instant,
    last_ping: Option<Instant>,
    unanswered: Option<Instant>,
    heard: Instant,
}

impl Heart {
    fn new(now: Instant, pings: bool) -> Self {
        let pulse = if pings {
            Pulse::pinging(now, Pings::default())
        } else {
            Pulse::listening(now)
        };
        Self {
            pulse,
            pings,
            now,
            last_ping: None,
            unanswered: None,
            heard: now,
        }
    }

    fn step(&mut self, script: &mut Script<'_>) {
        match script.below(5) {
            0 => {
                self.pulse.pong(self.now);
                self.unanswered = None;
                self.heard = self.now;
            }
            1 => {
                self.pulse.pinged(self.now);
                self.heard = self.now;
            }
            2 => self.now += Duration::from_millis(u64::from(script.u16())),
            _ => self.beat(),
        }
    }

    fn beat(&mut self) {
        let dead_at = if self.pings {
            self.unanswered.map(|sent| sent + DEAD_AFTER)
        } else {
            Some(self.heard + QUIET_AFTER)
        };
        let due_at = self
            .pings
            .then(|| self.last_ping.map_or(self.now, |last| last + PING_INTERVAL));
        match self.pulse.beat(self.now) {
            Beat::Dead => assert!(dead_at.is_some_and(|at| at <= self.now), "given up too early"),
            Beat::Ping => {
                assert!(dead_at.is_none_or(|at| at > self.now) && due_at.is_some_and(|at| at <= self.now));
                self.last_ping = Some(self.now);
                self.unanswered.get_or_insert(self.now);
            }
            Beat::Wait(until) => {
                assert!(until > self.now, "time passes");
                let next = [dead_at, due_at].into_iter().flatten().min();
                assert_eq!(Some(until), next, "it waits for the next thing to do");
            }
        }
    }
}

fn check_redial(script: &mut Script<'_>) {
    let mut redial = Redial::default();
    let mut since = Duration::ZERO;
    for attempt in 0..script.below(64) {
        let pause = redial.pause(since, script.u64());
        if attempt == 0 {
            assert_eq!(pause, Duration::ZERO, "the first at once");
        } else if since < EAGER_FOR {
            assert!((50..=200).contains(&pause.as_millis()));
        } else {
            assert!((200..=5_000).contains(&pause.as_millis()), "{pause:?}");
        }
        since += pause + Duration::from_millis(u64::from(script.byte()) << 3);
    }
}

fn check_grants(script: &mut Script<'_>) {
    let life = |of: u8| Grants::draw(&mut Constant(u64::from(of & 3))).expect("the generator never fails");
    let (one, other) = (script.byte(), script.byte());
    let (session, other_session) = (script.u64(), script.u64());
    let (client, other_client) = (PublicKey([script.byte(); 32]), PublicKey([script.byte(); 32]));
    let mut grant = life(one).issue(session, &client);
    let change = script.byte();
    grant[script.below(32)] ^= change;
    let cut = 32 - script.below(3);
    let same = one & 3 == other & 3
        && (session, client) == (other_session, other_client)
        && (change, cut) == (0, 32);
    assert_eq!(
        life(other).verify(other_session, &other_client, &grant[..cut]),
        same
    );
}

fuzz_target!(|data: &[u8]| {
    let mut script = Script::new(data);
    let begun = Instant::now();
    let mut receiver = Receiver::new();
    let mut sender = Sender::default();
    let mut hearts = [true, false].map(|pings| Heart::new(begun, pings));
    for _ in 0..512 {
        if script.is_over() {
            break;
        }
        match script.below(16) {
            0..=5 => receiver.step(&mut script),
            6..=10 => sender.step(&mut script),
            11..=13 => hearts[script.below(2)].step(&mut script),
            14 => check_redial(&mut script),
            _ => check_grants(&mut script),
        }
    }
});
