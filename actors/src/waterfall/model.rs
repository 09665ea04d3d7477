//! What both views show: rows in order, the account, the clocks, and what to be warned of.

use dwell_messages::{Role, Span, TraceId};

use crate::trace_file::{ClockOffset, ROOT_SPAN_NAME, Trace};

use super::account::Account;
use super::critical::Critical;
use super::place::{self, Placement};
use super::tree;

/// A trace, laid out.
pub(super) struct Model {
    pub(super) trace_id: TraceId,
    pub(super) root_name: String,
    /// The root's own duration.
    pub(super) wall_ns: u64,
    /// Where the drawing begins, relative to the root's start; never after it.
    pub(super) axis_start_ns: i64,
    /// How much time the drawing spans; never zero.
    pub(super) axis_ns: u64,
    pub(super) rows: Vec<Row>,
    pub(super) orphans: Vec<Row>,
    pub(super) account: Option<Account>,
    pub(super) critical: Critical,
    pub(super) clocks: Vec<(Role, ClockOffset)>,
    pub(super) warnings: Vec<String>,
}

/// One line of the picture.
pub(super) struct Row {
    pub(super) role: Role,
    pub(super) name: String,
    pub(super) class: Class,
    pub(super) depth: usize,
    /// Bit n: the ancestor at depth n has a sibling further down. Depths from 32 are not drawn.
    pub(super) trail: u32,
    /// Whether no sibling follows.
    pub(super) last: bool,
    /// Relative to the root's start, on the harness's clock as far as it is known.
    pub(super) start_ns: i64,
    /// From the start of the first to the end of the last, for the bar.
    pub(super) extent_ns: u64,
    /// Time spent: the span's own, or the sum of those folded.
    pub(super) duration_ns: u64,
    pub(super) fold: Option<Fold>,
    pub(super) error: Option<String>,
    /// Whether the root's end waited for it, or for one below it.
    pub(super) critical: bool,
    /// How long it waited for this one and none below it.
    pub(super) critical_ns: u64,
    /// Where a row of another machine stands below its caller: by how much its place may be wrong.
    pub(super) clock_error: Option<ClockError>,
    pub(super) span_id: [u8; 8],
    pub(super) parent: [u8; 8],
    /// The spans it stands for, by their places in the trace.
    pub(super) members: Vec<usize>,
}

/// How far a row may be from where it is drawn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ClockError {
    /// At most so many microseconds either way.
    Within(i64),
    /// The clock is not known: drawn in the middle of the caller's.
    Unknown,
}

/// Many siblings of one name in one row.
pub(super) struct Fold {
    /// How many.
    pub(super) count: usize,
    /// How many spans lie below them, not shown.
    pub(super) below: usize,
}

/// What kind of work a row stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// A wait in a mailbox.
    Mailbox,
    /// A handler's turn.
    Turn,
    /// Anything wider.
    Stage,
}

impl Class {
    pub(crate) fn of(name: &str) -> Self {
        if name.starts_with("mailbox ") {
            Self::Mailbox
        } else if name.starts_with("turn ") || name.starts_with("handle ") {
            Self::Turn
        } else {
            Self::Stage
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Mailbox => "mailbox",
            Self::Turn => "turn",
            Self::Stage => "stage",
        }
    }
}

impl Model {
    /// `None` for a trace without spans.
    pub(super) fn new(trace: &Trace) -> Option<Self> {
        let (root_index, placement) = placed(trace)?;
        let (_, root) = &trace.spans[root_index];
        let critical = Critical::of(&trace.spans, root_index, &placement);
        let mut laid = tree::lay_out(&trace.spans, root_index, &placement, &critical);
        mark_crossings(&mut laid.rows, &placement);
        mark_crossings(&mut laid.orphans, &placement);
        let (axis_start_ns, axis_ns) = place::axis(root.duration_ns(), &laid.rows);
        let mut warnings = placement.warnings();
        warnings.extend(left_out(trace, laid.orphan_tops, laid.hidden_rows));
        Some(Self {
            trace_id: trace.trace_id,
            root_name: clean(&root.name),
            wall_ns: root.duration_ns(),
            axis_start_ns,
            axis_ns,
            rows: laid.rows,
            orphans: laid.orphans,
            account: Account::of(root),
            critical,
            clocks: trace.offsets.clone(),
            warnings,
        })
    }

