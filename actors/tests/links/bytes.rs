//! Every byte once and in order, whatever becomes of the links.

use std::time::{Duration, Instant};

use bytes::Bytes;
use dwell_actors::harness::{Command, HarnessBuilder, RunEvent};
use dwell_messages::ExitStatus;
use dwell_testkit::{Cut, Direction, Fault, Plan};
use ring::digest::{Context, SHA256};

use crate::support::{bounded, output_until, shell, started};
use crate::world::{Dice, World, break_within, seed, soak, stall_within};

/// T-07. The positive control is that the links did die.
#[tokio::test]
async fn a_command_goes_on_over_the_next_link() {
    for cut in [Cut::Reset, Cut::Close] {
        let world = World::start().await;
        let harness = world.harness().await;
        let mut run = harness.exec(shell("while read line; do echo \"$line $$\"; done").stdin_piped());
        let pid = started(&mut run).await;
        for line in ["one", "two", "three"] {
            bounded("a write", run.write_stdin(Bytes::from(format!("{line}\n"))))
                .await
                .unwrap();
            let heard = output_until(&mut run, "\n").await;
            assert_eq!(heard, format!("{line} {pid}\n"));
            world.proxy.cut(cut);
        }
        bounded("closing", run.close_stdin()).await.unwrap();
        let finished = bounded("its end", run.wait()).await.unwrap();
        assert_eq!(finished.status, ExitStatus::Code(0));
        assert!(
            world.proxy.accepted() >= 4,
            "{cut:?}: {} links",
            world.proxy.accepted()
        );
        assert_eq!(world.executor.sessions(), 1, "one session over all of them");
    }
}

/// One of so many links is not broken, but goes silent.
const STALL_EVERY: u64 = 20;

struct Campaign {
    disconnects: u64,
    bytes: u64,
}

/// K-01, T-07, T-10, P-21: bytes flow both ways through `cat` while every link breaks, or goes silent, at a random byte.
#[tokio::test(flavor = "multi_thread")]
async fn bytes_are_exact_both_ways_over_links_that_break_at_random_bytes() {
    let campaign = if soak() {
        Campaign {
            disconnects: 1_000,
            bytes: 1 << 30,
        }
    } else {
        Campaign {
            disconnects: 200,
            bytes: 96 << 20,
        }
    };
    let mut dice = Dice(seed());
    let world = World::start().await;
    let quick =
        |builder: HarnessBuilder| builder.pings(Duration::from_millis(100), Duration::from_millis(500));
    let harness = world.harness_with(quick).await;
    let mut run = harness.exec(Command::new("cat").stdin_piped());
    let pid = started(&mut run).await;
    let each = 2 * campaign.bytes / campaign.disconnects;
    let first = world.proxy.accepted();
    for number in 0..campaign.disconnects {
        // Most break with a word; some go silent one way.
        world.proxy.plan_next(if number % STALL_EVERY == STALL_EVERY / 2 {
            stall_within(&mut dice, each)
        } else {
            break_within(&mut dice, each)
        });
    }
    world.proxy.cut(Cut::Reset);
    let stdin = run.stdin();
    let (bytes, mut data) = (campaign.bytes, Dice(dice.roll() | 1));
    let writing = tokio::spawn(async move {
        let mut hash = Context::new(&SHA256);
        let mut left = bytes;
        while left > 0 {
            let length = (data.below(200_000) + 1).min(left);
            let chunk: Vec<u8> = (0..length.div_ceil(8))
                .flat_map(|_| data.roll().to_ne_bytes())
                .collect();
            let chunk = Bytes::from(chunk).slice(..usize::try_from(length).unwrap());
            hash.update(&chunk);
            stdin.write(chunk).await.unwrap();
            left -= length;
        }
        stdin.close().await.unwrap();
        hash.finish()
    });
    let mut hash = Context::new(&SHA256);
    let mut read = 0_u64;
    loop {
        let event = tokio::time::timeout(Duration::from_secs(60), run.next()).await;
        match event.expect("bytes go on flowing") {
            Some(RunEvent::Stdout(data)) => {
                read += data.len() as u64;
                hash.update(&data);
            }
            Some(RunEvent::Exited(status)) => assert_eq!(status, ExitStatus::Code(0)),
            Some(other) => panic!("unexpected: {other:?}"),
            None => break,
        }
    }
    let finished = bounded("its end", run.wait()).await.unwrap();
    assert_eq!(read, campaign.bytes);
    assert_eq!(finished.output_bytes, [campaign.bytes, 0]);
    let sent = bounded("the writer", writing).await.unwrap();
    assert_eq!(
        sent.as_ref(),
        hash.finish().as_ref(),
        "SHA-256 of what went in and of what came out"
    );
    let links = world.proxy.accepted() - first;
    println!("pid {pid}: {read} bytes both ways over {links} links");
    // Not every plan is reached: bytes of the last links are fewer than it allows.
    assert!(links > campaign.disconnects / 2, "{links} links");
    assert_eq!(world.executor.sessions(), 1);
}

