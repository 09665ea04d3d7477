//! The text that Prometheus reads, version 0.0.4.

use super::families::{Family, Kind};
use super::gather::{Gathered, Sample, Value};
use super::histogram::Histogram;

/// The type of the text.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All of it.
pub(crate) fn render(gathered: &Gathered) -> String {
    let mut out = String::new();
    for (family, samples) in gathered.families() {
        let name = name(&family);
        let kind = match family.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        out.push_str(&format!("# HELP {name} {}\n# TYPE {name} {kind}\n", family.help));
        for sample in samples {
            match &sample.value {
                Value::Number(value) => {
                    let labels = labels(&family, sample, None);
                    out.push_str(&format!("{name}{labels} {}\n", number(*value)));
                }
                Value::Histogram(histogram) => series(&mut out, &name, &family, sample, histogram),
            }
        }
    }
    out
}

fn series(out: &mut String, name: &str, family: &Family, sample: &Sample, histogram: &Histogram) {
    for (bound, count) in histogram.cumulative() {
        let labels = labels(family, sample, Some(bound));
        out.push_str(&format!("{name}_bucket{labels} {count}\n"));
    }
    let labels = labels(family, sample, None);
    out.push_str(&format!("{name}_sum{labels} {}\n", number(histogram.sum())));
    out.push_str(&format!("{name}_count{labels} {}\n", histogram.count()));
}

/// As Prometheus has it.
fn name(family: &Family) -> String {
    let mut name = family.name.replace('.', "_");
    name.push_str(match family.unit {
        "s" => "_seconds",
        "By" => "_bytes",
        _ => "",
    });
    if family.kind == Kind::Counter {
        name.push_str("_total");
    }
    name
}

fn labels(family: &Family, sample: &Sample, bound: Option<f64>) -> String {
    let named = family.labels.iter().zip(&sample.labels);
    let mut all: Vec<_> = named
        .map(|(label, value)| format!("{label}=\"{}\"", escaped(value)))
        .collect();
    all.extend(bound.map(|bound| format!("le=\"{}\"", number(bound))));
    if all.is_empty() {
        return String::new();
    }
    format!("{{{}}}", all.join(","))
}

fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

fn number(value: f64) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    value.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::families;

    #[test]
    fn names_have_their_unit_and_values_cannot_break_out_of_their_quotes() {
        let mut all = Gathered::default();
        all.number(families::IO, &["a\"b\\c\nd"], 3.0);
        all.number(families::UPTIME, &[], 0.5);
        let text = render(&all);
        assert!(
            text.contains("# TYPE dwell_network_io_bytes_total counter\n"),
            "{text}"
        );
        assert!(
            text.contains("dwell_network_io_bytes_total{direction=\"a\\\"b\\\\c\\nd\"} 3\n"),
            "{text}"
        );
        assert!(text.contains("\ndwell_uptime_seconds 0.5\n"), "{text}");
    }
}
