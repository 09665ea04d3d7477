use proptest::prelude::*;

use super::{Critical, Step, walk};

/// Spans by index: where each begins and ends, and which one it hangs below; the first is the root.
type Forest<'a> = &'a [(i64, i64, usize)];

fn path(forest: Forest<'_>) -> Critical {
    walk(
        0,
        |index| (forest[index].0, forest[index].1),
        |parent| {
            (1..forest.len())
                .filter(|index| forest[*index].2 == parent)
                .collect()
        },
    )
}

fn steps(forest: Forest<'_>) -> Vec<(usize, i64, i64)> {
    let flat = |step: &Step| (step.index, step.start_ns, step.end_ns);
    path(forest).steps.iter().map(flat).collect()
}

#[test]
fn a_span_without_children_is_its_own_path() {
    assert_eq!(steps(&[(0, 10, 0)]), [(0, 0, 10)]);
}

#[test]
fn children_one_after_the_other_are_all_on_it_and_the_gaps_are_the_parents() {
    let forest = [(0, 10, 0), (1, 4, 0), (6, 9, 0)];
    assert_eq!(
        steps(&forest),
        [(0, 0, 1), (1, 1, 4), (0, 4, 6), (2, 6, 9), (0, 9, 10)]
    );
}

#[test]
fn of_two_that_began_together_only_the_later_end_is_waited_for() {
    let forest = [(0, 10, 0), (0, 4, 0), (0, 10, 0)];
    assert_eq!(steps(&forest), [(2, 0, 10)]);
    assert!(!path(&forest).has(1));
}

#[test]
fn one_that_began_earlier_is_on_it_until_the_later_one_began() {
    let forest = [(0, 12, 0), (0, 8, 0), (5, 12, 0)];
    assert_eq!(steps(&forest), [(1, 0, 5), (2, 5, 12)]);
}

#[test]
fn what_ended_just_before_is_the_cause_rather_than_what_went_on() {
    // A close that began when the watcher ended, beside a reader that ran on.
    let forest = [(0, 10, 0), (0, 9, 0), (0, 7, 0), (7, 10, 0)];
    assert_eq!(steps(&forest), [(2, 0, 7), (3, 7, 10)]);
}

#[test]
fn the_path_goes_down_to_the_deepest_span() {
    let forest = [(0, 10, 0), (1, 9, 0), (2, 8, 1), (3, 7, 2)];
    let found = path(&forest);
    assert_eq!(found.own_ns(3), 4);
    assert_eq!(found.own_ns(2), 2);
    assert!((0..4).all(|index| found.has(index)));
}

#[test]
fn what_of_a_child_lies_outside_its_parent_does_not_count() {
    let forest = [(0, 10, 0), (-5, 3, 0), (8, 30, 0)];
    assert_eq!(steps(&forest), [(1, 0, 3), (0, 3, 8), (2, 8, 10)]);
}

#[test]
fn work_behind_the_root_and_spans_without_length_are_not_on_it() {
    let forest = [(0, 10, 0), (10, 20, 0), (5, 5, 0)];
    assert_eq!(steps(&forest), [(0, 0, 10)]);
    assert!(!path(&forest).has(1) && !path(&forest).has(2));
}

fn any_forest() -> impl Strategy<Value = Vec<(i64, i64, usize)>> {
    let one = (-20..60_i64, 0..40_i64, any::<prop::sample::Index>());
    proptest::collection::vec(one, 1..40).prop_map(|spans| {
        spans
            .iter()
            .enumerate()
            .map(|(index, (start, length, parent))| (*start, start + length, parent.index(index.max(1))))
            .collect()
    })
}

proptest! {
    #[test]
    fn the_path_covers_the_root_exactly_once_and_each_step_lies_within_its_span(forest in any_forest()) {
        let found = path(&forest);
        let (start, end, _) = forest[0];
        let mut cursor = start;
        for step in &found.steps {
            prop_assert_eq!(step.start_ns, cursor);
            prop_assert!(step.end_ns > step.start_ns);
            let (from, until, _) = forest[step.index];
            prop_assert!(from <= step.start_ns && step.end_ns <= until);
            cursor = step.end_ns;
        }
        prop_assert_eq!(cursor, end);
    }

    #[test]
    fn whoever_is_on_the_path_has_every_ancestor_on_it(forest in any_forest()) {
        let found = path(&forest);
        for index in (1..forest.len()).filter(|index| found.has(*index)) {
            prop_assert!(found.has(forest[index].2));
        }
    }
}
