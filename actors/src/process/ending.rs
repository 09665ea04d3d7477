//! A process's end: its exit, its output's end, whoever holds its pipes, and what its client is told.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dwell_messages::process::{Ending, Terminated};
use dwell_messages::{ExitStatus, OutputStream, Reply};

use super::reader::ReaderReport;
use super::{ExitSeen, Process, ProcessControl, SESSION_GRACE, TREE_WAIT, WAIT_MAX, reader, spans, usage};
use crate::account::Segment;
use crate::mailbox::Turn;
use crate::process_supervisor::SupervisorControl;
use crate::spawn::{self, ExitWatcher, Member, ProcessGroup};
use crate::telemetry::{Stage, Tick, semconv};
use crate::terminal_delivery::push::{Ended, PushMessage};

impl Process {
    pub(super) fn reader_ended(
        &mut self,
        stream: OutputStream,
        report: &ReaderReport,
        turn: &mut Turn<'_, Self>,
    ) {
        let context = self.context();
        if let Some(first) = report.first_byte {
            self.first_byte = Some(self.first_byte.map_or(first, |earlier| earlier.min(first)));
        }
        self.collector.stage(report.stage(&context, stream));
        if let Some(running) = &mut self.running {
            running.ended[stream.index()] = Some(report.end);
        }
        self.close_if_done(turn);
    }

    pub(super) fn exited(&mut self, seen: ExitSeen, turn: &mut Turn<'_, Self>) {
        let ExitSeen { exit, seen, watcher } = seen;
        self.deadline = None;
        let ending = self.ending;
        let context = self.context();
        let (Some(running), Some(delivery)) = (&mut self.running, &self.delivery) else {
            return;
        };
        let status = exit.as_ref().ok().map(|exit| match exit.status {
            spawn::ExitStatus::Code(code) => ExitStatus::Code(code),
            spawn::ExitStatus::Signal(signal) => ExitStatus::Signal(signal),
        });
        self.account.lap(Segment::Run, seen);
        self.record.exited(status);
        if let Some(watched) = &self.watched {
            watched.exited();
        }
        running.exited = Some((seen, status));
        running.watcher = watcher;
        running.drain_began = seen;
        let stage = Stage::new(&context, semconv::span::EXIT_WATCHER, running.spawn_ended, seen);
        let lost = status.is_none().then_some("wait_status_lost");
        self.collector.stage(spans::ended_by(stage, status).failed(lost));
        if let (Some(status), Ok(exit)) = (status, exit) {
            let ended = Ended {
                status,
                core_dumped: exit.core_dumped,
                oom_killed: exit.oom_killed,
                usage: usage(&exit),
                ending,
            };
            turn.tell(delivery, context, PushMessage::Exited(Box::new(ended)));
        }
        if running.ended.iter().any(Option::is_none) {
            let idle = Duration::from_millis(u64::from(self.terms.drain.idle_ms));
            let total = Duration::from_millis(u64::from(self.terms.drain.total_ms));
            running.drain = Some(turn.timer(idle.min(total).min(WAIT_MAX), ProcessControl::DrainOver));
        }
        self.close_if_done(turn);
    }

    /// Whether a stream that has not ended waits for its consumer.
    pub(super) fn is_held(&self) -> bool {
        let ended = |stream: OutputStream| {
            self.running
                .as_ref()
                .is_none_or(|running| running.ended[stream.index()].is_some())
        };
        [OutputStream::Stdout, OutputStream::Stderr]
            .into_iter()
            .any(|stream| !ended(stream) && self.credit.is_held(stream))
    }

    pub(super) fn close_if_done(&mut self, turn: &mut Turn<'_, Self>) {
        let done = self
            .running
            .as_ref()
            .is_some_and(|running| running.exited.is_some() && running.ended.iter().all(Option::is_some));
        if done {
            self.close(None, turn);
        }
    }

    /// A drain timer rang: goes on while a consumer is slow or output still comes, and gives the pipes up otherwise.
    pub(super) fn drain_over(&mut self, turn: &Turn<'_, Self>) {
        let held = self.is_held();
        let millis = |ms: u32| Duration::from_millis(u64::from(ms)).min(WAIT_MAX);
        let (idle, total) = (
            millis(self.terms.drain.idle_ms),
            millis(self.terms.drain.total_ms),
        );
        let last = self.credit.last_output();
        let Some(running) = &mut self.running else { return };
        let now = Tick::now();
        let since = |then: Tick| Duration::from_micros(now.micros_since(then));
        if held {
            // Not the pipe but the consumer is slow: what is in the pipe is still to be had.
            running.drain_began = now;
            running.drain = Some(turn.timer(idle, ProcessControl::DrainOver));
            return;
        }
        let left = total.saturating_sub(since(running.drain_began));
        let quiet = last.map_or(idle, since);
        if quiet < idle && !left.is_zero() {
            running.drain = Some(turn.timer((idle - quiet).min(left), ProcessControl::DrainOver));
            return;
        }
        let (group, mailbox) = (running.group.clone(), turn.mailbox());
        // Reads /proc, which takes its time on a machine with many processes.
        running.drain = Some(turn.spawn(async move {
            let counted = tokio::task::spawn_blocking(move || {
                let Some(group) = group else { return 0 };
                let alive = |members: Vec<Member>| members.iter().filter(|member| !member.is_zombie).count();
                u32::try_from(group.members().map_or(0, alive)).unwrap_or(u32::MAX)
            });
            let holders = counted.await.unwrap_or(0);
            drop(mailbox.control(ProcessControl::Holders(holders)));
        }));
    }

