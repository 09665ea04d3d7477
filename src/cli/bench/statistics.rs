//! Medians and tails.

/// Values of one kind, sorted.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Sorted(Vec<u64>);

impl FromIterator<u64> for Sorted {
    fn from_iter<I: IntoIterator<Item = u64>>(values: I) -> Self {
        let mut values: Vec<_> = values.into_iter().collect();
        values.sort_unstable();
        Self(values)
    }
}

impl Sorted {
    /// The value below which so many per cent lie, by nearest rank; 0 without any.
    pub(crate) fn percentile(&self, percent: usize) -> u64 {
        let rank = (self.0.len() * percent.min(100)).div_ceil(100);
        self.0.get(rank.saturating_sub(1)).copied().unwrap_or(0)
    }

    pub(crate) fn median(&self) -> u64 {
        self.percentile(50)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_seen() {
        let values: Sorted = (1..=200).rev().collect();
        assert_eq!((values.median(), values.percentile(99)), (100, 198));
        assert_eq!((values.percentile(0), values.percentile(100)), (1, 200));
        assert_eq!(values.len(), 200);
        let one: Sorted = [7].into_iter().collect();
        assert_eq!((one.median(), one.percentile(99)), (7, 7));
        assert_eq!(Sorted::default().median(), 0);
    }
}
