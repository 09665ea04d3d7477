//! What is usual: quartiles over earlier calls of the same program.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;

use super::measure::{Key, Measures};
use crate::trace_file::{self, CallStatus, Trace, TraceFileError};

/// With fewer earlier calls than this there is no usual.
pub const BASELINE_CALLS_MIN: usize = 5;
/// How many earlier calls are looked at, the newest of them.
pub const BASELINE_CALLS_MAX: usize = 50;
/// The most spans of one earlier call that are held.
const BASELINE_SPANS_MAX: usize = 1_000;
/// How far back the files are searched for calls of the same program.
const SEARCHED_CALLS_MAX: usize = 5_000;

/// What is usual for a program.
#[derive(Clone, Debug, Default)]
pub struct Baseline {
    calls: usize,
    total_us: u64,
    usual: BTreeMap<Key, Usual>,
}

/// One measure over the earlier calls.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usual {
    pub(super) median_us: u64,
    /// What lies above it is an outlier: half as much again of the middle half's breadth above that half.
    pub(super) fence_us: u64,
}

impl Baseline {
    /// No usual: everything is ranked by its share.
    pub fn none() -> Self {
        Self::default()
    }

    /// The usual of these calls, which somebody else has chosen; a trace without spans does not count.
    pub fn of<'a>(earlier: impl IntoIterator<Item = &'a Trace>) -> Self {
        let measured: Vec<_> = earlier.into_iter().filter_map(Measures::of).collect();
        let keys: BTreeSet<_> = measured.iter().flat_map(|one| one.values.keys()).collect();
        let usual = keys
            .into_iter()
            .map(|key| {
                // What a call does not have took no time in it.
                let values = measured
                    .iter()
                    .map(|one| one.values.get(key).copied().unwrap_or(0));
                (key.clone(), Usual::of(values.collect()))
            })
            .collect();
        Self {
            calls: measured.len(),
            total_us: Usual::of(measured.iter().map(|one| one.total_us).collect()).median_us,
            usual,
        }
    }

    /// The usual of the calls before this one, of the same program and without an error, that a directory's files still
    /// have; at most [`BASELINE_CALLS_MAX`]. Reads each file twice.
    ///
    /// # Errors
    ///
    /// When a file that is there cannot be read.
    pub fn load(dir: &Path, trace: &Trace) -> Result<Self, TraceFileError> {
        let listed = trace_file::list_calls(dir, SEARCHED_CALLS_MAX)?.calls;
        let Some(at) = listed.iter().position(|call| call.trace_id == trace.trace_id) else {
            return Ok(Self::none());
        };
        let Some(program) = &listed[at].program else {
            return Ok(Self::none());
        };
        let mut known = HashSet::from([trace.trace_id]);
        let alike = listed[at..].iter().filter(|call| {
            call.program.as_ref() == Some(program) && !matches!(call.status, CallStatus::Failed(_))
        });
        let ids: Vec<_> = alike
            .map(|call| call.trace_id)
            .filter(|id| known.insert(*id))
            .take(BASELINE_CALLS_MAX)
            .collect();
        if ids.is_empty() {
            return Ok(Self::none());
        }
        let earlier = trace_file::find_traces(dir, &ids, BASELINE_SPANS_MAX)?;
        Ok(Self::of(&earlier))
    }

    /// How many calls it rests on.
    pub fn calls(&self) -> usize {
        self.calls
    }

    /// Whether there are enough of them: [`BASELINE_CALLS_MIN`].
    pub fn is_usual(&self) -> bool {
        self.calls >= BASELINE_CALLS_MIN
    }

    /// How long a call usually takes, in microseconds; `None` when there are too few.
    pub fn total_us(&self) -> Option<u64> {
        self.is_usual().then_some(self.total_us)
    }

    /// `None` when there is no usual; zero for what no earlier call had.
    pub(super) fn usual(&self, key: &Key) -> Option<Usual> {
        self.is_usual()
            .then(|| self.usual.get(key).copied().unwrap_or_default())
    }
}

impl Usual {
    fn of(mut values: Vec<u64>) -> Self {
        values.sort_unstable();
        let [low, middle, high] = [1, 2, 3].map(|quarter| quantile(&values, quarter));
        Self {
            median_us: middle,
            fence_us: high.saturating_add((high - low).saturating_mul(3) / 2),
        }
    }
}

/// The value at so many quarters of the way, between its neighbours where it falls between two.
fn quantile(sorted: &[u64], quarters: usize) -> u64 {
    let Some(last) = sorted.len().checked_sub(1) else {
        return 0;
    };
    let place = last * quarters;
    let (below, part) = (sorted[place / 4], (place % 4) as u64);
    let above = sorted[(place / 4 + 1).min(last)];
    below + (above - below) / 4 * part + (above - below) % 4 * part / 4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_lie_between_neighbours() {
        assert_eq!(
            [1, 2, 3].map(|quarter| quantile(&[0, 10, 20, 30, 40], quarter)),
            [10, 20, 30]
        );
        assert_eq!(quantile(&[0, 10], 2), 5);
        assert_eq!(quantile(&[0, u64::MAX], 3), u64::MAX / 4 * 3 + 2);
        assert_eq!(quantile(&[], 2), 0);
        assert_eq!(quantile(&[7], 3), 7);
    }

    #[test]
    fn one_wild_call_moves_neither_the_median_nor_the_fence_far() {
        let usual = Usual::of(vec![100, 101, 102, 103, 104, 105, 900_000]);
        assert_eq!(usual.median_us, 103);
        assert!(usual.fence_us < 200, "{usual:?}");
    }
}
