//! What a server says while it answers: read once, told apart by a fixed set of kinds. Pure.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::sideband::{Sideband, TIMING_EVENT};
use crate::telemetry::semconv;

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $text:literal, $label:literal;)*) => {
        /// What kind of event. A kind that is not known is [`EventKind::Other`]: what a server calls it never becomes a
        /// name of ours.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum EventKind {
            $($(#[$doc])* $kind,)*
            /// One that is not in this list.
            Other,
        }

        impl EventKind {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$kind,)* Self::Other];

            /// By the text of its type.
            pub fn of(text: &str) -> Self {
                match text {
                    $($text => Self::$kind,)*
                    _ => Self::Other,
                }
            }

            /// Its label in metrics.
            pub fn label(self) -> &'static str {
                match self {
                    $(Self::$kind => $label,)*
                    Self::Other => semconv::OTHER,
                }
            }
        }
    };
}

kinds! {
    /// The response has begun.
    Created = "response.created", "created";
    /// It waits for its turn.
    Queued = "response.queued", "queued";
    /// It is being made.
    InProgress = "response.in_progress", "in_progress";
    /// An item of it has begun.
    ItemAdded = "response.output_item.added", "output_item_added";
    /// An item of it is whole.
    ItemDone = "response.output_item.done", "output_item_done";
    /// A part of an item has begun.
    PartAdded = "response.content_part.added", "content_part_added";
    /// A part of an item is whole.
    PartDone = "response.content_part.done", "content_part_done";
    /// More text of the answer.
    TextDelta = "response.output_text.delta", "output_text_delta";
    /// A part's text is whole.
    TextDone = "response.output_text.done", "output_text_done";
    /// More of why there is no answer.
    RefusalDelta = "response.refusal.delta", "refusal_delta";
    /// All of why there is no answer.
    RefusalDone = "response.refusal.done", "refusal_done";
    /// More of a call's arguments.
    ArgumentsDelta = "response.function_call_arguments.delta", "arguments_delta";
    /// A call's arguments are whole.
    ArgumentsDone = "response.function_call_arguments.done", "arguments_done";
    /// More of what it thinks, in short.
    ReasoningSummaryDelta = "response.reasoning_summary_text.delta", "reasoning_summary_delta";
    /// What it thinks, in short.
    ReasoningSummaryDone = "response.reasoning_summary_text.done", "reasoning_summary_done";
    /// More of what it thinks.
    ReasoningDelta = "response.reasoning_text.delta", "reasoning_delta";
    /// What it thinks.
    ReasoningDone = "response.reasoning_text.done", "reasoning_done";
    /// The response is whole.
    Completed = "response.completed", "completed";
    /// The response failed.
    Failed = "response.failed", "failed";
    /// The response was cut short.
    Incomplete = "response.incomplete", "incomplete";
    /// The request was refused, or the connection is.
    Error = "error", "error";
}

impl EventKind {
    /// Whether tokens of the model are in it: what time to the first token, and the gaps between them, are measured by.
    pub fn has_tokens(self) -> bool {
        match self {
            Self::TextDelta
            | Self::RefusalDelta
            | Self::ArgumentsDelta
            | Self::ReasoningSummaryDelta
            | Self::ReasoningDelta => true,
            Self::Created
            | Self::Queued
            | Self::InProgress
            | Self::ItemAdded
            | Self::ItemDone
            | Self::PartAdded
            | Self::PartDone
            | Self::TextDone
            | Self::RefusalDone
            | Self::ArgumentsDone
            | Self::ReasoningSummaryDone
            | Self::ReasoningDone
            | Self::Completed
            | Self::Failed
            | Self::Incomplete
            | Self::Error
            | Self::Other => false,
        }
    }
}

/// One event of a response, as its consumer gets it.
#[derive(Clone, PartialEq, Debug)]
pub struct Event {
    /// Which.
    pub kind: EventKind,
    /// All of it, as the server sent it, its `type` included.
    pub body: Map<String, Value>,
}

impl Event {
    /// More text of the answer, if that is what this is.
    pub fn text_delta(&self) -> Option<&str> {
        (self.kind == EventKind::TextDelta)
            .then(|| self.body.get("delta")?.as_str())
            .flatten()
    }
}

/// What one message of a server is.
#[derive(Debug)]
pub enum Message {
    /// Part of a response.
    Event(Event),
    /// The timing sideband.
    Sideband(Sideband),
    /// A sideband that cannot be read: it is passed over.
    MalformedSideband,
}

/// A message that is no object with a type.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a message of the server is not an event in JSON")]
pub struct Unreadable;

/// Only the type: numbers, depth and everything else of a message are not looked at.
#[derive(Deserialize)]
struct Typed<'a> {
    #[serde(rename = "type", borrow)]
    kind: std::borrow::Cow<'a, str>,
}

/// Reads one message.
///
/// # Errors
/// [`Unreadable`], and never for what calls itself a timing sideband: that cannot fail a response.
pub fn read(text: &str) -> Result<Message, Unreadable> {
    let kind = serde_json::from_str::<Typed<'_>>(text).map(|typed| typed.kind);
    if kind
        .as_deref()
        .map_or_else(|_| begins_as_sideband(text), |kind| kind == TIMING_EVENT)
    {
        return Ok(match serde_json::from_str::<Map<String, Value>>(text) {
            Ok(body) => Message::Sideband(Sideband::read(&body)),
            Err(_) => Message::MalformedSideband,
        });
    }
    let kind = EventKind::of(&kind.map_err(|_| Unreadable)?);
    let body = serde_json::from_str(text).map_err(|_| Unreadable)?;
    Ok(Message::Event(Event { kind, body }))
}

/// Whether a message that is no JSON was to be a sideband: its type comes first, as servers write it.
fn begins_as_sideband(text: &str) -> bool {
    let mut rest = text.trim_start();
    for token in ["{", "\"type\"", ":", "\""] {
        let Some(after) = rest.strip_prefix(token) else {
            return false;
        };
        rest = if token == "\"" { after } else { after.trim_start() };
    }
    rest.strip_prefix(TIMING_EVENT)
        .is_some_and(|after| after.starts_with('"'))
}
