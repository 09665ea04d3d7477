//! `ResponsesSession`: one conversation partner's requests, one after the other.
//!
//! Owns the order of requests and the task that has the connection (`line`). Never waits and never sees a byte of a
//! response: events go from that task to the response's consumer. Mailbox full: asking is refused as busy; requests that
//! wait keep their room. Stop: with the last handle and the last response; the task then closes its connection and ends by
//! itself. Who sends: handles, and the task by a slot reserved ahead. After a panic of the actor what waited is told that
//! the session ended, what is under way goes on to its end, and the session goes on with a fresh connection.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;

use dwell_messages::{Envelope, TraceContext, TraceFlags, TraceId};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::answer::Answer;
use super::config::{Config, ResponsesBuilder};
use super::endpoint::Endpoint;
use super::error::ResponsesError;
use super::events::Event;
use super::line::{self, Job, Taken, Work};
use super::request::Request;
use crate::mailbox::{Actor, HostOptions, Mailbox, Message, Slot, TellError, Turn, start_on};
use crate::propagation;
use crate::runtime::{Place, Runtime};
use crate::telemetry::{Collector, Sampler, Tick, span_id, trace_id};

/// Requests of one session that wait or are under way. One more is refused.
pub const REQUESTS_WAITING_MAX: usize = 32;
/// Events of a response that its consumer has not taken. Behind them the socket is not read.
pub const EVENTS_WAITING_MAX: usize = 64;
/// Bytes of events of a response that its consumer has not taken, as they came.
pub const EVENTS_WAITING_MAX_BYTES: usize = 2 * super::socket::MESSAGE_MAX_BYTES;
/// Bytes that a permit stands for: events are counted in whole ones.
pub(super) const PERMIT_BYTES: usize = 1024;
/// The end of the job under way, and of one whose end is being handled.
const ENDS_MAX: usize = 2;
/// What the task is given ahead: a job, and a word to dial.
const WORK_MAX: usize = 2;

/// What it is told.
pub(crate) enum SessionMessage {
    /// Ask this next.
    Ask(Box<Job>),
    /// The job under way is over.
    Finished,
    /// Have a connection before anybody asks.
    Warm,
}

impl Message for SessionMessage {
    const NAMES: &'static [&'static str] = &["Ask", "Finished", "Warm"];

    fn index(&self) -> usize {
        match self {
            Self::Ask(_) => 0,
            Self::Finished => 1,
            Self::Warm => 2,
        }
    }
}

/// Says that a job is over when it is dropped.
pub(super) struct Done(Option<Slot<ResponsesSession>>);

impl Drop for Done {
    fn drop(&mut self) {
        if let Some(slot) = self.0.take() {
            slot.send(Envelope::new(TraceContext::default(), SessionMessage::Finished));
        }
    }
}

/// See the module.
pub(crate) struct ResponsesSession {
    config: Arc<Config>,
    collector: Collector,
    waiting: VecDeque<Job>,
    is_busy: bool,
    ends: Option<Mailbox<Self>>,
    line: Option<mpsc::Sender<Work>>,
}

impl ResponsesSession {
    fn new(config: Arc<Config>, collector: Collector) -> Self {
        Self {
            config,
            collector,
            waiting: VecDeque::new(),
            is_busy: false,
            ends: None,
            line: None,
        }
    }

    /// Gives the task the next request that somebody still waits for.
    fn drive(&mut self, turn: &Turn<'_, Self>) {
        while !self.is_busy {
            let Some(mut job) = self.waiting.pop_front() else {
                return;
            };
            if job.events.is_closed() {
                continue;
            }
            // Without room for its end the session is ending: whoever asked is told by the drop.
            let Some(slot) = self.ends.as_ref().and_then(Mailbox::try_reserve) else {
                continue;
            };
            job.done = Some(Done(Some(slot)));
            self.is_busy = true;
            self.hand_over(Work::Ask(Box::new(job)), turn);
        }
    }

    /// One job at a time, so there is room, unless the task is gone: then by another.
    fn hand_over(&mut self, work: Work, turn: &Turn<'_, Self>) {
        let work = match &self.line {
            Some(line) => match line.try_send(work) {
                Ok(()) => return,
                Err(error) => error.into_inner(),
            },
            None => work,
        };
        let (line, receive) = mpsc::channel(WORK_MAX);
        // It ends by itself when nobody can give it anything any more, and closes its connection in order.
        turn.spawn(line::work(
            Arc::clone(&self.config),
            self.collector.clone(),
            receive,
        ))
        .detach();
        // The channel is empty and has a receiver.
        drop(line.try_send(work));
        self.line = Some(line);
    }
}

impl Actor for ResponsesSession {
    const NAME: &'static str = "ResponsesSession";
    type Message = SessionMessage;
    type Control = Infallible;

    fn started(&mut self, turn: &mut Turn<'_, Self>) {
        self.ends = Some(turn.mailbox().port(ENDS_MAX));
    }

    fn receive(&mut self, envelope: Envelope<SessionMessage>, turn: &mut Turn<'_, Self>) {
        match envelope.body {
            SessionMessage::Ask(mut job) => {
                job.room = turn.take_room();
                self.waiting.push_back(*job);
            }
            SessionMessage::Finished => self.is_busy = false,
            // A request under way has a connection, or makes one.
            SessionMessage::Warm if self.is_busy => {}
            SessionMessage::Warm => self.hand_over(Work::Dial(envelope.context), turn),
        }
        self.drive(turn);
    }

    fn control(&mut self, control: Infallible, _: &mut Turn<'_, Self>) {
        match control {}
    }
}

