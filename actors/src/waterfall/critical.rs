//! The critical path: at every instant of the root, the one span that its end was waiting for.
//!
//! Walked back from the root's end. The child that ended last is what the parent waited for; before that child began,
//! the parent waited for whatever ended last before then; where no child was under way, the parent itself was at work.
//! Children that overlap are concurrent: the one that ended later is on the path while it ran, and one that began before
//! it is on the path only until it began. What of a child lies outside its parent is not the parent's wait; a child that
//! began when its parent had ended, as the news of a process's end does, is what the parent's own caller waited for. A
//! wait for another machine is explained by what that machine did meanwhile.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, HashSet};

use dwell_messages::{Role, Span};

use super::place::Placement;
use crate::telemetry::semconv::span::{HANDLER, RESPONSE_WAIT};
use crate::trace_file::ROOT_SPAN_NAME;

/// How many ancestors that had ended are passed over.
const OUTLIVED_MAX: usize = 8;

/// A stretch of the root during which one span, and none below it, was what the end waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Step {
    /// The span.
    pub(super) index: usize,
    /// Relative to the root's start, as drawn.
    pub(super) start_ns: i64,
    /// After the start.
    pub(super) end_ns: i64,
}

/// The path of one trace.
#[derive(Default)]
pub(super) struct Critical {
    /// In the order of time, without gaps from the root's start to its end.
    pub(super) steps: Vec<Step>,
    on_path: HashSet<usize>,
    own_ns: HashMap<usize, u64>,
}

impl Critical {
    pub(super) fn of(spans: &[(Role, Span)], root: usize, placement: &Placement) -> Self {
        let mut children: HashMap<[u8; 8], Vec<usize>> = HashMap::new();
        let by_id = spans.iter().map(|one| (one.1.span_id, one)).collect();
        let is_call = spans[root].1.name == ROOT_SPAN_NAME;
        let others = spans.iter().enumerate().filter(|(index, _)| *index != root);
        for (index, one) in others.filter(|(_, one)| !(is_call && is_beside(&one.1))) {
            let caller = caller(one, &by_id, placement);
            children.entry(caller).or_default().push(index);
        }
        let mut explained = HashMap::new();
        for siblings in children.values_mut() {
            explained.extend(explain_wait(spans, siblings));
        }
        let interval = |index: usize| {
            let (role, span) = &spans[index];
            let start_ns = placement.start_ns(*role, span);
            (start_ns, start_ns.saturating_add_unsigned(span.duration_ns()))
        };
        // Taken out, so that a ring of parents and an id that two spans share are walked once.
        walk(root, interval, |index| {
            let mut below = children.remove(&spans[index].1.span_id).unwrap_or_default();
            below.extend(explained.remove(&index).into_iter().flatten());
            below
        })
    }

    /// Whether the root's end waited for this span, or for one below it.
    pub(super) fn has(&self, index: usize) -> bool {
        self.on_path.contains(&index)
    }

    /// How long the root's end waited for this span and none below it.
    pub(super) fn own_ns(&self, index: usize) -> u64 {
        self.own_ns.get(&index).copied().unwrap_or(0)
    }
}

/// Whether a call never waits for this: what keeps its thread and its record, what ships its spans, and what is only another
/// name for the whole of its execution.
fn is_beside(span: &Span) -> bool {
    let name = span.name.as_ref();
    let actor = name
        .strip_prefix("mailbox ")
        .or_else(|| name.strip_prefix("turn "));
    actor.is_some_and(|actor| ["MetadataWriter", "RunRecorder", "TraceCollector"].contains(&actor))
        || ["thread ", "metadata ", "log "]
            .iter()
            .any(|kept| name.starts_with(kept))
        || name == HANDLER
}

