use dwell_actors::trace_file::{ClockOffset, Trace};
use dwell_actors::waterfall::{Options, render, to_json};
use dwell_messages::Role::{Executor, Harness};
use proptest::prelude::*;

use crate::golden::assert_golden;
use crate::spans::{call, span, trace, with_segments};

const PLAIN: Options = Options {
    width: 100,
    color: false,
    ascii: false,
};

fn plain(trace: &Trace) -> String {
    render(trace, &PLAIN)
}

fn line<'a>(text: &'a str, needle: &str) -> &'a str {
    text.lines()
        .find(|line| line.contains(needle))
        .unwrap_or_else(|| panic!("no {needle} in\n{text}"))
}

#[test]
fn a_call_is_drawn_as_it_was_agreed() {
    assert_golden("call_plain_100.txt", &plain(&call()));
}

#[test]
fn a_call_is_drawn_in_ascii_at_the_least_width() {
    let text = render(
        &call(),
        &Options {
            width: 10,
            color: false,
            ascii: true,
        },
    );
    assert!(text.is_ascii());
    assert_golden("call_ascii_60.txt", &text);
}

#[test]
fn the_json_form_says_the_same() {
    let json = serde_json::to_string_pretty(&to_json(&call())).unwrap();
    assert_golden("call.json", &(json + "\n"));
}

#[test]
fn plain_output_has_no_escape_sequence_and_coloured_output_has_the_same_text() {
    let coloured = render(&call(), &Options { color: true, ..PLAIN });
    assert!(!plain(&call()).contains('\x1b'));
    assert!(coloured.contains('\x1b'));
    let mut stripped = String::new();
    for (index, part) in coloured.split("\x1b[").enumerate() {
        stripped.push_str(if index == 0 {
            part
        } else {
            part.split_once('m').unwrap().1
        });
    }
    assert_eq!(stripped, plain(&call()));
}

#[test]
fn an_executors_spans_are_moved_by_its_clocks_offset_and_the_error_is_shown() {
    let json = to_json(&call());
    let start = json["rows"]
        .as_array()
        .unwrap()
        .iter()
        .find(|row| row["name"] == "process")
        .unwrap();
    assert_eq!(start["start_us"], 640.0);
    assert!(plain(&call()).contains("+500000 µs ± 40 µs"));
}

#[test]
fn a_row_of_another_machine_says_how_far_it_may_be_off_and_those_below_it_do_not() {
    let text = plain(&call());
    assert!(line(&text, "Executor/StartProcess").contains("±40 µs"));
    assert!(!line(&text, "spawn").contains('±'));
    let json = to_json(&call());
    let of = |name: &str| {
        let rows = json["rows"].as_array().unwrap();
        rows.iter().find(|row| row["name"] == name).unwrap()["clock_error_us"].clone()
    };
    assert_eq!(of("Executor/StartProcess"), 40);
    assert!(of("spawn").is_null() && of("rpc").is_null());
}

#[test]
fn the_rows_that_the_end_waited_for_are_marked_and_make_up_the_whole() {
    let text = plain(&call());
    for on_path in [
        "H◆  call",
        "H◆  └ rpc",
        "E◆      └ process",
        "spawn",
        "exit watcher",
    ] {
        assert!(
            line(&text, on_path).contains('◆'),
            "{on_path} is not marked in\n{text}"
        );
    }
    assert!(
        !line(&text, "stdout reader").contains('◆'),
        "it ran on beside the exit"
    );
    let json = to_json(&call());
    let path = json["critical_path"].as_array().unwrap();
    let total: f64 = path
        .iter()
        .map(|step| step["duration_us"].as_f64().unwrap())
        .sum();
    assert_eq!(total, 4_200.0);
    let rows = json["rows"].as_array().unwrap();
    let own: f64 = rows.iter().map(|row| row["critical_us"].as_f64().unwrap()).sum();
    assert_eq!(own, 4_200.0);
}

