//! `FileService`: one session's files on the executor.
//!
//! Owns what the session has open, and which of its requests wait, for their turn with the pool or behind others of
//! their handle. Never touches a file, and never waits for one (who waits for a watch has a task): that is done by the threads of the executor's [`FilePool`], of which a session
//! has at most [`SHORT_AT_WORK_MAX`] and [`LONG_AT_WORK_MAX`] jobs at a time. So sessions take turns, whatever each
//! asks for, and within one a walk or a tree that is removed leaves room for what is short. Answers that carry content
//! are made only while the session's client has acknowledged enough of those before: what waits here is requests, and
//! no bytes. Full: the dispatcher waits. Stop: everything is closed, and what was to replace a file never does. Who
//! sends: the `Dispatcher`, the session, and the pool's threads through a port of their own. Supervised by the session.

pub(super) mod core;

use std::rc::Rc;
use std::time::Duration;

use dwell_messages::files::{FileReply, FileRequest, Watching};
use dwell_messages::{Envelope, ErrorCode, Reply, Request, TraceContext, WireError};
use tokio::sync::OwnedSemaphorePermit;

use self::core::{Begun, Claim, ServiceCore, Ticket};
use super::disk::{self, OpenFile};
use super::local::guarded;
use super::pool::{FilePool, Span};
use super::watch::Watcher;
use crate::account::Segment;
use crate::mailbox::{Actor, Mailbox, Message, TimerGuard, Turn};
use crate::relay_framer::Unacknowledged;
use crate::rpc_queue::ADMITTED_MAX;
use crate::rpc_queue::server::Call;
use crate::telemetry::{Collector, Stage, Tick, semconv};

pub use self::core::{HANDLES_MAX, LONG_AT_WORK_MAX, SHORT_AT_WORK_MAX, UNACKNOWLEDGED_MAX_BYTES, WALKS_MAX};

/// Calls that may lie in its mailbox.
pub(crate) const FILES_MAILBOX_MAX: usize = ADMITTED_MAX;
/// How long is waited before it is looked again whether the client has acknowledged what it was sent.
const RETRY: Duration = Duration::from_millis(5);

/// What it is told.
pub(crate) enum FilesMessage {
    /// A request about files.
    Call(Box<Call>),
    /// What came of one.
    Done(Box<Done>),
    /// The session has another owner, who knows nothing of what is open.
    TakenOver,
}

/// What it is told urgently.
pub(crate) enum FilesControl {
    /// Look whether there is room for more content.
    Retry,
}

/// A call that a thread is done with.
pub(crate) struct Done {
    call: (TraceContext, Call),
    /// `None`: its client had withdrawn it, and was told so.
    result: Option<Result<FileReply, WireError>>,
    file: Option<OpenFile>,
    ticket: Ticket,
    /// When it was queued, begun and done.
    queued: Tick,
    begun: Tick,
    done: Tick,
}

impl Message for FilesMessage {
    const NAMES: &'static [&'static str] = &["Call", "Done", "TakenOver"];

    fn index(&self) -> usize {
        match self {
            Self::Call(_) => 0,
            Self::Done(_) => 1,
            Self::TakenOver => 2,
        }
    }
}

/// See the module.
pub(crate) struct FileService {
    core: ServiceCore<(TraceContext, Call), OpenFile>,
    pool: FilePool,
    done: Option<Mailbox<FileService>>,
    collector: Collector,
    unacknowledged: Rc<Unacknowledged>,
    retry: Option<TimerGuard>,
}

impl FileService {
    pub(crate) fn new(pool: FilePool, collector: Collector, unacknowledged: Rc<Unacknowledged>) -> Self {
        Self {
            core: ServiceCore::default(),
            pool,
            done: None,
            collector,
            unacknowledged,
            retry: None,
        }
    }

    fn call(&mut self, context: TraceContext, mut call: Call, turn: &mut Turn<'_, Self>) {
        call.account.lap(Segment::SupervisorMailbox, turn.now());
        let Request::File(request) = &call.request else {
            let error = WireError::new(ErrorCode::BadRequest, "the request is about no file");
            return call.responder.answer(turn, context, Err(error), call.account);
        };
        if !self.pool.admit() {
            let error = WireError::new(ErrorCode::Busy, "too much work on files waits");
            return call.responder.answer(turn, context, Err(error), call.account);
        }
        let claim = Claim::of(request);
        if let Err(((context, call), error)) = self.core.submit((context, call), claim) {
            return call.responder.answer(turn, context, Err(error), call.account);
        }
        self.begin(turn);
    }

    /// Somebody waits for a watch, and nobody behind that: the watch is free again at once.
    fn wait(
        &mut self,
        begun: Begun<(TraceContext, Call), OpenFile>,
        watcher: Watcher,
        turn: &Turn<'_, Self>,
    ) {
        let Begun { call, file, ticket } = begun;
        let (_, file) = self.core.finish(ticket, file);
        self.discard(file.into_iter().collect());
        let (context, call) = call;
        turn.spawn(async move {
            let cancellation = call.responder.cancellation();
            let seen = tokio::select! {
                biased;
                // Its client was told.
                () = cancellation.cancelled() => return,
                seen = watcher.seen() => seen,
            };
            let reply = seen.map(|()| Reply::File(FileReply::Seen));
            call.responder.answer_later(context, reply, call.account).await;
        })
        .detach();
    }

