//! Back ends that are down, slow, full or wrong: spans are lost and counted, and nobody waits.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use dwell_actors::harness::Command;
use dwell_actors::telemetry::otlp::{FLUSH_MAX, OtlpSink};
use dwell_actors::telemetry::{SPANS_WAITING_MAX, SpanSink};
use dwell_messages::{ExitStatus, Role, Span};

use crate::server::{Manner, Server};
use crate::support::{BOUND, Ends, Kept, span};

/// Spans of one batch.
const BATCH: usize = 512;
/// What a flush may take beyond its bound on a busy machine.
const SLACK: Duration = Duration::from_secs(3);

fn batch(from: usize, count: usize) -> Vec<Span> {
    (from..from + count).map(|n| span(n as u64)).collect()
}

fn put(sink: &mut OtlpSink, spans: usize) {
    for from in (0..spans).step_by(BATCH) {
        let count = BATCH.min(spans - from);
        sink.export(Role::Harness, None, &batch(from, count)).unwrap();
    }
}

/// Everything was refused or given up.
fn all_lost(sink: &OtlpSink, spans: usize) {
    let deadline = Instant::now() + BOUND;
    while sink.lost() < spans as u64 {
        assert!(Instant::now() < deadline, "{} of {spans} were lost", sink.lost());
        std::thread::park_timeout(Duration::from_millis(1));
    }
    assert_eq!(sink.lost(), spans as u64);
}

/// Fills the queue past its bound in front of a server that takes nothing, and flushes.
fn stuck_behind(manner: Manner) {
    let server = Server::start(manner);
    let mut sink = OtlpSink::to(Role::Harness, server.endpoint()).unwrap();
    let spans = SPANS_WAITING_MAX + 20 * BATCH;
    put(&mut sink, spans);
    // All that did not fit is gone already, while the server has answered nothing: putting spans in has waited for no
    // answer. One batch may be under way.
    let lost = usize::try_from(sink.lost()).unwrap();
    assert!(
        (spans - SPANS_WAITING_MAX - BATCH..=spans - SPANS_WAITING_MAX).contains(&lost),
        "{lost} of {spans} were dropped"
    );
    assert!(server.spans().is_empty());

    let begun = Instant::now();
    let error = sink.flush().unwrap_err().to_string();
    let took = begun.elapsed();
    assert!(took >= FLUSH_MAX && took < FLUSH_MAX + SLACK, "{took:?}");
    assert!(
        error.contains("were not taken by the OTLP endpoint"),
        "it says how many: {error}"
    );
    // Whoever flushes again before anything has moved does not wait again.
    let begun = Instant::now();
    assert!(sink.flush().is_err());
    assert!(begun.elapsed() < SLACK);
    drop(sink);
    assert!(begun.elapsed() < SLACK, "nor does the end wait");
}

#[test]
fn spans_for_a_back_end_that_hangs_are_dropped_and_counted_and_nobody_waits() {
    stuck_behind(Manner::Hangs);
}

#[test]
fn a_flush_with_a_full_queue_and_a_back_end_that_hangs_gives_up_in_time() {
    stuck_behind(Manner::ReadsSlowly);
}

#[test]
fn spans_for_a_back_end_that_is_down_are_lost_and_counted() {
    // A port that nobody listens on.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut sink = OtlpSink::to(Role::Harness, format!("http://{port}/v1/traces")).unwrap();
    put(&mut sink, 3 * BATCH);
    sink.flush().unwrap();
    all_lost(&sink, 3 * BATCH);
}

#[test]
fn spans_that_a_back_end_refuses_are_lost_and_counted() {
    for manner in [
        Manner::Answers(400),
        Manner::Answers(500),
        Manner::Answers(503),
        Manner::Breaks,
        Manner::Babbles,
    ] {
        let server = Server::start(manner);
        let mut sink = OtlpSink::to(Role::Harness, server.endpoint()).unwrap();
        put(&mut sink, 3 * BATCH);
        sink.flush().unwrap_or_else(|error| panic!("{manner:?}: {error}"));
        all_lost(&sink, 3 * BATCH);
        assert!(server.connections() > 0, "{manner:?}: it was asked");
    }
}

/// The control of all of these.
#[test]
fn a_back_end_that_takes_spans_gets_all_of_them() {
    let server = Server::start(Manner::Takes);
    let mut sink = OtlpSink::to(Role::Harness, server.endpoint()).unwrap();
    put(&mut sink, 3 * BATCH + 1);
    sink.flush().unwrap();
    assert_eq!(sink.lost(), 0);
    assert_eq!(server.spans().len(), 3 * BATCH + 1);
}

#[test]
fn a_back_end_that_comes_back_gets_spans_again() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    drop(taken);
    let mut sink = OtlpSink::to(Role::Harness, format!("http://{address}/v1/traces")).unwrap();
    put(&mut sink, BATCH);
    sink.flush().unwrap();
    all_lost(&sink, BATCH);

    // It listens again, and fails at first.
    let server = Server::at(TcpListener::bind(address).unwrap(), Manner::Answers(503));
    put(&mut sink, BATCH);
    sink.flush().unwrap();
    all_lost(&sink, 2 * BATCH);

    server.behave(Manner::Takes);
    put(&mut sink, BATCH);
    sink.flush().unwrap();
    assert_eq!(server.spans().len(), BATCH);
    assert_eq!(
        sink.lost(),
        2 * BATCH as u64,
        "what was lost stays lost, and no more is"
    );
}

#[test]
fn a_queue_that_was_stuck_is_flushed_again_once_its_back_end_moves() {
    let server = Server::start(Manner::Answers(500));
    let mut sink = OtlpSink::to(Role::Harness, server.endpoint()).unwrap();
    put(&mut sink, BATCH);
    sink.flush().unwrap();
    server.behave(Manner::Takes);
    put(&mut sink, 2 * BATCH);
    sink.flush().unwrap();
    assert_eq!(server.spans().len(), 2 * BATCH);
}

async fn median_call(ends: &Ends) -> Duration {
    let mut took = Vec::new();
    for _ in 0..21 {
        let begun = Instant::now();
        let finished = ends.run(Command::new("true")).await;
        took.push(begun.elapsed());
        assert_eq!(finished.status, ExitStatus::Code(0));
    }
    took.sort();
    took[took.len() / 2]
}

#[tokio::test]
async fn calls_take_no_longer_while_a_back_end_hangs() {
    let healthy = Ends::with(|builder| builder, Kept::default()).await;
    let without = median_call(&healthy).await;
    healthy.end().await;

    let server = Server::start(Manner::Hangs);
    let sinks = [Role::Harness, Role::Executor].map(|role| OtlpSink::to(role, server.endpoint()).unwrap());
    let [own, theirs] = sinks;
    let hanging = Ends::with(|builder| builder.sink(own), theirs).await;
    let with = median_call(&hanging).await;
    // A factor and no figure: the machine is everybody's.
    assert!(
        with < without * 10 + Duration::from_millis(5),
        "{with:?} with it, {without:?} without"
    );
    let begun = Instant::now();
    hanging.end().await;
    // Both roles flush, one behind the other, each within its bound.
    let took = begun.elapsed();
    assert!(took < 2 * FLUSH_MAX + 2 * SLACK, "{took:?}");
    assert!(server.connections() > 0, "it was asked");
    assert!(server.spans().is_empty());
}
