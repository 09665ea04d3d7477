//! Samples in rounds, and what can be said of them. Pure.

/// Samples of one measurement, one peer and one latency. Rounds are kept apart: what slows a whole round down meets
/// every peer of it, and a ratio that is taken within a round does not see it.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Series {
    rounds: Vec<Vec<f64>>,
}

/// The value below which so many per cent lie, by nearest rank.
fn percentile_of(values: &mut [f64], percent: usize) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let rank = (values.len() * percent.min(100)).div_ceil(100);
    values.get(rank.saturating_sub(1)).copied()
}

impl Series {
    /// The next round's samples; none where the round failed, so that rounds of two peers stay neighbours.
    pub(crate) fn push_round(&mut self, samples: Vec<f64>) {
        self.rounds.push(samples);
    }

    /// Samples of all rounds.
    pub(crate) fn len(&self) -> usize {
        self.rounds.iter().map(Vec::len).sum()
    }

    /// Over all rounds; `None` without a sample.
    pub(crate) fn percentile(&self, percent: usize) -> Option<f64> {
        let mut all: Vec<f64> = self.rounds.iter().flatten().copied().collect();
        percentile_of(&mut all, percent)
    }

    pub(crate) fn median(&self) -> Option<f64> {
        self.percentile(50)
    }

    /// How often the other's median goes into this one's: the median of the rounds' own ratios.
    pub(crate) fn ratio_to(&self, other: &Self) -> Option<f64> {
        let mut ratios: Vec<f64> = self
            .rounds
            .iter()
            .zip(&other.rounds)
            .filter_map(|(own, other)| {
                let own = percentile_of(&mut own.clone(), 50)?;
                let other = percentile_of(&mut other.clone(), 50)?;
                (other > 0.0).then_some(own / other)
            })
            .collect();
        percentile_of(&mut ratios, 50)
    }

    /// How many round trips of `round_trip_us` the median has more than `near`'s, the same without a latency. Both in
    /// microseconds.
    pub(crate) fn round_trips_beyond(&self, near: &Self, round_trip_us: f64) -> Option<f64> {
        (round_trip_us > 0.0).then_some(())?;
        Some((self.median()? - near.median()?) / round_trip_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(rounds: &[&[f64]]) -> Series {
        let mut series = Series::default();
        for round in rounds {
            series.push_round(round.to_vec());
        }
        series
    }

    #[test]
    fn percentiles_are_values_that_were_seen_in_any_round() {
        let values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        let series = series(&[&values[..50], &values[50..]]);
        assert_eq!(series.len(), 100);
        let at = [0, 50, 95, 99, 100].map(|percent| series.percentile(percent).unwrap());
        assert_eq!(at, [1.0, 50.0, 95.0, 99.0, 100.0]);
        assert_eq!(Series::default().percentile(50), None);
    }

    #[test]
    fn a_ratio_is_the_median_of_what_neighbours_say() {
        // The machine was ten times as slow in the second round, and both met it.
        let ours = series(&[&[10.0], &[100.0], &[11.0]]);
        let theirs = series(&[&[20.0], &[200.0], &[20.0]]);
        assert_eq!(ours.ratio_to(&theirs), Some(0.5));
        assert_eq!(theirs.ratio_to(&ours), Some(2.0));
    }

    #[test]
    fn a_round_without_samples_has_no_ratio_and_moves_no_other() {
        let ours = series(&[&[], &[30.0]]);
        let theirs = series(&[&[5.0], &[10.0]]);
        assert_eq!(ours.ratio_to(&theirs), Some(3.0));
        assert_eq!(ours.ratio_to(&Series::default()), None);
        assert_eq!(
            ours.ratio_to(&series(&[&[0.0], &[0.0]])),
            None,
            "nothing goes into it"
        );
    }

    #[test]
    fn round_trips_are_what_a_latency_adds_over_it() {
        let near = series(&[&[1_000.0]]);
        let far = series(&[&[41_000.0]]);
        assert_eq!(far.round_trips_beyond(&near, 20_000.0), Some(2.0));
        assert_eq!(far.round_trips_beyond(&near, 0.0), None);
        assert_eq!(Series::default().round_trips_beyond(&near, 1.0), None);
    }
}
