//! The bound: what fits, what waits, and what a blocked receiver does to its senders.

use std::sync::{Arc, Mutex};

use actix::Actor as _;
use dwell_actors::mailbox::TellError;
use dwell_actors::telemetry::root;

use super::support::{Log, fill, note, on_paused_system, run, settle, start_probe};

const CAPACITY: usize = 16;
const OFFERED: u32 = 10_000;

#[test]
fn of_ten_thousand_messages_at_capacity_sixteen_exactly_sixteen_are_accepted() {
    on_paused_system(async {
        let (mailbox, log) = start_probe(CAPACITY);
        let accepted = (0..OFFERED)
            .filter(|n| mailbox.try_tell(note(*n)).is_ok())
            .count();
        assert_eq!((accepted, mailbox.depth()), (CAPACITY, CAPACITY));
        settle().await;
        assert_eq!(log.entries(), (0..16).collect::<Vec<_>>());
        assert_eq!((mailbox.depth(), mailbox.dequeued()), (0, 16));
    });
}

/// The control: the same messages straight into actix at the same capacity.
#[test]
#[expect(clippy::disallowed_methods, reason = "the control shows what the ban is for")]
fn bare_actix_accepts_all_ten_thousand_at_capacity_sixteen() {
    struct Bare(Log);
    struct Number(u32);
    impl actix::Message for Number {
        type Result = ();
    }
    impl actix::Actor for Bare {
        type Context = actix::Context<Self>;
        fn started(&mut self, ctx: &mut Self::Context) {
            ctx.set_mailbox_capacity(CAPACITY);
        }
    }
    impl actix::Handler<Number> for Bare {
        type Result = ();
        fn handle(&mut self, number: Number, _: &mut Self::Context) {
            self.0.push(number.0);
        }
    }
    on_paused_system(async {
        let log = Log::default();
        let addr = Bare(log.clone()).start();
        settle().await;
        (0..OFFERED).for_each(|n| addr.do_send(Number(n)));
        settle().await;
        assert_eq!(log.len(), OFFERED as usize);
    });
}

#[test]
fn a_refused_message_comes_back_whole() {
    on_paused_system(async {
        let (mailbox, _) = start_probe(1);
        mailbox.try_tell(note(1)).unwrap();
        let sent = note(2);
        let context = sent.context.clone();
        let Err(TellError::Full(back)) = mailbox.try_tell(sent) else {
            panic!("a full mailbox takes nothing");
        };
        assert_eq!(back.context, context);
        mailbox.drain().await;
        assert!(matches!(mailbox.try_tell(back), Err(TellError::Stopped(back)) if back.context == context));
        let stopped = mailbox
            .tell(note(3))
            .await
            .expect_err("a stopped actor takes nothing");
        assert_eq!(stopped.0.body_number(), Some(3));
    });
}

trait BodyNumber {
    fn body_number(&self) -> Option<u32>;
}

impl BodyNumber for dwell_messages::Envelope<super::support::Job> {
    fn body_number(&self) -> Option<u32> {
        match &self.body {
            super::support::Job::Note(number) => Some(*number),
            super::support::Job::Run(_) | super::support::Job::Bulk(_) => None,
        }
    }
}

#[test]
fn tell_waits_until_there_is_room_and_then_delivers() {
    on_paused_system(async {
        let (mailbox, log) = start_probe(1);
        let slots = fill(&mailbox);
        let waiting = tokio::task::spawn_local({
            let mailbox = mailbox.clone();
            async move { mailbox.tell(note(7)).await.is_ok() }
        });
        settle().await;
        assert!(!waiting.is_finished() && log.len() == 0);
        drop(slots);
        assert!(waiting.await.unwrap());
        settle().await;
        assert_eq!(log.entries(), [7]);
    });
}

