use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::time::Duration;

use super::*;

/// The longest anything here may take.
const BOUND: Duration = Duration::from_secs(20);

/// A job that says that it has begun, and ends when it is told to.
fn gate(pool: &FilePool, span: Span, begun: &SyncSender<Span>) -> SyncSender<()> {
    let (open, opened) = sync_channel::<()>(1);
    let begun = begun.clone();
    assert!(pool.admit());
    pool.put(
        Box::new(move || {
            let _ = begun.send(span);
            let _ = opened.recv();
        }),
        span,
    );
    open
}

fn next(begun: &Receiver<Span>) -> Span {
    begun.recv_timeout(BOUND).expect("a job has its turn")
}

#[test]
fn long_jobs_never_have_every_thread() {
    let pool = FilePool::new();
    let (begins, begun) = sync_channel(64);
    let long: Vec<_> = (0..2 * FILE_THREADS)
        .map(|_| gate(&pool, Span::Long, &begins))
        .collect();
    for _ in 0..LONG_JOBS_MAX {
        assert_eq!(next(&begun), Span::Long);
    }
    // Those that are short have the rest, however many that are long wait.
    let short = gate(&pool, Span::Short, &begins);
    let another = gate(&pool, Span::Short, &begins);
    assert_eq!((next(&begun), next(&begun)), (Span::Short, Span::Short));
    drop((short, another));
    drop(long);
    for _ in LONG_JOBS_MAX..2 * FILE_THREADS {
        assert_eq!(next(&begun), Span::Long, "and in the end those that waited");
    }
}

#[test]
fn trees_leave_a_thread_to_what_is_long_and_another_to_what_is_short() {
    let pool = FilePool::new();
    let (begins, begun) = sync_channel(64);
    let trees: Vec<_> = (0..FILE_THREADS)
        .map(|_| gate(&pool, Span::Tree, &begins))
        .collect();
    assert_eq!(next(&begun), Span::Tree);
    let long = gate(&pool, Span::Long, &begins);
    assert_eq!(next(&begun), Span::Long, "however many trees wait");
    let short = gate(&pool, Span::Short, &begins);
    assert_eq!(next(&begun), Span::Short);
    drop((long, short, trees));
    for _ in 1..FILE_THREADS {
        assert_eq!(next(&begun), Span::Tree, "one after the other");
    }
}

#[test]
fn a_job_that_panics_takes_no_thread_with_it() {
    let pool = FilePool::new();
    for _ in 0..3 * FILE_THREADS {
        assert!(pool.admit());
        pool.put(Box::new(|| panic!("injected")), Span::Long);
    }
    let (begins, begun) = sync_channel(64);
    drop(gate(&pool, Span::Long, &begins));
    assert_eq!(next(&begun), Span::Long);
}

#[test]
fn what_waits_is_bounded_and_is_dropped_with_the_last_handle() {
    let pool = FilePool::new();
    let (begins, begun) = sync_channel(64);
    let gates: Vec<_> = (0..FILE_THREADS)
        .map(|_| gate(&pool, Span::Short, &begins))
        .collect();
    for _ in 0..FILE_THREADS {
        next(&begun);
    }
    let (told, dropped) = sync_channel::<()>(1);
    for _ in 0..POOL_QUEUE_MAX {
        assert!(pool.admit());
        let told = told.clone();
        pool.put(Box::new(move || drop(told)), Span::Short);
    }
    assert!(!pool.admit(), "the bound was passed");
    drop(told);
    assert_eq!(dropped.try_recv(), Err(TryRecvError::Empty));
    drop(pool);
    let told = dropped.recv_timeout(BOUND);
    assert_eq!(told, Err(RecvTimeoutError::Disconnected), "whoever waits is told");
    drop(gates);
}
