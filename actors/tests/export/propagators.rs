//! Every format, both ways, alone and together, and everything that is none.

use std::collections::BTreeMap;

use dwell_actors::harness::Command;
use dwell_actors::propagation::{
    AllowList, BAGGAGE_MAX_BYTES, BAGGAGE_MEMBERS_MAX, Baggage, BaggageError, Chosen, Format, Propagators,
    environment_name,
};
use dwell_messages::{SpanId, TraceContext, TraceFlags, TraceId};
use proptest::prelude::*;

use crate::support::{Ends, Kept, context};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";

fn chosen(text: Option<&str>) -> Chosen {
    Propagators::from_lookup(|name| {
        (name == "OTEL_PROPAGATORS")
            .then(|| text.map(str::to_owned))
            .flatten()
    })
}

#[test]
fn the_variable_names_formats_once_each_in_order_and_what_is_not_known_is_one_warning() {
    let table = [
        (None, "tracecontext,baggage", false),
        (Some(""), "tracecontext,baggage", false),
        (Some(" , "), "tracecontext,baggage", false),
        (Some("tracecontext"), "tracecontext", false),
        (Some("jaeger"), "jaeger", false),
        (Some("jaeger, tracecontext,jaeger"), "jaeger,tracecontext", false),
        (Some("baggage,baggage"), "baggage", false),
        (Some("none"), "none", false),
        (Some("none,jaeger"), "jaeger", true),
        (Some("b3,jaeger,xray"), "jaeger", true),
        (Some("b3"), "tracecontext,baggage", true),
        (Some("TraceContext"), "tracecontext,baggage", true),
    ];
    for (text, expected, warned) in table {
        let chosen = chosen(text);
        assert_eq!(chosen.propagators.to_string(), expected, "{text:?}");
        assert_eq!(chosen.problem.is_some(), warned, "{text:?}: {:?}", chosen.problem);
    }
    // However much of it is wrong.
    let problem = chosen(Some("b3,xray,ottrace")).problem.unwrap();
    assert!(problem.contains("3 of 3 names"), "{problem}");
}

/// A carrier, as text maps are.
fn read(propagators: &str, fields: &[(&str, &str)]) -> (Option<String>, Vec<&'static str>) {
    let extracted = chosen(Some(propagators)).propagators.extract(
        |name| {
            let found = fields.iter().find(|(known, _)| *known == name);
            found.map(|(_, text)| (*text).to_owned())
        },
        &AllowList::nothing(),
    );
    assert!(extracted.context.as_ref().is_none_or(TraceContext::is_remote));
    (
        extracted.context.map(|context| context.to_traceparent()),
        extracted.malformed,
    )
}