#[test]
fn a_cancelled_tell_has_delivered_nothing_and_taken_no_room() {
    on_paused_system(async {
        let (mailbox, log) = start_probe(1);
        let slots = fill(&mailbox);
        let waiting = tokio::task::spawn_local({
            let mailbox = mailbox.clone();
            async move { drop(mailbox.tell(note(7)).await) }
        });
        settle().await;
        waiting.abort();
        drop(slots);
        settle().await;
        assert_eq!((log.len(), mailbox.depth()), (0, 0));
    });
}

#[test]
fn a_blocked_receiver_fills_the_senders_mailbox_and_nothing_else_grows() {
    on_paused_system(async {
        let (receiver, received) = start_probe(4);
        let (sender, _) = start_probe(CAPACITY);
        let blocked = fill(&receiver);
        let mut accepted = 0;
        for n in 0..OFFERED {
            let to = receiver.clone();
            let passes_on = run(move |_, turn| turn.tell(&to, root(false), super::support::Job::Note(n)));
            accepted += u32::from(sender.try_tell(passes_on).is_ok());
            tokio::task::yield_now().await;
        }
        // Handled, but their effects have not left: their room is still taken.
        assert_eq!((accepted as usize, sender.depth()), (CAPACITY, CAPACITY));
        assert_eq!(sender.dequeued(), CAPACITY as u64);
        drop(blocked);
        settle().await;
        assert_eq!(received.entries(), (0..16).collect::<Vec<_>>());
        assert_eq!((sender.depth(), receiver.depth()), (0, 0));
    });
}

#[test]
fn effects_keep_their_order_when_some_of_them_had_to_wait() {
    on_paused_system(async {
        let (receiver, received) = start_probe(2);
        let (sender, order) = start_probe(8);
        for turn_number in 0..5 {
            let to = receiver.clone();
            let works = run(move |probe: &mut super::support::Probe, turn| {
                for n in 0..4 {
                    turn.tell(&to, root(false), super::support::Job::Note(turn_number * 10 + n));
                }
                let log = probe.log.clone();
                turn.after_effects(move || log.push(turn_number));
            });
            sender.try_tell(works).unwrap();
        }
        settle().await;
        let expected: Vec<u32> = (0..5).flat_map(|t| (0..4).map(move |n| t * 10 + n)).collect();
        assert_eq!(received.entries(), expected);
        assert_eq!(order.entries(), [0, 1, 2, 3, 4]);
        assert_eq!(sender.depth(), 0);
    });
}

#[test]
fn after_effects_runs_at_once_when_nothing_waits_and_after_the_wait_otherwise() {
    on_paused_system(async {
        let (receiver, _) = start_probe(1);
        let (sender, order) = start_probe(8);
        let blocked = fill(&receiver);
        sender
            .try_tell(run(|probe, turn| {
                let log = probe.log.clone();
                turn.after_effects(move || log.push(1));
                probe.log.push(2);
            }))
            .unwrap();
        let to = receiver.clone();
        sender
            .try_tell(run(move |probe, turn| {
                turn.tell(&to, root(false), super::support::Job::Note(0));
                let log = probe.log.clone();
                turn.after_effects(move || log.push(3));
                probe.log.push(4);
            }))
            .unwrap();
        settle().await;
        assert_eq!(order.entries(), [1, 2, 4]);
        drop(blocked);
        settle().await;
        assert_eq!(order.entries(), [1, 2, 4, 3]);
    });
}

#[test]
fn a_port_has_room_of_its_own_and_shows_its_own_depth() {
    on_paused_system(async {
        let (mailbox, log) = start_probe(CAPACITY);
        let port = mailbox.port(2);
        let blocked = fill(&mailbox);
        assert_eq!((mailbox.depth(), port.depth()), (CAPACITY, 0));
        port.try_tell(note(1)).unwrap();
        port.try_tell(note(2)).unwrap();
        assert!(matches!(port.try_tell(note(3)), Err(TellError::Full(_))));
        assert_eq!((mailbox.depth(), port.depth()), (CAPACITY, 2));
        settle().await;
        assert_eq!((log.entries(), port.depth()), (vec![1, 2], 0));
        drop(blocked);
        mailbox.try_tell(note(4)).unwrap();
        assert_eq!(port.depth(), 0);
    });
}

