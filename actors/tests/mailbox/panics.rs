//! A panic costs the state and nothing else, and too many cost the actor.

use std::sync::mpsc::sync_channel;

use dwell_actors::mailbox::{Failure, HostOptions, Mailbox, RESTARTS_MAX, TellError, start_here};
use dwell_actors::telemetry::root;

use super::support::{
    Job, Log, Probe, command, fill, note, on_paused_system, probe, run, settle, start_probe,
};

fn start_restarting(capacity: usize) -> (Mailbox<Probe>, Log, Log) {
    let (log, lives) = (Log::default(), Log::default());
    let (state, births) = (log.clone(), lives.clone());
    let mailbox = start_here(HostOptions::new(capacity).restarting(), move || {
        births.push(0);
        probe(&state)
    });
    (mailbox, log, lives)
}

#[test]
fn a_panic_rebuilds_the_state_and_queued_messages_survive_it() {
    on_paused_system(async {
        let (mailbox, log, lives) = start_restarting(8);
        mailbox.try_tell(note(1)).unwrap();
        mailbox.try_tell(run(|_, _| panic!("as the test asked"))).unwrap();
        mailbox.try_tell(note(2)).unwrap();
        mailbox
            .try_tell(run(|probe, _| probe.log.push(100 + probe.handled)))
            .unwrap();
        settle().await;
        // The second life had handled the note and this message, nothing of the first.
        assert_eq!(log.entries(), [1, 2, 102]);
        assert_eq!((lives.len(), mailbox.depth()), (2, 0));
    });
}

#[test]
fn a_panic_in_the_drop_of_the_state_does_not_abort() {
    on_paused_system(async {
        let (mailbox, log, lives) = start_restarting(8);
        mailbox
            .try_tell(run(|probe, _| {
                probe.drop_panics = true;
                panic!("as the test asked");
            }))
            .unwrap();
        mailbox.try_tell(note(2)).unwrap();
        settle().await;
        assert_eq!((log.entries(), lives.len()), (vec![2], 2));
    });
}

#[test]
fn a_panic_in_the_drop_of_a_stopping_state_still_ends_the_drain() {
    on_paused_system(async {
        let (mailbox, _) = start_probe(8);
        mailbox
            .try_tell(run(|probe, _| probe.drop_panics = true))
            .unwrap();
        mailbox.drain().await;
        assert!(mailbox.is_stopped());
    });
}

#[test]
fn the_sixth_panic_in_ten_seconds_escalates_and_later_senders_are_told() {
    on_paused_system(async {
        let (tell, told) = sync_channel(4);
        let log = Log::default();
        let state = log.clone();
        let options = HostOptions::new(64)
            .restarting()
            .escalating(move |failure| tell.send(failure).unwrap());
        let mailbox = start_here(options, move || probe(&state));
        for n in 0..RESTARTS_MAX {
            mailbox.try_tell(run(|_, _| panic!("as the test asked"))).unwrap();
            mailbox.try_tell(note(u32::try_from(n).unwrap())).unwrap();
        }
        settle().await;
        assert!(told.try_recv().is_err() && log.len() == RESTARTS_MAX);
        mailbox.try_tell(run(|_, _| panic!("the last one"))).unwrap();
        mailbox.try_tell(note(99)).unwrap();
        settle().await;
        let Ok(Failure::TooManyRestarts { actor, reason }) = told.try_recv() else {
            panic!("the owner is told");
        };
        assert_eq!((actor, reason.as_str()), ("Probe", "the last one"));
        assert!(matches!(mailbox.try_tell(note(100)), Err(TellError::Stopped(_))));
        assert_eq!(log.len(), RESTARTS_MAX);
        mailbox.drain().await;
    });
}

#[test]
fn without_restarts_the_first_panic_escalates() {
    on_paused_system(async {
        let (tell, told) = sync_channel(4);
        let log = Log::default();
        let options = HostOptions::new(64).escalating(move |failure| tell.send(failure).unwrap());
        let mailbox = start_here(options, move || probe(&log));
        mailbox.try_tell(run(|_, _| panic!("once"))).unwrap();
        settle().await;
        assert!(matches!(told.try_recv(), Ok(Failure::Panicked { reason, .. }) if reason == "once"));
        assert!(mailbox.is_stopped());
    });
}

#[test]
fn a_panic_in_a_control_turn_is_contained_too() {
    on_paused_system(async {
        let (mailbox, log, lives) = start_restarting(8);
        mailbox
            .control(command(|_, _| panic!("as the test asked")))
            .unwrap();
        mailbox.try_tell(note(1)).unwrap();
        settle().await;
        assert_eq!((log.entries(), lives.len()), (vec![1], 2));
    });
}

#[test]
fn effects_sent_before_a_panic_leave_and_give_their_room_back() {
    on_paused_system(async {
        let (receiver, received) = start_probe(1);
        let (mailbox, ..) = start_restarting(4);
        let blocked = fill(&receiver);
        let to = receiver.clone();
        mailbox
            .try_tell(run(move |_, turn| {
                turn.tell(&to, root(false), Job::Note(5));
                panic!("as the test asked");
            }))
            .unwrap();
        settle().await;
        assert_eq!(mailbox.depth(), 1);
        drop(blocked);
        settle().await;
        assert_eq!((received.entries(), mailbox.depth()), (vec![5], 0));
    });
}

/// Regression: a panic in deferred work ended the pump, and with it every later effect and the drain.
#[test]
fn a_panic_in_deferred_work_ends_neither_the_pump_nor_the_actor() {
    on_paused_system(async {
        let (receiver, received) = start_probe(1);
        let (mailbox, log) = start_probe(8);
        let blocked = fill(&receiver);
        let to = receiver.clone();
        mailbox
            .try_tell(run(move |_, turn| {
                turn.tell(&to, root(false), Job::Note(1));
                turn.after_effects(|| panic!("as the test asked"));
                turn.tell(&to, root(false), Job::Note(2));
                turn.after_record(|| panic!("as the test asked"));
            }))
            .unwrap();
        mailbox.try_tell(note(3)).unwrap();
        settle().await;
        drop(blocked);
        mailbox.drain().await;
        settle().await;
        assert_eq!(received.entries(), [1, 2]);
        assert_eq!(log.entries(), [3, super::support::DRAINED]);
    });
}
