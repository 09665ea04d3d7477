//! The task that has the connection: one request after the other, dialling, sending again and falling back as `retry`
//! says.

use std::sync::Arc;
use std::time::Duration;

use dwell_messages::TraceContext;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use super::answer::{Answer, Assembled};
use super::config::Config;
use super::dial::dial;
use super::error::{Bounded, Deadline, ResponsesError};
use super::events::Event;
use super::post;
use super::reading::{Account, Reading, Wire, silent};
use super::report::{self, Over, Transport};
use super::request::{Previous, REQUEST_MAX_BYTES, Request, Stamp};
use super::retry::{Failure, Verdict, verdict};
use super::session::Done;
use super::socket::{Received, Socket, upgrade};
use super::stream::{Step, StreamCore};
use crate::mailbox::Room;
use crate::telemetry::{Collector, Tick, wall_unix_ms};

/// Messages between two responses, after which a connection is given up: late sidebands are few.
const BETWEEN_MAX: u32 = 256;

/// For how long an orderly close is waited for.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// What the task is given.
pub(super) enum Work {
    /// Ask this.
    Ask(Box<Job>),
    /// Have a connection; its span hangs below this.
    Dial(TraceContext),
}

/// An event, and the room that its bytes take until it is taken.
pub(super) struct Taken {
    pub(super) event: Event,
    pub(super) _room: OwnedSemaphorePermit,
}

/// One request, on its way.
pub(super) struct Job {
    pub(super) request: Request,
    /// The request's own span.
    pub(super) context: TraceContext,
    pub(super) parent: Option<TraceContext>,
    pub(super) begun: Tick,
    pub(super) events: mpsc::Sender<Taken>,
    /// Room for events that were not taken, in steps of `PERMIT_BYTES`.
    pub(super) bytes: Arc<Semaphore>,
    pub(super) answer: oneshot::Sender<Result<Answer, ResponsesError>>,
    /// Its place in the session's mailbox.
    pub(super) room: Option<Room>,
    /// Tells the session when the job is dropped, however that comes about.
    pub(super) done: Option<Done>,
}

/// Serves jobs until nobody has any more.
pub(super) async fn work(config: Arc<Config>, collector: Collector, mut given: mpsc::Receiver<Work>) {
    let mut line = Line {
        config,
        collector,
        core: StreamCore::default(),
        socket: None,
        between: 0,
        posts: false,
    };
    loop {
        tokio::select! {
            // What has come is about what was before, and is looked at before anything new is asked.
            biased;
            received = next_of(&mut line.socket) => line.between(&received),
            work = given.recv() => match work {
                Some(Work::Ask(job)) => Box::pin(line.serve(*job)).await,
                Some(Work::Dial(context)) => line.dial_ahead(&context).await,
                None => return line.close().await,
            },
        }
    }
}

/// What comes between two responses; waits for ever without a connection.
async fn next_of(socket: &mut Option<Socket>) -> Received {
    match socket {
        Some(socket) => socket.next().await,
        None => std::future::pending().await,
    }
}

struct Line {
    config: Arc<Config>,
    collector: Collector,
    core: StreamCore,
    socket: Option<Socket>,
    between: u32,
    /// This server has no WebSocket for us.
    posts: bool,
}

impl Line {
    /// The connection is of no use any more, and with it its ordinals and what its server has in mind.
    fn lose(&mut self) {
        self.socket = None;
        self.core = StreamCore::default();
    }

    /// A message that came while nobody asked anything: a late sideband, mostly.
    fn between(&mut self, received: &Received) {
        self.between += 1;
        let Received::Text(text) = received else {
            return self.lose();
        };
        if let Ok(Step::Timing(timing)) = self.core.message(text) {
            report::timing(&self.collector, &timing, Tick::now());
        }
        if self.between > BETWEEN_MAX {
            self.lose();
        }
    }

    /// What goes wrong is the next request's to find and to tell.
    async fn dial_ahead(&mut self, context: &TraceContext) {
        if self.socket.is_some() || self.posts {
            return;
        }
        match self.connect(context).await {
            Ok(socket) => self.socket = Some(socket),
            Err(failure) => tracing::debug!(error_type = failure.kind(), "no connection was made ahead"),
        }
    }

