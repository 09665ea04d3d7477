//! Two contents compared line by line, within a time.

use std::collections::HashMap;
use std::time::Instant;

use similar::{Algorithm, DiffOp, capture_diff_slices_deadline, group_diff_ops};

/// Lines shown around a change.
const CONTEXT_LINES: usize = 3;
/// How many lines are looked at between two looks at the clock.
const LINES_BETWEEN_LOOKS: usize = 4_096;
/// Behind a last line without an end.
const NO_NEWLINE: &[u8] = b"\n\\ No newline at end of file\n";

/// The text of all hunks, and what is in it.
#[derive(Debug, Default)]
pub(super) struct Hunks {
    pub(super) text: Vec<u8>,
    pub(super) added: u64,
    pub(super) removed: u64,
    /// Bytes of lines that stayed.
    pub(super) kept_bytes: usize,
    /// Whether the time was over before the comparison was: it is right, and longer than it need be.
    pub(super) coarse: bool,
}

/// What leads from `old` to `new`. Right whenever the time ends; where it did, whole stretches are replaced that have
/// lines in common.
pub(super) fn compare(old: &[u8], new: &[u8], deadline: Instant) -> Hunks {
    let (old, new) = (lines(old), lines(new));
    let ops = match numbered(&old, &new, deadline) {
        Some((old, new)) => capture_diff_slices_deadline(Algorithm::Myers, &old, &new, Some(deadline)),
        None => vec![DiffOp::Replace {
            old_index: 0,
            old_len: old.len(),
            new_index: 0,
            new_len: new.len(),
        }],
    };
    let mut hunks = Hunks {
        coarse: Instant::now() > deadline,
        ..Hunks::default()
    };
    for op in &ops {
        hunks.count(op, &old);
    }
    for group in group_diff_ops(ops, CONTEXT_LINES) {
        hunks.write(&group, &old, &new);
    }
    hunks
}

/// Lines with their ends.
fn lines(content: &[u8]) -> Vec<&[u8]> {
    content.split_inclusive(|byte| *byte == b'\n').collect()
}

/// A number for each line, the same for the same line. `None` when the time is over.
fn numbered(old: &[&[u8]], new: &[&[u8]], deadline: Instant) -> Option<(Vec<u32>, Vec<u32>)> {
    let mut numbers = HashMap::new();
    Some((
        number(old, &mut numbers, deadline)?,
        number(new, &mut numbers, deadline)?,
    ))
}

fn number<'a>(
    lines: &[&'a [u8]],
    numbers: &mut HashMap<&'a [u8], u32>,
    deadline: Instant,
) -> Option<Vec<u32>> {
    let mut numbered = Vec::with_capacity(lines.len());
    for some in lines.chunks(LINES_BETWEEN_LOOKS) {
        if Instant::now() > deadline {
            return None;
        }
        for line in some {
            // What is compared is bounded far below the range of this.
            let next = numbers.len() as u32;
            numbered.push(*numbers.entry(line).or_insert(next));
        }
    }
    Some(numbered)
}

impl Hunks {
    fn count(&mut self, op: &DiffOp, old: &[&[u8]]) {
        let (before, after) = (op.old_range(), op.new_range());
        match op {
            DiffOp::Equal { .. } => {
                self.kept_bytes += old[before].iter().map(|line| line.len()).sum::<usize>();
            }
            DiffOp::Delete { .. } | DiffOp::Insert { .. } | DiffOp::Replace { .. } => {
                self.removed += before.len() as u64;
                self.added += after.len() as u64;
            }
        }
    }

    fn write(&mut self, group: &[DiffOp], old: &[&[u8]], new: &[&[u8]]) {
        let (Some(first), Some(last)) = (group.first(), group.last()) else {
            return;
        };
        let (from, to) = (first.old_range().start, last.old_range().end);
        let before = place(from, to - from);
        let (from, to) = (first.new_range().start, last.new_range().end);
        let after = place(from, to - from);
        self.text
            .extend_from_slice(format!("@@ -{before} +{after} @@\n").as_bytes());
        for op in group {
            match op {
                DiffOp::Equal { .. } => self.lines(b' ', &old[op.old_range()]),
                DiffOp::Delete { .. } | DiffOp::Insert { .. } | DiffOp::Replace { .. } => {
                    self.lines(b'-', &old[op.old_range()]);
                    self.lines(b'+', &new[op.new_range()]);
                }
            }
        }
    }

    fn lines(&mut self, sign: u8, lines: &[&[u8]]) {
        for line in lines {
            self.text.push(sign);
            self.text.extend_from_slice(line);
            if !line.ends_with(b"\n") {
                self.text.extend_from_slice(NO_NEWLINE);
            }
        }
    }
}

/// A hunk's place on one side. Nothing is said to lie behind the line before it.
fn place(start: usize, lines: usize) -> String {
    match lines {
        0 => format!("{start},0"),
        1 => format!("{}", start + 1),
        _ => format!("{},{lines}", start + 1),
    }
}
