use dwell_actors::telemetry::semconv;
use dwell_actors::trace_file::{Resource, Trace, TraceFile};
use dwell_actors::trace_why::{
    BASELINE_CALLS_MIN, Baseline, Cause, Explanation, Ranked, explain, render, to_json,
};
use dwell_messages::Role::{Executor, Harness};
use dwell_messages::{Role, Span, Value};
use proptest::prelude::*;
use tempfile::tempdir;

use crate::spans::{span, trace, with_segments};

/// One call of `sh` in microseconds; what a test delays it changes.
#[derive(Clone, Debug)]
struct Call {
    mailbox: u64,
    /// Of that, how long the supervisor's mailbox held the request.
    supervisor: u64,
    send: u64,
    framer: u64,
    spawn: u64,
    run: u64,
    drain: u64,
    /// How long the news of the exit lay in the process's mailbox.
    news: u64,
    transit: u64,
    relay: u64,
    apply: u64,
    spool: u64,
}

const USUAL: Call = Call {
    mailbox: 120,
    supervisor: 60,
    send: 80,
    framer: 20,
    spawn: 700,
    run: 5_000,
    drain: 40,
    news: 10,
    transit: 400,
    relay: 60,
    apply: 900,
    spool: 0,
};

/// The delay that is planted in one place at a time.
const DELAY: u64 = 20_000;

