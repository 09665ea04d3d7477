use std::fs;

use dwell_actors::trace_export::{Format, export};
use dwell_actors::trace_file::{Trace, read_traces};
use dwell_messages::Role::{Executor, Harness};
use dwell_messages::{Role, SpanKind, Value as Attribute};
use proptest::prelude::*;
use serde_json::Value;
use tempfile::tempdir;

use crate::spans::{BEGIN_NS, call, span, trace};

const FORMATS: [Format; 4] = [
    Format::OtlpJson,
    Format::JaegerJson,
    Format::Perfetto,
    Format::Html,
];

fn json(trace: &Trace, format: Format) -> Value {
    serde_json::from_str(&export(trace, format)).unwrap()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

/// A call with every kind of attribute.
fn rich() -> Trace {
    let mut call = call();
    let root = &mut call.spans[0].1;
    root.kind = SpanKind::Client;
    root.attributes.extend([
        ("b".into(), Attribute::Bool(true)),
        ("nan".into(), Attribute::F64(f64::NAN)),
        ("half".into(), Attribute::F64(0.5)),
        ("text".into(), Attribute::Str("a\"b".into())),
    ]);
    call
}

#[test]
fn an_otlp_export_is_one_object_with_a_resource_a_role_and_reads_back_as_it_was() {
    let call = rich();
    let document = json(&call, Format::OtlpJson);
    let roles: Vec<_> = list(&document["resourceSpans"])
        .iter()
        .map(|batch| {
            batch["resource"]["attributes"][1]["value"]["stringValue"]
                .as_str()
                .unwrap()
        })
        .collect();
    assert_eq!(roles, ["harness", "executor", "relay"]);
    let root = &document["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
    assert_eq!(root["traceId"], "ab".repeat(16));
    assert_eq!(root["startTimeUnixNano"], BEGIN_NS.to_string());
    assert_eq!(root["kind"], 3);

    let dir = tempdir().unwrap();
    let path = dir.path().join("one.jsonl");
    fs::write(&path, export(&call, Format::OtlpJson)).unwrap();
    let lines: Vec<_> = read_traces(&path).unwrap().collect::<Result<_, _>>().unwrap();
    let mut read: Vec<_> = lines
        .iter()
        .flat_map(|line| {
            line.spans
                .iter()
                .map(|span| format!("{:?} {span:?}", line.resource.role))
        })
        .collect();
    let mut written: Vec<_> = call
        .spans
        .iter()
        .map(|(role, span)| format!("{role:?} {span:?}"))
        .collect();
    read.sort();
    written.sort();
    assert_eq!(read, written);
    assert_eq!(lines[1].resource.clock(), Some(call.offsets[0].1));
}

#[test]
fn a_jaeger_export_has_the_shape_that_its_upload_takes() {
    let document = json(&rich(), Format::JaegerJson);
    let data = &document["data"][0];
    assert_eq!(data["traceID"], "ab".repeat(16));
    let spans = list(&data["spans"]);
    assert_eq!(spans.len(), rich().spans.len());
    let root = &spans[0];
    assert_eq!(root["startTime"], BEGIN_NS / 1_000);
    assert_eq!(root["duration"], 4_200);
    assert_eq!(root["references"], serde_json::json!([]));
    let tag = |key: &str| {
        let tags = list(&root["tags"]).iter();
        tags.clone().find(|tag| tag["key"] == key).cloned().unwrap()
    };
    assert_eq!(tag("span.kind")["value"], "client");
    assert_eq!(
        tag("b"),
        serde_json::json!({ "key": "b", "type": "bool", "value": true })
    );
    assert_eq!(tag("nan")["type"], "string");
    assert_eq!(tag("chain.harness.dispatch_us")["type"], "int64");
    assert_eq!(
        spans[1]["references"],
        serde_json::json!([{ "refType": "CHILD_OF", "traceID": "ab".repeat(16), "spanID": "01".repeat(8) }])
    );
    let failed = spans
        .iter()
        .find(|span| span["operationName"] == "stderr reader")
        .unwrap();
    let error = list(&failed["tags"])
        .iter()
        .find(|tag| tag["key"] == "error")
        .unwrap();
    assert_eq!(error["value"], true);
    for span in spans {
        let process = &data["processes"][span["processID"].as_str().unwrap()];
        assert!(process["serviceName"].as_str().unwrap().starts_with("dwell-"));
    }
}

#[test]
fn a_perfetto_export_has_a_process_a_role_and_spans_of_one_thread_that_nest() {
    let document = json(&call(), Format::Perfetto);
    let events = list(&document["traceEvents"]);
    let names: Vec<_> = events
        .iter()
        .filter(|event| event["name"] == "process_name")
        .map(|event| event["args"]["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["dwell-harness", "dwell-executor", "dwell-relay"]);
    let spans: Vec<_> = events.iter().filter(|event| event["ph"] == "X").collect();
    assert_eq!(spans.len(), call().spans.len());
    let number = |event: &Value, key: &str| event[key].as_f64().unwrap();
    for (index, one) in spans.iter().enumerate() {
        for other in &spans[..index] {
            if (&one["pid"], &one["tid"]) != (&other["pid"], &other["tid"]) {
                continue;
            }
            let (from, to) = (number(one, "ts"), number(one, "ts") + number(one, "dur"));
            let (others_from, others_to) = (number(other, "ts"), number(other, "ts") + number(other, "dur"));
            let apart = to <= others_from || others_to <= from;
            let nested = (from >= others_from && to <= others_to) || (others_from >= from && others_to <= to);
            assert!(apart || nested, "{one} {other}");
        }
    }
    // The executor's clock is half a second ahead; on the one time line its spans stand in their caller's.
    let process = spans.iter().find(|event| event["name"] == "process").unwrap();
    assert_eq!(number(process, "ts"), 640.0);
    assert!(spans.iter().any(|event| event["cat"] == "mailbox"));
}

#[test]
fn a_page_has_the_rows_of_the_picture_and_loads_nothing() {
    let page = export(&call(), Format::Html);
    let data = data_of(&page);
    assert_eq!(list(&data["rows"]).len(), call().spans.len());
    assert!(
        list(&data["critical_path"])
            .iter()
            .any(|step| step["name"] == "spawn")
    );
    assert_eq!(data["account"]["sum_us"], 4_165);
    for outside in [
        "http:", "https:", "//", "src=", "url(", "@import", "<link", "<img", "<iframe",
    ] {
        let allowed =
            page.matches(outside).count() == page.matches(&format!("{outside} ")).count() && outside == "//";
        assert!(!page.contains(outside) || allowed, "{outside} is in the page");
    }
}

/// The data in a page, as its script reads them.
fn data_of(page: &str) -> Value {
    let (_, rest) = page
        .split_once(r#"<script type="application/json" id="trace">"#)
        .unwrap();
    serde_json::from_str(rest.split_once("</script>").unwrap().0).unwrap()
}

#[test]
fn the_policy_names_the_script_and_the_style_that_are_in_the_page() {
    let page = export(&call(), Format::Html);
    let between = |open: &str, close: &str| {
        page.split_once(open)
            .unwrap()
            .1
            .split_once(close)
            .unwrap()
            .0
            .to_owned()
    };
    let policy = between("Content-Security-Policy\" content=\"", "\"");
    assert!(policy.starts_with("default-src 'none'; "), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    for text in [between("<style>", "</style>"), between("<script>", "</script>")] {
        let hash = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
        let expected = format!("'sha256-{}'", base64(hash.as_ref()));
        assert!(
            policy.contains(&expected),
            "put {expected} into trace_export/html.rs"
        );
    }
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk
            .iter()
            .fold(0_u32, |word, byte| word << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for digit in 0..=chunk.len() {
            text.push(char::from(ALPHABET[(word >> (18 - 6 * digit)) as usize & 63]));
        }
    }
    text.extend(std::iter::repeat_n('=', 3 - (bytes.len() + 2) % 3 - 1));
    text
}

#[test]
fn a_hostile_name_stays_text_in_the_page() {
    let evil = "</script><script>alert(1)</script><img src=x onerror=alert(2)><!--";
    let mut root = span(1, 0, evil, 0, 100);
    root.error = Some(evil.into());
    root.attributes.push((evil.into(), Attribute::Str(evil.into())));
    let hostile = trace(vec![(Harness, root), (Executor, span(2, 9, evil, 1, 5))]);
    let page = export(&hostile, Format::Html);
    let calm = export(&call(), Format::Html);
    for element in ["<script", "</script", "<img", "<!--", "<"] {
        assert_eq!(
            page.matches(element).count(),
            calm.matches(element).count(),
            "{element}"
        );
    }
    assert_eq!(data_of(&page)["rows"][0]["name"], evil);
    assert_eq!(data_of(&page)["attributes"]["0101010101010101"][0][1], evil);
}

#[test]
fn a_trace_without_spans_is_an_empty_document_of_each_format() {
    let empty = trace(Vec::new());
    assert_eq!(
        json(&empty, Format::OtlpJson)["resourceSpans"],
        serde_json::json!([])
    );
    assert_eq!(
        json(&empty, Format::JaegerJson)["data"][0]["spans"],
        serde_json::json!([])
    );
    assert_eq!(
        json(&empty, Format::Perfetto)["traceEvents"],
        serde_json::json!([])
    );
    assert_eq!(
        data_of(&export(&empty, Format::Html))["rows"],
        serde_json::json!([])
    );
}

proptest! {
    #[test]
    fn whatever_is_in_a_trace_every_format_is_well_formed(
        spans in proptest::collection::vec((0..9_u8, 0..9_u8, any::<u64>(), any::<u64>(), ".{0,12}", any::<f64>()), 0..20)
    ) {
        let spans = spans.into_iter().enumerate().map(|(index, (id, parent, start, end, text, float))| {
            let mut one = span(id, parent, &text, 0, 1);
            (one.start_unix_ns, one.end_unix_ns) = (start, end);
            one.attributes.push((text.into(), Attribute::F64(float)));
            ([Harness, Executor, Role::Relay][index % 3], one)
        });
        let wild = trace(spans.collect());
        for format in FORMATS {
            let text = export(&wild, format);
            let data = if format == Format::Html { data_of(&text) } else { serde_json::from_str(&text).unwrap() };
            prop_assert!(data.is_object());
        }
    }
}