/// Whose wait a span can be: its parent's, or that of the nearest ancestor that had not ended when it began.
fn caller(
    (role, span): &(Role, Span),
    by_id: &HashMap<[u8; 8], &(Role, Span)>,
    placement: &Placement,
) -> [u8; 8] {
    let start_ns = placement.start_ns(*role, span);
    let mut caller = span.parent;
    for _ in 0..OUTLIVED_MAX {
        let Some((role, above)) = by_id.get(&caller) else {
            break;
        };
        let end_ns = placement
            .start_ns(*role, above)
            .saturating_add_unsigned(above.duration_ns());
        if start_ns < end_ns || !by_id.contains_key(&above.parent) {
            break;
        }
        caller = above.parent;
    }
    caller
}

/// Takes the other machine's spans from among the siblings of a wait for it, and gives them to the wait.
fn explain_wait(spans: &[(Role, Span)], siblings: &mut Vec<usize>) -> Option<(usize, Vec<usize>)> {
    let wait = *siblings
        .iter()
        .find(|index| spans[**index].1.name == RESPONSE_WAIT)?;
    let (own, others): (Vec<_>, Vec<_>) = std::mem::take(siblings)
        .into_iter()
        .partition(|index| spans[*index].0 == spans[wait].0);
    *siblings = own;
    Some((wait, others))
}

/// Children by their ends; among those that end together, first the one that began last.
type Ends = BTreeSet<(i64, Reverse<i64>, usize)>;

struct Frame {
    index: usize,
    from_ns: i64,
    /// What lies before it is still to be explained.
    cursor_ns: i64,
    children: Ends,
}

impl Frame {
    /// The child that the cursor waited for; those that began at the cursor or later are no cause of it.
    fn next_child(&mut self) -> Option<(i64, i64, usize)> {
        let at = |end_ns: i64| (end_ns, Reverse(i64::MAX), 0);
        // Of those under way at the cursor the one that ended first: the others went on for something else.
        while let Some(key) = self.children.range(at(self.cursor_ns)..).next().copied() {
            self.children.remove(&key);
            let (end_ns, Reverse(start_ns), index) = key;
            if start_ns < self.cursor_ns {
                return Some((start_ns, end_ns, index));
            }
        }
        let last_end = self.children.last()?.0;
        if last_end <= self.from_ns {
            return None;
        }
        let key = *self.children.range(at(last_end)..).next()?;
        self.children.remove(&key);
        Some((key.1.0, key.0, key.2))
    }
}

fn walk(
    root: usize,
    interval: impl Fn(usize) -> (i64, i64),
    mut children: impl FnMut(usize) -> Vec<usize>,
) -> Critical {
    let mut found = Critical::default();
    let mut frame = |index: usize, from_ns: i64, cursor_ns: i64| Frame {
        index,
        from_ns,
        cursor_ns,
        children: children(index)
            .into_iter()
            .map(|child| {
                let (start_ns, end_ns) = interval(child);
                (end_ns, Reverse(start_ns), child)
            })
            .collect(),
    };
    let (start_ns, end_ns) = interval(root);
    found.on_path.insert(root);
    // No recursion: a trace may be one chain of thousands.
    let mut stack = vec![frame(root, start_ns, end_ns)];
    while let Some(top) = stack.last_mut() {
        let Some((start_ns, end_ns, child)) = top.next_child() else {
            let (index, from_ns, cursor_ns) = (top.index, top.from_ns, top.cursor_ns);
            found.push(index, from_ns, cursor_ns);
            stack.pop();
            continue;
        };
        let (from_ns, until_ns) = (start_ns.max(top.from_ns), end_ns.min(top.cursor_ns));
        if from_ns >= until_ns {
            continue;
        }
        found.push(top.index, until_ns, top.cursor_ns);
        top.cursor_ns = from_ns;
        found.on_path.insert(child);
        stack.push(frame(child, from_ns, until_ns));
    }
    found.steps.reverse();
    found
}

impl Critical {
    fn push(&mut self, index: usize, start_ns: i64, end_ns: i64) {
        if start_ns < end_ns {
            self.steps.push(Step {
                index,
                start_ns,
                end_ns,
            });
            *self.own_ns.entry(index).or_default() += start_ns.abs_diff(end_ns);
        }
    }
}

#[cfg(test)]
#[path = "critical_tests.rs"]
mod tests;
