//! Floods as OPEN frames over a relay's connection, 10,000 a second.

use std::time::{Duration, Instant};

use dwell_actors::harness::{Command, Harness, RunEvent, Target};
use dwell_relay::StaticKeypair;
use dwell_relay::strangers::{PENDING_MAX, Rates, Vouching};
use zeroize::Zeroizing;

use crate::executor::{Counts, ExecutorProcess};
use crate::messages::{Kind, keypair, opening, some, under_a_right_mac};
use crate::relay::{FakeRelay, listen};
use crate::{BOUND, CPU_SHARE_MAX, HANDSHAKE_P99_MAX, RATE_PER_S, VOUCHED_MAX, alone, flood_time, p99};

/// Echoes of a live link that are timed without a flood.
const ECHOES: usize = 200;
/// What a flood with a right MAC may do to the p99 of a live link is twice; a machine that others load gets more.
const ECHO_FACTOR: u32 = 20;

struct World {
    relay: FakeRelay,
    executor: ExecutorProcess,
    client: StaticKeypair,
}

/// What one flood did.
struct Flood {
    sent: u64,
    counts: Counts,
    cpu_share: f64,
    handshakes: Vec<Duration>,
    /// Legitimate handshakes that were looked into.
    legitimate: u64,
    refused: u32,
    lasted: Duration,
}

impl World {
    async fn start(limited: bool) -> Self {
        let client = keypair();
        let (listener, address) = listen().await;
        let key = client.public();
        let starting =
            tokio::task::spawn_blocking(move || ExecutorProcess::start(key, Some(address), limited));
        let relay = FakeRelay::accept(&listener).await;
        Self {
            relay,
            executor: starting.await.unwrap(),
            client,
        }
    }

    /// A flood of one kind from many sources, and legitimate handshakes during it, ten a second.
    async fn flood(&mut self, kind: Kind, vouching: Vouching) -> Flood {
        let openings = some(kind, &self.client, self.executor.key);
        let before = self.executor.counts();
        let (cpu, begun) = (self.executor.cpu_s(), Instant::now());
        let time = flood_time();
        let honest = async {
            let mut ticks = tokio::time::interval(Duration::from_millis(100));
            let (mut times, mut refused) = (Vec::new(), 0);
            while begun.elapsed() < time {
                ticks.tick().await;
                match self.relay.handshake(&self.client, vouching, 7).await {
                    Ok(took) => times.push(took),
                    Err(_) => refused += 1,
                }
            }
            (times, refused)
        };
        let flooding = self.relay.flood(&openings, RATE_PER_S, time);
        let (sent, (handshakes, refused)) = tokio::join!(flooding, honest);
        // One more that is served, behind everything: all has been judged by then.
        while self
            .relay
            .handshake(&self.client, Vouching::Vouched, 8)
            .await
            .is_err()
        {}
        let lasted = begun.elapsed();
        let cpu_share = (self.executor.cpu_s() - cpu) / lasted.as_secs_f64();
        let after = self.executor.counts();
        let counts = Counts {
            wrong_mac: after.wrong_mac - before.wrong_mac,
            repeated: after.repeated - before.repeated,
            admitted: after.admitted - before.admitted,
            ..after
        };
        let flood = Flood {
            sent,
            counts,
            cpu_share,
            // And the one behind everything.
            legitimate: handshakes.len() as u64 + 1,
            handshakes,
            refused,
            lasted,
        };
        flood.print(kind);
        flood
    }
}

impl Flood {
    fn print(&self, kind: Kind) {
        let p99 = if self.handshakes.is_empty() {
            Duration::ZERO
        } else {
            p99(&self.handshakes)
        };
        println!(
            "{kind:?} through a relay: {} sent in {:?}, {} looked into, {} of legitimate handshakes, {:.1} % of a core, \
             legitimate handshakes {} in (p99 {p99:?}) and {} refused",
            self.sent,
            self.lasted,
            self.counts.admitted,
            self.legitimate,
            self.cpu_share * 100.0,
            self.handshakes.len(),
            self.refused
        );
    }

    /// What the buckets allow in that time, and every legitimate handshake, which is paid back.
    fn most(&self) -> u64 {
        let rates = Rates::EXECUTOR.strangers;
        let seconds = self.lasted.as_secs_f64() + 0.1;
        u64::from(rates.burst) + (f64::from(rates.per_s) * seconds) as u64 + self.legitimate
    }
}

#[test]
fn a_flood_without_a_right_mac_costs_no_diffie_hellman_and_keeps_nobody_out() {
    alone(async {
        let mut world = World::start(true).await;
        let flood = world.flood(Kind::WrongMac, Vouching::Unvouched).await;
        assert_eq!(flood.counts.wrong_mac, flood.sent);
        assert_eq!(flood.counts.admitted, flood.legitimate, "only legitimate ones");
        assert_eq!(flood.refused, 0);
        assert!(p99(&flood.handshakes) < HANDSHAKE_P99_MAX);
        assert!(flood.cpu_share < CPU_SHARE_MAX, "{}", flood.cpu_share);
        assert!(world.relay.resets() >= flood.sent, "each was told");
    });
}