    /// Hands on everything whose turn it is.
    fn begin(&mut self, turn: &Turn<'_, Self>) {
        // And the one whose end is being handled: its room is free only when its turn is over.
        let at_work = SHORT_AT_WORK_MAX + LONG_AT_WORK_MAX + 1;
        let port = self
            .done
            .get_or_insert_with(|| turn.mailbox().port(at_work))
            .clone();
        while let Some(begun) = self.core.next(self.unacknowledged.bytes.get()) {
            if let Some(watcher) = awaited(&begun) {
                self.wait(begun, watcher, turn);
                continue;
            }
            let (port, queued, span) = (port.clone(), Tick::now(), begun.ticket.span());
            let room = match &begun.call.1.request {
                Request::File(request) if matches!(**request, FileRequest::Watch(_)) => {
                    self.pool.room_for_a_watch()
                }
                _ => None,
            };
            self.pool
                .put(Box::new(move || work(begun, queued, room, &port)), span);
        }
        self.retry = self
            .core
            .is_held()
            .then(|| turn.timer(RETRY, FilesControl::Retry));
    }

    fn done(&mut self, done: Done, turn: &mut Turn<'_, Self>) {
        let (orphans, file) = self.core.finish(done.ticket, done.file);
        self.discard(file.into_iter().collect());
        let (context, call) = done.call;
        let error = match &done.result {
            Some(Err(error)) => Some(error.code.name()),
            Some(Ok(_)) | None => None,
        };
        self.collector.stage(
            Stage::new(&context, semconv::span::FILES_WORK, done.begun, done.done)
                .number(semconv::FILES_QUEUE_US, done.begun.micros_since(done.queued))
                .failed(error),
        );
        match done.result {
            Some(result) => {
                call.responder
                    .answer(turn, context, result.map(Reply::File), call.account);
            }
            None => drop(call),
        }
        for (context, call) in orphans {
            call.responder
                .answer(turn, context, Err(disk::unknown()), call.account);
        }
        self.begin(turn);
    }

    fn close_all(&mut self, turn: &mut Turn<'_, Self>) {
        let (calls, files) = self.core.close_all();
        self.discard(files);
        for (context, call) in calls {
            call.responder
                .answer(turn, context, Err(disk::unknown()), call.account);
        }
    }

    /// Closes files where that may take its time.
    fn discard(&self, files: Vec<OpenFile>) {
        if !files.is_empty() {
            self.pool.put(Box::new(move || drop(files)), Span::Long);
        }
    }
}

/// What is waited for, where that is what is asked.
fn awaited(begun: &Begun<(TraceContext, Call), OpenFile>) -> Option<Watcher> {
    match (&begun.call.1.request, &begun.file) {
        (Request::File(request), Some(OpenFile::Watch(placed)))
            if matches!(**request, FileRequest::Await(_)) =>
        {
            Some(placed.watcher())
        }
        _ => None,
    }
}

/// Serves a request; a watch only where there is room for one more.
fn served(
    request: &FileRequest,
    room: Option<OwnedSemaphorePermit>,
    file: &mut Option<OpenFile>,
) -> Result<FileReply, WireError> {
    if !matches!(request, FileRequest::Watch(_)) {
        return guarded(request, file);
    }
    let Some(room) = room else {
        return Ok(FileReply::Watching(Watching { watching: false }));
    };
    let outcome = guarded(request, file);
    if let Some(OpenFile::Watch(placed)) = file {
        placed.hold(room);
    }
    outcome
}

/// On a thread of the pool: does what is asked, unless its client has withdrawn it.
fn work(
    begun: Begun<(TraceContext, Call), OpenFile>,
    queued: Tick,
    room: Option<OwnedSemaphorePermit>,
    port: &Mailbox<FileService>,
) {
    let Begun {
        call,
        mut file,
        ticket,
    } = begun;
    let at = Tick::now();
    let result = match &call.1.request {
        Request::File(request) if call.1.responder.begin() => Some(served(request, room, &mut file)),
        _ => None,
    };
    let context = call.0.clone();
    let done = Done {
        call,
        result,
        file,
        ticket,
        queued,
        begun: at,
        done: Tick::now(),
    };
    // A service that has stopped has no client left; what was open is closed here.
    drop(port.try_tell(Envelope::new(context, FilesMessage::Done(Box::new(done)))));
}

impl Actor for FileService {
    const NAME: &'static str = "FileService";
    type Message = FilesMessage;
    type Control = FilesControl;

    fn receive(&mut self, envelope: Envelope<FilesMessage>, turn: &mut Turn<'_, Self>) {
        match envelope.body {
            FilesMessage::Call(call) => self.call(envelope.context, *call, turn),
            FilesMessage::Done(done) => self.done(*done, turn),
            FilesMessage::TakenOver => self.close_all(turn),
        }
    }

    fn control(&mut self, control: FilesControl, turn: &mut Turn<'_, Self>) {
        match control {
            FilesControl::Retry => self.begin(turn),
        }
    }

    fn drained(&mut self, turn: &mut Turn<'_, Self>) {
        self.close_all(turn);
    }
}
