//! A session over links that a hostile network breaks, in virtual time: the cores alone, thousands of seeds.
//!
//! Both ends say things at random moments while the network drops, doubles, swaps, delays, cuts and changes what it
//! carries, goes silent, and cuts connections. Then it heals, and both ends must agree: every message applied once, and in
//! order within its lane. Keys are renewed all the while, after a few records or milliseconds. A seed says everything: `DWELL_SEED=N cargo test -p dwell-relay --test simulation`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(
    clippy::print_stdout,
    reason = "the seed is for whoever looks for the failure"
)]

mod support;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use dwell_relay::link::RenewAfter;
use dwell_relay::preamble::PREAMBLE_BYTES;
use dwell_relay::resume::{Accepted, Beat, Kept, Pings, Pulse, Received, Redial, Replay};
use dwell_relay::{Incoming, Lane, Link, LinkEvent, LinkOptions, OuterDecoder, Outgoing, StaticKeypair};

use support::{Seeded, harness_preamble, keypair};

/// Operations of one seed.
const OPERATIONS: u64 = 120;
/// Faults of one seed, at least.
const FAULTS_MIN: u64 = 5;
/// One turn of the clock.
const TICK: Duration = Duration::from_millis(1);
/// The network is hostile for so many ticks.
const HOSTILE_TICKS: u64 = 3_000;
/// Once it has healed, both ends agree within so many.
const HEALED_TICKS: u64 = 60_000;
const ACK_EVERY_TICKS: u64 = 25;

const MESSAGE: u8 = 0;
const ACK: u8 = 1;
const RESUME: u8 = 2;
const RESUMED: u8 = 3;
const PING: u8 = 4;
const PONG: u8 = 5;

/// What a session does against repetitions; the second is the positive control.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Kept,
    Ignored,
}

/// One end of a session.
struct End {
    dials: bool,
    order: Order,
    link: Option<Link<()>>,
    decoder: OuterDecoder,
    pulse: Option<Pulse>,
    replay: Replay<()>,
    received: Received,
    /// Whether messages flow over the present link.
    flows: bool,
    said: u64,
    applied: Vec<u64>,
    per_lane: HashMap<u8, u64>,
    acknowledged_at: u64,
}

impl End {
    fn new(dials: bool, order: Order) -> Self {
        Self {
            dials,
            order,
            link: None,
            decoder: OuterDecoder::new(),
            pulse: None,
            replay: Replay::default(),
            received: match order {
                Order::Kept => Received::default(),
                Order::Ignored => Received::credulous(),
            },
            flows: false,
            said: 0,
            applied: Vec::new(),
            per_lane: HashMap::new(),
            acknowledged_at: 0,
        }
    }

    fn lose(&mut self) {
        self.link = None;
        self.pulse = None;
        self.flows = false;
        self.decoder = OuterDecoder::new();
    }

    fn control(&mut self, tag: u8, value: u64) {
        let mut bytes = vec![tag];
        bytes.extend(value.to_be_bytes());
        self.enqueue(Lane::Control, bytes.into());
    }

    fn enqueue(&mut self, lane: Lane, bytes: Bytes) {
        let message = Outgoing {
            lane,
            channel: 0,
            bytes,
            trailer: None,
            token: (),
        };
        if let Some(link) = &mut self.link {
            // A link that is over is left in this tick.
            drop(link.enqueue(message));
        }
    }

    /// Says something: it has its place in the order from now on, link or no link.
    fn say(&mut self, dice: &mut Seeded) {
        self.said += 1;
        let sequence = self.replay.next_sequence();
        let lane = if dice.next().is_multiple_of(2) {
            Lane::Stdin
        } else {
            Lane::Interactive
        };
        let mut bytes = vec![MESSAGE, lane.to_wire()];
        bytes.extend(sequence.to_be_bytes());
        bytes.extend(self.said.to_be_bytes());
        bytes.resize(bytes.len() + usize::try_from(dice.next() % 3_000).unwrap(), 7);
        let bytes = Bytes::from(bytes);
        self.replay.keep(Kept {
            sequence,
            lane,
            channel: 0,
            bytes: bytes.clone(),
            trailer: None,
            token: (),
        });
        if self.flows {
            self.enqueue(lane, bytes);
        }
    }

