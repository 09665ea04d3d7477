//! What strangers may cost: every rule, and a flood against all of them, on a virtual clock.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use dwell_relay::first_message::FirstMac;
use dwell_relay::strangers::{
    FAILURES_MAX, FAMILIAR_FOR, Governor, PENALISED_RATE, PENDING_MAX, Rates, SOURCE_RATE, SOURCES_MAX,
    Ticket, Turned, Vouching,
};

const RATES: Rates = Rates::EXECUTOR;

struct World {
    governor: Governor<u32>,
    now: Instant,
    next: u64,
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            governor: Governor::new(now, RATES),
            now,
            next: 0,
        }
    }

    fn unlimited() -> Self {
        let mut world = Self::new();
        world.governor = Governor::new(world.now, RATES).without_limits();
        world
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    /// A message that nobody sent before.
    fn fresh(&mut self) -> FirstMac {
        self.next += 1;
        mac(self.next)
    }

    /// A stranger's message: it is looked into, and its client is not served.
    fn stranger(&mut self, source: u32) -> Result<(), Turned> {
        let mac = self.fresh();
        let admitted = self.governor.judge(self.now, source, Vouching::Unvouched, mac)?;
        self.governor.failed(self.now, admitted);
        Ok(())
    }

    /// A listed client's message, up to its answer.
    fn listed(&mut self, source: u32, vouching: Vouching) -> Result<(Ticket, Option<Ticket>), Turned> {
        let mac = self.fresh();
        let admitted = self.governor.judge(self.now, source, vouching, mac)?;
        self.governor.answered(admitted)
    }

    /// A listed client that completes its handshake.
    fn honest(&mut self, source: u32, vouching: Vouching) -> Result<(), Turned> {
        let (ticket, _) = self.listed(source, vouching)?;
        assert!(self.governor.confirmed(self.now, ticket));
        Ok(())
    }
}

fn mac(number: u64) -> FirstMac {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    FirstMac::from_bytes(bytes)
}

/// At 10,000 messages a second from this many sources; how many were looked into.
fn flood(world: &mut World, seconds: u64, sources: u32, mut each: impl FnMut(&mut World)) -> u64 {
    let before = world.governor.counts().admitted;
    for number in 0..seconds * 10_000 {
        let _ = world.stranger(u32::try_from(number).unwrap() % sources);
        each(world);
        world.pass(Duration::from_micros(100));
    }
    world.governor.counts().admitted - before
}

#[test]
fn a_flood_from_everywhere_is_cut_to_the_rate_of_strangers() {
    let mut world = World::new();
    let admitted = flood(&mut world, 10, 50_000, |_| {});
    let most = u64::from(RATES.strangers.burst + 10 * RATES.strangers.per_s);
    assert!((most - 2..=most).contains(&admitted), "{admitted} of {most}");
    let counts = world.governor.counts();
    assert_eq!(
        counts.admitted + counts.over_rate + counts.over_source_rate,
        100_000
    );
    // Positive control.
    assert_eq!(flood(&mut World::unlimited(), 1, 50_000, |_| {}), 10_000);
}

#[test]
fn a_flood_from_one_source_is_cut_to_its_own_rate_and_leaves_the_others_theirs() {
    let mut world = World::new();
    let mut refused = 0;
    let mut asked = 0;
    let admitted = flood(&mut world, 10, 1, |world| {
        if world.next % 500 == 0 {
            asked += 1;
            let source = 1_000 + asked;
            refused += u32::from(world.honest(source, Vouching::Unvouched).is_err());
        }
    });
    assert_eq!(refused, 0, "of {asked} from elsewhere");
    let admitted = admitted - u64::from(asked);
    // It fails, so that it is penalised after the first ten.
    let most = u64::from(SOURCE_RATE.burst + 10 * PENALISED_RATE.per_s);
    assert!(
        admitted <= most && admitted >= u64::from(FAILURES_MAX),
        "{admitted} of {most}"
    );
    assert!(world.governor.counts().penalised > 90_000);
}

#[test]
fn whoever_is_vouched_for_gets_in_during_a_flood_from_everywhere() {
    let mut world = World::new();
    flood(&mut world, 1, 50_000, |_| {});
    let mut refused = 0;
    flood(&mut world, 10, 50_000, |world| {
        if world.next % 1_000 == 0 {
            refused += u32::from(world.honest(7, Vouching::Vouched).is_err());
        }
    });
    assert_eq!(refused, 0);
    // Positive control: who is not vouched for, and was never there, mostly does not.
    let mut got_in = 0;
    flood(&mut world, 1, 50_000, |world| {
        if world.next % 100 == 0 {
            let source = 100_000 + u32::try_from(world.next).unwrap();
            got_in += u32::from(world.honest(source, Vouching::Unvouched).is_ok());
        }
    });
    assert!(got_in < 10, "{got_in} of 100");
}

#[test]
fn a_source_a_client_was_let_in_from_is_served_during_a_flood_for_a_while() {
    let mut world = World::new();
    world.honest(7, Vouching::Unvouched).unwrap();
    flood(&mut world, 1, 50_000, |_| {});
    world.honest(7, Vouching::Unvouched).unwrap();
    world.pass(FAMILIAR_FOR);
    flood(&mut world, 1, 50_000, |_| {});
    // Whatever was earned in the last moment is gone with this one.
    let _ = world.stranger(60_000);
    assert_eq!(world.honest(7, Vouching::Unvouched), Err(Turned::Rate));
}

