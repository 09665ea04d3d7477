//! Where on one time line the spans of several machines stand. For drawing only: no sum is made from it.

use std::collections::HashMap;

use dwell_messages::{Role, Span};

use crate::trace_file::{ClockOffset, Trace};

use super::model::{ClockError, Row, end_ns};

const ROLES: [Role; 3] = [Role::Harness, Role::Executor, Role::Relay];

/// How far each role's spans are moved.
pub(crate) struct Placement {
    origin_unix_ns: u64,
    moves: Vec<(Role, Move)>,
}

#[derive(Clone, Copy)]
struct Move {
    shift_ns: i64,
    error: ClockError,
}

impl Placement {
    pub(super) fn new(trace: &Trace, root: usize) -> Self {
        let (root_role, root_span) = &trace.spans[root];
        let mut placement = Self {
            origin_unix_ns: root_span.start_unix_ns,
            moves: Vec::new(),
        };
        // The root's clock is the time line, whatever its own offset: only differences are drawn.
        let base_us = clock(trace, *root_role).map_or(0, |clock| clock.offset_us);
        for role in ROLES.into_iter().filter(|role| role != root_role) {
            let known = clock(trace, role).map(|clock| Move {
                shift_ns: base_us.saturating_sub(clock.offset_us).saturating_mul(1000),
                error: ClockError::Within(clock.error_us),
            });
            if let Some(step) = known.or_else(|| placement.centre(trace, role)) {
                placement.moves.push((role, step));
            }
        }
        placement
    }

    /// Where a span begins, relative to the root's start.
    pub(crate) fn start_ns(&self, role: Role, span: &Span) -> i64 {
        self.unmoved_ns(span).saturating_add(self.shift_ns(role))
    }

    pub(super) fn warnings(&self) -> Vec<String> {
        let centred = self
            .moves
            .iter()
            .filter(|(_, step)| step.error == ClockError::Unknown);
        centred
            .map(|(role, _)| {
                let name = crate::trace_file::role_name(*role);
                format!(
                    "the {name}'s clock is not known: its spans are drawn in the middle of their caller's"
                )
            })
            .collect()
    }

    /// By how much the spans of a role may stand in the wrong place; `None` where they were not moved.
    pub(super) fn error(&self, role: Role) -> Option<ClockError> {
        self.step(role).map(|step| step.error)
    }

    fn shift_ns(&self, role: Role) -> i64 {
        self.step(role).map_or(0, |step| step.shift_ns)
    }

    fn step(&self, role: Role) -> Option<Move> {
        let known = self.moves.iter().find(|(known, _)| *known == role);
        known.map(|(_, step)| *step)
    }

    fn unmoved_ns(&self, span: &Span) -> i64 {
        let distance = i128::from(span.start_unix_ns) - i128::from(self.origin_unix_ns);
        i64::try_from(distance).unwrap_or(if distance < 0 { i64::MIN } else { i64::MAX })
    }

    /// Without an estimate: nothing when every span lies within its caller's, as on one machine; else half the
    /// difference on either side of the longest span called from another role.
    fn centre(&self, trace: &Trace, role: Role) -> Option<Move> {
        let by_id: HashMap<_, _> = trace
            .spans
            .iter()
            .map(|(role, span)| (span.span_id, (*role, span)))
            .collect();
        let crossings: Vec<_> = trace
            .spans
            .iter()
            .filter(|(own, _)| *own == role)
            .filter_map(|(_, span)| Some((span, *by_id.get(&span.parent)?)))
            .filter(|(_, (caller_role, _))| *caller_role != role)
            .map(|(span, (caller_role, caller))| {
                let start = self.start_ns(caller_role, caller);
                (span, start, start.saturating_add_unsigned(caller.duration_ns()))
            })
            .collect();
        let within = crossings.iter().all(|(span, start, end)| {
            let own = self.unmoved_ns(span);
            own >= *start && own.saturating_add_unsigned(span.duration_ns()) <= *end
        });
        if within {
            return None;
        }
        let (span, start, end) = crossings
            .into_iter()
            .max_by_key(|(span, _, _)| span.duration_ns())?;
        let spare = end
            .saturating_sub(start)
            .saturating_sub_unsigned(span.duration_ns())
            .max(0);
        let target = start.saturating_add(spare / 2);
        Some(Move {
            shift_ns: target.saturating_sub(self.unmoved_ns(span)),
            error: ClockError::Unknown,
        })
    }
}

/// Start and length of the drawing: the root, and what of its tree reaches beyond it by at most its own length.
pub(super) fn axis(wall_ns: u64, rows: &[Row]) -> (i64, u64) {
    let wall = i64::try_from(wall_ns).unwrap_or(i64::MAX / 4).min(i64::MAX / 4);
    let first = rows
        .iter()
        .map(|row| row.start_ns)
        .min()
        .unwrap_or(0)
        .clamp(-wall, 0);
    let last = rows
        .iter()
        .map(end_ns)
        .max()
        .unwrap_or(wall)
        .clamp(wall, wall * 2);
    (first, first.abs_diff(last).max(1))
}

fn clock(trace: &Trace, role: Role) -> Option<ClockOffset> {
    trace
        .offsets
        .iter()
        .find(|(known, _)| *known == role)
        .map(|(_, clock)| *clock)
}
