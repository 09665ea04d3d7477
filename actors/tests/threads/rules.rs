//! What appends and barriers promise, with the store in the test's hand.

use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use dwell_actors::event_log::LogError;
use dwell_actors::metadata_store::{Change, ThreadQuery};
use dwell_actors::threads::{
    APPEND_MAX_BYTES, Append, Item, ItemKind, NewThread, Thread, ThreadError, log_path,
};

use crate::gated::{Event, Fate, Place, begun, bounded, note, store_kind, title, turn, turns};

#[tokio::test]
async fn an_append_returns_while_an_update_is_blocked() {
    let place = Place::new();
    let thread = place.thread().await;
    place.gate.block();
    thread.append(turn("one")).await.unwrap();
    place.gate.begun(1).await;
    for _ in 0..50 {
        bounded(thread.append(turn("more"))).await.unwrap();
    }
    assert_eq!(place.gate.updates(), []);
    place.gate.open();
    bounded(thread.flush()).await.unwrap();
    assert_eq!(turns(&place, thread.id()).await, 51);
}

#[tokio::test]
async fn four_appends_with_one_update_blocked_make_three_updates_at_most() {
    let place = Place::new();
    let thread = place.thread().await;
    place.gate.block();
    thread.append(turn("1")).await.unwrap();
    place.gate.begun(1).await;
    for text in ["2", "3", "4"] {
        thread.append(turn(text)).await.unwrap();
    }
    place.gate.open();
    bounded(thread.flush()).await.unwrap();
    let updates = place.gate.updates();
    assert!((2..=3).contains(&updates.len()), "{updates:?}");
    assert_eq!(updates.last().unwrap().turns, Some(4));
}

#[tokio::test]
async fn a_flush_waits_for_the_in_flight_and_the_coalesced_generation_and_for_none_accepted_after_it() {
    let place = Place::new();
    let thread = place.thread().await;
    place.gate.block();
    thread.append(turn("1")).await.unwrap();
    place.gate.begun(1).await;
    thread.append(turn("2")).await.unwrap();
    let mut flush = pin!(thread.flush());
    begun(flush.as_mut()).await;
    thread.append(turn("3")).await.unwrap();
    place.gate.allow(1);
    place.gate.begun(2).await;
    begun(flush.as_mut()).await;
    place.gate.allow(1);
    bounded(flush).await.unwrap();
    // The third is still held back, or was taken along: never was it waited for on its own.
    assert!(place.gate.updates().len() <= 2);
    place.gate.open();
    bounded(thread.flush()).await.unwrap();
    assert_eq!(turns(&place, thread.id()).await, 3);
}

#[tokio::test]
async fn an_in_flight_failure_that_a_newer_success_supersedes_does_not_fail_the_flush() {
    let place = Place::new();
    let thread = place.thread().await;
    place.gate.block();
    place.gate.fates([Some(Fate::Fails)]);
    thread.append(turn("1")).await.unwrap();
    place.gate.begun(1).await;
    thread.append(turn("2")).await.unwrap();
    let mut flush = pin!(thread.flush());
    begun(flush.as_mut()).await;
    place.gate.open();
    bounded(flush).await.unwrap();
    assert_eq!(place.gate.events()[0], Event::Failed(Fate::Fails));
    assert_eq!(turns(&place, thread.id()).await, 2);
}

#[tokio::test]
async fn a_failed_update_is_tried_again_by_the_next_flush_and_a_repeated_failure_has_its_own_kind() {
    let place = Place::new();
    let thread = place.thread().await;
    place.gate.fates([Some(Fate::Fails), Some(Fate::Conflicts)]);
    thread.append(turn("1")).await.unwrap();
    place.gate.begun(1).await;
    let first = bounded(thread.flush()).await;
    // Which of the two failures this flush has met depends on when the first was told; the kinds do not mix.
    let kind = store_kind(first);
    if kind == "store_write" {
        assert_eq!(store_kind(bounded(thread.flush()).await), "lease_lost");
    } else {
        assert_eq!(kind, "lease_lost");
    }
    bounded(thread.flush()).await.unwrap();
    assert_eq!(turns(&place, thread.id()).await, 1);
}

#[tokio::test]
async fn a_projection_that_fails_never_fails_an_append() {
    let place = Place::new();
    let thread = place.thread().await;
    for text in ["1", "2", "3"] {
        place.gate.fates([Some(Fate::Fails)]);
        bounded(thread.append(turn(text))).await.unwrap();
    }
    while bounded(thread.flush()).await.is_err() {}
    assert_eq!(turns(&place, thread.id()).await, 3);
    assert_eq!(place.history(thread.id()), ["1", "2", "3"]);
}