fn named(mut one: Span, attributes: &[(&'static str, Value)]) -> Span {
    one.attributes.extend(
        attributes
            .iter()
            .map(|(key, value)| ((*key).into(), value.clone())),
    );
    one
}

fn mailbox(id: u8, parent: u8, actor: &'static str, message: &'static str, us: u64) -> Span {
    let span = span(id, parent, &format!("mailbox {actor}"), 100, us);
    named(
        span,
        &[
            (semconv::ACTOR_TYPE, Value::Str(actor.into())),
            (semconv::MESSAGE_TYPE, Value::Str(message.into())),
        ],
    )
}

fn number(us: u64) -> Value {
    Value::I64(i64::try_from(us).unwrap())
}

impl Call {
    fn spans(&self) -> Vec<(Role, Span)> {
        let signed = |us: u64| i64::try_from(us).unwrap();
        let total = 500 + self.mailbox + self.send + self.spawn + self.run + self.drain + self.transit;
        let root = with_segments(
            span(1, 0, "call", 0, total),
            &[
                ("harness.dispatch", 150),
                ("harness.write", 200),
                ("harness.submit", 150),
                ("transit.both_ways", signed(self.transit - self.transit / 2)),
                ("transit.unattributed", signed(self.transit / 2)),
                ("executor.mailbox.supervisor", signed(self.mailbox)),
                ("executor.spawn", signed(self.spawn)),
                ("executor.run", signed(self.run)),
                ("executor.drain", signed(self.drain)),
                ("executor.queue", signed(self.send)),
            ],
        );
        let hop = |id: u8, us: u64| {
            named(
                span(id, 1, "relay hop", 100, us),
                &[(semconv::RELAY_RESIDENCE_US, number(us))],
            )
        };
        let reader = named(
            span(8, 2, "stdout reader", 100, self.run),
            &[
                (semconv::STREAM_SPOOLED_BYTES, number(self.spool)),
                (semconv::STREAM_SPOOL_US, number(self.spool)),
            ],
        );
        vec![
            (Harness, named(root, &[(semconv::LINK_PING_US, Value::I64(300))])),
            (
                Executor,
                named(
                    span(2, 1, "process", 100, self.run),
                    &[(semconv::PROCESS_EXECUTABLE_NAME, Value::Str("sh".into()))],
                ),
            ),
            (Executor, hop(3, self.relay / 2)),
            (Harness, hop(4, self.relay - self.relay / 2)),
            (
                Executor,
                mailbox(5, 1, "ProcessSupervisor", "Call", self.supervisor),
            ),
            (Executor, mailbox(6, 1, "RelayFramer", "Send", self.framer)),
            (Executor, mailbox(7, 2, "Process", "Exited", self.news)),
            (Executor, reader),
            // Beside the chain: however long it lay there, no call waited for it.
            (Harness, mailbox(9, 1, "RunRecorder", "Record", 90_000)),
            (Harness, span(10, 1, "metadata apply", 6_000, self.apply)),
        ]
    }

    fn trace(&self) -> Trace {
        trace(self.spans())
    }
}

fn usual() -> Baseline {
    // Calls differ a little, as real ones do.
    let calls: Vec<_> = (0..9)
        .map(|n| {
            Call {
                mailbox: USUAL.mailbox + n * 3,
                run: USUAL.run + n * 40,
                apply: USUAL.apply + n * 30,
                ..USUAL
            }
            .trace()
        })
        .collect();
    Baseline::of(&calls)
}

fn first(call: &Call) -> Cause {
    explain(&call.trace(), &usual()).reasons[0].cause.clone()
}

fn supervisor() -> Cause {
    Cause::Mailbox {
        machine: "executor".into(),
        actor: Some("ProcessSupervisor".into()),
    }
}

#[test]
fn a_call_without_a_delay_went_into_the_command_itself() {
    let explained = explain(&USUAL.trace(), &usual());
    assert_eq!(explained.ranked, Ranked::NothingUnusual);
    assert_eq!(explained.reasons[0].cause, Cause::Command { blocked_us: 0 });
    assert!(explained.reasons.iter().all(|reason| !reason.unusual));
}

#[test]
fn a_busy_mailbox_is_named_first_with_its_actor() {
    let slow = Call {
        mailbox: USUAL.mailbox + DELAY,
        supervisor: USUAL.supervisor + DELAY,
        ..USUAL
    };
    assert_eq!(first(&slow), supervisor());
    let explained = explain(&slow.trace(), &usual());
    assert_eq!(
        explained.reasons[0].sentence(),
        "the executor's ProcessSupervisor mailbox held the call 20.1 ms; usually 132 µs"
    );
}

#[test]
fn a_throttled_relay_is_named_first_by_its_own_word() {
    let slow = Call {
        transit: USUAL.transit + DELAY,
        relay: USUAL.relay + DELAY,
        ..USUAL
    };
    assert_eq!(first(&slow), Cause::Relay);
}

#[test]
fn a_relay_that_keeps_records_and_does_not_say_so_is_the_way_through_it() {
    let slow = Call {
        transit: USUAL.transit + DELAY,
        ..USUAL
    };
    assert_eq!(first(&slow), Cause::Transit { relayed: true });
}

#[test]
fn a_relays_word_takes_no_more_than_the_transit() {
    let boastful = Call {
        relay: 3_600_000_000,
        ..USUAL
    };
    let explained = explain(&boastful.trace(), &Baseline::none());
    let relay = explained
        .reasons
        .iter()
        .find(|reason| reason.cause == Cause::Relay);
    assert_eq!(relay.unwrap().us, USUAL.transit);
    assert_eq!(explained.reasons[0].cause, Cause::Command { blocked_us: 0 });
}

#[test]
fn a_slow_spawn_is_named_first() {
    let slow = Call {
        spawn: USUAL.spawn + DELAY,
        ..USUAL
    };
    assert_eq!(first(&slow), Cause::Spawn);
}

#[test]
fn a_slow_child_is_named_first() {
    let slow = Call {
        run: USUAL.run + DELAY,
        ..USUAL
    };
    assert_eq!(first(&slow), Cause::Command { blocked_us: 0 });
    assert_eq!(explain(&slow.trace(), &usual()).ranked, Ranked::ByExcess);
}

#[test]
fn a_held_pipe_is_named_first_with_its_stream() {
    let slow = Call {
        drain: USUAL.drain + DELAY,
        ..USUAL
    };
    assert_eq!(
        first(&slow),
        Cause::HeldPipe {
            stream: Some("stdout"),
            given_up: false
        }
    );
}

#[test]
fn a_process_that_holds_both_pipes_is_said_to_hold_both() {
    let slow = Call {
        drain: USUAL.drain + DELAY,
        ..USUAL
    };
    let mut spans = slow.spans();
    spans.push((Executor, span(20, 2, "stderr reader", 110, slow.run)));
    let explained = explain(&trace(spans), &usual());
    assert_eq!(
        explained.reasons[0].sentence(),
        "a process still held stdout and stderr for 20.0 ms after the command had ended; usually 40 µs"
    );
}

#[test]
fn news_of_the_end_that_lay_in_a_mailbox_is_no_held_pipe() {
    let slow = Call {
        drain: USUAL.drain + DELAY,
        news: DELAY,
        ..USUAL
    };
    let process = Cause::Mailbox {
        machine: "executor".into(),
        actor: Some("Process".into()),
    };
    assert_eq!(first(&slow), process);
}

#[test]
fn an_answer_that_lay_in_the_framers_mailbox_is_named_so() {
    let slow = Call {
        send: USUAL.send + DELAY,
        framer: DELAY,
        ..USUAL
    };
    let framer = Cause::Mailbox {
        machine: "executor".into(),
        actor: Some("RelayFramer".into()),
    };
    assert_eq!(first(&slow), framer);
}

#[test]
fn a_message_that_nobody_waited_for_is_not_what_a_segment_was_spent_on() {
    // The answer to the start, and the news that a reader ended, while the command ran.
    let mut spans = Call {
        mailbox: USUAL.mailbox + DELAY,
        supervisor: DELAY / 2,
        send: USUAL.send + 3_000,
        ..USUAL
    }
    .spans();
    spans.push((Executor, mailbox(20, 1, "RelayFramer", "Send", 15_000)));
    spans.push((Executor, mailbox(21, 2, "Process", "Spawned", 15_000)));
    let explained = explain(&trace(spans), &usual());
    assert_eq!(explained.reasons[0].cause, supervisor());
    assert_eq!(explained.reasons[1].cause.kind(), "sending");
}

#[test]
fn a_slow_disk_is_named_first_though_the_call_did_not_wait_for_it() {
    let slow = Call {
        apply: USUAL.apply + DELAY,
        ..USUAL
    };
    let disk = Cause::Disk {
        what: "metadata apply".into(),
        beside: true,
    };
    assert_eq!(first(&slow), disk);
}

#[test]
fn a_slow_disk_beside_the_call_does_not_hide_what_the_call_waited_for() {
    let slow = Call {
        apply: USUAL.apply + DELAY,
        spawn: USUAL.spawn + DELAY,
        ..USUAL
    };
    assert_eq!(first(&slow), Cause::Spawn);
}

#[test]
fn output_that_waits_for_the_spools_disk_is_the_disk_and_not_the_command() {
    let slow = Call {
        run: USUAL.run + DELAY,
        spool: DELAY,
        ..USUAL
    };
    let disk = Cause::Disk {
        what: "spool".into(),
        beside: false,
    };
    assert_eq!(first(&slow), disk);
}

#[test]
fn with_too_few_earlier_calls_there_is_no_usual_and_shares_decide() {
    let few: Vec<_> = (1..BASELINE_CALLS_MIN).map(|_| USUAL.trace()).collect();
    let slow = Call {
        spawn: USUAL.spawn + 1_000,
        ..USUAL
    };
    let explained = explain(&slow.trace(), &Baseline::of(&few));
    assert_eq!(explained.ranked, Ranked::NoUsual);
    assert_eq!(explained.usual_total_us, None);
    assert_eq!(explained.reasons[0].cause, Cause::Command { blocked_us: 0 });
    assert_eq!(explained.reasons[1].cause, Cause::Spawn);
    assert!(explained.reasons.last().unwrap().cause.is_beside());
    assert!(
        render(&explained, false).contains("no usual yet: 4 earlier calls of sh in the files, 5 are needed")
    );
}

#[test]
fn an_excess_that_was_seen_before_is_no_longer_out_of_the_ordinary() {
    let often: Vec<_> = (0..8)
        .map(|n| {
            Call {
                spawn: USUAL.spawn + n * 3_000,
                ..USUAL
            }
            .trace()
        })
        .collect();
    let call = Call {
        spawn: USUAL.spawn + DELAY,
        ..USUAL
    };
    assert_eq!(
        explain(&call.trace(), &Baseline::of(&often)).ranked,
        Ranked::NothingUnusual
    );
}

#[test]
fn mailboxes_that_an_older_executor_lumps_together_are_told_apart_by_the_spans() {
    let root = with_segments(span(1, 0, "call", 0, 9_000), &[("executor.mailbox", 8_000)]);
    let spans = vec![
        (Harness, root),
        (Executor, mailbox(2, 1, "Dispatcher", "Call", 7_800)),
        (Executor, mailbox(3, 1, "RpcQueue", "Request", 200)),
        // While the command ran.
        (Executor, mailbox(4, 1, "Process", "Exited", 7_900)),
    ];
    let explained = explain(&trace(spans), &Baseline::none());
    let dispatcher = Cause::Mailbox {
        machine: "executor".into(),
        actor: Some("Dispatcher".into()),
    };
    assert_eq!(explained.reasons[0].cause, dispatcher);
}

#[test]
fn every_segment_of_the_chain_has_a_cause_that_is_known() {
    use dwell_actors::account::Segment;
    for segment in Segment::ALL
        .into_iter()
        .filter(|segment| *segment != Segment::Remote)
    {
        for machine in ["harness", "executor"] {
            let name = format!("{machine}.{}", segment.name());
            let root = with_segments(span(1, 0, "call", 0, 1_000), &[(name.as_str(), 900)]);
            let explained = explain(&trace(vec![(Harness, root)]), &Baseline::none());
            assert_ne!(explained.reasons[0].cause.kind(), "segment", "{name}");
        }
    }
}

#[test]
fn a_call_that_failed_before_it_had_an_account_is_explained_by_its_critical_path() {
    let mut failed = span(1, 0, "call", 0, 1_000);
    failed.error = Some("timeout".into());
    let explained = explain(
        &trace(vec![
            (Harness, failed),
            (Harness, mailbox(2, 1, "Dispatcher", "Exec", 700)),
        ]),
        &Baseline::none(),
    );
    assert!(!explained.has_account);
    assert_eq!(
        explained.reasons[0].cause,
        Cause::Mailbox {
            machine: "harness".into(),
            actor: Some("Dispatcher".into())
        }
    );
    assert_eq!(explained.reasons[0].us, 700);
}

#[test]
fn a_trace_without_spans_has_no_reasons() {
    let explained = explain(&trace(Vec::new()), &usual());
    assert!(explained.reasons.is_empty());
    assert!(render(&explained, false).contains("nothing in this trace says where the time went"));
}

#[test]
fn the_text_ranks_and_says_what_it_is_held_against() {
    let slow = Call {
        spawn: USUAL.spawn + DELAY,
        ..USUAL
    };
    let text = render(&explain(&slow.trace(), &usual()), false);
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].starts_with("sh 26.840 ms  trace abab"), "{text}");
    assert!(
        lines[1].starts_with("usually 7012 µs, the median of 9 earlier calls of sh; ranked by what exceeds"),
        "{text}"
    );
    assert_eq!(
        lines[3],
        "1.  77.1%  ! starting the command took 20.7 ms; usually 700 µs"
    );
    assert!(
        lines[5].starts_with("2.  18.6%  the command itself ran 5000 µs"),
        "{text}"
    );
    assert!(render(&explain(&slow.trace(), &usual()), true).is_ascii());
}

