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
pub(crate) struct Results(BTreeMap<(Measure, u32, Name), Cell>);

impl Results {
    pub(crate) fn cell_mut(&mut self, measure: Measure, latency_ms: u32, name: Name) -> &mut Cell {
        self.0.entry((measure, latency_ms, name)).or_default()
    }

    pub(crate) fn cell(&self, measure: Measure, latency_ms: u32, name: Name) -> Option<&Cell> {
        self.0.get(&(measure, latency_ms, name))
    }

    pub(crate) fn cells(&self) -> impl Iterator<Item = (Measure, u32, Name, &Cell)> {
        self.0
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
        let round_trip_us = f64::from(latency_ms) * 1e3;
        self.series(measure, latency_ms, name)?
            .round_trips_beyond(near, round_trip_us)
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