    fn send_again(&mut self) {
        let again: Vec<_> = self
            .replay
            .unacknowledged()
            .map(|kept| (kept.lane, kept.bytes.clone()))
            .collect();
        for (lane, bytes) in again {
            self.enqueue(lane, bytes);
        }
        self.flows = true;
    }

    fn apply(&mut self, incoming: &Incoming, now: Instant) {
        let bytes = &incoming.bytes;
        let number = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap());
        match bytes[0] {
            MESSAGE => {
                if self.received.accept(number(2)).unwrap() == Accepted::Fresh {
                    let said = number(10);
                    self.applied.push(said);
                    let last = self.per_lane.insert(bytes[1], said).unwrap_or(0);
                    assert!(
                        said > last || self.order == Order::Ignored,
                        "{said} came behind {last} in its lane"
                    );
                }
            }
            ACK => self.replay.acknowledge(number(1), drop).unwrap(),
            RESUME => {
                self.replay.acknowledge(number(1), drop).unwrap();
                let floor = self.received.state();
                self.control(RESUMED, floor);
                self.send_again();
            }
            RESUMED => {
                self.replay.acknowledge(number(1), drop).unwrap();
                self.send_again();
            }
            PING => {
                if let Some(pulse) = &mut self.pulse {
                    pulse.pinged(now);
                }
                self.control(PONG, 0);
            }
            PONG => {
                if let Some(pulse) = &mut self.pulse {
                    pulse.pong(now);
                }
            }
            other => panic!("nobody says {other}"),
        }
    }
}

/// One way of the network.
#[derive(Default)]
struct Way {
    /// What is under way, and at which tick it arrives.
    carried: VecDeque<(u64, BytesMut)>,
    silent: bool,
}

struct World {
    dice: Seeded,
    begun: Instant,
    tick: u64,
    ends: [End; 2],
    ways: [Way; 2],
    identities: (StaticKeypair, Arc<StaticKeypair>),
    redial: Redial,
    lost_at: u64,
    dial_at: Option<u64>,
    faults: u64,
    links: u64,
    /// Renewals of links that are gone.
    renewals: u64,
    renew_after: RenewAfter,
    /// The clear bytes of a dialler that come before its frames.
    preamble_left: usize,
}

impl World {
    fn new(seed: u64, order: Order) -> Self {
        let executor = keypair(seed ^ 0xe);
        let mut dice = Seeded(seed);
        let renew_after = RenewAfter {
            records: 1 + dice.next() % 40,
            bytes: 16 + dice.next() % 60_000,
            age: Duration::from_millis(1 + dice.next() % 400),
        };
        Self {
            dice,
            begun: Instant::now(),
            tick: 0,
            ends: [End::new(true, Order::Kept), End::new(false, order)],
            ways: Default::default(),
            identities: (keypair(seed ^ 0xc), Arc::new(executor)),
            redial: Redial::default(),
            lost_at: 0,
            dial_at: Some(0),
            faults: 0,
            links: 0,
            renewals: 0,
            renew_after,
            preamble_left: 0,
        }
    }

    fn now(&self) -> Instant {
        self.begun + TICK * u32::try_from(self.tick).unwrap()
    }

    fn chance(&mut self, of: u64) -> bool {
        self.dice.next().is_multiple_of(of)
    }

    /// The connection is gone, and both ends know.
    fn cut(&mut self) {
        self.renewals += self.ends[1].link.as_ref().map_or(0, Link::renewals);
        for end in &mut self.ends {
            end.lose();
        }
        self.ways = Default::default();
        if self.dial_at.is_none() {
            self.lost_at = self.tick;
            let pause = self.redial.pause(Duration::ZERO, self.dice.next());
            self.dial_at = Some(self.tick + u64::try_from(pause.as_millis()).unwrap() + 1);
        }
    }

    fn dial(&mut self) {
        self.dial_at = None;
        self.links += 1;
        let now = self.now();
        let preamble = harness_preamble(self.identities.1.public());
        let (identity, executor) = (&self.identities.0, Arc::clone(&self.identities.1));
        let options = LinkOptions {
            renew_after: self.renew_after,
            ..LinkOptions::direct()
        };
        let link = Link::dial(now, identity, &preamble, &[], b"hello", options, &mut self.dice);
        let mut drawing = |link: Link<()>| link.drawing_from(Box::new(Seeded(self.dice.next())));
        self.ends[0].link = Some(drawing(link.unwrap()));
        let link = Link::answer(now, executor, &preamble, options, &mut Seeded(self.links));
        self.ends[1].link = Some(drawing(link.unwrap()));
        self.preamble_left = PREAMBLE_BYTES;
    }