    async fn close(self) {
        if let Some(socket) = self.socket {
            drop(timeout(CLOSE_TIMEOUT, socket.close()).await);
        }
    }

    async fn serve(&mut self, job: Job) {
        self.between = 0;
        let mut account = Account::new(&job);
        let limit = self.config.deadlines.total;
        let left = limit.saturating_sub(Duration::from_micros(account.timings.queue_us));
        let outcome = tokio::select! {
            biased;
            // Nobody wants it any more; what would still come of it must not be taken for the next one's.
            () = job.events.closed() => Err(ResponsesError::Ended),
            outcome = timeout(left, self.attempts(&job, &mut account)) => outcome.unwrap_or(Err(ResponsesError::TimedOut {
                deadline: Deadline::Total,
                limit,
            })),
        };
        if let Err(ResponsesError::Ended | ResponsesError::TimedOut { .. }) = &outcome {
            self.lose();
        }
        self.end(job, account, outcome);
    }

    /// Tells telemetry, then the caller: who flushes after an answer sees its spans.
    fn end(&mut self, job: Job, mut account: Account, outcome: Result<Assembled, ResponsesError>) {
        let now = Tick::now();
        account.finish(now);
        let over = Over {
            context: &job.context,
            parent: job.parent.as_ref(),
            begun: job.begun,
            sending: account.sending,
            sent: account.sent,
            first_event: account.first_event,
            ended: now,
            ordinal: account.ordinal,
            attempts: account.attempts,
            transport: account.transport,
            timings: account.timings,
            server: account.server,
            error: report::kind(&outcome),
            incomplete: outcome
                .as_ref()
                .is_ok_and(|assembled| assembled.incomplete.is_some()),
        };
        report::request(&self.collector, &over);
        if let (Some(ordinal), Some(_)) = (account.ordinal, &self.socket) {
            let whole = outcome
                .as_ref()
                .ok()
                .filter(|assembled| assembled.incomplete.is_none());
            let previous =
                whole.map(|whole| Previous::new(job.request, whole.id.clone(), whole.output.clone()));
            self.core.ended(ordinal, account.timings, previous);
        }
        let answer = outcome.map(|assembled| Answer {
            id: assembled.id,
            output: assembled.output,
            incomplete: assembled.incomplete,
            usage: assembled.usage,
            timings: account.timings,
            server: account.server,
            ordinal: account.ordinal,
            attempts: account.attempts,
        });
        // Whoever does not wait for it any more needs none.
        drop(job.answer.send(answer));
        // Before the room is free: who gets it may ask at once.
        drop(job.done);
        drop(job.room);
    }

    async fn attempts(&mut self, job: &Job, account: &mut Account) -> Result<Assembled, ResponsesError> {
        loop {
            if self.posts {
                return self.post(job, account).await;
            }
            let failure = match self.ask(job, account).await {
                Ok(assembled) => return Ok(assembled),
                Err(failure) => failure,
            };
            match verdict(failure, account.attempts) {
                Verdict::SameConnection => self.core.forget(),
                Verdict::FreshConnection(pause) => {
                    self.lose();
                    if !pause.is_zero() {
                        tokio::time::sleep(pause).await;
                    }
                }
                Verdict::Post => {
                    self.lose();
                    self.posts = true;
                    tracing::info!("the model's server has no WebSocket for this side: requests are posted");
                }
                Verdict::Fail(error) => return Err(error),
            }
        }
    }

