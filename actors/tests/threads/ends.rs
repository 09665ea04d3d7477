//! How threads begin again and end: who may write, what is given back, and what damage leaves.

use std::pin::pin;
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use dwell_actors::event_log::{LogError, LogFile};
use dwell_actors::fault_point::FaultPoint;
use dwell_actors::metadata_store::{StoreError, ThreadId, ThreadQuery, ThreadStatus};
use dwell_actors::threads::{History, NewThread, ThreadError, Threads, log_path};

use crate::gated::{Event, Fate, Place, begun, bounded, gated, note, store_kind, title, turn, turns};
use crate::hook;

#[tokio::test]
async fn a_shutdown_waits_for_metadata_and_only_then_gives_the_thread_up() {
    let place = Place::new();
    let thread = place.thread().await;
    place.gate.block();
    thread.append(turn("1")).await.unwrap();
    let mut shutdown = pin!(thread.shutdown());
    begun(shutdown.as_mut()).await;
    place.gate.begun(1).await;
    begun(shutdown.as_mut()).await;
    assert!(!place.gate.events().contains(&Event::Released));
    place.gate.open();
    bounded(shutdown).await.unwrap();
    let events = place.gate.events();
    assert!(
        matches!(events[..], [Event::Updated(_), Event::Released]),
        "{events:?}"
    );
    assert!(matches!(
        thread.append(note("late")).await,
        Err(ThreadError::Closed)
    ));
    assert!(matches!(bounded(thread.flush()).await, Err(ThreadError::Closed)));
    assert!(matches!(
        bounded(thread.shutdown()).await,
        Err(ThreadError::Closed)
    ));
    bounded(place.threads.resume(thread.id())).await.unwrap();
}

#[tokio::test]
async fn a_shutdown_whose_metadata_fails_says_so_and_the_thread_stays_open() {
    let place = Place::new();
    let thread = place.thread().await;
    place.gate.block();
    place.gate.fates([Some(Fate::Fails)]);
    thread.append(turn("1")).await.unwrap();
    let mut shutdown = pin!(thread.shutdown());
    begun(shutdown.as_mut()).await;
    place.gate.open();
    assert_eq!(store_kind(bounded(shutdown).await), "store_write");
    bounded(thread.append(turn("2"))).await.unwrap();
    bounded(thread.shutdown()).await.unwrap();
    assert_eq!(turns(&place, thread.id()).await, 2);
}

#[tokio::test]
async fn a_shutdown_that_cannot_give_the_lease_back_leaves_the_thread_usable() {
    let place = Place::new();
    let thread = place.thread().await;
    bounded(thread.append_and_flush(turn("1"))).await.unwrap();
    place.gate.fail_releases(1);
    assert_eq!(store_kind(bounded(thread.shutdown()).await), "store_busy");
    bounded(thread.append_and_flush(turn("2"))).await.unwrap();
    bounded(thread.shutdown()).await.unwrap();
    assert_eq!(place.history(thread.id()), ["1", "2"]);
}

/// Regression: the end that failed had dropped what was to be written with the first change, and the change's flush was
/// acknowledged without it.
#[tokio::test]
async fn metadata_is_not_acknowledged_as_applied_when_an_end_that_failed_had_dropped_it() {
    let place = Place::new();
    let new = NewThread {
        patch: title("named"),
    };
    let thread = bounded(place.threads.create(new)).await.unwrap();
    place.gate.fail_releases(1);
    assert_eq!(store_kind(bounded(thread.shutdown()).await), "store_busy");
    bounded(thread.append_and_flush(turn("1"))).await.unwrap();
    let record = place.threads.get(thread.id()).await.unwrap().unwrap();
    assert_eq!(record.title.as_deref(), Some("named"));
    assert!(record.created_unix_us > 0);
}