    /// A duration's share of the whole, in per cent; zero where the whole is zero.
    pub(super) fn share(&self, duration_ns: u64) -> f64 {
        if self.wall_ns == 0 {
            0.0
        } else {
            duration_ns as f64 * 100.0 / self.wall_ns as f64
        }
    }
}

/// Says at the first row of another machine below each caller how far its place may be off; the others are as sure among
/// themselves.
fn mark_crossings(rows: &mut [Row], placement: &Placement) {
    // Of each row above: its role, and of which other role a row below it was marked last.
    let mut above: Vec<(Role, Option<Role>)> = Vec::new();
    for row in rows {
        above.truncate(row.depth);
        let marked = match above.last_mut() {
            Some((role, marked)) if *role != row.role => marked.replace(row.role) == Some(row.role),
            Some(_) => true,
            None => false,
        };
        if !marked {
            row.clock_error = placement.error(row.role);
        }
        above.push((row.role, None));
    }
}

fn left_out(trace: &Trace, orphan_tops: usize, hidden_rows: usize) -> Vec<String> {
    let mut warnings = Vec::new();
    if orphan_tops > 0 {
        warnings.push(format!(
            "{} not in this trace: shown as orphans",
            plural(orphan_tops, "span's parent is", "spans' parents are")
        ));
    }
    if trace.omitted_spans > 0 {
        let count = usize::try_from(trace.omitted_spans).unwrap_or(usize::MAX);
        warnings.push(format!(
            "{} left out: the trace is too large",
            plural(count, "span was", "spans were")
        ));
    }
    if hidden_rows > 0 {
        warnings.push(format!(
            "{} not shown: use the JSON form",
            plural(hidden_rows, "row is", "rows are")
        ));
    }
    if trace.unread_lines > 0 {
        let count = usize::try_from(trace.unread_lines).unwrap_or(usize::MAX);
        warnings.push(format!(
            "{} could not be read",
            plural(count, "line of the trace files", "lines of the trace files")
        ));
    }
    warnings
}

/// Where a trace's spans stand on the time line of its root, and which one that is; `None` for a trace without spans.
pub(crate) fn placed(trace: &Trace) -> Option<(usize, Placement)> {
    let root = tree::root(&trace.spans, ROOT_SPAN_NAME)?;
    Some((root, Placement::new(trace, root)))
}

/// The span that a trace is measured by; `None` for a trace without spans.
pub(crate) fn call_span(trace: &Trace) -> Option<&Span> {
    tree::root(&trace.spans, ROOT_SPAN_NAME).map(|index| &trace.spans[index].1)
}

/// What each role's spans of one name took of the critical path, in nanoseconds; together the whole root.
pub(crate) fn critical_shares(trace: &Trace) -> Vec<(Role, String, u64)> {
    let Some((root, placement)) = placed(trace) else {
        return Vec::new();
    };
    let steps = Critical::of(&trace.spans, root, &placement).steps;
    steps
        .iter()
        .map(|step| {
            let (role, span) = &trace.spans[step.index];
            (*role, clean(&span.name), step.start_ns.abs_diff(step.end_ns))
        })
        .collect()
}

fn plural(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// Text of another machine, safe for a terminal and one column a character.
pub(crate) fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if is_drawable(c) { c } else { '?' })
        .collect()
}

fn is_drawable(c: char) -> bool {
    match c {
        ' '..='~' => true,
        // Control, zero-width and direction characters; what lies above may take two columns.
        '\u{a1}'..='\u{2ff}' | '\u{370}'..='\u{482}' | '\u{2010}'..='\u{2027}' => c != '\u{ad}',
        _ => false,
    }
}

/// The end of a span on the time line of `start_ns`.
pub(super) fn end_ns(row: &Row) -> i64 {
    row.start_ns.saturating_add_unsigned(row.extent_ns)
}

/// Where a span stands among the others of its parent.
pub(super) fn order(placement: &Placement, role: Role, span: &Span) -> (i64, std::cmp::Reverse<u64>) {
    (
        placement.start_ns(role, span),
        std::cmp::Reverse(span.duration_ns()),
    )
}
