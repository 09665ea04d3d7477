//! A process's beginning: from the request until its readers run.

use std::rc::Rc;
use std::sync::Arc;

use dwell_messages::process::{Start, Started};
use dwell_messages::{Envelope, ErrorCode, OutputStream, Reply, SpanKind, TraceContext, WireError};

use super::start::{error_code, launch_context};
use super::stdin::Stdin;
use super::{
    ExitSeen, Process, ProcessControl, ProcessMessage, Running, Slots, Starting, program_name, reader, start,
    terms,
};
use crate::account::{Account, Segment};
use crate::in_flight::{Process as Watched, Stage as Place};
use crate::mailbox::{BulkResidence, HostOptions, Turn, start_here};
use crate::process_supervisor::SupervisorMessage;
use crate::relay_framer;
use crate::rpc_queue::server::Responder;
use crate::spawn::{SpawnOutcome, Spawned};
use crate::telemetry::{Stage, Tick, semconv};
use crate::terminal_delivery::RETENTION_BYTES;
use crate::terminal_delivery::push::{DELIVERY_MAILBOX_MAX, TerminalDelivery};

impl Process {
    pub(super) fn start(
        &mut self,
        context: TraceContext,
        start: Start,
        mut account: Account,
        responder: Responder,
        turn: &mut Turn<'_, Self>,
    ) {
        self.begun = turn.now();
        self.launch = launch_context(&context, &start);
        self.credit.begin(start.credit, start.unattended);
        self.program = start
            .executed()
            .map(|program| program_name(program))
            .unwrap_or_default();
        self.terms = terms(&start);
        let (tty, stdin) = (start.pty.is_some(), start.stdin || start.pty.is_some());
        let retention = start.retention_bytes.unwrap_or(RETENTION_BYTES);
        self.record.asked(&self.program, (tty, stdin), retention);
        let watched = Watched::new(self.id, &self.program, &context, self.begun);
        let watched = self.collector.board().process(watched);
        self.credit.watched(watched.share());
        self.watched = Some(watched);
        responder.at(Place::Spawner);
        // Who can write waits to hear that it runs; for anybody else its first event is soon enough.
        let responder = if start.stdin || start.pty.is_some() {
            responder
        } else {
            responder.unhurried()
        };
        self.is_confined = start.confinement.is_some();
        let (request, withheld) = start::request(start, &self.context());
        account.lap(Segment::Dispatch, Tick::now());
        self.starting = Some(Starting {
            responder,
            rpc_context: context,
            account,
            withheld,
        });
        let Some(slot) = turn.mailbox().port(1).try_reserve() else {
            return;
        };
        let launch = self.context();
        let reply = move |outcome: SpawnOutcome| {
            slot.send(Envelope::new(launch, ProcessMessage::Spawned(Box::new(outcome))));
        };
        crate::telemetry::count_crossing();
        if let Err(rejected) = self.spawner.try_submit(request, Box::new(reply)) {
            let error = WireError::new(ErrorCode::Busy, rejected.reason.to_string());
            return self.start_failed(error, turn);
        }
        // While the spawner works.
        let (framer, supervisor, id) = (self.framer.clone(), self.supervisor.port(1), self.id);
        let record = Rc::clone(&self.record);
        // Without it the client would wait for an end that nobody can tell.
        let options =
            HostOptions::new(DELIVERY_MAILBOX_MAX).escalating(relay_framer::ends_link(&self.framer));
        let (credit, attachment) = (Rc::clone(&self.credit), self.session.attachment);
        let delivery = start_here(options, move || {
            let credit = Rc::clone(&credit);
            TerminalDelivery::new(
                id,
                framer.clone(),
                supervisor.clone(),
                Rc::clone(&record),
                credit,
                attachment,
            )
        });
        self.delivery = Some(delivery.clone());
        let message = SupervisorMessage::Delivers(self.id, delivery, attachment);
        // Upwards only into room of its own.
        turn.tell(&self.supervisor.port(1), TraceContext::default(), message);
    }

    pub(super) fn start_failed(&mut self, error: WireError, turn: &mut Turn<'_, Self>) {
        self.slot = None;
        let Some(starting) = self.starting.take() else {
            return;
        };
        let now = Tick::now();
        self.collector
            .stage(self.own_span(now).failed(Some(error.code.name())));
        starting
            .responder
            .answer(turn, starting.rpc_context, Err(error), starting.account);
        self.end(turn);
    }

    /// The process's span up to now. Whoever runs a program is its client, as the conventions for programs have it.
    pub(super) fn own_span(&self, now: Tick) -> Stage {
        Stage::with_id(&self.launch, self.span, semconv::span::PROCESS, self.begun, now)
            .kind(SpanKind::Client)
            .text(semconv::PROCESS_EXECUTABLE_NAME, self.program.clone())
    }