#[test]
fn clients_of_one_address_that_complete_their_handshakes_are_never_refused() {
    let mut world = World::new();
    for _ in 0..1_000 {
        world.honest(7, Vouching::Unvouched).unwrap();
    }
}

/// Redials race, three at a time, and all but one of them never say a word.
#[test]
fn honest_dials_that_race_each_other_are_not_refused() {
    let mut world = World::new();
    for _ in 0..200 {
        let racers: Vec<_> = (0..3)
            .map(|_| world.listed(7, Vouching::Unvouched).unwrap().0)
            .collect();
        assert!(world.governor.confirmed(world.now, racers[1]));
        world.governor.left(racers[0]);
        world.governor.left(racers[2]);
        world.pass(Duration::from_millis(200));
    }
    assert_eq!(world.governor.pending(), 0);
    assert_eq!(world.governor.counts().penalised, 0);
}

#[test]
fn a_repetition_of_what_was_answered_is_not_looked_into_and_a_flood_does_not_make_it_forgotten() {
    let mut world = World::new();
    let recorded = world.fresh();
    let admitted = world
        .governor
        .judge(world.now, 7, Vouching::Unvouched, recorded)
        .unwrap();
    let (ticket, _) = world.governor.answered(admitted).unwrap();
    world.governor.left(ticket);
    flood(&mut world, 60, 50_000, |_| {});
    let before = world.governor.counts();
    for _ in 0..1_000 {
        let again = world.governor.judge(world.now, 8, Vouching::Vouched, recorded);
        assert!(matches!(again, Err(Turned::Repeated)));
    }
    let after = world.governor.counts();
    assert_eq!(
        (after.admitted, after.repeated),
        (before.admitted, before.repeated + 1_000)
    );
    // Positive control: without limits every one of them is.
    let mut world = World::unlimited();
    for _ in 0..1_000 {
        let admitted = world
            .governor
            .judge(world.now, 8, Vouching::Vouched, recorded)
            .unwrap();
        let _ = world.governor.answered(admitted).unwrap();
    }
    assert_eq!(world.governor.counts().admitted, 1_000);
}

#[test]
fn of_two_repetitions_judged_at_once_one_is_answered() {
    let mut world = World::new();
    let twice = world.fresh();
    let judged = [7, 8].map(|source| {
        world
            .governor
            .judge(world.now, source, Vouching::Unvouched, twice)
            .unwrap()
    });
    let answered = judged.map(|admitted| world.governor.answered(admitted).is_ok());
    assert_eq!(answered, [true, false]);
    assert_eq!(world.governor.pending(), 1);
}

#[test]
fn a_message_whose_client_is_not_served_is_not_remembered() {
    let mut world = World::new();
    let refused = world.fresh();
    for _ in 0..2 {
        let admitted = world
            .governor
            .judge(world.now, 7, Vouching::Unvouched, refused)
            .unwrap();
        world.governor.failed(world.now, admitted);
    }
    assert_eq!(world.governor.counts().repeated, 0);
}

#[test]
fn at_most_so_many_handshakes_are_under_way_and_the_oldest_stranger_makes_room() {
    let mut world = World::new();
    let (vouched, _) = world.listed(0, Vouching::Vouched).unwrap();
    let (oldest, _) = world.listed(1, Vouching::Unvouched).unwrap();
    let mut made_room = Vec::new();
    for source in 2..100 {
        let (_, evicted) = world.listed(source, Vouching::Unvouched).unwrap();
        made_room.extend(evicted);
        assert!(world.governor.pending() <= PENDING_MAX);
        world.pass(Duration::from_millis(20));
    }
    assert_eq!(world.governor.pending(), PENDING_MAX);
    assert_eq!(made_room.first(), Some(&oldest));
    assert_eq!(world.governor.counts().evicted, made_room.len() as u64);
    assert!(
        !world.governor.confirmed(world.now, oldest),
        "it is too late for it"
    );
    assert!(world.governor.confirmed(world.now, vouched));
}

#[test]
fn a_failing_source_is_slowed_down_and_its_neighbour_that_is_vouched_for_is_not() {
    let mut world = World::new();
    for _ in 0..FAILURES_MAX {
        world.stranger(7).unwrap();
    }
    let through = (0..100).filter(|_| world.stranger(7).is_ok()).count();
    assert_eq!(through, PENALISED_RATE.burst as usize);
    assert_eq!(world.stranger(7), Err(Turned::Penalised));
    world.honest(7, Vouching::Vouched).unwrap();
    world.honest(8, Vouching::Unvouched).unwrap();
}

#[test]
fn what_is_remembered_of_sources_is_bounded() {
    let mut world = World::new();
    for source in 0..20_000 {
        let _ = world.stranger(source);
        world.pass(Duration::from_millis(10));
        assert!(world.governor.sources() <= SOURCES_MAX);
    }
    assert!(world.governor.sources() > SOURCES_MAX / 2, "and it is used");
}
