//! Asking: an answer, or the truth about why there is none.

use std::time::Duration;

use dwell_actors::mailbox::{AskError, HostOptions, Mailbox, Reply, start_on};
use dwell_actors::telemetry::root;

use super::support::{
    Job, Log, Probe, fill, note, on_paused_system, on_system, probe, settle, start_probe, waits,
};

const DEADLINE: Duration = Duration::from_secs(5);

fn answers(number: u32) -> impl FnOnce(Reply<u32>) -> Job {
    move |reply| {
        Job::Run(Box::new(move |probe, _| {
            probe.log.push(number);
            reply.send(number + 1);
        }))
    }
}

/// Parks the reply in a task, so that the turn is over and the question is not answered.
fn keeps_the_reply(reply: Reply<u32>) -> Job {
    Job::Run(Box::new(move |_, turn| {
        turn.spawn(async move {
            std::future::pending::<()>().await;
            drop(reply);
        })
        .detach();
    }))
}

fn panics(reply: Reply<u32>) -> Job {
    Job::Run(Box::new(move |_, _| {
        let _reply = reply;
        panic!("as the test asked");
    }))
}

async fn ask(mailbox: &Mailbox<Probe>, number: u32) -> Result<u32, AskError> {
    mailbox.ask(root(false), answers(number)).await
}

#[test]
fn a_question_is_answered() {
    on_paused_system(async {
        let (mailbox, _) = start_probe(1);
        assert_eq!(ask(&mailbox, 1).await, Ok(2));
        assert_eq!(mailbox.ask_within(DEADLINE, root(false), answers(2)).await, Ok(3));
        assert_eq!(mailbox.depth(), 0);
    });
}

#[test]
fn past_its_deadline_a_question_that_waits_for_room_is_not_started_and_never_runs() {
    on_paused_system(async {
        let (mailbox, log) = start_probe(1);
        let blocked = fill(&mailbox);
        let answer = mailbox.ask_within(DEADLINE, root(false), answers(1)).await;
        assert_eq!(answer, Err(AskError::NotStarted));
        drop(blocked);
        settle().await;
        assert_eq!((log.len(), mailbox.depth()), (0, 0));
    });
}

#[test]
fn past_its_deadline_a_question_in_the_mailbox_is_not_started_and_never_runs() {
    // The actor's thread is held while the asker's clock runs: the question is in the mailbox, untouched.
    on_system(async {
        let arbiter = actix_rt::Arbiter::new();
        let log = Log::default();
        let state = log.clone();
        let mailbox = start_on(&arbiter.handle(), HostOptions::new(8), move || probe(&state));
        let (entered, at_gate) = tokio::sync::oneshot::channel();
        let (open, gate) = std::sync::mpsc::sync_channel::<()>(1);
        mailbox
            .try_tell(super::support::run(move |_, _| {
                entered.send(()).unwrap();
                gate.recv().unwrap();
            }))
            .unwrap();
        at_gate.await.unwrap();
        let deadline = Duration::from_millis(5);
        let answer = mailbox.ask_within(deadline, root(false), answers(1)).await;
        assert_eq!(answer, Err(AskError::NotStarted));
        open.send(()).unwrap();
        assert_eq!(ask(&mailbox, 2).await, Ok(3));
        assert_eq!(log.entries(), [2]);
        mailbox.drain().await;
        assert_eq!(mailbox.depth(), 0, "a withdrawn question gives its room back");
        arbiter.stop();
        arbiter.join().unwrap();
    });
}

#[test]
fn past_its_deadline_a_question_that_was_begun_has_an_unknown_outcome() {
    on_paused_system(async {
        let (mailbox, _) = start_probe(1);
        let answer = mailbox.ask_within(DEADLINE, root(false), keeps_the_reply).await;
        assert_eq!(answer, Err(AskError::OutcomeUnknown));
    });
}

#[test]
fn a_panic_answers_its_question_with_actor_failed() {
    on_paused_system(async {
        let (mailbox, _) = start_probe(4);
        assert_eq!(mailbox.ask(root(false), panics).await, Err(AskError::ActorFailed));
        let (mailbox, _) = start_probe(4);
        let answer = mailbox.ask_within(DEADLINE, root(false), panics).await;
        assert_eq!(answer, Err(AskError::ActorFailed));
    });
}

#[test]
fn a_dropped_reply_is_actor_failed() {
    on_paused_system(async {
        let (mailbox, _) = start_probe(1);
        let answer = mailbox.ask(root(false), |reply: Reply<u32>| {
            Job::Run(Box::new(move |_, _| drop(reply)))
        });
        assert_eq!(answer.await, Err(AskError::ActorFailed));
    });
}

#[test]
fn a_stopped_actor_says_stopped_to_questions_reservations_and_those_that_wait() {
    on_paused_system(async {
        let (mailbox, _) = start_probe(1);
        let blocked = fill(&mailbox);
        let waiting = tokio::task::spawn_local({
            let mailbox = mailbox.clone();
            async move { ask(&mailbox, 1).await }
        });
        settle().await;
        mailbox.drain().await;
        assert_eq!(waiting.await.unwrap(), Err(AskError::Stopped));
        drop(blocked);
        assert_eq!(ask(&mailbox, 1).await, Err(AskError::Stopped));
        let late = mailbox.ask_within(DEADLINE, root(false), answers(1)).await;
        assert_eq!(late, Err(AskError::Stopped));
        assert!(matches!(mailbox.reserve().await, Err(AskError::Stopped)));
        assert!(mailbox.is_stopped());
    });
}

/// Regression: a question that lay behind the panic that ended its actor was called `ActorFailed`, as if begun.
#[test]
fn a_question_behind_a_final_panic_was_stopped_not_failed() {
    on_paused_system(async {
        let (mailbox, log) = start_probe(4);
        let failed = mailbox.ask(root(false), panics);
        let behind = ask(&mailbox, 1);
        let (failed, behind) = tokio::join!(failed, behind);
        assert_eq!(
            (failed, behind),
            (Err(AskError::ActorFailed), Err(AskError::Stopped))
        );
        assert_eq!(log.len(), 0);
    });
}

#[test]
fn dropping_the_future_of_a_question_withdraws_it() {
    on_paused_system(async {
        let (mailbox, log) = start_probe(4);
        let mut asking = Box::pin(ask(&mailbox, 1));
        // One poll puts the question; the actor has had no turn yet.
        assert!(waits(&mut asking).await);
        assert_eq!(mailbox.depth(), 1);
        drop(asking);
        mailbox.try_tell(note(2)).unwrap();
        settle().await;
        assert_eq!((log.entries(), mailbox.depth()), (vec![2], 0));
    });
}

/// Regression: an actor whose arbiter had ended took messages for ever and told nobody.
#[test]
fn an_actor_on_an_arbiter_that_has_ended_is_stopped() {
    on_system(async {
        let arbiter = actix_rt::Arbiter::new();
        let handle = arbiter.handle();
        arbiter.stop();
        arbiter.join().unwrap();
        let mailbox = start_on(&handle, HostOptions::new(1), || probe(&Log::default()));
        assert_eq!(ask(&mailbox, 1).await, Err(AskError::Stopped));
        assert!(mailbox.is_stopped() && mailbox.try_tell(note(1)).is_err());
        mailbox.drain().await;
    });
}
