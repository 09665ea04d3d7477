//! The side queue, and timers that use it.

use std::time::Duration;

use dwell_actors::mailbox::{CONTROL_QUEUE_MAX, Reply};
use dwell_actors::telemetry::root;

use super::support::{Job, Log, command, fill, note, on_paused_system, run, settle, start_probe};

const DELAY: Duration = Duration::from_secs(3);

#[test]
fn a_control_message_overtakes_a_full_mailbox() {
    on_paused_system(async {
        let (mailbox, log) = start_probe(8);
        (0..8).for_each(|n| mailbox.try_tell(note(n)).unwrap());
        assert!(mailbox.try_tell(note(8)).is_err());
        mailbox.control(command(|probe, _| probe.log.push(100))).unwrap();
        settle().await;
        assert_eq!(log.entries(), [100, 0, 1, 2, 3, 4, 5, 6, 7]);
    });
}

#[test]
fn control_messages_keep_their_order_and_their_queue_its_bound() {
    on_paused_system(async {
        let (mailbox, log) = start_probe(1);
        let bound = u32::try_from(CONTROL_QUEUE_MAX).unwrap();
        for n in 0..bound {
            mailbox
                .control(command(move |probe, _| probe.log.push(n)))
                .unwrap();
        }
        let full = mailbox
            .control(command(|probe, _| probe.log.push(1_000)))
            .unwrap_err();
        settle().await;
        assert_eq!(log.entries(), (0..bound).collect::<Vec<_>>());
        mailbox.control(full.0).unwrap();
        settle().await;
        assert_eq!(log.len(), CONTROL_QUEUE_MAX + 1);
    });
}

/// Regression: effects of control turns had no permit, so an outbox that waited grew with every one of them.
#[test]
fn effects_of_control_turns_that_wait_count_against_the_control_queue() {
    on_paused_system(async {
        let (receiver, received) = start_probe(4);
        let (mailbox, _) = start_probe(4);
        let blocked = fill(&receiver);
        let mut taken = 0;
        for n in 0..10 * u32::try_from(CONTROL_QUEUE_MAX).unwrap() {
            let to = receiver.clone();
            let passes_on = command(move |_, turn| turn.tell(&to, root(false), Job::Note(n)));
            taken += usize::from(mailbox.control(passes_on).is_ok());
            tokio::task::yield_now().await;
        }
        assert_eq!(taken, CONTROL_QUEUE_MAX);
        drop(blocked);
        settle().await;
        assert_eq!(received.len(), CONTROL_QUEUE_MAX);
        mailbox.control(command(|probe, _| probe.log.push(1))).unwrap();
    });
}

/// Regression: a stopped actor kept what its control queue was given, and whoever waited for a reply of it waited on.
#[test]
fn a_stopped_actor_drops_control_messages_and_those_who_wait_for_their_replies_are_told() {
    on_paused_system(async {
        let (mailbox, _) = start_probe(1);
        mailbox.drain().await;
        for _ in 0..2 * CONTROL_QUEUE_MAX {
            let (reply, answer) = Reply::<u32>::channel();
            assert!(mailbox.control(command(move |_, _| reply.send(1))).is_ok());
            assert!(answer.await.is_err());
        }
    });
}

#[test]
fn control_messages_left_behind_by_a_panic_are_dropped_with_the_actor() {
    on_paused_system(async {
        let (mailbox, _) = start_probe(1);
        mailbox
            .control(command(|_, _| panic!("as the test asked")))
            .unwrap();
        let (reply, answer) = Reply::<u32>::channel();
        mailbox.control(command(move |_, _| reply.send(1))).unwrap();
        assert!(answer.await.is_err());
    });
}

#[test]
fn a_timer_sends_its_control_message_after_its_delay() {
    on_paused_system(async {
        let (mailbox, log) = start_probe(1);
        let began = tokio::time::Instant::now();
        mailbox
            .try_tell(run(|_, turn| {
                turn.timer(DELAY, command(|probe, _| probe.log.push(1))).detach()
            }))
            .unwrap();
        settle().await;
        assert_eq!(log.len(), 0);
        while log.len() == 0 {
            tokio::time::advance(DELAY / 10).await;
            settle().await;
        }
        let waited = began.elapsed();
        assert!((DELAY..DELAY * 2).contains(&waited), "fired after {waited:?}");
    });
}

#[test]
fn dropping_a_guard_cancels_its_timer_and_its_task() {
    on_paused_system(async {
        let (mailbox, log) = start_probe(1);
        mailbox
            .try_tell(run(|probe, turn| {
                drop(turn.timer(DELAY, command(|probe, _| probe.log.push(1))));
                let log: Log = probe.log.clone();
                drop(turn.spawn(async move { log.push(2) }));
            }))
            .unwrap();
        settle().await;
        tokio::time::advance(DELAY * 2).await;
        settle().await;
        assert_eq!(log.len(), 0);
    });
}

/// Regression: after the end of its actor a detached timer retried its full control queue a thousand times a second.
#[test]
fn a_detached_timer_ends_with_its_actor() {
    on_paused_system(async {
        let (mailbox, log) = start_probe(1);
        let alive = std::sync::Arc::new(());
        for _ in 0..2 * CONTROL_QUEUE_MAX {
            let held = std::sync::Arc::clone(&alive);
            let fires = command(move |_, _| drop(held));
            mailbox
                .tell(run(move |_, turn| turn.timer(DELAY, fires).detach()))
                .await
                .unwrap();
        }
        mailbox.drain().await;
        tokio::time::advance(DELAY * 2).await;
        settle().await;
        assert_eq!(
            std::sync::Arc::strong_count(&alive),
            1,
            "every message was dropped"
        );
        assert_eq!(log.entries(), [super::support::DRAINED]);
    });
}
