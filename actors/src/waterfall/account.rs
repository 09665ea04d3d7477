//! The account of a call: the segments of its causal chain, their sum, and what no segment claims.
//!
//! The root span carries one attribute a segment, `chain.<machine>.<segment>_us`. Two names are reserved:
//! `chain.<machine>.unattributed_us` is what the machine itself found unclaimed between its first and last stamp, and
//! `chain.<machine>.total_us` is that whole distance, from which the former is computed when it is not given.

use dwell_messages::Span;

use super::model::clean;
use crate::account::chain_segments;

const UNATTRIBUTED: &str = "unattributed";
const TOTAL: &str = "total";
/// Unclaimed time is remarkable above this share of the whole, in per cent, ...
const UNATTRIBUTED_MAX_PERCENT: f64 = 1.0;
/// ... and above this absolute amount.
const UNATTRIBUTED_MAX_US: f64 = 20.0;

/// The account of one call. All times in microseconds.
pub(super) struct Account {
    pub(super) machines: Vec<Machine>,
    pub(super) wall_us: f64,
    pub(super) sum_us: i64,
    /// Negative when the segments claim more than there was: an error worth seeing.
    pub(super) unattributed_us: f64,
}

/// The part of one machine, or of the way between two.
pub(super) struct Machine {
    pub(super) name: String,
    pub(super) segments: Vec<(String, i64)>,
    pub(super) sum_us: i64,
    pub(super) unattributed_us: Option<i64>,
}

impl Account {
    /// `None` when the root names no segments.
    pub(super) fn of(root: &Span) -> Option<Self> {
        let mut machines: Vec<Machine> = Vec::new();
        let mut totals = Vec::new();
        for (machine, segment, us) in chain_segments(root) {
            let (machine, segment) = (clean(machine), clean(segment));
            let at = machines
                .iter()
                .position(|known| known.name == machine)
                .unwrap_or_else(|| {
                    machines.push(Machine {
                        name: machine,
                        segments: Vec::new(),
                        sum_us: 0,
                        unattributed_us: None,
                    });
                    machines.len() - 1
                });
            match segment.as_str() {
                UNATTRIBUTED => machines[at].unattributed_us = Some(us),
                TOTAL => totals.push((at, us)),
                _ => {
                    machines[at].sum_us = machines[at].sum_us.saturating_add(us);
                    machines[at].segments.push((segment, us));
                }
            }
        }
        for (at, total) in totals {
            let machine = &mut machines[at];
            machine
                .unattributed_us
                .get_or_insert(total.saturating_sub(machine.sum_us));
        }
        if machines.iter().all(|machine| machine.segments.is_empty()) {
            return None;
        }
        let sum_us = machines
            .iter()
            .fold(0_i64, |sum, machine| sum.saturating_add(machine.sum_us));
        let wall_us = root.duration_ns() as f64 / 1000.0;
        Some(Self {
            machines,
            wall_us,
            sum_us,
            unattributed_us: wall_us - sum_us as f64,
        })
    }

    /// Whether more is unclaimed, or claimed twice, than the budget allows.
    pub(super) fn is_off(&self) -> bool {
        let off = self.unattributed_us.abs();
        off > UNATTRIBUTED_MAX_US && off * 100.0 > self.wall_us * UNATTRIBUTED_MAX_PERCENT
    }

    /// Share of the whole in per cent; zero where the whole is zero.
    pub(super) fn share(&self, us: f64) -> f64 {
        if self.wall_us > 0.0 {
            us * 100.0 / self.wall_us
        } else {
            0.0
        }
    }
}
