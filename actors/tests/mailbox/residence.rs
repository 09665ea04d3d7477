//! Residence is a span, and what the collector does with it.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use dwell_actors::mailbox::BulkResidence;
use dwell_actors::telemetry::{
    ATTR_ACTOR, ATTR_DEPTH, ATTR_MESSAGE, ClockOffset, Collector, Kept, RING_RECORDS, SinkError, SpanSink,
    Stage, Tick, root,
};
use dwell_messages::{Envelope, Role, Span, SpanKind, TraceContext, Value};

use super::support::{Job, Memory, Work, collector, command, on_system, run, settle, start_probe};

/// Longest a test's thread waits for the collector's.
const BOUND: Duration = Duration::from_secs(30);

fn sampled(context: &TraceContext, body: Job) -> Envelope<Job> {
    Envelope::new(context.clone(), body)
}

fn collected() -> (Collector, Memory) {
    let memory = Memory::default();
    let collector = collector(vec![Box::new(memory.clone())]);
    collector.install();
    (collector, memory)
}

#[test]
fn a_sampled_delivery_leaves_its_residence_and_its_turn_as_siblings_under_the_sender() {
    on_system(async {
        let (collector, memory) = collected();
        let (mailbox, _) = start_probe(8);
        let context = root(true);
        let before = Tick::now();
        mailbox.try_tell(sampled(&context, Job::Note(1))).unwrap();
        mailbox
            .try_tell(Envelope::new(root(false), Job::Note(2)))
            .unwrap();
        settle().await;
        let elapsed_ns = Tick::now().nanos_since(before);
        collector.flush().await;
        let spans = memory.spans();
        let [residence, turn] = spans.as_slice() else {
            panic!("two spans of one sampled delivery, none of an unsampled one, got {spans:?}");
        };
        for span in [residence, turn] {
            assert_eq!((span.trace(), span.parent), (context.trace_id, context.span_id.0));
            assert_eq!(span.kind, SpanKind::Internal);
            assert_eq!(span.attribute(ATTR_ACTOR), Some(&Value::Str("Probe".into())));
            assert_eq!(span.attribute(ATTR_MESSAGE), Some(&Value::Str("Note".into())));
            assert!(span.link.is_some_and(|link| link != [0; 8]));
        }
        assert_eq!(
            (residence.name.as_ref(), turn.name.as_ref()),
            ("mailbox Probe", "turn Probe")
        );
        assert_eq!(residence.attribute(ATTR_DEPTH), Some(&Value::I64(1)));
        assert_ne!(residence.id(), turn.id());
        assert_eq!(residence.end_unix_ns, turn.start_unix_ns);
        assert!(residence.duration_ns() > 0);
        assert!(residence.duration_ns() + turn.duration_ns() <= elapsed_ns + 1_000);
        collector.end();
    });
}

#[test]
fn a_residence_span_begins_at_the_enqueue_and_not_when_the_actor_gets_to_it() {
    const HELD_NS: u64 = 3_000_000;
    on_system(async {
        let (collector, memory) = collected();
        let (mailbox, _) = start_probe(8);
        mailbox
            .try_tell(run(|_, turn| {
                while Tick::now().nanos_since(turn.now()) < HELD_NS {
                    std::hint::spin_loop();
                }
            }))
            .unwrap();
        mailbox.try_tell(sampled(&root(true), Job::Note(1))).unwrap();
        settle().await;
        collector.flush().await;
        let spans = memory.spans();
        let residence = spans.iter().find(|span| span.name == "mailbox Probe").unwrap();
        assert!(
            residence.duration_ns() >= HELD_NS - HELD_NS / 10,
            "{} ns",
            residence.duration_ns()
        );
        assert_eq!(residence.attribute(ATTR_DEPTH), Some(&Value::I64(2)));
        collector.end();
    });
}

