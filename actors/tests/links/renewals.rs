//! Keys that are renewed under traffic, and what becomes of those that are not.
//!
//! The hard limit is lowered with the soft one: a link whose keys were not renewed would end, and be counted.

use std::time::Duration;

use bytes::Bytes;
use dwell_actors::harness::{Command, Harness, RunEvent};
use dwell_messages::ExitStatus;
use dwell_relay::LinkOptions;
use dwell_relay::link::RenewAfter;
use ring::digest::{Context, SHA256};

use crate::support::{bounded, shell, started};
use crate::world::{Dice, World};

/// What flows each way.
const BYTES: u64 = 16 << 20;

/// Many records, and keys that may seal a few of them.
fn few_records(options: LinkOptions) -> LinkOptions {
    let mut options = LinkOptions {
        record_max_bytes: 2_048,
        ..options
    };
    options.seal_limits.records_max = 5_000;
    options
}

fn renewed(options: LinkOptions) -> LinkOptions {
    LinkOptions {
        renew_after: RenewAfter {
            records: 300,
            bytes: 1 << 20,
            ..RenewAfter::default()
        },
        ..few_records(options)
    }
}

fn renewed_by_age(options: LinkOptions) -> LinkOptions {
    LinkOptions {
        renew_after: RenewAfter {
            age: Duration::from_millis(100),
            ..RenewAfter::default()
        },
        key_age_max: Duration::from_millis(1_500),
        ..options
    }
}

fn too_old(options: LinkOptions) -> LinkOptions {
    LinkOptions {
        key_age_max: Duration::from_millis(1_500),
        ..options
    }
}

/// Sends random bytes through `cat` and compares what comes back.
async fn echoes(harness: &Harness) {
    let mut run = harness.exec(Command::new("cat").stdin_piped());
    started(&mut run).await;
    let stdin = run.stdin();
    let writing = tokio::spawn(async move {
        let (mut hash, mut data, mut left) = (Context::new(&SHA256), Dice(77), BYTES);
        while left > 0 {
            let length = (data.below(100_000) + 1).min(left);
            let chunk: Vec<u8> = (0..length).map(|_| data.roll().to_ne_bytes()[0]).collect();
            hash.update(&chunk);
            stdin.write(Bytes::from(chunk)).await.unwrap();
            left -= length;
        }
        stdin.close().await.unwrap();
        hash.finish()
    });
    let mut hash = Context::new(&SHA256);
    while let Some(event) = bounded("an event", run.next()).await {
        match event {
            RunEvent::Stdout(data) => hash.update(&data),
            RunEvent::Exited(status) => assert_eq!(status, ExitStatus::Code(0)),
            other => panic!("unexpected: {other:?}"),
        }
    }
    let finished = bounded("its end", run.wait()).await.unwrap();
    assert_eq!(finished.output_bytes, [BYTES, 0]);
    let sent = bounded("the writer", writing).await.unwrap();
    assert_eq!(sent.as_ref(), hash.finish().as_ref());
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_renewed_under_traffic_both_ways_and_the_link_stays() {
    let world = World::with(1 << 30, |builder| builder.links(few_records)).await;
    let harness = world.harness_with(|builder| builder.links(renewed)).await;
    echoes(&harness).await;
    assert_eq!(
        world.proxy.accepted(),
        1,
        "one link carried more records than a key may seal"
    );
}

/// The positive control: without renewals the same traffic ends links, and costs no byte.
#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_not_renewed_cost_links_and_no_byte() {
    let world = World::with(1 << 30, |builder| builder.links(few_records)).await;
    let harness = world.harness_with(|builder| builder.links(few_records)).await;
    echoes(&harness).await;
    assert!(world.proxy.accepted() > 1, "{} links", world.proxy.accepted());
    assert_eq!(world.executor.sessions(), 1);
}

#[tokio::test]
async fn keys_of_an_idle_link_are_renewed_by_age() {
    let links = |renewing: bool| async move {
        let world = World::with(1 << 30, |builder| builder.links(too_old)).await;
        let harness = world
            .harness_with(|builder| {
                let builder = builder.pings(Duration::from_millis(50), Duration::from_secs(10));
                builder.links(if renewing { renewed_by_age } else { too_old })
            })
            .await;
        let finished = bounded("a while", harness.exec(shell("sleep 4; echo over")).wait())
            .await
            .unwrap();
        assert_eq!(finished.stdout.to_text(), "over\n");
        world.proxy.accepted()
    };
    assert_eq!(
        links(true).await,
        1,
        "the link outlived the age of its first keys"
    );
    assert!(links(false).await > 1, "positive control");
}
