//! Lanes for a view that only nests: two spans share one when one lies within the other, or behind it.

/// The most lanes of one machine; what finds no room in them is put into the last.
pub(super) const LANES_MAX: usize = 256;

/// One span to be placed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    pub(super) start_ns: i64,
    pub(super) end_ns: i64,
    /// The place of its caller in the same list, which comes before its own.
    pub(super) parent: Option<usize>,
}

/// Each place's lane. They come sorted by their starts, the longer of equals first. A span goes below its caller where
/// that has room.
pub(super) fn assign(places: &[Place]) -> Vec<usize> {
    // Ends of what is under way in each lane, the innermost last.
    let mut lanes: Vec<Vec<i64>> = Vec::new();
    let mut assigned: Vec<usize> = Vec::with_capacity(places.len());
    for place in places {
        let mut fits = |lane: &mut Vec<i64>| {
            while lane.last().is_some_and(|end| *end <= place.start_ns) {
                lane.pop();
            }
            lane.last().is_none_or(|end| *end >= place.end_ns)
        };
        let callers = place.parent.and_then(|parent| assigned.get(parent).copied());
        let lane = callers
            .filter(|lane| fits(&mut lanes[*lane]))
            .or_else(|| lanes.iter_mut().position(&mut fits))
            .unwrap_or_else(|| {
                if lanes.len() < LANES_MAX {
                    lanes.push(Vec::new());
                }
                lanes.len() - 1
            });
        lanes[lane].push(place.end_ns);
        assigned.push(lane);
    }
    assigned
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place(start_ns: i64, end_ns: i64, parent: Option<usize>) -> Place {
        Place {
            start_ns,
            end_ns,
            parent,
        }
    }

    #[test]
    fn children_share_their_callers_lane_until_they_overlap() {
        let places = [
            place(0, 10, None),
            place(1, 5, Some(0)),
            place(3, 8, Some(0)),
            place(6, 9, Some(0)),
        ];
        assert_eq!(assign(&places), [0, 0, 1, 0]);
    }

    #[test]
    fn lanes_end_at_their_bound() {
        let places: Vec<_> = (0..1_000).map(|n| place(n, n + 10_000, None)).collect();
        assert_eq!(assign(&places).into_iter().max(), Some(LANES_MAX - 1));
    }

    proptest! {
        #[test]
        fn two_spans_of_one_lane_nest_or_follow_each_other(
            spans in proptest::collection::vec((0..60_i64, 0..30_i64, any::<prop::sample::Index>()), 1..60)
        ) {
            let mut places: Vec<_> = spans
                .iter()
                .map(|(start, length, _)| place(*start, start + length, None))
                .collect();
            places.sort_by_key(|place| (place.start_ns, std::cmp::Reverse(place.end_ns)));
            for (index, (_, _, parent)) in spans.iter().enumerate().skip(1) {
                places[index].parent = Some(parent.index(index));
            }
            let lanes = assign(&places);
            for (later, place) in places.iter().enumerate() {
                for (earlier, other) in places[..later].iter().enumerate() {
                    let apart = other.end_ns <= place.start_ns;
                    let within = place.end_ns <= other.end_ns;
                    prop_assert!(lanes[earlier] != lanes[later] || apart || within);
                }
            }
        }
    }
}