/// Regression: nobody took the end back when its caller was gone, and the thread was closed with its lease held.
#[tokio::test]
async fn a_thread_whose_shutdown_was_given_up_and_fails_is_open_again() {
    let place = Place::new();
    let thread = place.thread().await;
    for fails_at_the_release in [false, true] {
        if fails_at_the_release {
            place.gate.fail_releases(1);
        } else {
            place.gate.fates([Some(Fate::Fails)]);
        }
        place.gate.block();
        thread.append(turn("1")).await.unwrap();
        {
            let mut shutdown = pin!(thread.shutdown());
            begun(shutdown.as_mut()).await;
        }
        assert!(matches!(
            thread.append(note("late")).await,
            Err(ThreadError::Closed)
        ));
        place.gate.open();
        bounded(async {
            while let Err(error) = thread.append(turn("2")).await {
                assert!(matches!(error, ThreadError::Closed), "{error}");
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    bounded(thread.shutdown()).await.unwrap();
    assert_eq!(place.history(thread.id()), ["1", "2", "1", "2"]);
    assert_eq!(turns(&place, thread.id()).await, 4);
}

#[tokio::test]
async fn a_discard_waits_for_what_is_in_flight_and_starts_nothing_more() {
    let place = Place::new();
    let thread = place.thread().await;
    place.gate.block();
    thread.append(turn("1")).await.unwrap();
    place.gate.begun(1).await;
    thread.append(turn("2")).await.unwrap();
    let mut flush = pin!(thread.flush());
    begun(flush.as_mut()).await;
    let mut discard = pin!(thread.discard());
    begun(discard.as_mut()).await;
    place.gate.open();
    bounded(discard).await.unwrap();
    assert!(matches!(bounded(flush).await, Err(ThreadError::Closed)));
    assert_eq!(place.gate.updates().len(), 1);
    assert_eq!(turns(&place, thread.id()).await, 1);
    bounded(place.threads.resume(thread.id())).await.unwrap();
}

#[tokio::test]
async fn a_discard_ignores_what_fails() {
    let place = Place::new();
    let thread = place.thread().await;
    place.gate.block();
    place.gate.fates([Some(Fate::Fails)]);
    thread.append(turn("1")).await.unwrap();
    place.gate.begun(1).await;
    let mut discard = pin!(thread.discard());
    begun(discard.as_mut()).await;
    place.gate.open();
    bounded(discard).await.unwrap();
    assert_eq!(place.gate.updates(), []);
}

#[tokio::test]
async fn a_thread_that_is_dropped_ends_in_order_and_another_can_have_it() {
    let place = Place::new();
    let thread = place.thread().await;
    let id = thread.id();
    thread.append(turn("1")).await.unwrap();
    assert!(matches!(
        bounded(place.threads.resume(id)).await,
        Err(ThreadError::Store(_))
    ));
    drop(thread);
    let again = place.resumed(id).await;
    assert_eq!(turns(&place, id).await, 1);
    bounded(again.append_and_flush(turn("2"))).await.unwrap();
    assert_eq!(place.history(id), ["1", "2"]);
    assert_eq!(turns(&place, id).await, 2);
}

/// Regression: the end of the handle was looked at while a question lay in the mailbox, which then was withdrawn, and never
/// again.
#[test]
fn a_thread_whose_last_question_was_withdrawn_is_given_back_all_the_same() {
    dwell_actors::block_on(async {
        // On one arbiter, so that nothing is handled between the question and the end.
        let place = Place::with(|builder| builder.here());
        let thread = place.thread().await;
        let id = thread.id();
        bounded(thread.append_and_flush(turn("1"))).await.unwrap();
        {
            let mut flush = pin!(thread.flush());
            begun(flush.as_mut()).await;
        }
        drop(thread);
        let again = place.resumed(id).await;
        bounded(again.shutdown()).await.unwrap();
    });
}

/// Where the next open of one thread's log stands still.
static HELD: (Mutex<Hold>, Condvar) = (Mutex::new(Hold::No), Condvar::new());

#[derive(Clone, Copy, PartialEq, Eq)]
enum Hold {
    No,
    Next(ThreadId),
    Standing,
}

pub(crate) fn stand_still(point: FaultPoint) {
    let mut hold = HELD.0.lock().unwrap();
    let Hold::Next(id) = *hold else { return };
    let here = std::thread::current();
    let is_its = here.name().is_some_and(|name| name.ends_with(&id.to_string()));
    if point == FaultPoint::Opened && is_its {
        *hold = Hold::Standing;
        drop(HELD.1.wait_while(hold, |hold| *hold == Hold::Standing).unwrap());
    }
}

/// Regression: the lease was given back while the file was still being repaired, and the next writer's first record was cut
/// off with the torn end.
#[tokio::test]
async fn a_resume_that_is_given_up_lets_nobody_in_before_its_repair_is_over() {
    hook::set();
    let place = Place::new();
    let thread = place.thread().await;
    let id = thread.id();
    bounded(thread.append_and_flush(turn("1"))).await.unwrap();
    bounded(thread.shutdown()).await.unwrap();
    let path = log_path(&place.logs(), id);
    let mut torn = std::fs::read(&path).unwrap();
    torn.extend_from_slice(b"half a record");
    std::fs::write(&path, torn).unwrap();
    *HELD.0.lock().unwrap() = Hold::Next(id);
    let threads = place.threads.clone();
    let given_up = tokio::spawn(async move { drop(threads.resume(id).await) });
    let is = |wanted| move || *HELD.0.lock().unwrap() == wanted;
    dwell_testkit::wait_until(Duration::from_secs(20), is(Hold::Standing))
        .await
        .unwrap();
    given_up.abort();
    assert!(given_up.await.unwrap_err().is_cancelled());
    let busy = bounded(place.threads.resume(id)).await;
    assert!(
        matches!(&busy, Err(ThreadError::Store(error)) if matches!(**error, StoreError::ThreadBusy { .. })),
        "{busy:?}"
    );
    *HELD.0.lock().unwrap() = Hold::No;
    HELD.1.notify_all();
    let thread = place.resumed(id).await;
    bounded(thread.append_and_flush(turn("2"))).await.unwrap();
    assert_eq!(place.history(id), ["1", "2"]);
}

#[tokio::test]
async fn a_deleted_thread_leaves_nothing_of_its_history_behind() {
    let place = Place::new();
    let thread = place.thread().await;
    let id = thread.id();
    bounded(thread.append_and_flush(turn("1"))).await.unwrap();
    bounded(thread.shutdown()).await.unwrap();
    let path = log_path(&place.logs(), id);
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bytes).unwrap();
    assert!(bounded(place.threads.resume(id)).await.is_err());
    assert_eq!(std::fs::read_dir(place.logs()).unwrap().count(), 2);
    assert!(bounded(place.threads.delete(id)).await.unwrap());
    assert_eq!(std::fs::read_dir(place.logs()).unwrap().count(), 0);
    assert!(!bounded(place.threads.delete(id)).await.unwrap());
}

/// Regression: it cut the history at its first damage, and what was behind it was gone.
#[tokio::test]
async fn a_rebuild_loses_nothing_of_a_damaged_history() {
    let place = Place::new();
    let thread = place.thread().await;
    let id = thread.id();
    for text in ["first", "second", "third"] {
        bounded(thread.append_and_flush(turn(text))).await.unwrap();
    }
    bounded(thread.shutdown()).await.unwrap();
    let path = log_path(&place.logs(), id);
    let mut bytes = std::fs::read(&path).unwrap();
    let second = bytes.windows(6).position(|some| some == b"second").unwrap();
    bytes[second] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let (store, _gate) = gated();
    let anew = Threads::builder(place.logs())
        .metadata_store(store)
        .open()
        .unwrap();
    assert_eq!(bounded(anew.rebuild()).await.unwrap(), 1);
    let record = bounded(anew.get(id)).await.unwrap().unwrap();
    assert_eq!((record.items, record.turns), (1, 1));
    let kept = path.with_extension("log.damaged-1");
    assert_eq!(std::fs::read(kept).unwrap(), bytes);
}

#[tokio::test]
async fn a_second_writer_is_told_which_process_has_the_thread() {
    let place = Place::new();
    let thread = place.thread().await;
    bounded(thread.persist()).await.unwrap();
    for busy in [
        bounded(place.threads.resume(thread.id())).await.map(drop),
        bounded(place.threads.delete(thread.id())).await.map(drop),
    ] {
        let Err(ThreadError::Store(error)) = busy else {
            panic!("busy")
        };
        assert!(matches!(*error, StoreError::ThreadBusy { pid, .. } if pid == std::process::id()));
        assert!(error.to_string().contains("is open in process"));
    }
    bounded(thread.shutdown()).await.unwrap();
    assert!(bounded(place.threads.delete(thread.id())).await.unwrap());
    assert!(matches!(
        bounded(place.threads.resume(thread.id())).await,
        Err(ThreadError::Missing(_))
    ));
    assert!(!log_path(&place.logs(), thread.id()).exists());
}

#[tokio::test]
async fn what_history_says_and_the_record_does_not_is_in_it_after_the_next_append() {
    let place = Place::new();
    let thread = place.thread().await;
    let id = thread.id();
    bounded(thread.append_and_flush(turn("1"))).await.unwrap();
    bounded(thread.shutdown()).await.unwrap();
    // As if the process had died between the two.
    let path = log_path(&place.logs(), id);
    let mut log = LogFile::open(path, id, 0, 0, |_| ()).unwrap().log;
    log.push(&turn("2"));
    log.push(&turn("3"));
    log.sync().unwrap();
    drop(log);
    let thread = bounded(place.threads.resume(id)).await.unwrap();
    bounded(thread.flush()).await.unwrap();
    assert_eq!(
        turns(&place, id).await,
        1,
        "a resumed thread is not written to before something happens in it"
    );
    bounded(thread.append_and_flush(note("4"))).await.unwrap();
    let record = place.threads.get(id).await.unwrap().unwrap();
    assert_eq!(
        (record.turns, record.items, record.status),
        (3, 4, ThreadStatus::Active)
    );
}

#[tokio::test]
async fn room_behind_a_history_is_given_back_with_the_thread_and_history_never_shows_it() {
    let place = Place::new();
    let thread = place.thread().await;
    let id = thread.id();
    let path = log_path(&place.logs(), id);
    let length = || std::fs::metadata(&path).unwrap().len();
    bounded(thread.append_and_flush(turn("1"))).await.unwrap();
    let covered = place.threads.get(id).await.unwrap().unwrap().log_bytes;
    // Made when the log's thread has nothing else to do.
    dwell_testkit::wait_until(Duration::from_secs(20), || length() > covered)
        .await
        .unwrap();
    assert_eq!(place.history(id), ["1"]);
    bounded(thread.append_and_flush(turn("2"))).await.unwrap();
    bounded(thread.shutdown()).await.unwrap();
    let covered = place.threads.get(id).await.unwrap().unwrap().log_bytes;
    assert_eq!(length(), covered);
    let thread = bounded(place.threads.resume(id)).await.unwrap();
    bounded(thread.append_and_flush(turn("3"))).await.unwrap();
    assert_eq!(place.history(id), ["1", "2", "3"]);
}

/// The end of its arbiter is the end of the actor, in the middle of whatever it gathers.
#[test]
fn appends_that_were_gathered_when_their_arbiter_ended_are_in_the_history() {
    let dir = tempfile::tempdir().unwrap();
    let id = dwell_actors::block_on(async {
        let threads = Threads::builder(dir.path()).here().open().unwrap();
        let thread = threads.create(NewThread::default()).await.unwrap();
        for text in ["1", "2", "3"] {
            thread.append(note(text)).await.unwrap();
        }
        // They have their turns, and nobody asks for more.
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        // Nobody ends it.
        std::mem::ManuallyDrop::new(thread).id()
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let items = || History::open(dir.path(), id).unwrap().count();
    let written = dwell_testkit::wait_until(Duration::from_secs(20), || items() == 3);
    runtime.block_on(written).unwrap();
}

#[tokio::test]
async fn damage_is_put_aside_once_and_the_thread_goes_on_with_what_is_left() {
    let place = Place::new();
    let thread = place.thread().await;
    let id = thread.id();
    for text in ["1", "2", "3"] {
        bounded(thread.append_and_flush(turn(text))).await.unwrap();
    }
    bounded(thread.shutdown()).await.unwrap();
    let path = log_path(&place.logs(), id);
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let Err(ThreadError::Log(error)) = bounded(place.threads.resume(id)).await else {
        panic!("damaged")
    };
    assert!(matches!(*error, LogError::Damaged { items: 2, .. }), "{error}");
    let thread = bounded(place.threads.resume(id)).await.unwrap();
    bounded(thread.append_and_flush(turn("4"))).await.unwrap();
    assert_eq!(place.history(id), ["1", "2", "4"]);
}

#[cfg(feature = "store")]
#[tokio::test]
async fn a_thread_in_a_file_is_there_for_the_next_process() {
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        Threads::builder(dir.path().join("threads"))
            .store(dir.path().join("runs.db"))
            .open()
            .unwrap()
    };
    let threads = open();
    let thread = bounded(threads.create(NewThread { patch: title("kept") }))
        .await
        .unwrap();
    bounded(thread.append_and_flush(turn("1"))).await.unwrap();
    bounded(thread.shutdown()).await.unwrap();
    drop(threads);
    let threads = open();
    let record = bounded(threads.get(thread.id())).await.unwrap().unwrap();
    assert_eq!((record.title.as_deref(), record.turns), (Some("kept"), 1));
    let found = ThreadQuery {
        text: Some("KEPT".into()),
        ..ThreadQuery::default()
    };
    assert_eq!(bounded(threads.list(found)).await.unwrap().threads, [record]);
}