#[test]
fn the_json_form_has_one_word_a_cause_and_the_same_order() {
    let slow = Call {
        mailbox: USUAL.mailbox + DELAY,
        supervisor: DELAY,
        ..USUAL
    };
    let json = to_json(&explain(&slow.trace(), &usual()));
    let reason = &json["reasons"][0];
    assert_eq!(json["ranked"], "by_excess");
    assert_eq!(
        [&reason["cause"], &reason["machine"], &reason["detail"]],
        ["mailbox", "executor", "ProcessSupervisor"]
    );
    assert_eq!(reason["excess_us"], 20_120 - 132);
    assert_eq!(reason["unusual"], true);
}

#[test]
fn the_usual_of_a_program_is_taken_from_earlier_calls_of_the_same_program_only() {
    let dir = tempdir().unwrap();
    let mut file = TraceFile::open(dir.path(), Harness).unwrap();
    let mut write = |id: u8, call: &Call, program: &str| {
        for (role, mut one) in call.spans() {
            one.trace_id = [id; 16];
            for (key, value) in &mut one.attributes {
                if key == semconv::PROCESS_EXECUTABLE_NAME {
                    *value = Value::Str(program.to_owned().into());
                }
            }
            file.append(&Resource::new(role, "test"), &[one]).unwrap();
        }
    };
    for id in 1..=6 {
        write(id, &USUAL, "sh");
    }
    let other = Call { spawn: 9, ..USUAL };
    for id in 11..=30 {
        write(id, &other, "true");
    }
    let slow = Call {
        spawn: USUAL.spawn + DELAY,
        ..USUAL
    };
    write(40, &slow, "sh");
    write(41, &slow, "sh");
    let of = |id: u8| {
        let trace = dwell_actors::trace_file::find_trace(dir.path(), dwell_messages::TraceId([id; 16]))
            .unwrap()
            .unwrap();
        let baseline = Baseline::load(dir.path(), &trace).unwrap();
        (baseline.calls(), explain(&trace, &baseline))
    };
    let (calls, explained) = of(40);
    assert_eq!(calls, 6, "what came later is not among them");
    assert_eq!(explained.reasons[0].cause, Cause::Spawn);
    assert_eq!(explained.reasons[0].usual_us, Some(USUAL.spawn));
    assert_eq!(of(1).0, 0);
}