#[test]
fn a_port_of_no_or_of_endless_capacity_is_clamped() {
    on_paused_system(async {
        let (mailbox, _) = start_probe(CAPACITY);
        assert!(mailbox.port(0).try_tell(note(1)).is_ok());
        assert!(mailbox.port(usize::MAX).try_tell(note(1)).is_ok());
    });
}

#[test]
fn a_slot_keeps_room_until_it_is_used_or_dropped() {
    on_paused_system(async {
        let (mailbox, log) = start_probe(1);
        let slot = mailbox.try_reserve().unwrap();
        assert!(mailbox.try_reserve().is_none() && mailbox.try_tell(note(1)).is_err());
        slot.send(note(2));
        settle().await;
        drop(mailbox.reserve().await.unwrap());
        mailbox.try_tell(note(3)).unwrap();
        settle().await;
        assert_eq!((log.entries(), mailbox.depth()), (vec![2, 3], 0));
    });
}

#[test]
fn room_that_a_turn_takes_stays_taken_until_it_is_dropped_in_the_mailbox_and_in_a_port() {
    on_paused_system(async {
        let (mailbox, _) = start_probe(2);
        let port = mailbox.port(2);
        let (sender, rooms) = std::sync::mpsc::sync_channel(4);
        for handle in [&mailbox, &port] {
            let sender = sender.clone();
            let takes = run(move |_, turn| {
                sender.send(turn.take_room().unwrap()).unwrap();
                assert!(turn.take_room().is_none(), "there is one room a delivery");
            });
            handle.try_tell(takes).unwrap();
        }
        settle().await;
        assert_eq!((mailbox.depth(), port.depth()), (1, 1));
        drop(rooms.try_recv().unwrap());
        assert_eq!((mailbox.depth(), port.depth()), (0, 1));
        drop(rooms.try_recv().unwrap());
        assert_eq!((mailbox.depth(), port.depth()), (0, 0));
        assert_eq!((fill(&mailbox).len(), fill(&port).len()), (2, 2));
    });
}

#[test]
fn room_of_several_turns_is_kept_as_one_and_given_back_together() {
    on_paused_system(async {
        let (mailbox, _) = start_probe(4);
        let port = mailbox.port(2);
        let kept = Arc::new(Mutex::new(None));
        for handle in [&mailbox, &mailbox, &mailbox, &port] {
            let kept = Arc::clone(&kept);
            let takes = run(move |_, turn| {
                turn.take_room_into(&mut kept.lock().unwrap());
                // There is one room a delivery, and it is taken.
                turn.take_room_into(&mut kept.lock().unwrap());
            });
            handle.try_tell(takes).unwrap();
        }
        settle().await;
        // What came by the port has room of its own, which is not kept with that of others.
        assert_eq!((mailbox.depth(), port.depth()), (3, 0));
        assert_eq!(fill(&mailbox).len(), 1);
        settle().await;
        drop(kept.lock().unwrap().take());
        assert_eq!((mailbox.depth(), fill(&mailbox).len()), (0, 4));
        mailbox.drain().await;
    });
}

#[test]
fn a_million_deliveries_leave_no_permit_behind() {
    const BURST: u32 = 128;
    const BURSTS: u32 = 1_000_000 / BURST + 1;
    on_paused_system(async {
        let (receiver, received) = start_probe(BURST as usize / 2);
        let (sender, _) = start_probe(BURST as usize);
        for _ in 0..BURSTS / 2 {
            for _ in 0..BURST {
                let to = receiver.clone();
                // Half of the effects find no room at first.
                sender
                    .tell(run(move |_, turn| {
                        turn.tell(&to, root(false), super::support::Job::Note(0))
                    }))
                    .await
                    .unwrap();
            }
        }
        while sender.depth() + receiver.depth() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(received.len(), (BURSTS / 2 * BURST) as usize);
        let room = fill(&sender).len() + fill(&receiver).len();
        assert_eq!(room, BURST as usize / 2 * 3);
    });
}