    pub(super) fn spawned(&mut self, outcome: SpawnOutcome, turn: &mut Turn<'_, Self>) {
        let (begun, ended) = (
            Tick::from_instant(outcome.started),
            Tick::from_instant(outcome.ended),
        );
        let Some(starting) = &mut self.starting else {
            return;
        };
        starting.account.lap(Segment::SpawnQueue, begun);
        starting.account.lap(Segment::Spawn, ended);
        self.account = starting.account.clone();
        starting.account.lap(Segment::ProcessMailbox, turn.now());
        let failed = outcome.result.as_ref().err();
        let queued = u64::try_from(outcome.queued().as_micros()).unwrap_or(u64::MAX);
        let stage = Stage::new(&self.context(), semconv::span::SPAWN, begun, ended)
            .number(semconv::SPAWN_QUEUE_US, queued)
            .maybe_number(semconv::ERRNO, failed.and_then(|error| error.errno))
            .failed(failed.map(|_| "spawn_failed"));
        self.collector.stage(stage);
        match outcome.result {
            Ok(spawned) => self.run(spawned, ended, turn),
            Err(error) => {
                let code = error_code(&error.kind);
                let wire = WireError::new(code, error.to_string()).with_errno(error.errno);
                self.start_failed(wire, turn);
            }
        }
    }

    pub(super) fn run(&mut self, spawned: Spawned, spawn_ended: Tick, turn: &mut Turn<'_, Self>) {
        let pid = spawned.process.pid();
        self.record.runs(pid);
        if let Some(watched) = &self.watched {
            watched.runs(pid, spawned.process.pidfd());
        }
        if spawned.stderr.is_none() {
            self.record.ended(OutputStream::Stderr);
        }
        // Answered before anything watches the process: the RPC is over before its first event.
        if let Some(starting) = self.starting.take() {
            let started = Started {
                pid,
                containment: start::containment(spawned.containment),
                withheld: starting.withheld,
            };
            starting.responder.answer(
                turn,
                starting.rpc_context,
                Ok(Reply::Started(started)),
                starting.account,
            );
        }
        let port = turn.mailbox().port(3);
        let mut slots = Slots {
            readers: [port.try_reserve(), port.try_reserve()],
            exit: port.try_reserve(),
        };
        let mut tasks = Vec::new();
        // A terminal has no standard error of its own.
        let ended = [None, spawned.stderr.is_none().then_some(0)];
        let outputs = [
            Some((OutputStream::Stdout, spawned.stdout)),
            spawned.stderr.map(|fd| (OutputStream::Stderr, fd)),
        ];
        for (stream, fd) in outputs.into_iter().flatten() {
            let slot = slots.readers[stream.index()].take();
            let (Some(slot), Some(delivery)) = (slot, self.delivery.clone()) else {
                return;
            };
            let read = reader::read(reader::Source {
                fd,
                stream,
                credit: Rc::clone(&self.credit),
                delivery,
                record: Rc::clone(&self.record),
                context: self.context(),
                bulk: Arc::new(BulkResidence::default()),
                spawn_ended,
                presence: self.session.presence.clone(),
                overflow: self.terms.overflow,
                spool: self.session.spool.at_most(self.terms.spool_bytes),
                attention: Arc::clone(&self.session.attention),
            });
            let context = self.context();
            tasks.push(turn.spawn(async move {
                let report = read.await;
                slot.send(Envelope::new(
                    context,
                    ProcessMessage::ReaderEnded(stream, Box::new(report)),
                ));
            }));
        }
        let context = self.context();
        let watcher = spawned.process.watch();
        let Some(slot) = slots.exit.take() else { return };
        tasks.push(turn.spawn(async move {
            let (exit, watcher) = match watcher {
                Ok(mut watcher) => (watcher.wait().await, Some(watcher)),
                Err(error) => (Err(error), None),
            };
            let seen = ExitSeen {
                exit,
                seen: Tick::now(),
                watcher,
            };
            slot.send(Envelope::new(context, ProcessMessage::Exited(Box::new(seen))));
        }));
        let stdin = spawned.stdin.and_then(|fd| Stdin::open(fd, turn));
        self.running = Some(Running {
            group: Some(Arc::new(spawned.process)),
            terminal: spawned.terminal,
            stdin,
            tasks,
            spawn_ended,
            ended,
            exited: None,
            watcher: None,
            drain_began: spawn_ended,
            drain: None,
        });
        self.deadline = self
            .terms
            .wall
            .map(|wall| turn.timer(wall, ProcessControl::Deadline));
        if let Some((grace, ending)) = self.terminate_early.take() {
            self.terminate(grace, ending, turn);
        }
    }
}