#[tokio::test]
async fn nothing_is_projected_of_items_that_history_did_not_take() {
    let place = Place::new();
    let thread = place.thread().await;
    place.break_logs();
    thread.append(turn("1")).await.unwrap();
    for _ in 0..2 {
        let failed = bounded(thread.flush()).await.unwrap_err();
        assert!(
            matches!(&failed, ThreadError::Log(error) if matches!(**error, LogError::Open { .. })),
            "{failed}"
        );
    }
    assert_eq!(place.gate.updates(), []);
    place.mend_logs();
    bounded(thread.flush()).await.unwrap();
    assert_eq!(place.history(thread.id()), ["1"]);
    let record = place.threads.get(thread.id()).await.unwrap().unwrap();
    assert_eq!((record.turns, record.items), (1, 1));
    // Without the room behind it.
    bounded(thread.shutdown()).await.unwrap();
    assert_eq!(
        record.log_bytes,
        std::fs::metadata(log_path(&place.logs(), thread.id()))
            .unwrap()
            .len()
    );
}

#[tokio::test]
async fn appends_are_kept_in_the_order_of_their_calls() {
    let place = Place::new();
    let thread = Arc::new(place.thread().await);
    let texts: Vec<_> = (0..300).map(|n| n.to_string()).collect();
    let mut under_way = Vec::new();
    for text in &texts {
        let mut append = Box::pin(thread.append(note(text)));
        // Called now, waited for later: more than the mailbox holds.
        let polled = std::future::poll_fn(|cx| Poll::Ready(append.as_mut().poll(cx))).await;
        match polled {
            Poll::Ready(done) => done.unwrap(),
            Poll::Pending => under_way.push(append),
        }
    }
    for append in under_way {
        bounded(append).await.unwrap();
    }
    bounded(thread.flush()).await.unwrap();
    assert_eq!(place.history(thread.id()), texts);
}

#[tokio::test]
async fn a_flush_of_a_thread_without_history_makes_nothing_and_persist_makes_it() {
    let place = Place::new();
    let new = NewThread {
        patch: title("named"),
    };
    let thread = bounded(place.threads.create(new)).await.unwrap();
    bounded(thread.flush()).await.unwrap();
    assert_eq!(place.gate.updates(), []);
    assert!(!place.logs().exists());
    bounded(thread.persist()).await.unwrap();
    let record = place.threads.get(thread.id()).await.unwrap().unwrap();
    assert_eq!(record.title.as_deref(), Some("named"));
    assert!(log_path(&place.logs(), thread.id()).exists());
    assert_eq!(record.items, 0);
    bounded(thread.shutdown()).await.unwrap();
    bounded(place.threads.resume(thread.id())).await.unwrap();
}

#[tokio::test]
async fn what_append_and_flush_has_kept_the_read_right_behind_it_sees() {
    let place = Place::new();
    let thread = place.thread().await;
    let goal = Item::now(ItemKind::Goal, "  make the\x1b parser fast \n");
    bounded(thread.append_and_flush(goal)).await.unwrap();
    let page = place.threads.list(ThreadQuery::default()).await.unwrap();
    assert_eq!(page.threads[0].name(), Some("make the  parser fast"));
}

#[tokio::test]
async fn a_mutation_waits_for_what_was_accepted_before_it_and_is_not_overwritten_by_that() {
    let place = Place::new();
    let thread = place.thread().await;
    place.gate.block();
    let derived = Append::new([note("1")]).patch(title("derived"));
    thread.append(derived).await.unwrap();
    let mut mutation = pin!(thread.mutate(title("explicit")));
    begun(mutation.as_mut()).await;
    place.gate.begun(1).await;
    begun(mutation.as_mut()).await;
    place.gate.open();
    bounded(mutation).await.unwrap();
    bounded(thread.flush()).await.unwrap();
    let titles: Vec<_> = place
        .gate
        .updates()
        .into_iter()
        .map(|patch| patch.title)
        .collect();
    assert_eq!(
        titles,
        [Change::Set("derived".into()), Change::Set("explicit".into())]
    );
}