    pub(super) fn give_pipes_up(&mut self, holders: u32, turn: &mut Turn<'_, Self>) {
        let context = self.context();
        if let Some(running) = &mut self.running {
            running.tasks.clear();
            for stream in [OutputStream::Stdout, OutputStream::Stderr] {
                if running.ended[stream.index()].is_none() {
                    let name = reader::span_name(stream);
                    let stage = Stage::new(&context, name, running.spawn_ended, Tick::now());
                    self.collector.stage(stage.failed(Some("drain_timeout")));
                }
            }
        }
        self.close(Some(holders), turn);
    }

    /// What is to outlive the executor lives on; everything else ends.
    pub(super) fn session_ends(&mut self, turn: &mut Turn<'_, Self>) {
        if !self.terms.outlive {
            return self.terminate(SESSION_GRACE, Ending::Session, turn);
        }
        let group = self.running.as_mut().and_then(|running| running.group.take());
        match group.and_then(Arc::into_inner) {
            Some(group) => {
                group.release();
                self.running = None;
                self.end(turn);
            }
            None => self.terminate(SESSION_GRACE, Ending::Session, turn),
        }
    }

    /// The instant when the exit is known and every pipe is at its end: once, by whichever comes last.
    /// `holders` of the pipes are given when they were given up.
    pub(super) fn close(&mut self, holders: Option<u32>, turn: &mut Turn<'_, Self>) {
        let context = self.context();
        let (Some(mut running), Some(delivery)) = (self.running.take(), self.delivery.take()) else {
            return;
        };
        // The readers' and writers' descriptors, of which a terminal's are three.
        running.tasks.clear();
        running.stdin = None;
        running.terminal = None;
        // Before the client can hear of the end, and start the next one.
        self.slot = None;
        // The last of its ends waited in the mailbox, and only up to there were the pipes.
        let residence = turn.residence();
        self.account.lap(Segment::Drain, residence.enqueued);
        self.account.lap(Segment::ProcessMailbox, residence.dequeued);
        let now = Tick::now();
        let (exited, status) = running.exited.unwrap_or((now, None));
        self.account.lap(Segment::Drain, now);
        self.collector.stage(
            Stage::new(&context, semconv::span::CLOSE, exited, now)
                .number(semconv::PROCESS_DRAIN_US, now.micros_since(exited)),
        );
        self.collector.stage(
            spans::ended_by(self.own_span(now), status)
                .maybe_number(
                    semconv::PROCESS_PID,
                    running.group.as_ref().map(|group| group.pid()),
                )
                .failed_as(spans::failure(status)),
        );
        let first_byte = self
            .first_byte
            .map_or(0, |first| first.micros_since(running.spawn_ended));
        let closed = PushMessage::Closed {
            status,
            drained: holders.is_none(),
            holders: holders.unwrap_or(0),
            account: Box::new(self.account.clone()),
            first_byte,
        };
        turn.tell(&delivery, context, closed);
        // Nobody else has it: who counted holders is done.
        if let Some(group) = running.group.and_then(Arc::into_inner) {
            self.part(group, running.watcher, holders.is_none(), turn);
        }
        self.end(turn);
    }

    /// What becomes of the process and what it left running. Reaped only now: until here its number could not be used
    /// again, so no signal could go astray.
    pub(super) fn part(
        &mut self,
        group: ProcessGroup,
        watcher: Option<ExitWatcher>,
        drained: bool,
        turn: &Turn<'_, Self>,
    ) {
        if let (Some(grace), Some(mut watcher)) = (self.tree_grace, watcher) {
            let waiting = std::mem::take(&mut self.waiting_for_end);
            turn.spawn(async move {
                let report = tokio::time::timeout(grace + TREE_WAIT, watcher.tree_ended()).await;
                let report = match report {
                    Ok(Ok(report)) => Terminated {
                        killed: report.killed,
                        unkillable: report.unkillable,
                    },
                    // The guard is gone, and with it the tree; or it does not end.
                    Ok(Err(_)) | Err(_) => Terminated::default(),
                };
                for (responder, context, account) in waiting {
                    let answer = Ok(Reply::Terminated(report));
                    responder.answer_later(context, answer, account).await;
                }
                drop(group);
            })
            .detach();
        } else if let (true, Some((at, _))) = (drained, self.kill.take()) {
            // The leader is gone, and others of its group may have closed the pipes and ignored TERM.
            let grace = at.saturating_duration_since(Instant::now()).min(SESSION_GRACE);
            turn.spawn(async move {
                tokio::time::sleep(grace).await;
                drop(group);
            })
            .detach();
        } else if self.terms.outlive {
            group.release();
        } else if drained && group.is_tree_empty() != Some(false) {
            match group.reap() {
                Ok(spawn::Reap::Done(_)) => {}
                Ok(spawn::Reap::Running(group)) => drop(group),
                Err(error) => tracing::warn!(%error, "a process was reaped by somebody else"),
            }
        } else {
            // Something of it runs on: in the background, or with a pipe in its hands. It ends with the session.
            drop(self.supervisor.control(SupervisorControl::Keep(group)));
        }
    }

    pub(super) fn end(&mut self, turn: &mut Turn<'_, Self>) {
        self.kill = None;
        self.watched = None;
        for (responder, context, account) in std::mem::take(&mut self.waiting_for_end) {
            let answer = Ok(Reply::Terminated(Terminated::default()));
            responder.answer(turn, context, answer, account);
        }
        let (supervisor, id) = (self.supervisor.clone(), self.id);
        turn.after_effects(move || drop(supervisor.control(SupervisorControl::Ended(id))));
        turn.stop();
    }
}
