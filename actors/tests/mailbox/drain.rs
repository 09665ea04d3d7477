//! Stopping: everything accepted is handled, everything later is refused, then it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dwell_actors::mailbox::{AskError, HostOptions, TellError, start_on};
use dwell_actors::runtime::Runtime;
use dwell_actors::telemetry::root;

use super::support::{
    DRAINED, Job, Log, collector, fill, note, on_paused_system, probe, run, settle, start_probe, waits,
};

#[test]
fn a_drain_handles_everything_accepted_refuses_what_is_later_and_ends() {
    on_paused_system(async {
        let (mailbox, log) = start_probe(8);
        (0..8).for_each(|n| mailbox.try_tell(note(n)).unwrap());
        mailbox.begin_drain();
        assert!(matches!(mailbox.try_tell(note(9)), Err(TellError::Stopped(_))));
        mailbox.drain().await;
        assert_eq!(log.entries(), [0, 1, 2, 3, 4, 5, 6, 7, DRAINED]);
        mailbox.drain().await;
    });
}

#[test]
fn a_turn_may_stop_its_own_actor() {
    on_paused_system(async {
        let (mailbox, log) = start_probe(8);
        mailbox.try_tell(run(|_, turn| turn.stop())).unwrap();
        mailbox.try_tell(note(1)).unwrap();
        settle().await;
        assert_eq!(log.entries(), [1, DRAINED]);
        assert!(mailbox.is_stopped());
    });
}

#[test]
fn a_drain_waits_until_the_effects_have_left() {
    on_paused_system(async {
        let (receiver, received) = start_probe(1);
        let (mailbox, log) = start_probe(8);
        let blocked = fill(&receiver);
        for n in 0..3 {
            let to = receiver.clone();
            mailbox
                .try_tell(run(move |_, turn| turn.tell(&to, root(false), Job::Note(n))))
                .unwrap();
        }
        let draining = tokio::task::spawn_local({
            let mailbox = mailbox.clone();
            async move { mailbox.drain().await }
        });
        settle().await;
        assert!(!draining.is_finished());
        assert_eq!(log.entries(), [DRAINED]);
        drop(blocked);
        draining.await.unwrap();
        settle().await;
        assert_eq!(received.entries(), [0, 1, 2]);
    });
}

#[test]
fn a_cancelled_drain_goes_on() {
    on_paused_system(async {
        let (mailbox, log) = start_probe(8);
        mailbox.try_tell(note(1)).unwrap();
        let mut draining = Box::pin(mailbox.drain());
        assert!(waits(&mut draining).await);
        drop(draining);
        settle().await;
        assert_eq!(log.entries(), [1, DRAINED]);
    });
}

/// Regression: ports stayed open, and what they took after the end was dropped without a word.
#[test]
fn a_drain_closes_every_port_whichever_handle_began_it() {
    on_paused_system(async {
        let (mailbox, log) = start_probe(8);
        let (port, other) = (mailbox.port(2), mailbox.port(2));
        mailbox.try_tell(note(1)).unwrap();
        port.try_tell(note(2)).unwrap();
        other.try_tell(note(3)).unwrap();
        port.drain().await;
        assert_eq!(log.entries(), [1, 2, 3, DRAINED]);
        let late = mailbox.port(2);
        for handle in [&mailbox, &port, &other, &late] {
            assert!(matches!(handle.try_tell(note(4)), Err(TellError::Stopped(_))));
            let answer = handle.ask::<u32>(root(false), |_| Job::Note(5)).await;
            assert_eq!(answer, Err(AskError::Stopped));
            assert!(handle.is_stopped());
        }
    });
}

#[test]
fn the_end_of_an_actor_by_panic_closes_its_ports() {
    on_paused_system(async {
        let (mailbox, _) = start_probe(8);
        let port = mailbox.port(2);
        mailbox.try_tell(run(|_, _| panic!("as the test asked"))).unwrap();
        settle().await;
        assert!(matches!(port.try_tell(note(1)), Err(TellError::Stopped(_))));
    });
}

#[test]
fn a_drain_does_not_wait_for_slots_and_a_late_slot_is_refused() {
    on_paused_system(async {
        let (mailbox, log) = start_probe(8);
        let (slot, late) = (mailbox.try_reserve().unwrap(), mailbox.try_reserve().unwrap());
        slot.send(note(1));
        let began = tokio::time::Instant::now();
        mailbox.drain().await;
        assert_eq!(began.elapsed(), std::time::Duration::ZERO);
        late.send(note(2));
        settle().await;
        assert_eq!(log.entries(), [1, DRAINED]);
    });
}

/// Regression: room that an actor kept looked like a message under way, and held up the drain for a second.
#[test]
fn a_drain_does_not_wait_for_room_that_the_actor_keeps() {
    on_paused_system(async {
        let (mailbox, log) = start_probe(8);
        let (sender, rooms) = std::sync::mpsc::sync_channel(1);
        let takes = run(move |_, turn| sender.send(turn.take_room().unwrap()).unwrap());
        mailbox.try_tell(takes).unwrap();
        let began = tokio::time::Instant::now();
        mailbox.drain().await;
        assert_eq!(
            (began.elapsed(), log.entries()),
            (std::time::Duration::ZERO, vec![DRAINED])
        );
        drop(rooms.try_recv().unwrap());
    });
}

#[test]
fn a_tell_that_waited_when_the_drain_began_is_given_back() {
    on_paused_system(async {
        let (mailbox, log) = start_probe(1);
        mailbox.try_tell(note(1)).unwrap();
        let mut waiting = Box::pin(mailbox.tell(note(2)));
        assert!(waits(&mut waiting).await);
        // The first note's room goes to the one that waits, who does not look before the drain is over.
        settle().await;
        mailbox.drain().await;
        assert!(waiting.await.is_err(), "it was not taken, and is not lost");
        assert_eq!(log.entries(), [1, DRAINED]);
    });
}

/// Regression: a sender on another thread that held room when the drain began put its message behind the mark, where
/// it was dropped although `try_tell` had taken it.
#[test]
fn a_drain_against_senders_on_other_threads_handles_exactly_what_was_accepted() {
    const ROUNDS: usize = 100;
    let collector = collector(vec![]);
    let runtime = Runtime::start(1, collector.clone()).unwrap();
    for _ in 0..ROUNDS {
        let log = Log::default();
        let state = log.clone();
        let mailbox = start_on(runtime.place().arbiter(), HostOptions::new(64), move || {
            probe(&state)
        });
        let go = Arc::new(AtomicBool::new(false));
        let senders: Vec<_> = (0..2)
            .map(|_| {
                let (mailbox, go) = (mailbox.clone(), Arc::clone(&go));
                std::thread::spawn(move || {
                    let mut accepted = 0_usize;
                    loop {
                        match mailbox.try_tell(note(1)) {
                            Ok(()) => accepted += 1,
                            Err(TellError::Full(_)) => std::thread::yield_now(),
                            Err(TellError::Stopped(_)) => return accepted,
                        }
                        go.store(true, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        while !go.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }
        let waiter = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        waiter.block_on(mailbox.drain());
        let accepted: usize = senders.into_iter().map(|sender| sender.join().unwrap()).sum();
        assert_eq!(
            log.entries().iter().filter(|entry| **entry == 1).count(),
            accepted
        );
    }
    drop(runtime);
    collector.end();
}
