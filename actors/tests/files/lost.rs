//! Links that die while files travel: what is written is written once, and what is read is whole.

use dwell_actors::files::WriteOptions;
use dwell_messages::ErrorCode;
use dwell_messages::files::{BLOCK_MAX_BYTES, WriteHow};
use dwell_testkit::{Direction, Fault, Plan};

use crate::place::{bytes, content};
use crate::support::bounded;
use crate::world::{Dice, World, break_within, seed, soak};

fn append() -> WriteOptions {
    WriteOptions {
        how: WriteHow::Append,
        ..WriteOptions::default()
    }
}

/// Appends, over links each of which breaks after some bytes. Whether the file has each of them once and in order.
async fn appended_once(world: &World, dice: &mut Dice) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    let harness = world.harness().await;
    let files = harness.files();
    for _ in 0..12 {
        world.proxy.plan_next(break_within(dice, 600_000));
    }
    let mut expected = Vec::new();
    for round in 0..30 {
        let data = content(20_000, round);
        expected.extend_from_slice(&data);
        let wrote = files.write_file(bytes(&path), data, append());
        bounded("an append", wrote).await.unwrap();
        if round % 10 == 9 {
            world.proxy.cut(dwell_testkit::Cut::Reset);
        }
    }
    let data = content(6 * BLOCK_MAX_BYTES + 3, 99);
    expected.extend_from_slice(&data);
    let mut writer = files.create(bytes(&path), append());
    bounded("a large append", writer.write(&data)).await.unwrap();
    world.proxy.cut(dwell_testkit::Cut::Reset);
    bounded("its end", writer.finish()).await.unwrap();
    let there = std::fs::read(&path).unwrap();
    let read = bounded("reading", files.read_file(bytes(&path), 1 << 30))
        .await
        .unwrap();
    assert!(read == there, "what was read is not what is there");
    world.proxy.plan(Plan::default());
    harness.shutdown().await;
    there == expected
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_appended_over_breaking_links_is_there_once_and_in_order() {
    let mut dice = Dice(seed());
    let world = World::start().await;
    for _ in 0..if soak() { 50 } else { 3 } {
        assert!(
            appended_once(&world, &mut dice).await,
            "something is missing or there twice"
        );
    }
}

/// The positive control: with an executor that takes repetitions for new requests the test above fails.
#[tokio::test(flavor = "multi_thread")]
async fn an_executor_that_serves_repetitions_writes_twice() {
    let mut dice = Dice(seed());
    let world = World::with(1 << 30, |builder| builder.credulous()).await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    let mut doubled = false;
    for _ in 0..20 {
        let harness = world.harness().await;
        let files = harness.files();
        // Answers are lost on their way back, so that the request is sent again.
        let after_bytes = 200 + dice.below(3_000);
        world
            .proxy
            .plan_next(Plan::one(Direction::ToClient, Fault::Reset { after_bytes }));
        let mut expected = 0;
        std::fs::write(&path, b"").unwrap();
        world.proxy.cut(dwell_testkit::Cut::Reset);
        for _ in 0..40 {
            let wrote = files.write_file(bytes(&path), &b"0123456789"[..], append());
            if bounded("an append", wrote).await.is_err() {
                break;
            }
            expected += 10;
        }
        doubled |= std::fs::metadata(&path).unwrap().len() > expected;
        drop(harness);
    }
    assert!(
        doubled,
        "nothing was ever repeated: the test above proves nothing"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_over_says_what_is_known_of_a_write() {
    let world = World::start().await;
    let harness = world
        .harness_with(|builder| builder.resume_for(std::time::Duration::ZERO))
        .await;
    let files = harness.files();
    let dir = tempfile::tempdir().unwrap();
    let path = bytes(&dir.path().join("f"));
    files.write_file(&path, &b"x"[..], append()).await.unwrap();
    world.proxy.hold(Direction::ToClient);
    let write = files.write_file(&path, &b"y"[..], append());
    let cut = async {
        crate::world::until("it is written", || {
            std::fs::metadata(dir.path().join("f")).unwrap().len() == 2
        })
        .await;
        world.proxy.cut(dwell_testkit::Cut::Reset);
    };
    let (written, ()) = tokio::join!(bounded("the write", write), cut);
    assert_eq!(written.unwrap_err().code, ErrorCode::OutcomeUnknown);
    let later = bounded("a later one", files.write_file(&path, &b"z"[..], append()))
        .await
        .unwrap_err();
    assert!(
        matches!(
            later.code,
            ErrorCode::Stopped | ErrorCode::Disconnected | ErrorCode::Busy
        ),
        "{later}"
    );
}
