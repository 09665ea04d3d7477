//! Spans in tree order, without recursion: a trace may be one chain of thousands.

use std::collections::{HashMap, HashSet};

use dwell_messages::{Role, Span};

use super::critical::Critical;
use super::model::{Class, Fold, Row, clean, order};
use super::place::Placement;

/// More siblings of one name than this are one row.
const SIBLINGS_SHOWN_MAX: usize = 12;
/// The most rows that are laid out.
const ROWS_MAX: usize = 5_000;

type Spans = [(Role, Span)];

/// Rows in the order of the picture.
pub(super) struct Laid {
    /// The root's tree, then those of other spans without a parent.
    pub(super) rows: Vec<Row>,
    /// Spans whose parent is missing, with what is below them.
    pub(super) orphans: Vec<Row>,
    /// How many spans' parents are missing.
    pub(super) orphan_tops: usize,
    /// Rows past the bound.
    pub(super) hidden_rows: usize,
}

/// The span that the whole is measured by: a call without a parent here, else the longest span without one.
pub(super) fn root(spans: &Spans, name: &str) -> Option<usize> {
    let ids: HashSet<_> = spans.iter().map(|(_, span)| span.span_id).collect();
    let rank = |span: &Span| {
        let parentless = span.parent == [0; 8];
        let top = parentless || !ids.contains(&span.parent);
        (top && span.name == name, parentless, top, span.duration_ns())
    };
    // The first of equals, so that a drawing does not change with the order of later lines.
    (0..spans.len()).rev().max_by_key(|index| rank(&spans[*index].1))
}

pub(super) fn lay_out(spans: &Spans, root: usize, placement: &Placement, critical: &Critical) -> Laid {
    let ids: HashSet<_> = spans.iter().map(|(_, span)| span.span_id).collect();
    let mut children: HashMap<[u8; 8], Vec<usize>> = HashMap::new();
    let (mut tops, mut lost) = (Vec::new(), Vec::new());
    for (index, (_, span)) in spans.iter().enumerate().filter(|(index, _)| *index != root) {
        if span.parent == [0; 8] {
            tops.push(index);
        } else if ids.contains(&span.parent) {
            children.entry(span.parent).or_default().push(index);
        } else {
            lost.push(index);
        }
    }
    let by_start = |index: &usize| order(placement, spans[*index].0, &spans[*index].1);
    tops.sort_by_key(by_start);
    lost.sort_by_key(by_start);
    for list in children.values_mut() {
        list.sort_by_key(by_start);
    }
    let mut walk = Walk {
        spans,
        placement,
        critical,
        children,
        seen: HashSet::new(),
        hidden_rows: 0,
        laid_rows: 0,
    };
    let mut rows = walk.trees(vec![root]);
    rows.extend(walk.trees(tops));
    let mut orphans = walk.trees(lost.clone());
    // What is left hangs on itself: a ring of parents, which nothing sound makes.
    let ring = (0..spans.len())
        .filter(|index| !walk.seen.contains(index))
        .collect::<Vec<_>>();
    let rings = ring.len();
    for index in ring {
        if !walk.seen.contains(&index) {
            orphans.extend(walk.trees(vec![index]));
        }
    }
    Laid {
        rows,
        orphans,
        orphan_tops: lost.len() + rings,
        hidden_rows: walk.hidden_rows,
    }
}

struct Walk<'a> {
    spans: &'a Spans,
    placement: &'a Placement,
    critical: &'a Critical,
    children: HashMap<[u8; 8], Vec<usize>>,
    seen: HashSet<usize>,
    laid_rows: usize,
    hidden_rows: usize,
}

/// One row to be made: a span, or many siblings of one name.
struct Item {
    members: Vec<usize>,
    depth: usize,
    trail: u32,
    last: bool,
}

