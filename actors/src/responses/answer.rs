//! A response, put together from its events, within bounds. Pure.

use serde_json::{Map, Value};

use super::error::{Bounded, ResponsesError};
use super::events::{Event, EventKind};
use super::measure::ClientTimings;
use super::ordinal::Ordinal;
use super::sideband::ServerTimings;

/// Calls of functions in one response.
pub const FUNCTION_CALLS_MAX: usize = 64;
/// Bytes of one call's arguments.
pub const ARGUMENTS_MAX_BYTES: usize = 1024 * 1024;
/// Items of one response.
pub const OUTPUT_ITEMS_MAX: usize = 1_024;
/// Bytes of all items of one response together, as JSON.
pub const OUTPUT_MAX_BYTES: usize = 16 * 1024 * 1024;
/// Characters of what a server says of an error.
const SAID_MAX_CHARS: usize = 300;

/// A function that the model wants called.
#[derive(Clone, PartialEq, Eq)]
pub struct FunctionCall {
    /// What its output is to be given under.
    pub call_id: String,
    /// Which function.
    pub name: String,
    /// Its arguments, as the model wrote them: mostly JSON, and never to be trusted.
    pub arguments: String,
}

impl std::fmt::Debug for FunctionCall {
    /// Without the arguments.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FunctionCall")
            .field("name", &self.name)
            .field("arguments_bytes", &self.arguments.len())
            .finish_non_exhaustive()
    }
}

/// A whole response.
#[derive(Clone, PartialEq)]
pub struct Answer {
    /// The server's name for it.
    pub id: String,
    /// Its items, to be given back with the next request of the conversation.
    pub output: Vec<Value>,
    /// Why it was cut short, if it was.
    pub incomplete: Option<String>,
    /// Tokens, as the server counted them.
    pub usage: Option<Value>,
    /// Where the time went.
    pub timings: ClientTimings,
    /// What the server said of its own time while it answered.
    pub server: Option<ServerTimings>,
    /// Which request of its connection it was; `None` for a POST.
    pub ordinal: Option<Ordinal>,
    /// How often it was sent.
    pub attempts: u32,
}

impl std::fmt::Debug for Answer {
    /// Without content.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer")
            .field("items", &self.output.len())
            .field("timings", &self.timings)
            .field("server", &self.server)
            .field("ordinal", &self.ordinal)
            .field("attempts", &self.attempts)
            .finish_non_exhaustive()
    }
}

impl Answer {
    /// What it says, all messages together.
    pub fn text(&self) -> String {
        let messages = self.output.iter().filter(|item| is(item, "message"));
        let parts = messages
            .filter_map(|item| item.get("content")?.as_array())
            .flatten();
        parts
            .filter(|part| is(part, "output_text"))
            .filter_map(|part| part.get("text")?.as_str())
            .collect()
    }

    /// The functions that it wants called, in its order.
    pub fn calls(&self) -> Vec<FunctionCall> {
        let text = |item: &Value, name: &str| Some(item.get(name)?.as_str()?.to_owned());
        let calls = self.output.iter().filter(|item| is(item, "function_call"));
        calls
            .filter_map(|item| {
                Some(FunctionCall {
                    call_id: text(item, "call_id")?,
                    name: text(item, "name")?,
                    arguments: text(item, "arguments")?,
                })
            })
            .collect()
    }
}

fn is(value: &Value, kind: &str) -> bool {
    value.get("type").and_then(Value::as_str) == Some(kind)
}

/// What a response has been so far.
#[derive(Debug, Default)]
pub struct Assembly {
    id: String,
    output: Vec<Value>,
    output_bytes: usize,
    calls: usize,
    /// The call whose arguments come in pieces just now, and how long they are.
    arguments: Option<(String, usize)>,
}

/// A response that is over.
#[derive(Clone, PartialEq, Debug)]
pub struct Assembled {
    /// The server's name for it.
    pub id: String,
    /// Its items.
    pub output: Vec<Value>,
    /// Why it was cut short, if it was.
    pub incomplete: Option<String>,
    /// Tokens, as the server counted them.
    pub usage: Option<Value>,
}

impl Assembly {
    /// One more event. `size` is that of its message in bytes. The response, when this ends it.
    ///
    /// # Errors
    /// What the server says is wrong, or the bound that the response is past.
    pub fn event(&mut self, event: &Event, size: usize) -> Result<Option<Assembled>, ResponsesError> {
        match event.kind {
            EventKind::Created | EventKind::InProgress | EventKind::Queued => {
                if let Some(id) = text(&event.body, &["response", "id"]) {
                    self.id = id.to_owned();
                }
            }
            EventKind::ItemAdded => {
                if event
                    .body
                    .get("item")
                    .is_some_and(|item| is(item, "function_call"))
                {
                    self.arguments = None;
                }
            }
            EventKind::ArgumentsDelta => self.arguments(&event.body)?,
            EventKind::ItemDone => self.item(&event.body, size)?,
            EventKind::Completed => return self.end(&event.body, None).map(Some),
            EventKind::Incomplete => {
                let why = text(&event.body, &["response", "incomplete_details", "reason"]);
                let why = said(why.unwrap_or("the server does not say why"));
                return self.end(&event.body, Some(why)).map(Some);
            }
            EventKind::Failed => {
                let error = event
                    .body
                    .get("response")
                    .and_then(|response| response.get("error"));
                return Err(refused(error, None));
            }
            EventKind::Error => return Err(refused_by_event(&event.body)),
            EventKind::PartAdded
            | EventKind::PartDone
            | EventKind::TextDelta
            | EventKind::TextDone
            | EventKind::RefusalDelta
            | EventKind::RefusalDone
            | EventKind::ArgumentsDone
            | EventKind::ReasoningSummaryDelta
            | EventKind::ReasoningSummaryDone
            | EventKind::ReasoningDelta
            | EventKind::ReasoningDone
            | EventKind::Other => {}
        }
        Ok(None)
    }

