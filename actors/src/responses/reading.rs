//! Reads one response, and measures it. It reads only as fast as the response's consumer takes: behind a slow one the
//! socket fills, and not memory.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use super::answer::Assembled;
use super::error::{Deadline, ResponsesError};
use super::events::{Event, EventKind};
use super::line::{Job, Taken};
use super::measure::{ClientTimings, Measure};
use super::ordinal::Ordinal;
use super::post::Events;
use super::report::{self, Transport};
use super::retry::Failure;
use super::session::PERMIT_BYTES;
use super::sideband::ServerTimings;
use super::socket::{Received, Socket};
use super::stream::{Step, StreamCore};
use crate::telemetry::{Collector, Tick};

/// What is known of a request while it is under way.
pub(super) struct Account {
    pub(super) begun: Tick,
    pub(super) prewarm: bool,
    pub(super) timings: ClientTimings,
    pub(super) connects_us: Option<u64>,
    pub(super) sending: Option<Tick>,
    pub(super) sent: Option<Tick>,
    pub(super) first_event: Option<Tick>,
    pub(super) measure: Option<Measure>,
    pub(super) ordinal: Option<Ordinal>,
    pub(super) attempts: u32,
    pub(super) transport: Transport,
    pub(super) server: Option<ServerTimings>,
    /// Something of the response went to its consumer.
    pub(super) content: bool,
}

impl Account {
    pub(super) fn new(job: &Job) -> Self {
        let timings = ClientTimings {
            queue_us: Tick::now().micros_since(job.begun),
            ..ClientTimings::default()
        };
        Self {
            begun: job.begun,
            prewarm: job.request.prewarm,
            timings,
            connects_us: None,
            sending: None,
            sent: None,
            first_event: None,
            measure: None,
            ordinal: None,
            attempts: 0,
            transport: Transport::WebSocket,
            server: None,
            content: false,
        }
    }

    fn at_us(&self, tick: Tick) -> u64 {
        tick.micros_since(self.begun)
    }

    /// A sending begins: nothing of an earlier one counts any more.
    pub(super) fn sending(&mut self) {
        self.attempts += 1;
        self.sending = Some(Tick::now());
        (self.sent, self.first_event, self.measure, self.server) = (None, None, None, None);
    }

    pub(super) fn sent(&mut self) {
        let now = Tick::now();
        self.sent = Some(now);
        self.measure = Some(Measure::sent(self.at_us(now), self.prewarm));
    }

    fn event(&mut self, kind: EventKind) {
        let now = Tick::now();
        let at_us = self.at_us(now);
        self.first_event.get_or_insert(now);
        if let Some(measure) = &mut self.measure {
            measure.event(at_us, kind.has_tokens());
        }
    }

    pub(super) fn finish(&mut self, now: Tick) {
        self.timings.prewarm = self.prewarm;
        self.timings.connect_us = self.connects_us;
        if let (Some(sending), Some(sent)) = (self.sending, self.sent) {
            self.timings.send_us = sent.micros_since(sending);
        }
        if let Some(measure) = &self.measure {
            measure.finish(&mut self.timings);
        }
        self.timings.total_us = self.at_us(now);
    }
}

/// The server said nothing for too long.
pub(super) fn silent(limit: Duration, account: &Account) -> Failure {
    Failure::Answered {
        error: ResponsesError::TimedOut {
            deadline: Deadline::Idle,
            limit,
        },
        content: account.content,
    }
}

/// Where a response comes from.
pub(super) enum Wire<'a> {
    Socket(&'a mut Socket),
    Post(&'a mut Events),
}

impl Wire<'_> {
    async fn next(&mut self) -> Received {
        match self {
            Self::Socket(socket) => socket.next().await,
            Self::Post(events) => events.next().await,
        }
    }
}

/// Reads one response.
pub(super) struct Reading<'a> {
    pub(super) core: &'a mut StreamCore,
    pub(super) collector: &'a Collector,
    pub(super) events: &'a mpsc::Sender<Taken>,
    pub(super) bytes: &'a Arc<Semaphore>,
    pub(super) account: &'a mut Account,
    pub(super) idle: Duration,
}

impl Reading<'_> {
    /// Until its end. An error says whether the connection can carry another.
    pub(super) async fn response(&mut self, mut wire: Wire<'_>) -> Result<Assembled, (Failure, bool)> {
        loop {
            let text = match timeout(self.idle, wire.next()).await {
                Ok(Received::Text(text)) => text,
                Ok(Received::Lost) if self.account.content => return Err((Failure::LostAfterContent, false)),
                Ok(Received::Lost) => return Err((Failure::LostBeforeContent, false)),
                Ok(Received::Wrong(error)) => return Err((self.answered(error), false)),
                Err(_) => return Err((silent(self.idle, self.account), false)),
            };
            match self.core.message(&text) {
                Err(error) => return Err((self.answered(error), false)),
                Ok(Step::Ignored) => {}
                Ok(Step::Timing(timing)) => {
                    // Whose else it may be was asked for earlier.
                    if self.account.ordinal.is_none_or(|own| own == timing.ordinal) {
                        self.account.server.get_or_insert(timing.timings);
                    }
                    report::timing(self.collector, &timing, Tick::now());
                }
                Ok(Step::Event(event)) => self.hand_on(event, text.len()).await?,
                Ok(Step::End(event, Ok(assembled))) => {
                    self.hand_on(event, text.len()).await?;
                    return Ok(assembled);
                }
                Ok(Step::End(event, Err(error))) => {
                    self.count(event.kind);
                    // Past a bound the response goes on, and nobody reads it.
                    let usable = matches!(event.kind, EventKind::Failed | EventKind::Error);
                    return Err((self.answered(error), usable));
                }
            }
        }
    }

    fn answered(&self, error: ResponsesError) -> Failure {
        Failure::Answered {
            error,
            content: self.account.content,
        }
    }

    fn count(&mut self, kind: EventKind) {
        self.account.event(kind);
        self.collector.board().meters().model.event(kind);
    }

    /// Waits for its consumer: until there is room nothing more is read.
    async fn hand_on(&mut self, event: Event, size: usize) -> Result<(), (Failure, bool)> {
        self.count(event.kind);
        self.account.content = true;
        // No message is larger than all the room there is.
        let steps = u32::try_from(size.div_ceil(PERMIT_BYTES)).unwrap_or(u32::MAX);
        let handed = match Arc::clone(self.bytes).acquire_many_owned(steps).await {
            Ok(room) => self.events.send(Taken { event, _room: room }).await.is_ok(),
            Err(_) => false,
        };
        if handed {
            return Ok(());
        }
        Err((self.answered(ResponsesError::Ended), false))
    }
}
