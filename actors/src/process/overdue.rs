//! A termination whose tree does not end: reported, so that nobody waits for what the kernel does not let go of.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dwell_messages::Reply;
use dwell_messages::process::Terminated;

use super::{Process, ProcessControl, TREE_WAIT};
use crate::mailbox::{TimerGuard, Turn};
use crate::spawn::{Member, ProcessGroup};

/// When somebody who waits for a tree's end is answered without it.
#[derive(Default)]
pub(super) struct Overdue {
    timer: Option<(Instant, TimerGuard)>,
    counting: Option<TimerGuard>,
}

impl Overdue {
    /// A termination was asked for, with this grace. The shortest counts.
    pub(super) fn begin(&mut self, grace: Duration, turn: &Turn<'_, Process>) {
        let at = Instant::now() + grace + TREE_WAIT;
        if self.timer.as_ref().is_none_or(|(earlier, _)| at < *earlier) {
            self.timer = Some((at, turn.timer(grace + TREE_WAIT, ProcessControl::Overdue)));
        }
    }

    /// It is time. Looks at what is left, which reads `/proc`, elsewhere.
    pub(super) fn count(&mut self, group: Arc<ProcessGroup>, turn: &Turn<'_, Process>) {
        self.timer = None;
        let mailbox = turn.mailbox();
        self.counting = Some(turn.spawn(async move {
            let report = tokio::task::spawn_blocking(move || report(&group)).await;
            let control = ProcessControl::Unkillable(report.unwrap_or_default());
            drop(mailbox.control(control));
        }));
    }
}

impl Process {
    /// Answers who waits for the tree's end; the process goes on until it ends.
    pub(super) fn unkillable(&mut self, report: Terminated, turn: &mut Turn<'_, Self>) {
        for (responder, context, account) in std::mem::take(&mut self.waiting_for_end) {
            responder.answer(turn, context, Ok(Reply::Terminated(report)), account);
        }
    }
}

/// What its keeper has said; without one, who of its group is still alive.
fn report(group: &ProcessGroup) -> Terminated {
    if let Some(report) = group.tree_report() {
        return Terminated {
            killed: report.killed,
            unkillable: report.unkillable,
        };
    }
    let alive = |members: Vec<Member>| members.iter().filter(|member| !member.is_zombie).count();
    Terminated {
        killed: 0,
        unkillable: u32::try_from(group.members().map_or(0, alive)).unwrap_or(u32::MAX),
    }
}