    /// Pieces are counted only: the whole arguments come with their item.
    fn arguments(&mut self, body: &Map<String, Value>) -> Result<(), ResponsesError> {
        let item = text(body, &["item_id"]).unwrap_or_default();
        let more = text(body, &["delta"]).map_or(0, str::len);
        let so_far = match self.arguments.take() {
            Some((same, bytes)) if same == item => bytes,
            Some(_) | None => 0,
        };
        let bytes = so_far.saturating_add(more);
        check(Bounded::Arguments, bytes, ARGUMENTS_MAX_BYTES)?;
        self.arguments = Some((item.to_owned(), bytes));
        Ok(())
    }

    fn item(&mut self, body: &Map<String, Value>, size: usize) -> Result<(), ResponsesError> {
        let Some(item) = body.get("item") else {
            return Ok(());
        };
        self.keep(item.clone(), size)
    }

    fn keep(&mut self, item: Value, size: usize) -> Result<(), ResponsesError> {
        if is(&item, "function_call") {
            self.calls += 1;
            check(Bounded::FunctionCalls, self.calls, FUNCTION_CALLS_MAX)?;
            let arguments = item.get("arguments").and_then(Value::as_str).unwrap_or_default();
            check(Bounded::Arguments, arguments.len(), ARGUMENTS_MAX_BYTES)?;
        }
        self.output_bytes = self.output_bytes.saturating_add(size);
        check(Bounded::Output, self.output_bytes, OUTPUT_MAX_BYTES)?;
        check(Bounded::Items, self.output.len() + 1, OUTPUT_ITEMS_MAX)?;
        self.output.push(item);
        Ok(())
    }

    fn end(
        &mut self,
        body: &Map<String, Value>,
        incomplete: Option<String>,
    ) -> Result<Assembled, ResponsesError> {
        let response = body.get("response");
        let listed = response.and_then(|response| response.get("output")?.as_array());
        if let (true, Some(listed)) = (self.output.is_empty(), listed) {
            for item in listed {
                // Bounded by the message they all came in.
                self.keep(item.clone(), 0)?;
            }
        }
        let id = text(body, &["response", "id"]).map_or_else(|| std::mem::take(&mut self.id), str::to_owned);
        let usage = response.and_then(|response| response.get("usage"));
        Ok(Assembled {
            id,
            output: std::mem::take(&mut self.output),
            incomplete,
            usage: usage.filter(|usage| !usage.is_null()).cloned(),
        })
    }
}

fn check(what: Bounded, is: usize, max: usize) -> Result<(), ResponsesError> {
    if is > max {
        return Err(ResponsesError::TooLarge { what, max });
    }
    Ok(())
}

fn text<'a>(body: &'a Map<String, Value>, path: &[&str]) -> Option<&'a str> {
    let (first, rest) = path.split_first()?;
    rest.iter()
        .try_fold(body.get(*first)?, |value, name| value.get(name))?
        .as_str()
}

fn refused_by_event(body: &Map<String, Value>) -> ResponsesError {
    let status = ["status", "status_code"]
        .iter()
        .find_map(|name| body.get(*name)?.as_u64())
        .and_then(|status| u16::try_from(status).ok());
    // Some servers say it at the top.
    let flat;
    let error = match body.get("error") {
        Some(error @ Value::Object(_)) => Some(error),
        Some(_) | None => {
            flat = Value::Object(body.clone());
            Some(&flat)
        }
    };
    refused(error, status)
}

/// What a server says is wrong, by its error object.
pub(super) fn refused(error: Option<&Value>, status: Option<u16>) -> ResponsesError {
    let text = |name: &str| error.and_then(|error| error.get(name)?.as_str());
    let code = text("code").or_else(|| text("type")).unwrap_or("unknown");
    ResponsesError::of_status(status).unwrap_or_else(|| ResponsesError::Refused {
        code: said(code),
        message: said(text("message").unwrap_or("the server does not say why")),
    })
}

/// What another machine said, safe for a terminal and short enough for a line.
pub(super) fn said(text: &str) -> String {
    let mut safe: String = text
        .chars()
        .take(SAID_MAX_CHARS)
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect();
    if text.chars().nth(SAID_MAX_CHARS).is_some() {
        safe.push('…');
    }
    safe
}
