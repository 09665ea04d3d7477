//! What the server tells, as an executor would have told it.

use bytes::Bytes;
use dwell_messages::dialect::{
    self as json, Closed, Exited, Fault, FollowError, Id, Incoming, Numbered, Output, ReadAnswer, StreamName,
    Told, WriteStatus,
};
use dwell_messages::process::Terminated;
use dwell_messages::{
    ErrorCode, Event, ExitStatus, Message as Wire, OutputStream, ProcessId, Reply, Timings, TraceContext,
    WireError,
};
use serde_json::Value;

use super::super::start;
use super::{Asked, Broken, Effect, ForeignCore, Kind, of, outcome_unknown, unknown_process};

impl<T> ForeignCore<T> {
    /// A message of the server.
    ///
    /// # Errors
    /// It cannot be: the connection is to be given up.
    pub(in crate::harness::foreign) fn heard(&mut self, message: &[u8]) -> Result<(), Broken> {
        match Incoming::decode(message).map_err(|malformed| Broken(malformed.0))? {
            Incoming::Response { id, result } => self.answered(&id, Ok(result)),
            Incoming::Error { id, error } => self.answered(&id, Err(error)),
            Incoming::Notification { method, params } => self.notified(&method, params),
            Incoming::Request { id, method, .. } => {
                let text = format!("exec-server client does not implement `{method}` yet");
                let refusal = json::encode_error(&id, &Fault::new(Fault::UNKNOWN_METHOD, text));
                self.effects.push_back(Effect::Say(refusal, None));
                Ok(())
            }
        }
    }

    fn notified(&mut self, method: &str, params: Value) -> Result<(), Broken> {
        let wrong = |error: serde_json::Error| Broken(format!("{method}: {error}"));
        let (name, event) = match method {
            json::notification::OUTPUT => {
                let output: Output = serde_json::from_value(params).map_err(wrong)?;
                (output.process_id.clone(), Numbered::from(output))
            }
            json::notification::EXITED => {
                let exited: Exited = serde_json::from_value(params).map_err(wrong)?;
                (exited.process_id.clone(), Numbered::from(exited))
            }
            json::notification::CLOSED => {
                let closed: Closed = serde_json::from_value(params).map_err(wrong)?;
                (closed.process_id.clone(), Numbered::from(closed))
            }
            // What nobody here asked for.
            _ => return Ok(()),
        };
        let Some(process) = self.names.get(&name).copied() else {
            return Ok(());
        };
        let Some(known) = self.processes.get_mut(&process) else {
            return Ok(());
        };
        if !known.lagging && !known.forgotten {
            let mut told = Vec::new();
            let outcome = known.follower.pushed(event, |event| told.push(event));
            self.followed(process, told, outcome);
        }
        Ok(())
    }

    /// What came of an event, or of a read.
    fn followed(&mut self, process: ProcessId, told: Vec<Told>, outcome: Result<bool, FollowError>) {
        if let Some(known) = self.processes.get_mut(&process) {
            for event in told {
                if let Told::Output(_, bytes) = &event {
                    known.held_bytes += bytes.len();
                }
                known.held.push_back(event);
            }
        }
        self.hand_on(process);
        match outcome {
            Ok(true) => self.read(process),
            Ok(false) => {}
            Err(error) => self.fail(process, error.to_string()),
        }
    }

    /// A process is given up: its run ends, and it with that.
    fn fail(&mut self, process: ProcessId, why: String) {
        if self.processes.get(&process).is_some_and(|known| !known.over) {
            self.effects.push_back(Effect::Fail(process, why));
            self.terminate(process);
            self.drop_process(process);
        }
    }

