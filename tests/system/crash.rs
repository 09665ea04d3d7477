//! Processes that are killed while they keep a thread, at every place that matters.
//!
//! A kill cannot show a sync that is missing, since the kernel keeps what was written: `power_cut` does.

use tempfile::tempdir;

use crate::keeping::{Acks, Mode, POINTS, begin, command, ended_well, killed_at, verify};

fn rounds() -> u64 {
    if std::env::var_os("DWELL_SOAK").is_some() {
        500
    } else {
        100
    }
}

#[test]
fn what_was_acknowledged_survives_a_kill_at_every_place_and_nothing_is_half_applied() {
    let dir = tempdir().unwrap();
    let id = begin(dir.path());
    let mut acked = 1;
    let mut killed = 0;
    for round in 0..rounds() {
        let places = POINTS.len() as u64;
        let point = POINTS[usize::try_from(round % places).unwrap()];
        // A process opens its log once, and its room lasts for more items than it keeps.
        let nth = if matches!(point, "Opened" | "Prepared") {
            1
        } else {
            1 + round / places % 5
        };
        let mut child = killed_at(command(dir.path(), id, Mode::Honest, 12), point, nth)
            .spawn()
            .unwrap();
        acked = Acks::of(&mut child).chain([acked]).max().unwrap();
        killed += u32::from(!ended_well(child));
        let items = verify(dir.path(), id, acked);
        assert!(
            items.is_ok(),
            "round {round}, {nth}. {point}: {}",
            items.unwrap_err()
        );
    }
    assert_eq!(u64::from(killed), rounds(), "every round ends in a kill");
}

/// The control: a process that acknowledges too early is found out by the same test.
#[test]
fn an_acknowledgement_before_its_flush_is_found_out_by_a_kill() {
    let dir = tempdir().unwrap();
    let id = begin(dir.path());
    let mut found = false;
    for _ in 0..10 {
        let mut child = killed_at(command(dir.path(), id, Mode::Early, 12), "BeforeWrite", 1)
            .spawn()
            .unwrap();
        let acked = Acks::of(&mut child).max().unwrap_or(1);
        ended_well(child);
        found = verify(dir.path(), id, acked).is_err();
        if found {
            break;
        }
    }
    assert!(found, "acknowledged too early ten times, and nothing was missing");
}