/// A session with a model's server. Cheap to clone; usable from any runtime and from plain threads. The session ends with
/// the last handle and the last response.
#[derive(Clone)]
pub struct Responses(Arc<Inner>);

struct Inner {
    mailbox: Mailbox<ResponsesSession>,
    collector: Collector,
    sampler: Sampler,
    _place: Place,
    _runtime: Runtime,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.mailbox.begin_drain();
    }
}

impl fmt::Debug for Responses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Responses")
            .field("mailbox", &self.0.mailbox)
            .finish_non_exhaustive()
    }
}

impl Responses {
    /// Sets up a session with the server at `endpoint`.
    pub fn builder(endpoint: Endpoint) -> ResponsesBuilder {
        ResponsesBuilder::new(endpoint)
    }

    pub(super) fn start(config: Config, runtime: Runtime) -> Self {
        let (sampler, problem) = Sampler::from_lookup(|name| std::env::var(name).ok());
        if let Some(problem) = problem {
            tracing::warn!("{problem}");
        }
        let place = runtime.place();
        let collector = runtime.collector().clone();
        let (config, made) = (Arc::new(config), collector.clone());
        let options = HostOptions::new(REQUESTS_WAITING_MAX).restarting();
        let mailbox = start_on(place.arbiter(), options, move || {
            ResponsesSession::new(Arc::clone(&config), made.clone())
        });
        Self(Arc::new(Inner {
            mailbox,
            collector,
            sampler,
            _place: place,
            _runtime: runtime,
        }))
    }

    /// Asks. Returns at once; what goes wrong is told by the response. Requests are sent in the order in which they were
    /// asked, each when the one before it is over.
    pub fn ask(&self, request: Request) -> Response {
        let begun = Tick::now();
        let (context, parent) = self.ancestry(&request);
        let (events, receive) = mpsc::channel(EVENTS_WAITING_MAX);
        let (answer, answered) = oneshot::channel();
        let response = Response {
            events: receive,
            answer: answered,
            context: context.clone(),
            _session: Arc::clone(&self.0),
        };
        let job = Job {
            request,
            context: context.clone(),
            parent,
            begun,
            events,
            bytes: Arc::new(Semaphore::new(EVENTS_WAITING_MAX_BYTES / PERMIT_BYTES)),
            answer,
            room: None,
            done: None,
        };
        let asked = Envelope::new(context, SessionMessage::Ask(Box::new(job)));
        let (refused, error) = match self.0.mailbox.try_tell(asked) {
            Ok(()) => return response,
            Err(TellError::Full(refused)) => (
                refused,
                ResponsesError::Busy {
                    max: REQUESTS_WAITING_MAX,
                },
            ),
            Err(TellError::Stopped(refused)) => (refused, ResponsesError::Ended),
        };
        if let SessionMessage::Ask(job) = refused.body {
            drop(job.answer.send(Err(error)));
        }
        response
    }

    /// Dials the server now, so that the first request finds a connection: for what is done meanwhile. Returns at once; a
    /// failure is the next request's to find. The connection's span hangs below `parent`.
    pub fn warm(&self, parent: TraceContext) {
        // Without room there are requests already, which dial.
        drop(
            self.0
                .mailbox
                .try_tell(Envelope::new(parent, SessionMessage::Warm)),
        );
    }

    /// Everything that was traced of finished responses is with its sinks when this returns.
    pub async fn flush_traces(&self) {
        self.0.collector.flush().await;
    }

    /// A request's own context, and the span it hangs below.
    fn ancestry(&self, request: &Request) -> (TraceContext, Option<TraceContext>) {
        let parent = request.parent.clone().or_else(propagation::current);
        let parent = parent.filter(TraceContext::is_valid);
        let mut context = match &parent {
            Some(parent) => parent.child(span_id()),
            None => TraceContext::new(trace_id(), span_id(), TraceFlags::NONE),
        };
        let sampled = match (&parent, request.sampled) {
            (None, Some(sampled)) => sampled,
            (parent, _) => self.0.sampler.decide(parent.as_ref(), context.trace_id),
        };
        context.flags = if sampled {
            TraceFlags::SAMPLED
        } else {
            TraceFlags::NONE
        };
        (context, parent)
    }
}

/// A response under way: a stream of events, and a future of the whole. Dropping it gives the response up, and its
/// connection with it.
#[must_use = "dropping a response gives it up"]
pub struct Response {
    events: mpsc::Receiver<Taken>,
    answer: oneshot::Receiver<Result<Answer, ResponsesError>>,
    context: TraceContext,
    _session: Arc<Inner>,
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("context", &self.context)
            .finish_non_exhaustive()
    }
}

impl Response {
    /// The next event; `None` when there is none left: then `finish` has the end. Cancellation safe.
    ///
    /// At most [`EVENTS_WAITING_MAX`] of [`EVENTS_WAITING_MAX_BYTES`] wait here. Whoever takes none keeps the server from
    /// sending more.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await.map(|taken| taken.event)
    }

    /// Waits for the end, passing over events that were not taken. Cancellation: dropping the future gives the response
    /// up.
    ///
    /// # Errors
    /// [`ResponsesError`] says who has to act.
    pub async fn finish(mut self) -> Result<Answer, ResponsesError> {
        while self.events.recv().await.is_some() {}
        self.answer.await.unwrap_or(Err(ResponsesError::Ended))
    }

    /// The request's span.
    pub fn context(&self) -> &TraceContext {
        &self.context
    }

    /// The request's trace.
    pub fn trace_id(&self) -> TraceId {
        self.context.trace_id
    }
}
