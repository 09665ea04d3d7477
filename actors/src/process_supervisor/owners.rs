//! Who has a session's processes: links that come and go, owners that take them over, and nobody.

use std::collections::HashMap;
use std::rc::Rc;

use dwell_messages::{Closed, Message as Wire, OutputStream, ProcessId, Resume, Timings, TraceContext};

use super::{ProcessSupervisor, SESSION_MESSAGES_MAX, SupervisorControl};
use crate::mailbox::{HostOptions, Turn, start_here};
use crate::process::ProcessControl;
use crate::relay_framer::{self, OUTPUT_CHUNKS_MAX};
use crate::terminal_delivery::push::{DELIVERY_MAILBOX_MAX, PushMessage, TerminalDelivery};

impl ProcessSupervisor {
    /// A fresh link: every process goes on from where its client is. Those that the client does not name, if it knows
    /// them all, go on for nobody; if it is another client than before, they wait for one.
    pub(super) fn attached(
        &mut self,
        attachment: u64,
        resume: &Resume,
        taken: bool,
        turn: &mut Turn<'_, Self>,
    ) {
        (self.detached, self.idle) = (false, None);
        self.session.attachment = attachment;
        if taken {
            self.session.taken = attachment;
        }
        let progress: HashMap<_, _> = resume
            .processes
            .iter()
            .map(|progress| (ProcessId(progress.process), *progress))
            .collect();
        if taken {
            self.expected.clear();
            for (process, wanted) in &progress {
                // One that has not started may yet fail to: its end is then told to whoever has it now.
                let unstarted = (self.records.get(process)).is_some_and(|record| record.is_unstarted());
                if self.processes.contains_key(process) && (unstarted || !self.has_delivery(*process)) {
                    self.expected.insert(*process, *wanted);
                }
                self.tell_of(*process, turn);
            }
        }
        let mut unwanted = Vec::new();
        for (process, delivery) in &self.deliveries {
            let wanted = progress.get(process).copied();
            if wanted.is_none() && resume.whole && !taken && !self.unattended.contains(process) {
                unwanted.push(*process);
                continue;
            }
            match (wanted, taken) {
                (Some(_), true) => drop(self.unattended.remove(process)),
                (None, true) => drop(self.unattended.insert(*process)),
                (Some(progress), false) => {
                    if let Some(target) = self.processes.get(process) {
                        for stream in [OutputStream::Stdout, OutputStream::Stderr] {
                            let limit = progress.limit[stream.index()];
                            drop(target.control(ProcessControl::Credit(stream, limit)));
                        }
                    }
                }
                (None, false) => {}
            }
            let attached = PushMessage::Attached {
                attachment,
                wanted,
                taken,
            };
            turn.tell(delivery, TraceContext::default(), attached);
        }
        self.released(unwanted, turn);
    }

    pub(super) fn released(&mut self, processes: Vec<ProcessId>, turn: &mut Turn<'_, Self>) {
        for process in processes {
            self.unattended.remove(&process);
            if let Some(target) = self.processes.get(&process) {
                drop(target.control(ProcessControl::Abandon));
            }
            if let Some(delivery) = self.deliveries.get(&process) {
                turn.tell(delivery, TraceContext::default(), PushMessage::Release);
            }
        }
    }

    /// Whether there is a delivery that has not gone yet.
    pub(super) fn has_delivery(&self, process: ProcessId) -> bool {
        let delivery = self.deliveries.get(&process);
        delivery.is_some_and(|delivery| !delivery.is_stopped())
    }

    /// A client that has the session now wants this process. If its delivery is gone, there is one again as long as anything
    /// is kept; if nothing is, the client hears that this is the end.
    pub(super) fn tell_of(&mut self, process: ProcessId, turn: &mut Turn<'_, Self>) {
        if self.has_delivery(process) || self.processes.contains_key(&process) {
            return;
        }
        let Some(record) = self.records.get(&process).map(Rc::clone) else {
            let closed = Closed {
                event: 0,
                status: None,
                stdout_end: 0,
                stderr_end: 0,
                drained: true,
                holders: 0,
                timings: Timings::default(),
            };
            let message = Wire::Event {
                process,
                event: closed.into(),
            };
            let send = relay_framer::ToSend::plain(message);
            return relay_framer::send(turn, &self.framer, TraceContext::default(), send);
        };
        self.kept.take(process);
        let (framer, supervisor) = (self.framer.port(OUTPUT_CHUNKS_MAX), turn.mailbox().port(1));
        let attachment = self.session.attachment;
        let options =
            HostOptions::new(DELIVERY_MAILBOX_MAX).escalating(relay_framer::ends_link(&self.framer));
        let delivery = start_here(options, move || {
            let (framer, supervisor) = (framer.clone(), supervisor.clone());
            TerminalDelivery::again(process, framer, supervisor, Rc::clone(&record), attachment)
        });
        self.deliveries
            .insert(process, delivery.port(SESSION_MESSAGES_MAX));
    }

    /// Whether anybody could want something of this session.
    pub(super) fn is_idle(&self) -> bool {
        self.detached && self.processes.is_empty() && self.deliveries.is_empty() && self.leftovers.is_empty()
    }

    pub(super) fn check_idle(&mut self, turn: &Turn<'_, Self>) {
        if self.idle.is_none() && self.is_idle() && !self.terminating {
            self.idle = Some(turn.timer(self.session.idle_life, SupervisorControl::Idle));
        }
    }
}
