//! Asking a model: the Responses API over one WebSocket, with server-sent events where there is none, and an account of
//! where a request's time went.
//!
//! One socket carries many requests, one after the other. Each has its own trace, start stamp and ordinal, and what the
//! server says of its own time comes beside its response and is matched by that ordinal.

mod answer;
mod config;
mod dial;
mod endpoint;
mod error;
mod events;
mod line;
mod measure;
pub mod mock;
mod ordinal;
mod post;
mod reading;
mod report;
mod request;
mod retry;
mod secret;
mod session;
mod sideband;
mod socket;
mod sse;
mod stream;

pub use answer::{
    ARGUMENTS_MAX_BYTES, Answer, Assembled, Assembly, FUNCTION_CALLS_MAX, FunctionCall, OUTPUT_ITEMS_MAX,
    OUTPUT_MAX_BYTES,
};
pub use config::{
    CONNECT_TIMEOUT, Deadlines, HEADERS_MAX, IDLE_TIMEOUT, OpenError, ResponsesBuilder, TOTAL_TIMEOUT,
};
pub use endpoint::{ENDPOINT_DEFAULT, ENDPOINT_MAX_BYTES, Endpoint, EndpointError};
pub use error::{Bounded, Deadline, ResponsesError};
pub use events::{Event, EventKind, Message, Unreadable, read};
pub use measure::{ClientTimings, Measure, TokenGaps, Unaccounted};
pub use ordinal::{Attribution, Correlation, Label, Ordinal, REMEMBERED_MAX};
pub(crate) use report::ModelMeters;
pub use request::{Extension, MetadataKeys, Previous, REQUEST_MAX_BYTES, Request, Stamp};
pub use retry::{ATTEMPTS_MAX, Failure, RETRY_PAUSE, Verdict, verdict};
pub use secret::{ApiKey, KEY_MAX_BYTES, KEY_VARIABLE, KeyError};
pub use session::{EVENTS_WAITING_MAX, EVENTS_WAITING_MAX_BYTES, REQUESTS_WAITING_MAX, Response, Responses};
pub use sideband::{ROUTING_TIMING_SEMANTICS, ServerTimings, Sideband, TIMING_EVENT};
pub use socket::MESSAGE_MAX_BYTES;
pub use sse::{SseError, SseParser};
pub use stream::{About, Step, StreamCore, Timing};