#[tokio::test]
async fn a_mutation_whose_barrier_fails_is_not_made() {
    let place = Place::new();
    let thread = place.thread().await;
    place.gate.block();
    place.gate.fates([Some(Fate::Fails)]);
    thread.append(turn("1")).await.unwrap();
    let mut mutation = pin!(thread.mutate(title("explicit")));
    begun(mutation.as_mut()).await;
    place.gate.open();
    assert_eq!(store_kind(bounded(mutation).await), "store_write");
    bounded(thread.flush()).await.unwrap();
    let record = place.threads.get(thread.id()).await.unwrap().unwrap();
    assert_eq!((record.turns, record.title), (1, None));
}

#[tokio::test]
async fn append_and_flush_and_persist_say_what_failed_and_the_next_of_them_tries_again() {
    let place = Place::new();
    let thread = place.thread().await;
    for text in ["1", "2"] {
        place.gate.fates([Some(Fate::Fails)]);
        assert_eq!(
            store_kind(bounded(thread.append_and_flush(turn(text))).await),
            "store_write"
        );
        place.gate.fates([Some(Fate::Conflicts)]);
        assert_eq!(store_kind(bounded(thread.persist()).await), "lease_lost");
        bounded(thread.persist()).await.unwrap();
    }
    assert_eq!(place.history(thread.id()), ["1", "2"]);
    assert_eq!(turns(&place, thread.id()).await, 2);
}

#[tokio::test]
async fn callers_that_give_up_after_acceptance_lose_nothing() {
    let place = Place::new();
    let thread = place.thread().await;
    place.gate.block();
    {
        let mut kept = pin!(thread.append_and_flush(turn("1")));
        begun(kept.as_mut()).await;
    }
    place.gate.begun(1).await;
    {
        let mut flush = pin!(thread.flush());
        begun(flush.as_mut()).await;
    }
    place.gate.open();
    bounded(thread.shutdown()).await.unwrap();
    assert_eq!(turns(&place, thread.id()).await, 1);
    assert_eq!(place.history(thread.id()), ["1"]);
}

#[tokio::test]
async fn a_flush_that_takes_too_long_says_that_its_outcome_is_unknown_and_it_goes_on() {
    let place = Place::new();
    let thread = place.thread().await;
    place.gate.block();
    thread.append(turn("1")).await.unwrap();
    place.gate.begun(1).await;
    let late = thread.flush_within(Duration::from_millis(50)).await;
    assert!(matches!(late, Err(ThreadError::OutcomeUnknown(_))), "{late:?}");
    place.gate.open();
    bounded(thread.flush()).await.unwrap();
    assert_eq!(turns(&place, thread.id()).await, 1);
}

#[tokio::test]
async fn small_and_large_appends_are_kept_in_the_order_of_their_calls() {
    let place = Place::new();
    let thread = place.thread().await;
    let mut texts = Vec::new();
    for n in 0..400_usize {
        // Some are handed on as items, because they are larger than what is gathered.
        let bytes = if n % 37 == 0 { 70_000 } else { n * 31 % 900 };
        texts.push(format!("{n} {}", "x".repeat(bytes)));
        bounded(thread.append(note(texts.last().unwrap()))).await.unwrap();
        if n % 151 == 0 {
            bounded(thread.flush()).await.unwrap();
        }
    }
    bounded(thread.flush()).await.unwrap();
    assert_eq!(place.history(thread.id()), texts);
    let record = place.threads.get(thread.id()).await.unwrap().unwrap();
    assert_eq!(record.items, 400);
}

#[tokio::test]
async fn what_is_too_large_is_refused_and_nothing_of_it_taken() {
    let place = Place::new();
    let thread = place.thread().await;
    let long = Item::now(ItemKind::Note, vec![0; (1 << 20) + 1]);
    let many = vec![Item::now(ItemKind::Note, vec![0; 1 << 20]); APPEND_MAX_BYTES >> 20];
    for append in [Append::from(long), Append::new(many)] {
        assert!(matches!(
            thread.append(append).await,
            Err(ThreadError::TooLarge { .. })
        ));
    }
    bounded(thread.flush()).await.unwrap();
    assert!(place.history(thread.id()).is_empty());
}

#[test]
fn a_thread_works_without_a_runtime_of_its_callers() {
    let place = Place::new();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    // No timer, no reactor.
    runtime.block_on(async {
        let thread: Thread = place.threads.create(NewThread::default()).await.unwrap();
        thread.append(turn("1")).await.unwrap();
        thread.flush().await.unwrap();
        thread.shutdown().await.unwrap();
    });
}