#[test]
fn every_format_is_read_as_it_is_defined_and_nothing_malformed_is_a_parent() {
    const W3C: &str = "traceparent";
    const JAEGER: &str = "uber-trace-id";
    let good = format!("00-{TRACE}-{SPAN}-01");
    let other = format!("00-{}-{SPAN}-01", "1".repeat(32));
    let short = "00-00000000000000000000000000000abc-0000000000000def-01";
    let zeroes = ["0".repeat(32), "0".repeat(16)];
    // Propagators, field, its text, and the parent.
    let table: Vec<(&str, &str, String, Option<String>)> = vec![
        ("tracecontext", W3C, good.clone(), Some(good.clone())),
        ("jaeger", W3C, good.clone(), None),
        ("none", W3C, good.clone(), None),
        ("baggage", W3C, good.clone(), None),
        ("tracecontext", W3C, format!("ff-{TRACE}-{SPAN}-01"), None),
        (
            "tracecontext",
            W3C,
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            None,
        ),
        ("tracecontext", W3C, format!("00-{TRACE}-{SPAN}-01-more"), None),
        ("tracecontext", W3C, format!("00-{TRACE}-{SPAN}"), None),
        ("tracecontext", W3C, format!("00-{TRACE}-{SPAN}-0g"), None),
        ("tracecontext", W3C, format!("00-{}-{SPAN}-01", zeroes[0]), None),
        ("tracecontext", W3C, format!("00-{TRACE}-{}-01", zeroes[1]), None),
        ("tracecontext", W3C, "0".repeat(1 << 20), None),
        (
            "jaeger",
            JAEGER,
            format!("{TRACE}:{SPAN}:0:1"),
            Some(good.clone()),
        ),
        (
            "jaeger",
            JAEGER,
            format!("{TRACE}%3A{SPAN}%3a0%3A1"),
            Some(good.clone()),
        ),
        (
            "jaeger",
            JAEGER,
            format!("{TRACE}:{SPAN}:{SPAN}:3"),
            Some(good.clone()),
        ),
        ("jaeger", JAEGER, format!("{TRACE}:{SPAN}::1"), Some(good.clone())),
        (
            "jaeger",
            JAEGER,
            format!("{TRACE}:{SPAN}:0:b"),
            Some(good.clone()),
        ),
        (
            "jaeger",
            JAEGER,
            format!("{TRACE}:{SPAN}:0:09"),
            Some(good.clone()),
        ),
        ("jaeger", JAEGER, "abc:def:0:1".into(), Some(short.into())),
        (
            "jaeger",
            JAEGER,
            format!("{TRACE}:{SPAN}:0:0"),
            Some(good.replace("-01", "-00")),
        ),
        (
            "jaeger",
            JAEGER,
            format!("{TRACE}:{SPAN}:0:8"),
            Some(good.replace("-01", "-00")),
        ),
        ("tracecontext", JAEGER, format!("{TRACE}:{SPAN}:0:1"), None),
        ("none", JAEGER, format!("{TRACE}:{SPAN}:0:1"), None),
        ("jaeger", JAEGER, format!("{}:{SPAN}:0:1", zeroes[0]), None),
        ("jaeger", JAEGER, format!("{TRACE}:0:0:1"), None),
        ("jaeger", JAEGER, format!("{TRACE}:{SPAN}:0"), None),
        ("jaeger", JAEGER, format!("{TRACE}:{SPAN}:0:1:"), None),
        ("jaeger", JAEGER, format!("{TRACE}:{SPAN}:0:100"), None),
        ("jaeger", JAEGER, format!("{TRACE}:{SPAN}:0:+1"), None),
        ("jaeger", JAEGER, format!("+1:{SPAN}:0:1"), None),
        ("jaeger", JAEGER, format!("{TRACE}0:{SPAN}:0:1"), None),
        ("jaeger", JAEGER, format!("{TRACE}:{SPAN}0:0:1"), None),
        ("jaeger", JAEGER, format!("{TRACE}:{SPAN}:zz:1"), None),
        ("jaeger", JAEGER, format!("{}é:{SPAN}:0:1", &TRACE[2..]), None),
        ("jaeger", JAEGER, ":".repeat(1 << 20), None),
        (
            "jaeger,tracecontext",
            JAEGER,
            format!("{TRACE}:{SPAN}:0:1"),
            Some(good.clone()),
        ),
        ("jaeger,tracecontext", W3C, good.clone(), Some(good.clone())),
    ];
    for (propagators, field, text, expected) in table {
        let (context, malformed) = read(propagators, &[(field, &text)]);
        let shown = &text[..text.floor_char_boundary(80)];
        assert_eq!(context, expected, "{propagators} of {field}: {shown}");
        let spoken = propagators.contains(if field == W3C { "tracecontext" } else { "jaeger" });
        let expected: &[&str] = if spoken && context.is_none() {
            &[field]
        } else {
            &[]
        };
        assert_eq!(malformed, expected, "{propagators} of {field}: {shown}");
    }
    // Nothing there is nothing wrong.
    assert_eq!(read("tracecontext,jaeger", &[]), (None, vec![]));
    assert_eq!(
        read("tracecontext,jaeger", &[(W3C, " "), (JAEGER, "")]),
        (None, vec![])
    );
    // Both there: the later format counts, and a malformed one does not undo the other.
    let jaeger = format!("{TRACE}:{SPAN}:0:1");
    let both = [(W3C, other.as_str()), (JAEGER, jaeger.as_str())];
    assert_eq!(read("tracecontext,jaeger", &both).0.as_ref(), Some(&good));
    assert_eq!(read("jaeger,tracecontext", &both).0.as_ref(), Some(&other));
    let half = [(W3C, other.as_str()), (JAEGER, "nonsense")];
    assert_eq!(
        read("tracecontext,jaeger", &half),
        (Some(other.clone()), vec![JAEGER])
    );
}

#[test]
fn baggage_of_jaegers_that_is_no_tracestate_leaves_the_parent() {
    let text = format!("{TRACE}:{SPAN}:0:1");
    let fields = [
        ("uber-trace-id", text.as_str()),
        ("uberctx-UPPER", "a,b=c"),
        ("uberctx-tenant", "blue green"),
    ];
    let get = |name: &str| {
        fields
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, text)| (*text).to_owned())
    };
    let jaeger = Propagators::new([Format::Jaeger]);
    let extracted = jaeger.extract(get, &AllowList::names(["tenant"]));
    let context = extracted.context.unwrap();
    assert_eq!(
        (context.trace_id.to_string().as_str(), context.state),
        (TRACE, None)
    );
    assert_eq!(extracted.baggage.to_string(), "tenant=blue%20green");
    assert_eq!(
        jaeger.extract(get, &AllowList::nothing()).baggage,
        Baggage::default()
    );
}

