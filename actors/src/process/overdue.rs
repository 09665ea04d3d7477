//! A termination whose tree does not end: reported, so that nobody waits for what the kernel does not let go of.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use dwell_messages::Reply;
use dwell_messages::process::Terminated;

use super::{Process, ProcessControl, TREE_WAIT};
use crate::mailbox::{Mailbox, TimerGuard, Turn};
use crate::spawn::{Member, ProcessGroup};

/// How often is looked whether the tree is gone. Its end is the answer, also while a consumer that takes nothing holds up the
/// process's own end.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// When somebody who waits for a tree's end is answered without it.
#[derive(Default)]
pub(super) struct Overdue {
    looking: Option<TimerGuard>,
    timer: Option<(Instant, TimerGuard)>,
    counting: Option<TimerGuard>,
}

impl Overdue {
    /// A termination was asked for, with this grace. The shortest counts.
    pub(super) fn begin(&mut self, grace: Duration, group: &Arc<ProcessGroup>, turn: &Turn<'_, Process>) {
        if self.looking.is_none() {
            self.looking = Some(turn.spawn(look(Arc::downgrade(group), turn.mailbox())));
        }
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

/// Until its keeper reports that the tree is gone, or the process is. Without a guard nobody reports.
async fn look(group: Weak<ProcessGroup>, mailbox: Mailbox<Process>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        // Not held over the pause: the process gives its group up only while nobody else has it.
        let Some(group) = group.upgrade() else { return };
        if let Some(report) = group.tree_report() {
            let report = Terminated {
                killed: report.killed,
                unkillable: report.unkillable,
            };
            drop(mailbox.control(ProcessControl::Unkillable(report)));
            return;
        }
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