/// Regression: a port reported the mailbox's whole capacity as depth.
#[test]
fn a_delivery_through_a_port_reports_the_ports_own_depth() {
    on_system(async {
        let (collector, memory) = collected();
        let (mailbox, _) = start_probe(1_000);
        mailbox
            .port(4)
            .try_tell(sampled(&root(true), Job::Note(1)))
            .unwrap();
        settle().await;
        collector.flush().await;
        assert_eq!(memory.spans()[0].attribute(ATTR_DEPTH), Some(&Value::I64(1)));
        collector.end();
    });
}

#[test]
fn a_turn_that_panics_leaves_its_spans_too() {
    on_system(async {
        let (collector, memory) = collected();
        let (mailbox, _) = start_probe(8);
        let panics: Work = command(|_, _| panic!("as the test asked"));
        mailbox.try_tell(sampled(&root(true), Job::Run(panics))).unwrap();
        settle().await;
        collector.flush().await;
        assert_eq!(memory.spans().len(), 2);
        collector.end();
    });
}

#[test]
fn bulk_deliveries_leave_no_span_and_are_summed() {
    on_system(async {
        let (collector, memory) = collected();
        let (mailbox, _) = start_probe(128);
        let sums = Arc::new(BulkResidence::default());
        let context = root(true);
        (0..100).for_each(|_| {
            mailbox
                .try_tell(sampled(&context, Job::Bulk(Arc::clone(&sums))))
                .unwrap()
        });
        settle().await;
        collector.flush().await;
        assert_eq!((memory.spans().len(), sums.count()), (0, 100));
        assert!(sums.longest_us() <= sums.total_us());
        assert!(sums.total_us() <= 100 * (sums.longest_us() + 1));
        collector.end();
    });
}

#[test]
fn a_take_after_the_record_includes_the_turn_just_ended_and_one_during_the_turn_does_not() {
    on_system(async {
        let (collector, _) = collected();
        let (mailbox, _) = start_probe(8);
        let (during, after) = (root(true), root(true));
        let (sender, kept) = sync_channel::<Kept>(2);

        let (taker, trace, out) = (collector.clone(), during.trace_id, sender.clone());
        let takes_during: Work = command(move |_, _| {
            let (reply, answer) = sync_channel(1);
            taker.take(vec![trace], move |mut kept| reply.send(kept.remove(0)).unwrap());
            out.send(answer.recv_timeout(BOUND).unwrap()).unwrap();
        });
        mailbox
            .try_tell(sampled(&during, Job::Run(takes_during)))
            .unwrap();
        let (taker, trace, out) = (collector.clone(), after.trace_id, sender);
        let takes_after: Work = command(move |_, turn| {
            turn.after_record(move || {
                taker.take(vec![trace], move |mut kept| out.send(kept.remove(0)).unwrap())
            });
        });
        mailbox.try_tell(sampled(&after, Job::Run(takes_after))).unwrap();
        settle().await;

        assert_eq!(kept.recv_timeout(BOUND).unwrap().spans.len(), 0);
        let kept = kept.recv_timeout(BOUND).unwrap();
        let names: Vec<_> = kept.spans.iter().map(|span| span.name.as_ref()).collect();
        assert_eq!((names, kept.dropped), (vec!["mailbox Probe", "turn Probe"], 0));
        collector.end();
    });
}

/// Regression: held work of turns without a record ran after some later delivery, or never.
#[test]
fn after_record_runs_at_the_end_of_bulk_and_control_turns_as_well() {
    on_system(async {
        let (mailbox, log) = start_probe(8);
        mailbox
            .control(command(|probe, turn| {
                let log = probe.log.clone();
                turn.after_record(move || log.push(2));
                probe.log.push(1);
            }))
            .unwrap_or_else(|_| panic!("the control queue is empty"));
        settle().await;
        assert_eq!(log.entries(), [1, 2]);
    });
}