impl Walk<'_> {
    fn trees(&mut self, tops: Vec<usize>) -> Vec<Row> {
        let mut rows = Vec::new();
        let mut stack = self.items(tops, 0, 0);
        while let Some(item) = stack.pop() {
            let below = match item.members.as_slice() {
                [only] => {
                    let children = self.unseen_children(*only);
                    let trail = if item.last {
                        item.trail
                    } else {
                        item.trail | depth_bit(item.depth)
                    };
                    stack.extend(self.items(children, item.depth + 1, trail));
                    0
                }
                many => self.count_below(many),
            };
            if self.laid_rows >= ROWS_MAX {
                self.hidden_rows += 1;
                continue;
            }
            self.laid_rows += 1;
            rows.push(self.row(item, below));
        }
        rows
    }

    /// Siblings as rows, folded by name and role, in reverse so that the first is on top of a stack.
    fn items(&mut self, siblings: Vec<usize>, depth: usize, trail: u32) -> Vec<Item> {
        let spans = self.spans;
        let key = |index: &usize| (spans[*index].0, spans[*index].1.name.as_ref());
        let mut counts: HashMap<_, usize> = HashMap::new();
        for index in &siblings {
            *counts.entry(key(index)).or_default() += 1;
        }
        let mut items: Vec<Item> = Vec::new();
        let mut folded: HashMap<_, usize> = HashMap::new();
        for index in siblings {
            self.seen.insert(index);
            if counts
                .get(&key(&index))
                .is_some_and(|count| *count > SIBLINGS_SHOWN_MAX)
            {
                if let Some(at) = folded.get(&key(&index)) {
                    items[*at].members.push(index);
                    continue;
                }
                folded.insert(key(&index), items.len());
            }
            items.push(Item {
                members: vec![index],
                depth,
                trail,
                last: false,
            });
        }
        if let Some(last) = items.last_mut() {
            last.last = true;
        }
        items.reverse();
        items
    }

    fn unseen_children(&mut self, index: usize) -> Vec<usize> {
        let children = self
            .children
            .remove(&self.spans[index].1.span_id)
            .unwrap_or_default();
        children
            .into_iter()
            .filter(|child| !self.seen.contains(child))
            .collect()
    }

    fn count_below(&mut self, members: &[usize]) -> usize {
        let mut stack = members.to_vec();
        let mut count = 0;
        while let Some(index) = stack.pop() {
            for child in self.unseen_children(index) {
                self.seen.insert(child);
                stack.push(child);
                count += 1;
            }
        }
        count
    }

    fn row(&self, item: Item, below: usize) -> Row {
        let first = item.members[0];
        let (role, span) = &self.spans[first];
        let start_ns = self.placement.start_ns(*role, span);
        let members = || item.members.iter().map(|index| &self.spans[*index].1);
        let end = members()
            .map(|span| {
                self.placement
                    .start_ns(*role, span)
                    .saturating_add_unsigned(span.duration_ns())
            })
            .max()
            .unwrap_or(start_ns);
        Row {
            role: *role,
            name: clean(&span.name),
            class: Class::of(&span.name),
            depth: item.depth,
            trail: item.trail,
            last: item.last,
            start_ns,
            extent_ns: start_ns.abs_diff(end),
            duration_ns: members().fold(0, |sum, span| sum.saturating_add(span.duration_ns())),
            fold: (item.members.len() > 1).then_some(Fold {
                count: item.members.len(),
                below,
            }),
            error: members().find_map(|span| span.error.as_deref()).map(clean),
            critical: item.members.iter().any(|index| self.critical.has(*index)),
            critical_ns: item
                .members
                .iter()
                .map(|index| self.critical.own_ns(*index))
                .sum(),
            clock_error: None,
            span_id: span.span_id,
            parent: span.parent,
            members: item.members,
        }
    }
}

fn depth_bit(depth: usize) -> u32 {
    u32::try_from(depth)
        .ok()
        .and_then(|depth| 1_u32.checked_shl(depth))
        .unwrap_or(0)
}