    /// One attempt on the WebSocket, which is dialled if there is none.
    async fn ask(&mut self, job: &Job, account: &mut Account) -> Result<Assembled, Failure> {
        account.transport = Transport::WebSocket;
        let mut socket = match self.socket.take() {
            Some(socket) => socket,
            None => {
                let began = Tick::now();
                let connected = self.connect(&job.context).await;
                *account.connects_us.get_or_insert(0) += Tick::now().micros_since(began);
                connected?
            }
        };
        // A connection of which this attempt does not say that it is usable afterwards is dropped with `socket`.
        let ordinal = self.core.begin(job.context.clone());
        account.ordinal = Some(ordinal);
        let stamp = Stamp {
            context: job.context.clone(),
            start_unix_ms: wall_unix_ms(),
            ordinal,
        };
        let text = self.core.render(&job.request, &self.config.keys, &stamp);
        if text.len() > REQUEST_MAX_BYTES {
            return Err(past(REQUEST_MAX_BYTES));
        }
        account.sending();
        let idle = self.config.deadlines.idle;
        match timeout(idle, socket.send(text)).await {
            Ok(sent) => sent?,
            Err(_) => return Err(silent(idle, account)),
        }
        account.sent();
        let mut reading = Reading {
            core: &mut self.core,
            collector: &self.collector,
            events: &job.events,
            bytes: &job.bytes,
            account,
            idle,
        };
        match reading.response(Wire::Socket(&mut socket)).await {
            Ok(assembled) => {
                self.socket = Some(socket);
                Ok(assembled)
            }
            Err((failure, usable)) => {
                if usable {
                    self.socket = Some(socket);
                }
                Err(failure)
            }
        }
    }

    async fn connect(&mut self, context: &TraceContext) -> Result<Socket, Failure> {
        let began = Tick::now();
        self.core = StreamCore::default();
        let limit = self.config.deadlines.connect;
        let config = &self.config;
        let connected = timeout(limit, async {
            let stream = dial(config).await.map_err(Failure::NotConnected)?;
            upgrade(stream, config).await
        });
        let connected = connected.await.unwrap_or_else(|_| Err(too_slow(limit)));
        let error = connected.as_ref().err().map(Failure::kind);
        report::connect(&self.collector, context, began, error);
        connected
    }

    /// The one attempt by POST: its connection was fresh.
    async fn post(&mut self, job: &Job, account: &mut Account) -> Result<Assembled, ResponsesError> {
        account.transport = Transport::Post;
        account.ordinal = None;
        if job.request.prewarm {
            return Err(ResponsesError::NothingToWarm);
        }
        let deadlines = self.config.deadlines;
        let began = Tick::now();
        let stream = match timeout(deadlines.connect, dial(&self.config)).await {
            Ok(stream) => stream,
            Err(_) => Err(ResponsesError::TimedOut {
                deadline: Deadline::Connect,
                limit: deadlines.connect,
            }),
        };
        report::connect(&self.collector, &job.context, began, report::kind(&stream));
        *account.connects_us.get_or_insert(0) += Tick::now().micros_since(began);
        let stream = stream?;
        let body = job.request.to_post(&self.config.keys);
        if body.len() > REQUEST_MAX_BYTES {
            return Err(ResponsesError::TooLarge {
                what: Bounded::Request,
                max: REQUEST_MAX_BYTES,
            });
        }
        account.sending();
        let head = post::post(stream, &self.config, &job.context, body);
        let mut events = timeout(deadlines.idle, head)
            .await
            .unwrap_or(Err(ResponsesError::TimedOut {
                deadline: Deadline::Idle,
                limit: deadlines.idle,
            }))?;
        // What the server takes until its head counts as sending: nothing says when the last byte had left.
        account.sent();
        let mut core = StreamCore::default();
        core.begin(job.context.clone());
        let mut reading = Reading {
            core: &mut core,
            collector: &self.collector,
            events: &job.events,
            bytes: &job.bytes,
            account,
            idle: deadlines.idle,
        };
        reading
            .response(Wire::Post(&mut events))
            .await
            .map_err(|(failure, _)| match verdict(failure, u32::MAX) {
                Verdict::Fail(error) => error,
                Verdict::SameConnection | Verdict::FreshConnection(_) | Verdict::Post => {
                    ResponsesError::Interrupted
                }
            })
    }
}

fn past(max: usize) -> Failure {
    Failure::Answered {
        error: ResponsesError::TooLarge {
            what: Bounded::Request,
            max,
        },
        content: false,
    }
}

fn too_slow(limit: Duration) -> Failure {
    Failure::NotConnected(ResponsesError::TimedOut {
        deadline: Deadline::Connect,
        limit,
    })
}
