//! What has come of everything. Pure.

use std::collections::BTreeMap;

use super::measure::Measure;
use super::peer::{Name, Trouble};
use super::series::Series;

/// One measurement of one peer at one latency.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Cell {
    pub(crate) series: Series,
    pub(crate) timeouts: u32,
    /// Ended otherwise than they must.
    pub(crate) failures: u32,
    /// The first trouble.
    pub(crate) why: Option<String>,
}

impl Cell {
    pub(crate) fn note(&mut self, trouble: &Trouble) {
        match trouble {
            Trouble::Timeout { .. } => self.timeouts += 1,
            Trouble::Failed { .. } | Trouble::Wrong { .. } => self.failures += 1,
        }
        self.why.get_or_insert_with(|| trouble.to_string());
    }

    pub(crate) fn troubles(&self) -> u32 {
        self.timeouts + self.failures
    }
}

/// Latencies are of a round trip, in milliseconds.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Results {
    cells: BTreeMap<(Measure, u32, Name), Cell>,
    /// What a bare echo takes by the path of that latency, in microseconds.
    paths: BTreeMap<u32, Series>,
}

impl Results {
    pub(crate) fn path_mut(&mut self, latency_ms: u32) -> &mut Series {
        self.paths.entry(latency_ms).or_default()
    }

    /// What a path of such a latency adds to a bare echo, in microseconds; `None` where no echo was taken.
    pub(crate) fn path_us(&self, latency_ms: u32) -> Option<f64> {
        let median = |ms: u32| self.paths.get(&ms)?.median();
        Some(median(latency_ms)? - median(0)?)
    }

    /// R: what such a path's round trip takes, in microseconds, or was asked to take where nothing is known.
    pub(crate) fn round_trip_us(&self, latency_ms: u32) -> f64 {
        let asked = f64::from(latency_ms) * 1e3;
        self.path_us(latency_ms).unwrap_or(asked)
    }

    pub(crate) fn cell_mut(&mut self, measure: Measure, latency_ms: u32, name: Name) -> &mut Cell {
        self.cells.entry((measure, latency_ms, name)).or_default()
    }

    pub(crate) fn cell(&self, measure: Measure, latency_ms: u32, name: Name) -> Option<&Cell> {
        self.cells.get(&(measure, latency_ms, name))
    }

    pub(crate) fn cells(&self) -> impl Iterator<Item = (Measure, u32, Name, &Cell)> {
        self.cells
            .iter()
            .map(|((measure, latency_ms, name), cell)| (*measure, *latency_ms, *name, cell))
    }

    fn series(&self, measure: Measure, latency_ms: u32, name: Name) -> Option<&Series> {
        self.cell(measure, latency_ms, name).map(|cell| &cell.series)
    }

    /// Of the machine as it is, without a latency.
    pub(crate) fn percentile(&self, measure: Measure, name: Name, percent: usize) -> Option<f64> {
        self.series(measure, 0, name)?.percentile(percent)
    }

    pub(crate) fn median(&self, measure: Measure, name: Name) -> Option<f64> {
        self.percentile(measure, name, 50)
    }

    pub(crate) fn median_at(&self, measure: Measure, latency_ms: u32, name: Name) -> Option<f64> {
        self.series(measure, latency_ms, name)?.median()
    }

    /// How often `under` goes into `name`, without a latency.
    pub(crate) fn ratio(&self, measure: Measure, name: Name, under: Name) -> Option<f64> {
        let other = self.series(measure, 0, under)?;
        self.series(measure, 0, name)?.ratio_to(other)
    }

    /// How many round trips a latency costs.
    pub(crate) fn round_trips(&self, measure: Measure, latency_ms: u32, name: Name) -> Option<f64> {
        let near = self.series(measure, 0, name)?;
        self.series(measure, latency_ms, name)?
            .round_trips_beyond(near, self.round_trip_us(latency_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_counted_apart_and_the_first_trouble_is_kept() {
        let mut cell = Cell::default();
        cell.note(&Trouble::Timeout {
            what: "an echo",
            seconds: 20,
        });
        cell.note(&Trouble::failed("a call", "refused"));
        assert_eq!((cell.timeouts, cell.failures, cell.troubles()), (1, 1, 2));
        assert_eq!(cell.why.as_deref(), Some("an echo did not come within 20 s"));
    }

    #[test]
    fn a_round_trip_is_what_a_bare_echo_says() {
        let mut results = Results::default();
        let mut put = |ms, us| {
            let cell = results.cell_mut(Measure::OneShot, ms, Name::Direct);
            cell.series.push_round(vec![us]);
        };
        put(0, 1_000.0);
        put(20, 22_000.0);
        let round_trips = |results: &Results| results.round_trips(Measure::OneShot, 20, Name::Direct);
        assert_eq!(round_trips(&results), Some(1.05), "as it was asked for");
        results.path_mut(20).push_round(vec![21_050.0]);
        assert_eq!(round_trips(&results), Some(1.05), "half is nothing");
        results.path_mut(0).push_round(vec![50.0]);
        assert_eq!(
            (results.path_us(20), round_trips(&results)),
            (Some(21_000.0), Some(1.0))
        );
    }

    #[test]
    fn what_was_not_measured_has_no_figure() {
        let mut results = Results::default();
        results
            .cell_mut(Measure::OneShot, 0, Name::Relay)
            .series
            .push_round(vec![3.0]);
        assert_eq!(results.median(Measure::OneShot, Name::Relay), Some(3.0));
        assert_eq!(results.median(Measure::OneShot, Name::Codex), None);
        assert_eq!(results.ratio(Measure::OneShot, Name::Relay, Name::Codex), None);
        assert_eq!(results.round_trips(Measure::OneShot, 20, Name::Relay), None);
    }
}