#[test]
fn too_much_tracestate_is_cut_and_the_parent_stays() {
    let parent = format!("00-{TRACE}-{SPAN}-01");
    let members: Vec<_> = (0..40).map(|n| format!("k{n}=v")).collect();
    let table = [
        (members.join(","), Some(members[..32].join(","))),
        (format!("a=1,b={}", "v".repeat(600)), None),
        (
            format!("a={},b={},c=1", "v".repeat(250), "v".repeat(256)),
            // 511 bytes without the last member.
            Some(format!("a={},b={}", "v".repeat(250), "v".repeat(256))),
        ),
        ("a=1,a=2".into(), None),
        ("x".repeat(1 << 20), None),
        (vec!["k=v"; 1 << 18].join(","), None),
        ("a=1".into(), Some("a=1".into())),
    ];
    for (state, expected) in table {
        let get = |name: &str| match name {
            "traceparent" => Some(parent.clone()),
            "tracestate" => Some(state.clone()),
            _ => None,
        };
        let extracted = Propagators::default().extract(get, &AllowList::nothing());
        let context = extracted.context.expect("the parent stays");
        assert_eq!(context.to_traceparent(), parent);
        let kept = context.state.map(|state| state.as_str().to_owned());
        assert_eq!(kept, expected, "{}", &state[..state.len().min(60)]);
    }
}

fn write(propagators: &str, context: &TraceContext, baggage: &Baggage) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    chosen(Some(propagators))
        .propagators
        .inject(context, baggage, |field, text| {
            assert!(fields.insert(field.to_owned(), text).is_none(), "{field} once");
        });
    fields
}

#[test]
fn each_format_is_written_under_its_own_field_and_no_other() {
    let mut of = context(0xab, TraceFlags::SAMPLED);
    of.state = dwell_messages::TraceState::parse("v=1").map(Into::into);
    let mut baggage = Baggage::default();
    baggage.insert("tenant", "a b").unwrap();
    let (trace, span) = ("ab".repeat(16), "ab".repeat(8));
    let w3c = ("traceparent".to_owned(), format!("00-{trace}-{span}-01"));
    let state = ("tracestate".to_owned(), "v=1".to_owned());
    let jaeger = ("uber-trace-id".to_owned(), format!("{trace}:{span}:0:1"));
    let carried = ("baggage".to_owned(), "tenant=a%20b".to_owned());
    let table = [
        ("tracecontext", vec![w3c.clone(), state.clone()]),
        ("jaeger", vec![jaeger.clone()]),
        ("baggage", vec![carried.clone()]),
        ("jaeger,tracecontext,baggage", vec![w3c, state, jaeger, carried]),
        ("none", vec![]),
    ];
    for (propagators, expected) in table {
        assert_eq!(
            write(propagators, &of, &baggage),
            expected.into_iter().collect(),
            "{propagators}"
        );
    }
    let unsampled = context(0xab, TraceFlags::NONE);
    let fields = write("jaeger", &unsampled, &Baggage::default());
    assert_eq!(fields["uber-trace-id"], format!("{trace}:{span}:0:0"));
    // Neither is an invalid context written, nor empty baggage.
    let fields = write(
        "jaeger,tracecontext,baggage",
        &TraceContext::default(),
        &Baggage::default(),
    );
    assert!(fields.is_empty(), "{fields:?}");
}

#[test]
fn a_field_is_a_variable_of_the_environment() {
    let table = [
        ("traceparent", "TRACEPARENT"),
        ("uber-trace-id", "UBER_TRACE_ID"),
        ("x.y z", "X_Y_Z"),
        ("1st", "_1ST"),
    ];
    for (field, variable) in table {
        assert_eq!(environment_name(field), variable);
    }
}

fn baggage(text: &str, allowed: &[&str]) -> (String, bool) {
    let get = |name: &str| (name == "baggage").then(|| text.to_owned());
    let extracted = Propagators::default().extract(get, &AllowList::names(allowed.iter().copied()));
    (extracted.baggage.to_string(), extracted.malformed.is_empty())
}