    /// What the network does to a piece.
    fn carry(&mut self, way: usize, mut piece: BytesMut, hostile: bool) {
        let mut arrives = self.tick + 1 + self.dice.next() % 5;
        // A stream keeps its order, whatever a piece's own delay.
        if let Some((last, _)) = self.ways[way].carried.back() {
            arrives = arrives.max(*last);
        }
        if hostile && self.chance(60) {
            self.faults += 1;
            match self.dice.next() % 6 {
                0 => return,
                1 => self.ways[way].carried.push_back((arrives, piece.clone())),
                2 => arrives += 500 + self.dice.next() % 1_500,
                3 => {
                    let at = usize::try_from(self.dice.next()).unwrap_or(0) % piece.len();
                    piece[at] ^= 1 << (self.dice.next() % 8);
                }
                4 => piece.truncate(piece.len() / 2),
                _ => {
                    if let Some((_, before)) = self.ways[way].carried.back_mut() {
                        std::mem::swap(before, &mut piece);
                    }
                }
            }
        }
        if !piece.is_empty() {
            self.ways[way].carried.push_back((arrives, piece));
        }
    }

    /// What leaves an end.
    fn transmit(&mut self, from: usize, hostile: bool) {
        let now = self.now();
        let mut out = BytesMut::new();
        if let Some(link) = &mut self.ends[from].link {
            drop(link.poll_transmit(now, &mut out, usize::MAX));
        }
        if from == 0 && self.preamble_left > 0 && !out.is_empty() {
            // The preamble is judged elsewhere: here both ends know it.
            drop(out.split_to(self.preamble_left));
            self.preamble_left = 0;
        }
        if !out.is_empty() {
            self.carry(from, out, hostile);
        }
    }

    /// What arrives at an end. False: the link is of no use any more.
    fn arrive(&mut self, way: usize) -> bool {
        let now = self.now();
        while !self.ways[way].silent
            && let Some((_, piece)) = self.ways[way].carried.pop_front_if(|(at, _)| *at <= self.tick)
        {
            let end = &mut self.ends[1 - way];
            end.decoder.buffer_mut().extend_from_slice(&piece);
            loop {
                let frame = match end.decoder.next_frame() {
                    Ok(Some(frame)) => frame,
                    Ok(None) => break,
                    Err(_) => return false,
                };
                let Some(link) = &mut end.link else { return false };
                if link.handle_frame(now, frame).is_err() {
                    return false;
                }
                while let Some(event) = end.link.as_mut().and_then(Link::poll_event) {
                    match event {
                        LinkEvent::AuthorizationNeeded { .. } => {
                            end.link.as_mut().unwrap().welcome(b"welcome").unwrap();
                        }
                        LinkEvent::Established(_) if end.dials => {
                            end.pulse = Some(Pulse::pinging(now, Pings::default()));
                            let floor = end.received.state();
                            end.control(RESUME, floor);
                        }
                        LinkEvent::Established(_) => end.pulse = Some(Pulse::listening(now)),
                        LinkEvent::Message(incoming) => end.apply(&incoming, now),
                        LinkEvent::PeerClosed { .. } => return false,
                    }
                }
            }
        }
        true
    }

    fn step(&mut self, hostile: bool) {
        self.tick += 1;
        if self.dial_at.is_some_and(|at| at <= self.tick) {
            self.dial();
        }
        if hostile && self.chance(400) {
            self.faults += 1;
            match self.dice.next() % 3 {
                0 => self.cut(),
                1 => self.ways[0].silent = true,
                _ => self.ways[1].silent = true,
            }
        }
        let now = self.now();
        let mut usable = true;
        for index in 0..2 {
            let end = &mut self.ends[index];
            if end.flows && self.tick - end.acknowledged_at >= ACK_EVERY_TICKS && end.received.is_due() {
                end.acknowledged_at = self.tick;
                let floor = end.received.state();
                end.control(ACK, floor);
            }
            match end.pulse.as_mut().map(|pulse| pulse.beat(now)) {
                Some(Beat::Ping) => end.control(PING, 0),
                Some(Beat::Dead) => usable = false,
                Some(Beat::Wait(_)) | None => {}
            }
            if let Some(link) = &mut end.link
                && (link.handle_timeout(now).is_err() || link.is_over())
            {
                usable = false;
            }
            self.transmit(index, hostile);
            usable &= self.arrive(index);
        }
        if !usable {
            self.cut();
        }
    }

