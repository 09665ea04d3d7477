//! Ordinals, and whose a sideband is.

use dwell_actors::responses::{Attribution, Correlation, Label, REMEMBERED_MAX};

fn label(number: u64) -> Label {
    Label::Ordinal(number)
}

#[test]
fn an_ordinal_counts_every_request_of_its_connection_from_one() {
    let mut one = Correlation::default();
    let ordinals: Vec<_> = (0..3).map(|n| one.begin(n).get()).collect();
    assert_eq!(ordinals, [1, 2, 3]);
    // Another connection is another space.
    assert_eq!(Correlation::default().begin(()).get(), 1);
}

#[test]
fn a_sideband_is_matched_by_its_ordinal_and_not_by_who_holds_the_stream() {
    let mut correlation = Correlation::default();
    let first = correlation.begin("first");
    correlation.release();
    let second = correlation.begin("second");
    // Late: another request holds the stream by now.
    assert_eq!(
        correlation.attribute(label(1)),
        Attribution::First(first, &"first")
    );
    assert_eq!(
        correlation.attribute(label(2)),
        Attribution::First(second, &"second")
    );
}

#[test]
fn only_the_first_sideband_of_a_request_counts() {
    let mut correlation = Correlation::default();
    let ordinal = correlation.begin("a");
    assert_eq!(correlation.attribute(label(1)), Attribution::First(ordinal, &"a"));
    assert_eq!(correlation.attribute(label(1)), Attribution::Duplicate);
    assert_eq!(correlation.attribute(Label::None), Attribution::Duplicate);
}

#[test]
fn an_unlabelled_sideband_belongs_to_the_one_request_that_holds_the_stream_or_to_nobody() {
    let mut correlation = Correlation::default();
    assert_eq!(correlation.attribute(Label::None), Attribution::Unknown);
    let ordinal = correlation.begin("a");
    assert_eq!(
        correlation.attribute(Label::None),
        Attribution::First(ordinal, &"a")
    );
    correlation.begin("b");
    correlation.release();
    assert_eq!(correlation.attribute(Label::None), Attribution::Unknown);
}

#[test]
fn an_unknown_ordinal_and_a_label_that_is_none_are_nobodys() {
    let mut correlation = Correlation::default();
    let ordinal = correlation.begin("a");
    for number in [0, 2, u64::MAX] {
        assert_eq!(correlation.attribute(label(number)), Attribution::Unknown);
    }
    // Not the holder's: it says that it is somebody's.
    assert_eq!(correlation.attribute(Label::Malformed), Attribution::Unknown);
    // And none of these has used up what is the holder's.
    assert_eq!(correlation.attribute(label(1)), Attribution::First(ordinal, &"a"));
}

#[test]
fn what_is_remembered_for_late_sidebands_is_bounded_and_the_oldest_goes() {
    let mut correlation = Correlation::default();
    for n in 0..=REMEMBERED_MAX as u64 {
        correlation.begin(n);
    }
    assert_eq!(correlation.attribute(label(1)), Attribution::Unknown);
    assert!(matches!(
        correlation.attribute(label(2)),
        Attribution::First(_, 1)
    ));
    let newest = REMEMBERED_MAX as u64 + 1;
    assert!(matches!(
        correlation.attribute(label(newest)),
        Attribution::First(..)
    ));
}