#[test]
fn a_flush_exports_everything_recorded_before_it() {
    const DELIVERIES: usize = 3_000;
    on_system(async {
        let (collector, memory) = collected();
        let (mailbox, _) = start_probe(64);
        let context = root(true);
        for _ in 0..DELIVERIES {
            mailbox.tell(sampled(&context, Job::Note(1))).await.unwrap();
        }
        while mailbox.depth() > 0 {
            tokio::task::yield_now().await;
        }
        collector.stage(Stage::new(&context, "stage", Tick::now(), Tick::now()));
        collector.stage(Stage::new(&root(false), "unsampled", Tick::now(), Tick::now()));
        collector.flush().await;
        assert_eq!(memory.spans().len(), 2 * DELIVERIES + 1);
        assert_eq!(collector.stats().spans, 2 * DELIVERIES as u64 + 1);
        collector.end();
        collector.flush().await;
    });
}

/// Stops in its first export until it is let go.
struct Gate {
    entered: SyncSender<()>,
    open: Receiver<()>,
}

impl SpanSink for Gate {
    fn export(&mut self, _: Role, _: Option<ClockOffset>, _: &[Span]) -> Result<(), SinkError> {
        self.entered.send(()).ok();
        self.open.recv().ok();
        Ok(())
    }
}

#[test]
fn a_full_ring_drops_and_counts_and_the_count_outlives_its_thread() {
    const TOO_MANY: usize = 100;
    let (entered, at_gate) = sync_channel(1_000);
    let (let_go, open) = sync_channel(1);
    let collector = collector(vec![Box::new(Gate { entered, open })]);
    let arbiter = collector.clone();
    std::thread::spawn(move || {
        on_system(async {
            arbiter.install();
            let (mailbox, _) = start_probe(64);
            let context = root(true);
            mailbox.try_tell(sampled(&context, Job::Note(0))).unwrap();
            settle().await;
            let flushing = tokio::task::spawn_local({
                let arbiter = arbiter.clone();
                async move { arbiter.flush().await }
            });
            settle().await;
            at_gate.recv_timeout(BOUND).unwrap();
            for _ in 0..RING_RECORDS + TOO_MANY {
                mailbox.tell(sampled(&context, Job::Note(1))).await.unwrap();
            }
            while mailbox.depth() > 0 {
                tokio::task::yield_now().await;
            }
            drop(let_go);
            flushing.await.unwrap();
            arbiter.flush().await;
            assert_eq!(arbiter.stats().records_dropped, TOO_MANY as u64);
        });
    })
    .join()
    .unwrap();
    collector.end();
    let stats = collector.stats();
    assert_eq!(stats.records_dropped, TOO_MANY as u64);
    assert_eq!(stats.spans, 2 * (RING_RECORDS as u64 + 1));
}

/// Regression: a sink's panic ended the collector's thread, and every span of every actor with it.
#[test]
fn a_sink_that_panics_costs_its_batch_and_nothing_else() {
    struct Panics;
    impl SpanSink for Panics {
        fn export(&mut self, _: Role, _: Option<ClockOffset>, _: &[Span]) -> Result<(), SinkError> {
            panic!("as the test asked");
        }
    }
    on_system(async {
        let memory = Memory::default();
        let collector = collector(vec![Box::new(Panics), Box::new(memory.clone())]);
        for expected in 1..4 {
            collector.stage(Stage::new(&root(true), "stage", Tick::now(), Tick::now()));
            collector.flush().await;
            assert_eq!(memory.spans().len(), expected);
        }
        assert_eq!(collector.stats().export_failed, 3);
        collector.end();
    });
}

#[test]
fn a_take_from_a_collector_that_has_ended_answers_with_nothing() {
    let (sender, kept) = sync_channel(1);
    let collector = collector(vec![]);
    collector.end();
    collector.take(vec![root(true).trace_id], move |kept| sender.send(kept).unwrap());
    assert!(kept.recv_timeout(BOUND).unwrap().is_empty());
}