    /// Tells the harness what it has credit for, in order.
    pub(super) fn hand_on(&mut self, process: ProcessId) {
        let Some(known) = self.processes.get_mut(&process) else {
            return;
        };
        let mut events = Vec::new();
        while let Some(told) = known.held.pop_front() {
            match told {
                Told::Output(name, mut bytes) => {
                    let stream = match name {
                        StreamName::Stderr => OutputStream::Stderr,
                        StreamName::Stdout | StreamName::Pty => OutputStream::Stdout,
                    };
                    let at = stream.index();
                    let room = known.limits[at].saturating_sub(known.offsets[at]);
                    let fits = bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX));
                    let now = bytes.split_to(fits);
                    known.held_bytes -= now.len();
                    if !now.is_empty() {
                        events.push(output(stream, known.offsets[at], now));
                        known.offsets[at] += fits as u64;
                    }
                    if !bytes.is_empty() {
                        known.held.push_front(Told::Output(name, bytes));
                        break;
                    }
                }
                Told::Exited { code, .. } => {
                    // What nobody knows is told with the end.
                    known.exit = (code != UNKNOWN_CODE).then_some(ExitStatus::Code(code));
                    if let Some(status) = known.exit {
                        events.push(exited(status, known.offsets));
                    }
                }
                Told::Closed => {
                    known.over = true;
                    events.push(closed(known.exit, known.offsets));
                }
            }
        }
        let caught_up = known.lagging && known.held.is_empty();
        let over = known.over;
        let whose = known.context.clone();
        let ending = if over {
            std::mem::take(&mut known.ending)
        } else {
            Vec::new()
        };
        for event in events {
            // Output has no spans of its own.
            let context = match event {
                Event::Closed(_) => whose.clone(),
                Event::Output(_) | Event::Gap(_) | Event::Exited(_) => TraceContext::default(),
            };
            let event = Wire::Event { process, event };
            self.effects.push_back(Effect::Tell(context, Box::new(event)));
        }
        for (id, context) in ending {
            self.answer(id, context, Ok(Reply::Terminated(Terminated::default())));
        }
        if caught_up && let Some(known) = self.processes.get_mut(&process) {
            known.lagging = false;
            if known.follower.lagged() {
                self.read(process);
            }
        }
    }

    fn answered(&mut self, id: &Id, outcome: Result<Value, Fault>) -> Result<(), Broken> {
        let Id::Number(number) = id else { return Ok(()) };
        // What nobody asked, or nobody asks any more.
        let Some(Asked { kind, process, .. }) = self.asked.remove(number) else {
            return Ok(());
        };
        match kind {
            Kind::Start(id, context) => match outcome {
                Ok(_) => self.answer(id, context, Ok(Reply::Started(start::started()))),
                Err(fault) => {
                    self.drop_process(process);
                    self.refuse(id, context, start::refusal(&fault));
                }
            },
            Kind::Signal(id, context) => {
                let answer = outcome.map(|_| Reply::Signalled).map_err(|fault| of(&fault));
                self.answer(id, context, answer);
            }
            Kind::Write(id, context, end) => {
                let answer = self.written(process, end, outcome)?;
                self.answer(id, context, answer);
                self.write_next(process);
            }
            Kind::Terminate => {
                if self.processes.get(&process).is_some_and(|known| known.forgotten) {
                    self.drop_process(process);
                }
            }
            Kind::Read => self.recovered(process, outcome)?,
        }
        Ok(())
    }

    fn written(
        &mut self,
        process: ProcessId,
        end: u64,
        outcome: Result<Value, Fault>,
    ) -> Result<Result<Reply, WireError>, Broken> {
        let Some(known) = self.processes.get_mut(&process) else {
            return Ok(Err(unknown_process()));
        };
        known.writing = false;
        let accepted: json::Accepted = match outcome {
            Ok(value) => serde_json::from_value(value).map_err(|error| Broken(error.to_string()))?,
            Err(_) => {
                let text = "the command reads no more of its standard input";
                return Ok(Err(WireError::new(ErrorCode::StdinClosed, text)));
            }
        };
        Ok(match accepted.status {
            WriteStatus::Accepted => {
                known.written = end;
                Ok(Reply::Written(dwell_messages::process::Written { offset: end }))
            }
            WriteStatus::UnknownProcess | WriteStatus::Starting => Err(unknown_process()),
            WriteStatus::StdinClosed => Err(WireError::new(
                ErrorCode::StdinClosed,
                "the command has no standard input to write to",
            )),
        })
    }

    fn recovered(&mut self, process: ProcessId, outcome: Result<Value, Fault>) -> Result<(), Broken> {
        let Some(known) = self.processes.get_mut(&process).filter(|known| !known.forgotten) else {
            return Ok(());
        };
        let unsure = known.unsure.take();
        match (outcome, unsure) {
            (Ok(value), unsure) => {
                let answer: ReadAnswer = serde_json::from_value(value)
                    .map_err(|error| Broken(format!("process/read: {error}")))?;
                let mut told = Vec::new();
                let outcome = known.follower.read(answer, |event| told.push(event));
                if let Some((id, context)) = unsure {
                    // What can be read was started.
                    self.answer(id, context, Ok(Reply::Started(start::started())));
                }
                self.followed(process, told, outcome);
            }
            (Err(_), Some((id, context))) => {
                // It may still be on its way to being started: should it come about, it is ended.
                self.refuse(id, context, outcome_unknown());
                self.terminate(process);
                self.drop_process(process);
            }
            (Err(fault), None) => self.fail(
                process,
                format!("the environment does not know the process any more: {fault}"),
            ),
        }
        Ok(())
    }
}

/// An exit code that the server does not know.
const UNKNOWN_CODE: i32 = -1;

fn output(stream: OutputStream, offset: u64, data: Bytes) -> Event {
    Event::Output(dwell_messages::Output {
        event: 0,
        stream,
        offset,
        data,
    })
}

fn exited(status: ExitStatus, [stdout_end, stderr_end]: [u64; 2]) -> Event {
    Event::Exited(dwell_messages::Exited {
        event: 0,
        status,
        core_dumped: false,
        oom_killed: None,
        usage: None,
        ending: None,
        stdout_end,
        stderr_end,
    })
}

fn closed(status: Option<ExitStatus>, [stdout_end, stderr_end]: [u64; 2]) -> Event {
    Event::Closed(dwell_messages::Closed {
        event: 0,
        status,
        stdout_end,
        stderr_end,
        drained: true,
        holders: 0,
        timings: Timings::default(),
    })
}
