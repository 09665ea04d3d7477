//! Callers, the writer's turns and the store's thread in every order a scheduler may choose, over the real core.
//!
//! Nothing of a thread's state is shared between threads: callers, the log's thread and the store's send messages to the
//! one that owns it. What could go wrong is the protocol: a wake-up that is lost, a last patch that nobody starts.

use std::time::{Duration, Instant};

use dwell_actors::metadata_store::{ThreadId, ThreadPatch, ThreadRecord};
use dwell_actors::metadata_writer::{MetadataCore, Next};
use dwell_messages::TraceContext;
use shuttle::sync::mpsc::{Receiver, Sender, channel};
use shuttle::sync::{Arc, Mutex};
use shuttle::thread;

const SCHEDULES: usize = 2_000;
const APPENDS: u64 = 2;

enum Message {
    Append(Box<ThreadPatch>),
    Barrier(Sender<Result<(), ()>>),
    Updated(Result<(), ()>),
    End,
}

/// The owner: one message a turn, and what the core wants is handed to the store's thread.
fn writer(inbox: &Receiver<Message>, store: &Sender<ThreadPatch>) {
    // Every wait of the core is over: the scheduler decides what comes first.
    let now = Instant::now();
    let late = now + Duration::from_secs(60);
    let mut core: MetadataCore<Sender<Result<(), ()>>> = MetadataCore::new(ThreadPatch::default());
    loop {
        match inbox.recv().unwrap() {
            Message::Append(patch) => {
                core.observe(*patch, TraceContext::default(), now);
            }
            Message::Barrier(reply) => {
                if let Some(reply) = core.barrier(reply) {
                    reply.send(Ok(())).unwrap();
                }
            }
            Message::Updated(outcome) => {
                for told in core.finished(outcome, now) {
                    told.waiter.send(told.outcome).unwrap();
                }
            }
            Message::End => break,
        }
        if let Next::Start(flight) = core.next(late) {
            store.send(flight.patch).unwrap();
        }
    }
    assert!(core.is_settled(), "a patch was stranded");
}

/// Every second update fails.
fn store(updates: &Receiver<ThreadPatch>, answers: &Sender<Message>, record: &Mutex<ThreadRecord>) {
    let mut tried = 0_u32;
    while let Ok(patch) = updates.recv() {
        tried += 1;
        let outcome = if tried.is_multiple_of(2) { Err(()) } else { Ok(()) };
        if outcome.is_ok() {
            record.lock().unwrap().apply(patch);
        }
        answers.send(Message::Updated(outcome)).unwrap();
    }
}

/// Appends, then asks until all is well; then all of it is there.
fn caller(
    inbox: &Sender<Message>,
    record: &Mutex<ThreadRecord>,
    patch: fn(u64) -> ThreadPatch,
    kept: fn(&ThreadRecord) -> u64,
) {
    for n in 1..=APPENDS {
        inbox.send(Message::Append(Box::new(patch(n)))).unwrap();
    }
    loop {
        let (reply, answer) = channel();
        inbox.send(Message::Barrier(reply)).unwrap();
        if answer.recv().expect("whoever waits is told") == Ok(()) {
            break;
        }
    }
    assert_eq!(
        kept(&record.lock().unwrap()),
        APPENDS,
        "acknowledged and not kept"
    );
}

#[test]
fn no_wake_up_is_lost_and_no_last_patch_stranded_in_any_schedule() {
    shuttle::check_random(
        || {
            let (inbox, messages) = channel();
            let (to_store, updates) = channel();
            let record = Arc::new(Mutex::new(ThreadRecord::new(ThreadId::default())));
            let (answers, kept) = (inbox.clone(), Arc::clone(&record));
            let storing = thread::spawn(move || store(&updates, &answers, &kept));
            let writing = thread::spawn(move || writer(&messages, &to_store));
            let turns = |n| ThreadPatch {
                turns: Some(n),
                ..ThreadPatch::default()
            };
            let tokens = |n| ThreadPatch {
                tokens_input: Some(n),
                ..ThreadPatch::default()
            };
            let (first, theirs) = (inbox.clone(), Arc::clone(&record));
            let other = thread::spawn(move || caller(&first, &theirs, turns, |record| record.turns));
            caller(&inbox, &record, tokens, |record| record.tokens_input);
            other.join().unwrap();
            inbox.send(Message::End).unwrap();
            writing.join().unwrap();
            storing.join().unwrap();
        },
        SCHEDULES,
    );
}

/// The same, decided wrongly: the worker looks for more and ends in two steps, and what comes in between is stranded.
#[test]
#[should_panic(expected = "stranded")]
fn a_running_flag_that_is_not_decided_with_its_queue_strands_a_patch() {
    shuttle::check_random(
        || {
            let pending = Arc::new(Mutex::new(0_u32));
            let running = Arc::new(Mutex::new(true));
            let (queue, flag) = (Arc::clone(&pending), Arc::clone(&running));
            let worker = thread::spawn(move || {
                loop {
                    let taken = std::mem::take(&mut *queue.lock().unwrap());
                    if taken == 0 {
                        break;
                    }
                }
                *flag.lock().unwrap() = false;
            });
            *pending.lock().unwrap() += 1;
            let is_running = *running.lock().unwrap();
            worker.join().unwrap();
            assert!(!is_running || *pending.lock().unwrap() == 0, "stranded");
        },
        SCHEDULES,
    );
}