fn any_call() -> impl Strategy<Value = Call> {
    let times = proptest::array::uniform11(0..50_000_u64);
    times.prop_map(|t| Call {
        mailbox: t[0],
        supervisor: t[1],
        send: t[2],
        framer: t[3],
        spawn: t[4],
        run: t[5],
        drain: t[6],
        news: t[7],
        transit: t[8],
        relay: t[9],
        apply: t[10],
        spool: 0,
    })
}

fn check(explained: &Explanation) -> Result<(), TestCaseError> {
    let waited: u64 = explained
        .reasons
        .iter()
        .filter(|reason| !reason.cause.is_beside())
        .map(|reason| reason.us)
        .sum();
    prop_assert!(waited <= explained.total_us, "no part is counted twice");
    let unusual: Vec<_> = explained.reasons.iter().map(|reason| reason.unusual).collect();
    prop_assert!(
        unusual.is_sorted_by(|first, second| first >= second),
        "the unusual come first"
    );
    render(explained, false);
    to_json(explained);
    Ok(())
}

proptest! {
    #[test]
    fn whatever_a_call_looks_like_its_reasons_claim_no_more_than_there_was(call in any_call()) {
        check(&explain(&call.trace(), &usual()))?;
        check(&explain(&call.trace(), &Baseline::none()))?;
    }

    #[test]
    fn a_delay_is_named_first_however_long_the_rest_of_the_call_takes(run in 0..3_000_000_u64, which in 0..4_usize) {
        let calm = Call { run, ..USUAL };
        let baseline = Baseline::of(&vec![calm.trace(); 7]);
        // Large enough to be remarkable beside the whole call.
        let delay = DELAY + run / 5;
        let (slow, expected) = [
            (Call { mailbox: calm.mailbox + delay, supervisor: delay, ..calm.clone() }, supervisor()),
            (Call { spawn: calm.spawn + delay, ..calm.clone() }, Cause::Spawn),
            (Call { transit: calm.transit + delay, relay: calm.relay + delay, ..calm.clone() }, Cause::Relay),
            (Call { run: calm.run + delay, ..calm }, Cause::Command { blocked_us: 0 }),
        ][which].clone();
        prop_assert_eq!(&explain(&slow.trace(), &baseline).reasons[0].cause, &expected);
    }
}
