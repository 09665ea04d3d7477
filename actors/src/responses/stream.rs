//! The core of one connection: who holds the stream, what is new for its server, whose a sideband is. Pure.
//!
//! Order of calls: `begin`, the message is sent, `message` for each one that comes until it gives the end, and so on.
//! Between two requests `message` takes what comes late.

use dwell_messages::TraceContext;

use super::answer::{Assembled, Assembly};
use super::error::ResponsesError;
use super::events::{self, Event, Message};
use super::ordinal::{Attribution, Correlation, Ordinal};
use super::request::{MetadataKeys, Previous, Request, Stamp};
use super::sideband::ServerTimings;

/// What is remembered of a request for a sideband that comes late.
#[derive(Clone, Debug)]
pub struct About {
    /// The request's own span.
    pub context: TraceContext,
    /// Once it is over: how long the client waited, for what the server leaves unaccounted.
    pub timings: Option<super::ClientTimings>,
}

/// The first sideband about a request.
#[derive(Clone, Debug)]
pub struct Timing {
    /// Which request.
    pub ordinal: Ordinal,
    /// What is known of it.
    pub about: About,
    /// What the server said.
    pub timings: ServerTimings,
}

/// What a message of the server was.
#[derive(Debug)]
pub enum Step {
    /// Part of the response: for its consumer.
    Event(Event),
    /// The end of the response.
    End(Event, Result<Assembled, ResponsesError>),
    /// Server timings, for telemetry.
    Timing(Timing),
    /// Nothing that concerns anybody: a sideband of nobody's, or twice; an event between two responses.
    Ignored,
}

/// See the module. One for each connection.
#[derive(Debug, Default)]
pub struct StreamCore {
    correlation: Correlation<About>,
    previous: Option<Previous>,
    assembly: Assembly,
}

impl StreamCore {
    /// The next request takes the stream. Its ordinal, for the stamp and for whoever learns more.
    pub fn begin(&mut self, context: TraceContext) -> Ordinal {
        self.assembly = Assembly::default();
        self.correlation.begin(About {
            context,
            timings: None,
        })
    }

    /// The request's message, with only what is new for this connection's server.
    pub fn render(&self, request: &Request, keys: &MetadataKeys, stamp: &Stamp) -> String {
        let extension = self
            .previous
            .as_ref()
            .and_then(|previous| previous.extended_by(request));
        request.to_message(keys, stamp, extension)
    }

    /// One message of the server.
    ///
    /// # Errors
    /// A message that is no event ends a response; between two it is ignored like everything there.
    pub fn message(&mut self, text: &str) -> Result<Step, ResponsesError> {
        let message = match events::read(text) {
            Ok(message) => message,
            Err(_) if !self.correlation.is_held() => return Ok(Step::Ignored),
            Err(_) => {
                return Err(ResponsesError::Malformed {
                    what: "a message is not an event in JSON",
                });
            }
        };
        match message {
            Message::MalformedSideband => Ok(Step::Ignored),
            Message::Sideband(sideband) => Ok(match self.correlation.attribute(sideband.label) {
                Attribution::First(ordinal, about) => Step::Timing(Timing {
                    ordinal,
                    about: about.clone(),
                    timings: sideband.timings,
                }),
                Attribution::Duplicate | Attribution::Unknown => Step::Ignored,
            }),
            Message::Event(_) if !self.correlation.is_held() => Ok(Step::Ignored),
            Message::Event(event) => Ok(match self.assembly.event(&event, text.len()) {
                Ok(None) => Step::Event(event),
                Ok(Some(assembled)) => Step::End(event, Ok(assembled)),
                Err(error) => Step::End(event, Err(error)),
            }),
        }
    }

    /// The response is over. What follows can go on from it if it was whole.
    pub fn ended(&mut self, ordinal: Ordinal, timings: super::ClientTimings, previous: Option<Previous>) {
        self.correlation.release();
        if let Some(about) = self.correlation.known_mut(ordinal) {
            about.timings = Some(timings);
        }
        self.previous = previous;
    }

    /// The server has no memory of what came before: the next request is sent whole.
    pub fn forget(&mut self) {
        self.previous = None;
        self.correlation.release();
    }
}