#[test]
fn only_baggage_that_is_allowed_is_taken_and_a_malformed_member_is_left_out_alone() {
    assert_eq!(baggage("a=1,b=2", &[]), (String::new(), true));
    assert_eq!(baggage("a=1,b=2,c=3", &["b"]), ("b=2".into(), true));
    assert_eq!(
        baggage(" a = 1 ; p=q , b=%20", &["a", "b"]),
        ("a=1 ; p=q,b=%20".into(), true)
    );
    assert_eq!(baggage("a=1,a=2", &["a"]), ("a=2".into(), true));
    assert_eq!(
        baggage("a=1,nonsense,b=2", &["a", "b"]),
        ("a=1,b=2".into(), false)
    );
    assert_eq!(baggage("a=\"1\",b=2", &["a", "b"]), ("b=2".into(), false));
    assert_eq!(baggage("a=1\u{7},b=2", &["a", "b"]), ("b=2".into(), false));
    assert_eq!(baggage("é=1,b=é", &["é", "b"]), (String::new(), false));
}

#[test]
fn baggage_is_bounded_in_members_and_bytes() {
    let names: Vec<_> = (0..BAGGAGE_MEMBERS_MAX + 9).map(|n| format!("k{n}")).collect();
    let allowed: Vec<_> = names.iter().map(String::as_str).collect();
    let text: Vec<_> = names.iter().map(|name| format!("{name}=v")).collect();
    let (kept, whole) = baggage(&text.join(","), &allowed[..BAGGAGE_MEMBERS_MAX]);
    assert_eq!((kept.split(',').count(), whole), (BAGGAGE_MEMBERS_MAX, false));
    // What is cut is cut by whole members.
    let long = format!("a={},b={},c=3", "v".repeat(4_000), "v".repeat(4_500));
    assert_eq!(
        baggage(&long, &["a", "b", "c"]),
        (format!("a={}", "v".repeat(4_000)), false)
    );
    let whole = format!("a={}", "v".repeat(BAGGAGE_MAX_BYTES - 2));
    assert_eq!(baggage(&whole, &["a"]), (whole.clone(), true));
    assert_eq!(baggage(&"a=1,".repeat(1 << 18), &["a"]).0, "a=1");

    let mut own = Baggage::default();
    assert_eq!(own.insert("a b", "1"), Err(BaggageError::Name));
    assert_eq!(
        own.insert("a", &"v".repeat(BAGGAGE_MAX_BYTES)),
        Err(BaggageError::Full)
    );
    for name in &names[..BAGGAGE_MEMBERS_MAX] {
        own.insert(name, "v").unwrap();
    }
    assert_eq!(own.insert("more", "v"), Err(BaggageError::Full));
    own.insert("k0", "another").unwrap();
    assert_eq!(own.value("k0"), Some("another"));
    assert!(
        !format!("{own:?}").contains("another"),
        "values are nobody's to log"
    );
}

#[tokio::test]
async fn a_parent_of_zeroes_begins_a_new_trace() {
    let own = Kept::default();
    let ends = Ends::with(|builder| builder.sink(own.clone()), Kept::default()).await;
    for parent in [
        TraceContext::new(TraceId([0; 16]), SpanId([1; 8]), TraceFlags::SAMPLED),
        TraceContext::new(TraceId([1; 16]), SpanId([0; 8]), TraceFlags::SAMPLED),
    ] {
        let finished = ends.run(Command::new("true").parent(parent)).await;
        assert!(![[0; 16], [1; 16]].contains(&finished.trace_id.0));
    }
    ends.end().await;
    let calls = own.named(dwell_messages::Role::Harness, "call");
    assert_eq!(calls.len(), 2);
    assert!(calls.iter().all(|call| call.parent == [0; 8]), "each is a root");
}

proptest! {
    #[test]
    fn whatever_is_written_is_read_again(trace in any::<[u8; 16]>(), span in any::<[u8; 8]>(), sampled in any::<bool>()) {
        let flags = if sampled { TraceFlags::SAMPLED } else { TraceFlags::NONE };
        let context = TraceContext::new(TraceId(trace), SpanId(span), flags);
        for propagators in ["tracecontext", "jaeger", "jaeger,tracecontext"] {
            let fields = write(propagators, &context, &Baggage::default());
            let fields: Vec<_> = fields.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
            let expected = context.is_valid().then(|| context.to_traceparent());
            prop_assert_eq!(read(propagators, &fields).0, expected);
        }
    }

    #[test]
    fn no_text_breaks_a_reader(text in ".{0,200}", allowed in "[a-c]{1,2}") {
        let get = |_: &str| Some(text.clone());
        let all = Propagators::new([Format::Jaeger, Format::TraceContext, Format::Baggage]);
        let extracted = all.extract(get, &AllowList::names([allowed]));
        prop_assert!(extracted.context.is_none_or(|context| context.is_valid()));
        prop_assert!(extracted.baggage.to_string().len() <= BAGGAGE_MAX_BYTES);
    }
}
