//! What is told of a run: tables for people, an object for programs. Pure.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::super::calibration::Calibration;
use super::budget::{Bound, Said, Verdict};
use super::contest::Absent;
use super::measure::{Measure, Unit};
use super::peer::Name;
use super::results::{Cell, Results};

/// Everything that a run came to.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) calibration: Calibration,
    pub(crate) quick: bool,
    pub(crate) rounds: usize,
    pub(crate) cores: usize,
    pub(crate) latencies_ms: Vec<u32>,
    /// Who took part, and what programs they are.
    pub(crate) peers: Vec<(Name, Option<String>)>,
    pub(crate) absent: Vec<Absent>,
    pub(crate) results: Results,
    pub(crate) verdicts: Vec<Verdict>,
}

/// What ratios are to.
const YARDSTICK: Name = Name::Direct;
const TIMES: [Measure; 8] = [
    Measure::RoundTrip,
    Measure::OneShot,
    Measure::EchoPipe,
    Measure::EchoPipeFlooded,
    Measure::EchoTerminal,
    Measure::EchoTerminalFlooded,
    Measure::BehindPoll,
    Measure::Cold,
];
const RATES: [Measure; 3] = [Measure::InFlight1, Measure::InFlight8, Measure::InFlight32];
const COSTS: [Measure; 2] = [Measure::IdleMemory, Measure::Processor];
/// Columns of a peer's name, and of a figure.
const NAME_WIDTH: usize = 24;
const CELL_WIDTH: usize = 11;
/// What stands where there is no figure.
const NONE: &str = "-";

/// How a terminal is told to stress something; nothing where that is not wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Style {
    bold: &'static str,
    good: &'static str,
    bad: &'static str,
    plain: &'static str,
}

impl Style {
    fn new(color: bool) -> Self {
        if color {
            Self {
                bold: "\x1b[1m",
                good: "\x1b[32m",
                bad: "\x1b[31m",
                plain: "\x1b[0m",
            }
        } else {
            Self {
                bold: "",
                good: "",
                bad: "",
                plain: "",
            }
        }
    }
}

/// A figure with its unit, in three digits or so.
fn figure(unit: Unit, value: f64) -> String {
    match unit {
        Unit::Micros if value < 999.5 => format!("{value:.0} µs"),
        Unit::Micros if value < 9_995.0 => format!("{:.2} ms", value / 1e3),
        Unit::Micros if value < 99_950.0 => format!("{:.1} ms", value / 1e3),
        Unit::Micros => format!("{:.0} ms", value / 1e3),
        Unit::PerSecond => format!("{value:.0} /s"),
        Unit::MegabytesPerSecond => format!("{value:.0} MB/s"),
        Unit::Kibibytes => format!("{value:.0} KiB"),
    }
}

fn ratio(value: f64) -> String {
    if value < 9.95 {
        format!("{value:.2}x")
    } else {
        format!("{value:.0}x")
    }
}

fn said(said: Said, value: f64) -> String {
    match said {
        Said::Times if value < 9.95 => format!("{value:.3}x"),
        Said::Times => format!("{value:.1}x"),
        Said::Millis => format!("{value:.2} ms"),
        Said::Kibibytes => format!("{value:.1} KiB"),
        Said::RoundTrips => format!("{value:.2} R"),
    }
}

fn or_none(text: Option<String>) -> String {
    text.unwrap_or_else(|| NONE.to_owned())
}