    fn is_doubled(&self) -> bool {
        self.ends.iter().any(|end| {
            let once: BTreeSet<_> = end.applied.iter().collect();
            once.len() != end.applied.len()
        })
    }

    fn agrees(&self) -> bool {
        self.ends
            .iter()
            .zip(self.ends.iter().rev())
            .all(|(one, other)| one.applied.len() as u64 >= other.said && one.replay.messages() == 0)
    }

    /// Runs a seed. Ok: both ends agree, after so many faults, links and renewals; else what went wrong.
    fn run(mut self) -> Result<(u64, u64, u64), String> {
        let mut said = 0;
        while self.tick < HOSTILE_TICKS || self.faults < FAULTS_MIN {
            if said < OPERATIONS && self.chance(HOSTILE_TICKS / OPERATIONS / 2) {
                let index = usize::from(self.chance(2));
                said += 1;
                self.ends[index].say(&mut self.dice);
            }
            self.step(true);
        }
        while said < OPERATIONS {
            said += 1;
            self.ends[usize::from(said.is_multiple_of(2))].say(&mut self.dice);
        }
        for way in &mut self.ways {
            way.silent = false;
        }
        let healed = self.tick;
        while !self.agrees() {
            let late = self.tick - healed;
            if late > HEALED_TICKS || (late.is_multiple_of(500) && self.is_doubled()) {
                if self.is_doubled() {
                    break;
                }
                let [one, other] = &self.ends;
                return Err(format!(
                    "no agreement: {} of {} and {} of {} messages",
                    other.applied.len(),
                    one.said,
                    one.applied.len(),
                    other.said
                ));
            }
            self.step(false);
        }
        if self.is_doubled() {
            return Err("a message was applied twice".into());
        }
        for (one, other) in [(0, 1), (1, 0)] {
            let applied: BTreeSet<_> = self.ends[one].applied.iter().copied().collect();
            if applied != (1..=self.ends[other].said).collect() {
                return Err("a message is missing".into());
            }
        }
        self.cut();
        Ok((self.faults, self.links, self.renewals))
    }
}

fn seeds() -> Vec<u64> {
    if let Some(seed) = std::env::var("DWELL_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
    {
        return vec![seed];
    }
    let soak = std::env::var_os("DWELL_SOAK").is_some_and(|value| value == "1");
    (1..=if soak { 2_000 } else { 500 }).collect()
}

#[test]
fn both_ends_agree_once_the_network_has_healed() {
    let (mut faults, mut links, mut renewals) = (0, 0, 0);
    let seeds = seeds();
    for seed in &seeds {
        let (of_seed, links_of_seed, renewals_of_seed) = World::new(*seed, Order::Kept)
            .run()
            .unwrap_or_else(|problem| panic!("DWELL_SEED={seed}: {problem}"));
        assert!(of_seed >= FAULTS_MIN, "DWELL_SEED={seed}");
        faults += of_seed;
        links += links_of_seed;
        renewals += renewals_of_seed;
    }
    println!(
        "{} seeds of {OPERATIONS} operations: {faults} faults, {links} links, {renewals} renewals",
        seeds.len()
    );
    assert!(links > 2 * seeds.len() as u64, "links did break");
    assert!(renewals > 5 * seeds.len() as u64, "keys were renewed");
}

/// The positive control: without the receiver's memory the same seeds apply messages twice.
#[test]
fn without_the_order_messages_are_applied_twice() {
    let twice = (1..=40).any(|seed| {
        let outcome = World::new(seed, Order::Ignored).run();
        outcome.is_err_and(|problem| problem.contains("twice"))
    });
    assert!(twice, "no seed repeated a message");
}