#[test]
fn a_flood_of_strangers_costs_what_its_bucket_allows_and_whoever_is_vouched_for_gets_in() {
    alone(async {
        let mut world = World::start(true).await;
        let flood = world.flood(Kind::Strangers, Vouching::Vouched).await;
        assert!(
            flood.counts.admitted <= flood.most(),
            "{} of {}",
            flood.counts.admitted,
            flood.most()
        );
        assert!(flood.counts.admitted > flood.legitimate, "some are looked into");
        assert!(flood.cpu_share < CPU_SHARE_MAX, "{}", flood.cpu_share);
        assert_eq!(flood.refused, 0);
        let longest = flood.handshakes.iter().max().unwrap();
        assert!(*longest < VOUCHED_MAX, "{longest:?}");
    });
}

#[test]
fn a_replayed_message_of_a_listed_client_is_answered_once_and_costs_nothing_after() {
    alone(async {
        let mut world = World::start(true).await;
        let flood = world.flood(Kind::Replay, Vouching::Vouched).await;
        assert_eq!(flood.counts.repeated, flood.sent - 1);
        assert_eq!(
            flood.counts.admitted,
            flood.legitimate + 1,
            "the recorded one, once"
        );
        assert_eq!(flood.refused, 0);
        assert!(flood.cpu_share < CPU_SHARE_MAX, "{}", flood.cpu_share);
        let longest = flood.handshakes.iter().max().unwrap();
        assert!(*longest < VOUCHED_MAX, "{longest:?}");
    });
}

/// Positive control of the two before.
#[test]
fn without_limits_the_same_floods_cost_a_diffie_hellman_each() {
    alone(async {
        for kind in [Kind::Strangers, Kind::Replay] {
            let mut world = World::start(false).await;
            let openings = some(kind, &world.client, world.executor.key);
            let sent = world
                .relay
                .flood(&openings, RATE_PER_S, Duration::from_millis(100))
                .await;
            // An answer that is left out among so many is asked for again.
            let again = Duration::from_secs(5);
            loop {
                let asked = world.relay.handshake(&world.client, Vouching::Vouched, 8);
                if let Ok(Ok(_)) = tokio::time::timeout(again, asked).await {
                    break;
                }
            }
            let counts = world.executor.counts();
            println!(
                "{kind:?} without limits: {sent} sent, {} looked into",
                counts.admitted
            );
            let most = u64::from(Rates::EXECUTOR.strangers.burst + Rates::EXECUTOR.strangers.per_s);
            assert!(counts.admitted > 2 * most, "{}", counts.admitted);
            assert!(counts.admitted >= sent, "each of them");
        }
    });
}

#[test]
fn recorded_messages_of_another_life_take_no_more_places_than_there_are() {
    alone(async {
        let mut world = World::start(true).await;
        // To the executor each is the first of its kind: it cannot know that nobody is behind it.
        let recorded: Vec<_> = (0..3 * PENDING_MAX)
            .map(|_| opening(&world.client, world.executor.key))
            .collect();
        let time = Duration::from_millis(1_500);
        let sent = world.relay.flood(&recorded, 64, time).await;
        assert!(sent > 2 * PENDING_MAX as u64, "{sent}");
        world
            .relay
            .handshake(&world.client, Vouching::Vouched, 8)
            .await
            .unwrap();
        let counts = world.executor.counts();
        assert!(counts.pending <= PENDING_MAX as u64, "{counts:?}");
        assert!(
            counts.pending > PENDING_MAX as u64 / 2,
            "they are kept: {counts:?}"
        );
    });
}

/// One echo after another, each timed.
async fn echoes(harness: &Harness, until: impl Fn(usize) -> bool) -> Vec<Duration> {
    let mut run = harness.exec(Command::new("cat").stdin_piped());
    let mut times = Vec::new();
    while !until(times.len()) {
        let begun = Instant::now();
        run.write_stdin(bytes::Bytes::from_static(b"x")).await.unwrap();
        loop {
            match tokio::time::timeout(BOUND, run.next()).await.unwrap().unwrap() {
                RunEvent::Stdout(_) => break,
                RunEvent::Started { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        times.push(begun.elapsed());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    times
}

#[test]
fn a_live_link_goes_on_through_every_flood() {
    alone(async {
        let world = World::start(true).await;
        let identity = StaticKeypair::from_private(Zeroizing::new(*world.client.expose_private()));
        let target = Target::direct(world.executor.address.to_string(), world.executor.key);
        let harness = Harness::builder()
            .identity(identity)
            .connect(target)
            .await
            .unwrap();
        echoes(&harness, |done| done >= 20).await;
        let idle = p99(&echoes(&harness, |done| done >= ECHOES).await);
        let mut random = (0..64)
            .map(|_| under_a_right_mac(world.executor.key))
            .collect::<Vec<_>>();
        for kind in [Kind::WrongMac, Kind::Strangers, Kind::Replay] {
            let mut openings = some(kind, &world.client, world.executor.key);
            if kind == Kind::Strangers {
                openings.append(&mut random);
            }
            let over = std::cell::Cell::new(false);
            let flooding = async {
                let sent = world.relay.flood(&openings, RATE_PER_S, flood_time()).await;
                over.set(true);
                sent
            };
            let (sent, times) = tokio::join!(flooding, echoes(&harness, |_| over.get()));
            let during = p99(&times);
            println!(
                "{kind:?}: {sent} sent; p99 of {} echoes {during:?}, idle {idle:?}",
                times.len()
            );
            assert!(
                during < ECHO_FACTOR * idle + Duration::from_millis(50),
                "{during:?} over {idle:?}"
            );
        }
        harness.shutdown().await;
    });
}