/// One table: its name over its rows' names, its heads over their figures.
fn table(
    text: &mut String,
    style: Style,
    (title, heads): (&str, Vec<String>),
    rows: Vec<(&'static str, Vec<String>)>,
) {
    if rows.is_empty() {
        return;
    }
    // A `String` takes everything.
    let _ = write!(text, "\n{}{title:<NAME_WIDTH$}{}", style.bold, style.plain);
    for head in heads {
        let _ = write!(text, "{head:>CELL_WIDTH$}");
    }
    text.push('\n');
    for (name, cells) in rows {
        let _ = write!(text, "  {name:<width$}", width = NAME_WIDTH - 2);
        for cell in cells {
            let _ = write!(text, "{cell:>CELL_WIDTH$}");
        }
        text.push('\n');
    }
}

impl Report {
    fn far(&self) -> impl Iterator<Item = u32> {
        self.latencies_ms.iter().copied().filter(|ms| *ms > 0)
    }

    /// The peers of a table, those without a figure left out.
    fn rows(
        &self,
        measures: &[Measure],
        cells: impl Fn(Name) -> Vec<String>,
    ) -> Vec<(&'static str, Vec<String>)> {
        let took_part = |name: Name| {
            let cell = |measure: &Measure| self.results.cell(*measure, 0, name);
            measures.iter().any(|measure| cell(measure).is_some())
        };
        let names = self
            .peers
            .iter()
            .map(|(name, _)| *name)
            .filter(|name| took_part(*name));
        names.map(|name| (name.label(), cells(name))).collect()
    }

    fn over_yardstick(&self, measure: Measure, name: Name) -> String {
        or_none(self.results.ratio(measure, name, YARDSTICK).map(ratio))
    }

    fn times(&self, measure: Measure, text: &mut String, style: Style) {
        let mut heads = ["p50", "p95", "p99", "p50 ratio"].map(str::to_owned).to_vec();
        heads.extend(self.far().map(|ms| format!("at {ms} ms")));
        let rows = self.rows(&[measure], |name| {
            let mut cells: Vec<String> = [50, 95, 99]
                .map(|percent| {
                    let value = self.results.percentile(measure, name, percent);
                    or_none(value.map(|value| figure(measure.unit(), value)))
                })
                .to_vec();
            cells.push(self.over_yardstick(measure, name));
            cells.extend(self.far().map(|ms| {
                let count = self.results.round_trips(measure, ms, name);
                or_none(count.map(|count| format!("{count:.2} R")))
            }));
            cells
        });
        table(text, style, (measure.label(), heads), rows);
    }

    fn rates(&self, text: &mut String, style: Style) {
        let mut heads = ["1 in flight", "8", "32", "32: ratio"]
            .map(str::to_owned)
            .to_vec();
        heads.extend(self.far().map(|ms| format!("32 at {ms}")));
        let widest = Measure::InFlight32;
        let rows = self.rows(&RATES, |name| {
            let rate = |value: Option<f64>| or_none(value.map(|value| figure(Unit::PerSecond, value)));
            let mut cells: Vec<String> = RATES
                .map(|measure| rate(self.results.median(measure, name)))
                .to_vec();
            cells.push(self.over_yardstick(widest, name));
            cells.extend(
                self.far()
                    .map(|ms| rate(self.results.median_at(widest, ms, name))),
            );
            cells
        });
        table(text, style, ("commands a second", heads), rows);
    }

    fn throughput(&self, text: &mut String, style: Style) {
        let measure = Measure::Throughput;
        let mut heads = ["p50", "ratio", "lost"].map(str::to_owned).to_vec();
        heads.extend(self.far().map(|ms| format!("at {ms} ms")));
        let rows = self.rows(&[measure], |name| {
            let shown = |value: Option<f64>| or_none(value.map(|value| figure(measure.unit(), value)));
            let failures = self.results.cell(measure, 0, name).map(Cell::troubles);
            // A run whose bytes are not all there has no figure.
            let lost = if failures == Some(0) {
                "nothing"
            } else {
                "see below"
            };
            let mut cells = vec![
                shown(self.results.median(measure, name)),
                self.over_yardstick(measure, name),
                lost.to_owned(),
            ];
            cells.extend(
                self.far()
                    .map(|ms| shown(self.results.median_at(measure, ms, name))),
            );
            cells
        });
        table(text, style, (measure.label(), heads), rows);
    }

    fn costs(&self, text: &mut String, style: Style) {
        let heads = ["a session", "ratio", "a command", "ratio"]
            .map(str::to_owned)
            .to_vec();
        let rows = self.rows(&COSTS, |name| {
            let cell = |measure: Measure| {
                let value = self.results.median(measure, name);
                [
                    or_none(value.map(|value| figure(measure.unit(), value))),
                    self.over_yardstick(measure, name),
                ]
            };
            COSTS.map(cell).concat()
        });
        table(text, style, ("the server's cost", heads), rows);
    }

    fn promises(&self, text: &mut String, style: Style) {
        let wide = self
            .verdicts
            .iter()
            .map(|verdict| verdict.what.chars().count())
            .max();
        let width = wide.unwrap_or(0) + 2;
        let _ = writeln!(
            text,
            "\n{}{:<width$}{}{:>12}{:>12}",
            style.bold, "promised", style.plain, "limit", "measured"
        );
        for verdict in &self.verdicts {
            let sign = match verdict.bound {
                Bound::AtMost => "<=",
                Bound::AtLeast => ">=",
            };
            let limit = format!("{sign} {}", said(verdict.said, verdict.limit));
            let measured = or_none(verdict.measured.map(|value| said(verdict.said, value)));
            let (color, met) = match verdict.met() {
                Some(true) => (style.good, "met"),
                Some(false) => (style.bad, "not met"),
                None => ("", "not measured"),
            };
            let _ = writeln!(
                text,
                "  {:<rest$}{limit:>12}{measured:>12}  {color}{met}{}",
                verdict.what,
                style.plain,
                rest = width - 2,
            );
        }
    }

    /// For people.
    pub(crate) fn text(&self, color: bool) -> String {
        let style = Style::new(color);
        let mut text = format!(
            "{} rounds, all peers in turn in each; {} cores{}\n\
             calibration: bare spawn {} µs, TCP echo {} µs, fdatasync {} µs (p50)\n\
             ratios are to `{}`; R is what a latency adds, over what it adds to a bare TCP echo\n",
            self.rounds,
            self.cores,
            if self.quick {
                "; quick, so figures are rough"
            } else {
                ""
            },
            self.calibration.spawn_us,
            self.calibration.echo_us,
            self.calibration.sync_us,
            YARDSTICK.label(),
        );
        for ms in self.far() {
            if let Some(us) = self.results.path_us(ms) {
                let _ = writeln!(text, "at {ms} ms a bare echo takes {:.2} ms more", us / 1e3);
            }
        }
        for (name, version) in &self.peers {
            if let Some(version) = version {
                let _ = writeln!(text, "{}: {version}", name.label());
            }
        }
        for absent in &self.absent {
            let _ = writeln!(text, "absent: {}: {}", absent.what, absent.why);
        }
        for measure in &TIMES[..2] {
            self.times(*measure, &mut text, style);
        }
        self.rates(&mut text, style);
        self.throughput(&mut text, style);
        for measure in &TIMES[2..] {
            self.times(*measure, &mut text, style);
        }
        self.costs(&mut text, style);
        self.promises(&mut text, style);
        let mut troubled = self
            .results
            .cells()
            .filter(|(.., cell)| cell.troubles() > 0)
            .peekable();
        if troubled.peek().is_some() {
            let _ = writeln!(text, "\n{}trouble{}", style.bold, style.plain);
        }
        for (measure, latency_ms, name, cell) in troubled {
            let _ = writeln!(
                text,
                "  {}: {} at {latency_ms} ms: {} timeouts, {} failures; the first: {}",
                name.label(),
                measure.label(),
                cell.timeouts,
                cell.failures,
                cell.why.as_deref().unwrap_or(NONE),
            );
        }
        text
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        let measured = self.results.cells().map(|(measure, latency_ms, name, cell)| {
            json!({
                "measure": measure.key(),
                "peer": name.key(),
                "latency_ms": latency_ms,
                "unit": unit_key(measure.unit()),
                "samples": cell.series.len(),
                "p50": cell.series.percentile(50),
                "p95": cell.series.percentile(95),
                "p99": cell.series.percentile(99),
                "ratio_to_dwell_direct": (latency_ms == 0)
                    .then(|| self.results.ratio(measure, name, YARDSTICK)).flatten(),
                "round_trips": self.results.round_trips(measure, latency_ms, name)
                    .filter(|_| measure.unit() == Unit::Micros),
                "timeouts": cell.timeouts,
                "failures": cell.failures,
                "trouble": cell.why,
            })
        });
        let promised = self.verdicts.iter().map(|verdict| {
            json!({
                "what": verdict.what,
                "bound": match verdict.bound { Bound::AtMost => "at_most", Bound::AtLeast => "at_least" },
                "limit": verdict.limit,
                "measured": verdict.measured,
                "met": verdict.met(),
            })
        });
        let peers = self.peers.iter();
        let absent = self.absent.iter();
        json!({
            "quick": self.quick,
            "rounds": self.rounds,
            "cores": self.cores,
            "latencies_ms": self.latencies_ms,
            "calibration": {
                "spawn_p50_us": self.calibration.spawn_us,
                "echo_p50_us": self.calibration.echo_us,
                "fdatasync_p50_us": self.calibration.sync_us,
            },
            "paths": self.far().map(|ms| json!({
                "latency_ms": ms, "echo_adds_p50_us": self.results.path_us(ms),
            })).collect::<Vec<_>>(),
            "peers": peers.map(|(name, version)| json!({ "peer": name.key(), "version": version })).collect::<Vec<_>>(),
            "absent": absent.map(|one| json!({ "what": one.what, "why": one.why })).collect::<Vec<_>>(),
            "measured": measured.collect::<Vec<_>>(),
            "promised": promised.collect::<Vec<_>>(),
        })
    }
}

fn unit_key(unit: Unit) -> &'static str {
    match unit {
        Unit::Micros => "us",
        Unit::PerSecond => "per_s",
        Unit::MegabytesPerSecond => "mb_per_s",
        Unit::Kibibytes => "kib",
    }
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
