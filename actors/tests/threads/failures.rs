//! What fails under a thread: its disk, and the threads and the actor that keep it.

use std::path::PathBuf;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};

use dwell_actors::fault_point::FaultPoint;
use dwell_actors::threads::{
    APPEND_QUEUE_MAX_BYTES, Append, Item, ItemKind, THREAD_QUEUE_MAX_BYTES, Thread, ThreadError, log_path,
};

use crate::gated::{Fate, Place, begun, bounded, note, turn, turns};
use crate::hook;

#[tokio::test]
async fn a_panic_of_the_stores_thread_releases_its_waiters_with_an_error_and_the_next_flush_is_well() {
    let place = Place::new();
    let thread = place.thread().await;
    place.gate.block();
    place.gate.fates([Some(Fate::Panics)]);
    thread.append(turn("1")).await.unwrap();
    let mut flush = pin!(thread.flush());
    begun(flush.as_mut()).await;
    place.gate.open();
    assert!(matches!(bounded(flush).await, Err(ThreadError::WorkerFailed)));
    bounded(thread.flush()).await.unwrap();
    assert_eq!(turns(&place, thread.id()).await, 1);
}

fn large() -> Append {
    Append::new(vec![Item::now(ItemKind::Note, vec![b'x'; 1 << 20]); 3])
}

/// Appends until one is refused. How many were taken, and the bound that the refused one met.
async fn fill(thread: &Thread, append: impl Fn() -> Append) -> (usize, usize) {
    let mut accepted = 0;
    loop {
        match bounded(thread.append(append())).await {
            Ok(()) => accepted += 1,
            Err(ThreadError::Backlog { max }) => return (accepted, max),
            Err(other) => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn a_backlog_that_no_disk_takes_is_refused_and_goes_when_one_does() {
    let place = Place::new();
    let thread = place.thread().await;
    place.break_logs();
    let (accepted, max) = fill(&thread, large).await;
    assert_eq!((accepted, max), (2, THREAD_QUEUE_MAX_BYTES));
    assert!(bounded(thread.flush()).await.is_err());
    place.mend_logs();
    bounded(thread.flush()).await.unwrap();
    bounded(thread.append_and_flush(note("well"))).await.unwrap();
    assert_eq!(place.history(thread.id()).len(), accepted * 3 + 1);
}

/// A directory where the thread's log would stand.
fn in_the_way(place: &Place, thread: &Thread) -> PathBuf {
    let stands = log_path(&place.logs(), thread.id());
    std::fs::create_dir(&stands).unwrap();
    stands
}

/// Regressions: another thread's success was taken for the disk's recovery, and whoever then waited for room waited for a
/// log that nobody tried again; one log that takes nothing could have all the room there is.
#[tokio::test]
async fn a_log_that_takes_nothing_holds_up_no_other_thread_and_is_tried_again_unasked() {
    let place = Place::new();
    let (broken, well) = (place.thread().await, place.thread().await);
    bounded(well.append_and_flush(note("0"))).await.unwrap();
    let stands = in_the_way(&place, &broken);
    let mut accepted = 0;
    for _ in 0..3 {
        let (more, max) = fill(&broken, large).await;
        assert_eq!(max, THREAD_QUEUE_MAX_BYTES);
        accepted += more;
        // More than fits into its own part of the queue: it waits for its own log alone.
        for _ in 0..4 {
            bounded(well.append(large())).await.unwrap();
        }
        bounded(well.flush()).await.unwrap();
    }
    assert_eq!(accepted, 2);
    // What its last append has set off has failed too, and nothing is under way any more.
    assert!(bounded(broken.flush()).await.is_err());
    std::fs::remove_dir(&stands).unwrap();
    // Nobody asks that thread for anything.
    bounded(async {
        while place.history(broken.id()).len() < accepted * 3 {
            bounded(well.append_and_flush(note("more"))).await.unwrap();
        }
    })
    .await;
    // They are in the file, which is a moment before their room is given back.
    bounded(broken.flush()).await.unwrap();
    bounded(broken.append(large())).await.unwrap();
    bounded(broken.shutdown()).await.unwrap();
    assert_eq!(place.history(broken.id()).len(), (accepted + 1) * 3);
}

#[tokio::test]
async fn logs_that_take_nothing_and_have_all_the_room_are_told_of_and_nothing_of_them_is_lost() {
    let place = Place::new();
    let well = place.thread().await;
    bounded(well.append_and_flush(note("0"))).await.unwrap();
    let mut broken = Vec::new();
    for _ in 0..APPEND_QUEUE_MAX_BYTES / THREAD_QUEUE_MAX_BYTES {
        let thread = place.thread().await;
        let stands = in_the_way(&place, &thread);
        // Two of these are its part but for some bytes.
        let half = || Append::new(vec![Item::now(ItemKind::Note, vec![b'x'; (1 << 20) - 200]); 4]);
        assert_eq!(fill(&thread, half).await, (2, THREAD_QUEUE_MAX_BYTES));
        broken.push((thread, stands));
    }
    let (accepted, max) = fill(&well, large).await;
    assert_eq!((accepted, max), (0, APPEND_QUEUE_MAX_BYTES));
    // What finds room is kept as ever.
    bounded(well.append_and_flush(note("1"))).await.unwrap();
    for (thread, stands) in &broken {
        std::fs::remove_dir(stands).unwrap();
        bounded(thread.flush()).await.unwrap();
        assert_eq!(place.history(thread.id()).len(), 8);
    }
    bounded(well.append_and_flush(large())).await.unwrap();
    assert_eq!(place.history(well.id()).len(), 5);
}

/// Which append from now on panics when it is accepted on the thread of this file's test; 0: none.
static PANICS: AtomicUsize = AtomicUsize::new(0);

pub(crate) fn panic_once(point: FaultPoint) {
    let here = std::thread::current();
    let is_its = here
        .name()
        .is_some_and(|name| name.contains("a_panic_of_a_threads_writer"));
    if point != FaultPoint::Accepted || !is_its || PANICS.load(Ordering::Relaxed) == 0 {
        return;
    }
    assert!(PANICS.fetch_sub(1, Ordering::Relaxed) > 1, "injected");
}

#[test]
fn a_panic_of_a_threads_writer_is_told_and_what_it_had_accepted_is_kept() {
    hook::set();
    // On this thread, which has the test's name.
    dwell_actors::block_on(async {
        let place = Place::with(|builder| builder.here());
        let thread = place.thread().await;
        let id = thread.id();
        bounded(thread.append_and_flush(turn("1"))).await.unwrap();
        PANICS.store(2, Ordering::Relaxed);
        thread.append(note("2")).await.unwrap();
        let told = bounded(thread.append_and_flush(note("3"))).await;
        assert!(matches!(told, Err(ThreadError::WorkerFailed)), "{told:?}");
        assert!(matches!(bounded(thread.flush()).await, Err(ThreadError::Closed)));
        assert!(matches!(
            bounded(thread.append(note("4"))).await,
            Err(ThreadError::Closed)
        ));
        // Nobody has to end it first.
        let again = place.resumed(id).await;
        bounded(again.append_and_flush(note("5"))).await.unwrap();
        assert_eq!(place.history(id), ["1", "2", "3", "5"]);
    });
}
