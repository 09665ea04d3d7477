//! Which calls are traced, and what it costs not to be.

use dwell_actors::telemetry::Sampler;
use dwell_messages::{TraceContext, TraceFlags, TraceId};

use crate::support::{Ends, Kept, context, shell};

fn sampler(name: &str, arg: Option<&str>) -> (Sampler, Option<String>) {
    Sampler::from_lookup(|variable| match variable {
        "OTEL_TRACES_SAMPLER" => Some(name.to_owned()),
        "OTEL_TRACES_SAMPLER_ARG" => arg.map(str::to_owned),
        _ => None,
    })
}

#[test]
fn each_sampler_decides_as_it_is_defined() {
    let (yes, no) = (context(1, TraceFlags::SAMPLED), context(1, TraceFlags::NONE));
    // For a root, below a sampled parent, below an unsampled one.
    let table = [
        ("always_on", None, [true, true, true]),
        ("always_off", None, [false, false, false]),
        ("traceidratio", Some("1"), [true, true, true]),
        ("traceidratio", Some("0.0"), [false, false, false]),
        ("parentbased_always_on", None, [true, true, false]),
        ("parentbased_always_off", None, [false, true, false]),
        ("parentbased_traceidratio", Some("1.0"), [true, true, false]),
        ("parentbased_traceidratio", Some("0"), [false, true, false]),
        (" always_off ", None, [false, false, false]),
        ("", None, [true, true, false]),
    ];
    for (name, arg, expected) in table {
        let (sampler, problem) = sampler(name, arg);
        assert_eq!(problem, None, "{name}");
        let decided = [None, Some(&yes), Some(&no)].map(|parent: Option<&TraceContext>| {
            sampler.decide(parent, parent.map_or(TraceId([9; 16]), |parent| parent.trace_id))
        });
        assert_eq!(decided, expected, "{name} {arg:?}");
    }
}

#[test]
fn a_setting_that_makes_no_sense_is_said_and_traces() {
    for (name, arg) in [
        ("traceidratio", None),
        ("traceidratio", Some("2")),
        ("traceidratio", Some("-0.1")),
        ("parentbased_traceidratio", Some("NaN")),
        ("jaeger_remote", None),
        ("Always_Off", None),
    ] {
        let (sampler, problem) = sampler(name, arg);
        assert!(
            problem.is_some_and(|text| text.starts_with("OTEL_TRACES_SAMPLER")),
            "{name}"
        );
        assert!(sampler.decide(None, TraceId([9; 16])), "{name}");
    }
}

#[test]
fn a_ratio_takes_that_part_of_the_traces_and_the_same_ones_everywhere() {
    let (quarter, _) = sampler("traceidratio", Some("0.25"));
    let (half, _) = sampler("parentbased_traceidratio", Some("0.5"));
    let ids: Vec<_> = (0..4_000).map(|_| dwell_actors::telemetry::trace_id()).collect();
    let taken = |sampler: &Sampler| ids.iter().filter(|id| sampler.decide(None, **id)).count();
    assert!((800..1_200).contains(&taken(&quarter)), "{}", taken(&quarter));
    assert!((1_800..2_200).contains(&taken(&half)), "{}", taken(&half));
    let both = ids
        .iter()
        .all(|id| !quarter.decide(None, *id) || half.decide(None, *id));
    assert!(both, "what the smaller ratio takes, the larger takes too");
    // The low half of the id decides, as with other SDKs.
    let mut low = [0xff; 16];
    low[8..].copy_from_slice(&1_u64.to_be_bytes());
    assert!(quarter.decide(None, TraceId(low)));
    assert!(!quarter.decide(None, TraceId([0xff; 16])));
}

#[tokio::test]
async fn an_unsampled_call_costs_no_span_and_its_context_still_reaches_the_command() {
    for (sampled, parent) in [
        (false, None),
        (true, Some(context(4, TraceFlags::NONE))),
        (true, None),
        (false, Some(context(4, TraceFlags::SAMPLED))),
    ] {
        // A parent's decision stands.
        let wanted = parent.as_ref().map_or(sampled, TraceContext::is_sampled);
        let (own, theirs) = (Kept::default(), Kept::default());
        let ends = Ends::with(
            |builder| builder.sink(own.clone()).sampled(sampled),
            theirs.clone(),
        )
        .await;
        let mut command = shell("printf %s \"$TRACEPARENT\"");
        if let Some(parent) = &parent {
            command = command.parent(parent.clone());
        }
        let finished = ends.run(command).await;
        ends.end().await;
        let told = finished.stdout.to_text();
        let flags = if wanted { "01" } else { "00" };
        assert!(
            told.starts_with(&format!("00-{}-", finished.trace_id)) && told.ends_with(&format!("-{flags}")),
            "the command was told {told:?}"
        );
        assert_eq!(own.all().is_empty(), !wanted, "{:?}", own.all());
        assert_eq!(theirs.all().is_empty(), !wanted, "{:?}", theirs.all());
        if let Some(parent) = parent {
            assert_eq!(finished.trace_id, parent.trace_id);
        }
    }
}