/// How long after an outage the session goes on.
#[tokio::test]
async fn a_session_goes_on_soon_after_its_link_is_cut() {
    let world = World::start().await;
    let harness = world.harness().await;
    let mut run = harness.exec(Command::new("cat").stdin_piped());
    started(&mut run).await;
    let rounds = if soak() { 500 } else { 50 };
    let mut taken = Vec::new();
    for round in 0..rounds {
        world
            .proxy
            .cut(if round % 2 == 0 { Cut::Reset } else { Cut::Close });
        let begun = Instant::now();
        bounded("a write", run.write_stdin(Bytes::from_static(b"x\n")))
            .await
            .unwrap();
        output_until(&mut run, "\n").await;
        taken.push(begun.elapsed());
    }
    taken.sort();
    let (p50, p99) = (taken[taken.len() / 2], taken[taken.len() * 99 / 100]);
    println!("an echo across a cut link: p50 {p50:?}, p99 {p99:?} of {rounds}");
    // 250 ms and three round trips, and a factor of 10 for a busy machine.
    assert!(p99 < Duration::from_millis(2_500), "{p99:?}");
}

/// T-08, T-10: a network that is gone without a word, one way or both. Pings find it; the process notices nothing.
#[tokio::test]
async fn a_silent_network_is_found_and_left_behind() {
    let ways: [&[Direction]; 3] = [
        &[Direction::ToClient],
        &[Direction::ToUpstream],
        &[Direction::ToClient, Direction::ToUpstream],
    ];
    for ways in ways {
        let world = World::start().await;
        let mut plan = Plan::pass();
        for way in ways {
            plan = plan.and(*way, Fault::Stall { after_bytes: 6_000 });
        }
        world.proxy.plan_next(plan);
        let quick =
            |builder: HarnessBuilder| builder.pings(Duration::from_millis(50), Duration::from_millis(300));
        let harness = world.harness_with(quick).await;
        let mut run = harness.exec(Command::new("cat").stdin_piped());
        started(&mut run).await;
        // Enough both ways to run into the stall.
        let text = format!("{}\n", "x".repeat(20_000));
        bounded("a write", run.write_stdin(Bytes::from(text.clone())))
            .await
            .unwrap();
        assert_eq!(output_until(&mut run, "\n").await, text);
        assert!(world.proxy.accepted() >= 2, "{ways:?}: the silent link was left");
        run.close_stdin().await.unwrap();
        bounded("its end", run.wait()).await.unwrap();
    }
}

/// T-01, T-05, C-09: a record that does not open resets the link and is never skipped.
#[tokio::test]
async fn a_flipped_bit_costs_a_link_and_no_byte() {
    let mut dice = Dice(seed());
    let world = World::start().await;
    let harness = world.harness().await;
    let mut run = harness.exec(Command::new("cat").stdin_piped());
    started(&mut run).await;
    let mut broken = 0;
    for round in 0..if soak() { 300 } else { 40 } {
        let links = world.proxy.accepted();
        let way = if dice.below(2) == 0 {
            Direction::ToClient
        } else {
            Direction::ToUpstream
        };
        let flip = Fault::FlipBit {
            at_byte: 700 + dice.below(30_000),
            bit: u8::try_from(dice.below(8)).unwrap(),
        };
        world.proxy.plan_next(Plan::one(way, flip));
        world.proxy.cut(Cut::Reset);
        let text = format!("{round} {}\n", "y".repeat(50_000));
        bounded("a write", run.write_stdin(Bytes::from(text.clone())))
            .await
            .unwrap();
        assert_eq!(output_until(&mut run, "\n").await, text);
        broken += u64::from(world.proxy.accepted() > links + 1);
    }
    println!("{broken} links ended by a bit");
    assert!(broken > 10, "{broken}");
    run.close_stdin().await.unwrap();
    bounded("its end", run.wait()).await.unwrap();
}

/// Several processes of one session, each with output of its own, come back as they were.
#[tokio::test(flavor = "multi_thread")]
async fn every_process_of_a_session_goes_on() {
    let mut dice = Dice(seed());
    let world = World::start().await;
    let harness = world.harness().await;
    for _ in 0..60 {
        let after_bytes = dice.below(900_000);
        world
            .proxy
            .plan_next(Plan::one(Direction::ToClient, Fault::Reset { after_bytes }));
    }
    world.proxy.cut(Cut::Reset);
    let runs: Vec<_> = (0..8)
        .map(|number| {
            harness.exec(
                shell(&format!("seq {number}000000 {number}300000; seq 1 20000 >&2")).output_limit(4 << 20),
            )
        })
        .collect();
    for (number, run) in runs.into_iter().enumerate() {
        let finished = tokio::time::timeout(Duration::from_secs(120), run.wait());
        let finished = finished.await.unwrap().unwrap();
        let expected: String = (number * 1_000_000..=number * 1_000_000 + 300_000)
            .map(|line| format!("{line}\n"))
            .collect();
        assert!(
            finished.stdout.to_text() == expected,
            "standard output of {number}"
        );
        let expected: String = (1..=20_000).map(|line| format!("{line}\n")).collect();
        assert!(
            finished.stderr.to_text() == expected,
            "standard error of {number}"
        );
        assert_eq!(finished.status, ExitStatus::Code(0));
    }
    println!("{} links", world.proxy.accepted());
    assert!(world.proxy.accepted() > 10);
}