#[test]
fn a_wait_for_another_machine_is_explained_by_what_that_did_meanwhile() {
    let json = to_json(&trace(vec![
        (Harness, span(1, 0, "call", 0, 1_000)),
        (Harness, span(2, 1, "response wait", 100, 800)),
        (Executor, span(3, 1, "Environment/Info", 300, 400)),
    ]));
    let path: Vec<_> = json["critical_path"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| {
            (
                step["name"].as_str().unwrap(),
                step["duration_us"].as_f64().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        path,
        [
            ("call", 100.0),
            ("response wait", 200.0),
            ("Environment/Info", 400.0),
            ("response wait", 200.0),
            ("call", 100.0),
        ]
    );
}

#[test]
fn what_begins_when_its_parent_has_ended_is_what_the_parents_caller_waited_for() {
    let json = to_json(&trace(vec![
        (Harness, span(1, 0, "call", 0, 1_000)),
        (Harness, span(2, 1, "process", 0, 700)),
        (Harness, span(3, 2, "terminal delivery", 800, 200)),
    ]));
    let path: Vec<_> = json["critical_path"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| {
            (
                step["name"].as_str().unwrap(),
                step["duration_us"].as_f64().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        path,
        [("process", 700.0), ("call", 100.0), ("terminal delivery", 200.0)]
    );
}

#[test]
fn of_many_rows_of_another_machine_below_one_caller_only_the_first_says_how_sure_it_is() {
    let clock = ClockOffset {
        offset_us: 0,
        error_us: 7,
    };
    let two = Trace {
        offsets: vec![(Executor, clock)],
        ..trace(vec![
            (Harness, span(1, 0, "call", 0, 1_000)),
            (Executor, span(2, 1, "one", 100, 100)),
            (Executor, span(3, 1, "two", 300, 100)),
            (Harness, span(4, 3, "three", 310, 50)),
        ])
    };
    let text = plain(&two);
    assert!(line(&text, "one").contains("±7 µs"));
    assert!(!line(&text, "two").contains('±') && !line(&text, "three").contains('±'));
}

#[test]
fn a_wait_in_a_mailbox_has_a_colour_and_a_fill_of_its_own() {
    let coloured = render(&call(), &Options { color: true, ..PLAIN });
    let wait = line(&coloured, "mailbox RelayFramer");
    assert!(wait.contains("\x1b[33m") && wait.contains('░'), "{wait}");
    let others = coloured
        .lines()
        .filter(|line| line.contains("response wait") || line.contains("turn "));
    assert!(others.clone().count() > 0);
    assert!(others.into_iter().all(|line| !line.contains("\x1b[33m")));
}

#[test]
fn without_a_clock_a_far_off_executor_is_drawn_in_the_middle_of_its_caller_and_said_to_be() {
    let far = trace(vec![
        (Harness, span(1, 0, "call", 0, 1_000)),
        (Executor, span(2, 1, "Executor/StartProcess", 900_000_000, 600)),
        (Executor, span(3, 2, "process", 900_000_100, 200)),
    ]);
    let json = to_json(&far);
    assert_eq!(json["rows"][1]["start_us"], 200.0);
    assert_eq!(json["rows"][2]["start_us"], 300.0);
    assert!(plain(&far).contains("the executor's clock is not known"));
    assert!(line(&plain(&far), "Executor/StartProcess").contains("±?"));
    assert_eq!(json["rows"][1]["clock_unknown"], true);
}

#[test]
fn without_a_clock_spans_that_fit_their_caller_stay_where_they_are() {
    let near = trace(vec![
        (Harness, span(1, 0, "call", 0, 1_000)),
        (Executor, span(2, 1, "Executor/StartProcess", 100, 600)),
    ]);
    let json = to_json(&near);
    assert_eq!(json["rows"][1]["start_us"], 100.0);
    assert_eq!(json["warnings"].as_array().unwrap().len(), 0);
}

#[test]
fn more_than_twelve_siblings_of_one_name_are_one_row_with_count_and_total() {
    let with = |count: u8| {
        let mut spans = vec![(Harness, span(1, 0, "call", 0, 1_000))];
        spans.extend((0..count).map(|n| (Harness, span(10 + n, 1, "mailbox X", i64::from(n) * 20, 10))));
        spans.push((Harness, span(200, 10, "turn Y", 2, 5)));
        trace(spans)
    };
    assert_eq!(plain(&with(12)).matches("mailbox X").count(), 12);
    let folded = plain(&with(13));
    assert_eq!(folded.matches("mailbox X").count(), 1);
    let row = line(&folded, "mailbox X");
    assert!(row.contains("×13 (+1 below)") && row.contains("130 µs"), "{row}");
    assert!(!folded.contains("turn Y"));
}

#[test]
fn spans_without_their_parent_stand_at_the_end_under_a_warning() {
    let text = plain(&trace(vec![
        (Executor, span(7, 9, "spawn", 100, 10)),
        (Executor, span(8, 7, "fork", 101, 5)),
        (Harness, span(1, 0, "call", 0, 1_000)),
    ]));
    let (tree, orphans) = text.split_once("orphans\n").unwrap();
    assert!(tree.contains("call") && !tree.contains("spawn"));
    assert!(orphans.contains("spawn") && orphans.contains("└ fork"));
    assert!(orphans.contains("! 1 span's parent is not in this trace"));
}

#[test]
fn a_call_below_an_inherited_parent_is_the_root_and_no_orphan() {
    let text = plain(&trace(vec![
        (Harness, span(1, 77, "call", 0, 1_000)),
        (Harness, span(2, 1, "rpc", 0, 900)),
    ]));
    assert!(!text.contains("orphans"));
    assert!(text.starts_with("call 1000 µs"));
}

#[test]
fn spans_that_are_each_others_parents_are_orphans_and_no_loop() {
    let text = plain(&trace(vec![
        (Harness, span(1, 0, "call", 0, 1_000)),
        (Harness, span(2, 3, "two", 0, 10)),
        (Harness, span(3, 2, "three", 0, 10)),
        (Harness, span(4, 4, "four", 0, 10)),
    ]));
    let orphans = text.split_once("orphans\n").unwrap().1;
    assert!(
        ["two", "three", "four"].iter().all(|name| orphans.contains(name)),
        "{text}"
    );
}

#[test]
fn the_account_adds_up_and_the_rest_is_unattributed() {
    let root = with_segments(
        span(1, 0, "call", 0, 1_000),
        &[("harness.encode", 100), ("executor.run", 850)],
    );
    let json = to_json(&trace(vec![(Harness, root)]));
    assert_eq!(json["account"]["sum_us"], 950);
    assert_eq!(json["account"]["unattributed_us"], 50.0);
    assert_eq!(
        json["account"]["machines"][1]["segments"][0]["share_percent"],
        85.0
    );
}

#[test]
fn a_machines_total_gives_its_own_unattributed_time() {
    let segments = [("executor.run", 850), ("executor.total", 870)];
    let json = to_json(&trace(vec![(
        Harness,
        with_segments(span(1, 0, "call", 0, 1_000), &segments),
    )]));
    assert_eq!(json["account"]["machines"][0]["unattributed_us"], 20);
    assert_eq!(json["account"]["sum_us"], 850);
}

#[test]
fn segments_that_claim_more_than_there_was_show_a_negative_rest() {
    let root = with_segments(span(1, 0, "call", 0, 1_000), &[("harness.encode", 1_300)]);
    let text = plain(&trace(vec![(Harness, root)]));
    assert!(line(&text, "unattributed").contains("-300 µs"));
}

#[test]
fn without_segments_there_is_no_account() {
    let bare = trace(vec![(Harness, span(1, 0, "call", 0, 1_000))]);
    assert!(to_json(&bare)["account"].is_null());
    assert!(!plain(&bare).contains("unattributed"));
}

#[test]
fn a_name_cannot_steer_the_terminal() {
    let evil = "\x1b[2Jx\u{202e}y\n\u{200b}界";
    let mut span = span(1, 0, evil, 0, 10);
    span.error = Some("\x1b]0;t\x07".into());
    let text = plain(&trace(vec![(Executor, span)]));
    assert!(
        !text.contains('\x1b')
            && !text.contains('\u{202e}')
            && !text.contains('界')
            && !text.contains('\x07')
    );
}

#[test]
fn durations_change_their_unit_at_ten_milliseconds() {
    let shown = |us: u64| {
        plain(&trace(vec![(Harness, span(1, 0, "call", 0, us))]))
            .lines()
            .next()
            .unwrap()
            .to_owned()
    };
    assert!(shown(9_999).starts_with("call 9999 µs"));
    assert!(shown(10_001).starts_with("call 10.001 ms"));
    assert!(shown(12_000_001).starts_with("call 12.000001 s"));
    assert!(shown(0).starts_with("call 0 µs"));
}

#[test]
fn a_trace_without_spans_says_so() {
    let empty = trace(Vec::new());
    assert!(plain(&empty).contains("has no spans"));
    assert!(to_json(&empty)["root"].is_null());
}

#[test]
fn a_chain_of_twenty_thousand_spans_is_drawn_without_overflow() {
    let id = |n: u32| {
        let mut id = [0; 8];
        id[..4].copy_from_slice(&n.to_le_bytes());
        id
    };
    let chain = (1..20_000).map(|n| {
        let mut link = span(0, 0, "link", 0, 100);
        (link.span_id, link.parent) = (id(n), id(n - 1));
        (Harness, link)
    });
    let text = plain(&trace(chain.collect()));
    assert!(text.contains("14999 rows are not shown"));
}

#[test]
fn what_was_left_out_is_said() {
    let short = Trace {
        omitted_spans: 3,
        unread_lines: 1,
        ..trace(vec![(Harness, span(1, 0, "call", 0, 10))])
    };
    let text = plain(&short);
    assert!(
        text.contains("! 3 spans were left out")
            && text.contains("! 1 line of the trace files could not be read")
    );
}

fn any_trace() -> impl Strategy<Value = Trace> {
    let one = (
        any::<u8>(),
        0..12_u8,
        0..8_u8,
        -2_000_000_000_000_i64..2_000_000_000_000,
        0..1_000_000_000_000_u64,
    );
    proptest::collection::vec(one, 0..60).prop_map(|spans| {
        let spans = spans.into_iter().map(|(role, id, parent, start, length)| {
            let role = [Harness, Executor, dwell_messages::Role::Relay][usize::from(role) % 3];
            (
                role,
                span(
                    id,
                    parent,
                    ["call", "mailbox A", "turn B", "é"][usize::from(id) % 4],
                    start,
                    length,
                ),
            )
        });
        trace(spans.collect())
    })
}

proptest! {
    #[test]
    fn any_trace_draws_rows_of_exactly_the_width_asked_for(trace in any_trace(), width in 60..160_usize, ascii: bool) {
        let text = render(&trace, &Options { width, color: false, ascii });
        let rows = text.lines().skip(2).take_while(|line| !line.contains(" on the critical path: "));
        for row in rows.filter(|row| !row.is_empty() && *row != "orphans") {
            prop_assert_eq!(row.chars().count(), width, "{}", row);
        }
        to_json(&trace);
    }

    #[test]
    fn extreme_times_draw_something(start in any::<u64>(), end in any::<u64>(), other in any::<u64>()) {
        let mut root = span(1, 0, "call", 0, 1);
        (root.start_unix_ns, root.end_unix_ns) = (start, end);
        let mut child = span(2, 1, "rpc", 0, 1);
        (child.start_unix_ns, child.end_unix_ns) = (other, u64::MAX);
        let trace = trace(vec![(Harness, root), (Executor, child)]);
        prop_assert!(plain(&trace).contains("rpc"));
    }
}
