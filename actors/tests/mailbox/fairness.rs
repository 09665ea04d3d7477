//! One busy mailbox does not keep its arbiter from everything else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix::Actor as _;
use dwell_actors::mailbox::{Mailbox, TURNS_PER_SLICE};
use dwell_actors::telemetry::root;

use super::support::{Job, Probe, Work, command, on_paused_system, on_system, run, start_probe};

const MESSAGES: u32 = 50_000;
/// No flood is longer than this, so that a starved timer makes a red test and not a hanging one.
const FLOOD_MAX: u32 = 20_000_000;

/// Sends itself on, `left` times.
fn relay(mailbox: Mailbox<Probe>, left: u32) -> Work {
    command(move |probe, turn| {
        probe.handled = left;
        if left > 0 {
            let next = Job::Run(relay(mailbox.clone(), left - 1));
            turn.tell(&mailbox, root(false), next);
        } else {
            probe.log.push(0);
        }
    })
}

/// As `relay`, through the control queue.
fn control_relay(mailbox: Mailbox<Probe>, left: u32) -> Work {
    command(move |probe, _| {
        if left > 0 {
            let next = control_relay(mailbox.clone(), left - 1);
            assert!(mailbox.control(next).is_ok());
        } else {
            probe.log.push(0);
        }
    })
}

/// Turns another task of the arbiter gets until `done`.
async fn turns_beside(done: impl Fn() -> bool) -> u32 {
    let mut turns = 0;
    while !done() {
        turns += 1;
        tokio::task::yield_now().await;
    }
    turns
}

#[test]
fn a_self_sending_actor_lets_others_run_every_slice() {
    on_paused_system(async {
        let (mailbox, log) = start_probe(2);
        mailbox.try_tell(run(relay(mailbox.clone(), MESSAGES))).unwrap();
        let turns = turns_beside(|| log.len() == 1).await;
        assert!(
            turns >= MESSAGES / TURNS_PER_SLICE,
            "{turns} turns beside {MESSAGES} messages"
        );
    });
}

/// Regression: the control queue was emptied until it stayed empty, and its doorbell had no slice.
#[test]
fn an_actor_that_sends_itself_control_messages_lets_others_run_every_slice() {
    on_paused_system(async {
        let (mailbox, log) = start_probe(2);
        mailbox.control(control_relay(mailbox.clone(), MESSAGES)).unwrap();
        let turns = turns_beside(|| log.len() == 1).await;
        assert!(
            turns >= MESSAGES / TURNS_PER_SLICE,
            "{turns} turns beside {MESSAGES} messages"
        );
    });
}

#[test]
fn a_timer_fires_while_an_actor_of_its_arbiter_is_flooded() {
    on_system(async {
        let fired = Arc::new(AtomicBool::new(false));
        let (mailbox, log) = start_probe(2);
        mailbox
            .try_tell(run(flood(mailbox.clone(), Arc::clone(&fired), FLOOD_MAX)))
            .unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
        fired.store(true, Ordering::Relaxed);
        while log.len() == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(log.entries(), [1], "the flood saw the timer");
    });
}

/// Sends itself on until the timer has fired, and notes whether it ever saw that.
fn flood(mailbox: Mailbox<Probe>, fired: Arc<AtomicBool>, left: u32) -> Work {
    command(move |probe, turn| {
        if fired.load(Ordering::Relaxed) {
            probe.log.push(1);
        } else if left == 0 {
            probe.log.push(0);
        } else {
            let next = Job::Run(flood(mailbox.clone(), fired, left - 1));
            turn.tell(&mailbox, root(false), next);
        }
    })
}

/// The control: the same loop in an ordinary actix actor lets nobody run.
#[test]
#[expect(clippy::disallowed_methods, reason = "the control shows what the ban is for")]
fn a_self_sending_actix_actor_lets_nobody_run() {
    struct Bare(Arc<AtomicBool>);
    struct Left(u32);
    impl actix::Message for Left {
        type Result = ();
    }
    impl actix::Actor for Bare {
        type Context = actix::Context<Self>;
    }
    impl actix::Handler<Left> for Bare {
        type Result = ();
        fn handle(&mut self, left: Left, ctx: &mut Self::Context) {
            if left.0 > 0 {
                actix::AsyncContext::address(ctx).do_send(Left(left.0 - 1));
            } else {
                self.0.store(true, Ordering::Relaxed);
            }
        }
    }
    on_paused_system(async {
        let done = Arc::new(AtomicBool::new(false));
        Bare(Arc::clone(&done)).start().do_send(Left(MESSAGES));
        let turns = turns_beside(|| done.load(Ordering::Relaxed)).await;
        assert!(turns <= 2, "{turns} turns beside {MESSAGES} messages");
    });
}
