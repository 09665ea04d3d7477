//! What stands in a record, and who hears of it when.

use std::rc::Rc;

use dwell_messages::Timings;

use super::*;

fn record(retention: u64) -> Rc<Record> {
    let record = Record::new();
    record.asked("sh", (false, true), retention);
    record.runs(42);
    record
}

fn read(after: u64, wait_ms: u32) -> Read {
    Read {
        after,
        max_bytes: 1 << 20,
        wait_ms,
        session: None,
    }
}

fn exited(record: &Record) -> Exited {
    Exited {
        event: record.number(),
        status: ExitStatus::Code(3),
        core_dumped: false,
        oom_killed: None,
        usage: None,
        ending: None,
        stdout_end: 4,
        stderr_end: 0,
    }
}

fn closed(record: &Record) -> Closed {
    Closed {
        event: record.number(),
        status: Some(ExitStatus::Code(3)),
        stdout_end: 4,
        stderr_end: 0,
        drained: true,
        holders: 0,
        timings: Timings::default(),
    }
}

#[test]
fn an_observer_sees_the_end_before_anybody_has_taken_it() {
    let record = record(1_024);
    assert_eq!(
        record.output(OutputStream::Stdout, 0, &Bytes::from_static(b"said")),
        1
    );
    assert!(!record.read(&read(0, 0)).ended);
    record.exited(Some(ExitStatus::Code(3)));
    record.ended(OutputStream::Stdout);
    assert!(!record.read(&read(0, 0)).ended, "the other pipe is open");
    record.ended(OutputStream::Stderr);
    assert!(
        !record.read(&read(0, 0)).ended,
        "how it ended is still to be told"
    );
    record.tell_exited(exited(&record));
    let reply = record.read(&read(0, 0));
    assert!(reply.ended && !reply.closed && reply.events.len() == 2);
    let entry = record.entry(ProcessId(7));
    assert_eq!(
        (entry.status, entry.closed, entry.written, entry.stdin),
        (Some(ExitStatus::Code(3)), false, [4, 0], true)
    );
    record.tell_closed(&closed(&record));
    assert!(record.entry(ProcessId(7)).closed && record.read(&read(0, 0)).closed);
}

#[test]
fn a_part_of_an_answer_is_not_the_end_of_it() {
    let record = record(1_024);
    for at in 0..4 {
        record.output(OutputStream::Stdout, at, &Bytes::from_static(b"x"));
    }
    record.exited(None);
    record.ended(OutputStream::Stdout);
    record.ended(OutputStream::Stderr);
    let part = Read {
        max_bytes: 2,
        ..read(0, 0)
    };
    let reply = record.read(&part);
    assert_eq!((reply.events.len(), reply.ended), (2, false));
    assert!(record.read(&read(reply.next - 1, 0)).ended);
}

/// K-16: whatever is asked, the cursor never goes back, and events come once and in order.
#[test]
fn the_cursor_never_goes_back() {
    let record = record(8);
    let (mut after, mut last) = (0, 0);
    for at in 0..100_u64 {
        record.output(OutputStream::Stdout, at, &Bytes::from_static(b"x"));
        if at % 7 == 0 {
            let reply = record.read(&read(after, 0));
            assert!(reply.next > after);
            for event in &reply.events {
                assert!(event.number() > last);
                last = event.number();
            }
            after = reply.next - 1;
            assert!(after >= last);
        }
    }
    // From the future: nothing, and the same place.
    assert_eq!(record.read(&read(5_000, 0)).events.len(), 0);
    assert!(record.read(&read(5_000, 0)).next > 5_000);
}

#[tokio::test(start_paused = true)]
async fn a_read_waits_for_news_its_time_or_the_end_of_the_session() {
    let record = record(1_024);
    let waited = Rc::clone(&record).read_when_due(read(0, 5_000)).await.unwrap();
    assert!(waited.events.is_empty());
    let (reply, ()) = tokio::join!(Rc::clone(&record).read_when_due(read(0, 5_000)), async {
        record.output(OutputStream::Stderr, 0, &Bytes::from_static(b"now"));
    });
    assert_eq!(reply.unwrap().events.len(), 1);
    let (reply, ()) = tokio::join!(Rc::clone(&record).read_when_due(read(1, 5_000)), async {
        record.forget();
    });
    assert!(reply.is_none());
}

#[tokio::test(start_paused = true)]
async fn reads_that_wait_are_bounded_and_their_places_come_free() {
    let record = record(1_024);
    let reads: Vec<_> = (0..READS_WAITING_MAX)
        .map(|_| Box::pin(Rc::clone(&record).read_when_due(read(0, 5_000))))
        .collect();
    let mut reads = reads;
    for read in &mut reads {
        assert!(tokio::time::timeout(Duration::ZERO, read).await.is_err());
    }
    assert!(!record.has_room());
    assert!(Rc::clone(&record).read_when_due(read(0, 5_000)).await.is_none());
    drop(reads);
    assert!(record.has_room());
}
