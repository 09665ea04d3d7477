//! One request to a model, and its three shapes: as it is compared, on a WebSocket, and as the body of a POST. Pure.
//!
//! What belongs to one sending only (trace, start stamp, ordinal) is put in while the message is written, right before
//! it is sent. It is no part of the request: never compared, never repeated, never in a POST.

use std::borrow::Cow;

use dwell_messages::TraceContext;
use serde_json::{Map, Value, json};

use super::ordinal::Ordinal;

/// Bytes of one request as it is written.
pub const REQUEST_MAX_BYTES: usize = 16 * 1024 * 1024;

/// The name of the field that carries what one sending adds.
const METADATA: &str = "client_metadata";
/// Fields that belong to a transport or to one sending, and say nothing of what is asked.
const UNCOMPARED: [&str; 6] = ["type", "stream", "background", "generate", "input", METADATA];

/// Where in a request's client metadata one sending is described.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MetadataKeys {
    /// W3C `traceparent`.
    pub traceparent: Cow<'static, str>,
    /// W3C `tracestate`, where there is one.
    pub tracestate: Cow<'static, str>,
    /// When it was sent: Unix milliseconds in decimal digits, as a string. For the server's information only.
    pub start_ms: Cow<'static, str>,
    /// Which request of its connection it is, in decimal digits, as a string.
    pub ordinal: Cow<'static, str>,
}

impl Default for MetadataKeys {
    fn default() -> Self {
        Self {
            traceparent: "ws_request_header_traceparent".into(),
            tracestate: "ws_request_header_tracestate".into(),
            start_ms: "x-codex-ws-stream-request-start-ms".into(),
            ordinal: "x-codex-ws-stream-request-ordinal".into(),
        }
    }
}

impl MetadataKeys {
    fn all(&self) -> [&str; 4] {
        [&self.traceparent, &self.tracestate, &self.start_ms, &self.ordinal]
    }
}

/// What one sending adds to a request.
#[derive(Clone, PartialEq, Debug)]
pub struct Stamp {
    /// The request's own span.
    pub context: TraceContext,
    /// Unix milliseconds, taken right before the send.
    pub start_unix_ms: u64,
    /// Which request of its connection.
    pub ordinal: Ordinal,
}

/// A request to a model. `input` grows from one request of a conversation to the next; on one connection only what is
/// new of it is sent.
#[derive(Clone, PartialEq)]
pub struct Request {
    pub(super) fields: Map<String, Value>,
    pub(super) input: Vec<Value>,
    pub(super) prewarm: bool,
    pub(super) parent: Option<TraceContext>,
    pub(super) sampled: Option<bool>,
}

impl std::fmt::Debug for Request {
    /// Without content: a request holds what people and files say.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request")
            .field("items", &self.input.len())
            .field("prewarm", &self.prewarm)
            .finish_non_exhaustive()
    }
}

impl Request {
    /// A request to this model, which the server need not store.
    pub fn new(model: impl Into<String>) -> Self {
        let mut fields = Map::new();
        fields.insert("model".into(), Value::String(model.into()));
        fields.insert("store".into(), Value::Bool(false));
        Self {
            fields,
            input: Vec::new(),
            prewarm: false,
            parent: None,
            sampled: None,
        }
    }

    /// What the model is to be.
    #[must_use]
    pub fn instructions(self, text: impl Into<String>) -> Self {
        self.set("instructions", Value::String(text.into()))
    }

    /// Sets any field of the API. `type`, `stream`, `background` and `generate` are the session's own and are passed over.
    #[must_use]
    pub fn set(mut self, name: &str, value: Value) -> Self {
        let own = ["type", "stream", "background", "generate"].contains(&name);
        match (name, value) {
            ("input", Value::Array(items)) => self.input = items,
            ("input", Value::String(text)) => self.input = vec![user_message(&text)],
            (_, value) if !own => {
                self.fields.insert(name.to_owned(), value);
            }
            _ => {}
        }
        self
    }

    /// A function that the model may call, with a JSON schema of its arguments.
    #[must_use]
    pub fn function(mut self, name: &str, description: &str, parameters: &Value) -> Self {
        let tool =
            json!({ "type": "function", "name": name, "description": description, "parameters": parameters });
        let tools = self.fields.entry("tools").or_insert_with(|| json!([]));
        if let Value::Array(tools) = tools {
            tools.push(tool);
        }
        self
    }

    /// Adds what the user says.
    #[must_use]
    pub fn user(self, text: &str) -> Self {
        self.item(user_message(text))
    }

    /// Adds an item of the API's own shape.
    #[must_use]
    pub fn item(mut self, item: Value) -> Self {
        self.input.push(item);
        self
    }

    /// Adds what the model said before, as it came in [`Answer::output`](super::Answer::output).
    #[must_use]
    pub fn output(mut self, items: &[Value]) -> Self {
        self.input.extend_from_slice(items);
        self
    }

    /// Adds what a function that the model called gave back.
    #[must_use]
    pub fn function_output(self, call_id: &str, output: &str) -> Self {
        self.item(json!({ "type": "function_call_output", "call_id": call_id, "output": output }))
    }

    /// Adds a text to the client metadata. The keys that describe one sending are passed over.
    #[must_use]
    pub fn metadata(mut self, name: &str, value: &str) -> Self {
        let metadata = self.fields.entry(METADATA).or_insert_with(|| json!({}));
        if let Value::Object(metadata) = metadata {
            metadata.insert(name.to_owned(), Value::String(value.to_owned()));
        }
        self
    }

    /// Warms the server up and asks for no answer. Over WebSockets only.
    #[must_use]
    pub fn prewarm(mut self) -> Self {
        self.prewarm = true;
        self
    }

    /// The span that this request hangs below. Default: a trace of its own.
    #[must_use]
    pub fn parent(mut self, parent: TraceContext) -> Self {
        self.parent = Some(parent);
        self
    }

    /// Whether a request without a parent is traced.
    #[must_use]
    pub fn sampled(mut self, sampled: bool) -> Self {
        self.sampled = Some(sampled);
        self
    }

    /// As text for a WebSocket. With `after`, only what is new since then.
    pub fn to_message(&self, keys: &MetadataKeys, stamp: &Stamp, after: Option<Extension<'_>>) -> String {
        let mut message = self.body(keys);
        message.insert("type".into(), "response.create".into());
        if self.prewarm {
            message.insert("generate".into(), Value::Bool(false));
        }
        let input = match after {
            Some(extension) => {
                message.insert("previous_response_id".into(), extension.response_id.into());
                extension.new
            }
            None => &self.input,
        };
        message.insert("input".into(), Value::Array(input.to_vec()));
        let metadata = message.entry(METADATA).or_insert_with(|| json!({}));
        if let Value::Object(metadata) = metadata {
            let mut set = |name: &str, value: String| metadata.insert(name.to_owned(), Value::String(value));
            set(&keys.start_ms, stamp.start_unix_ms.to_string());
            set(&keys.ordinal, stamp.ordinal.to_string());
            if stamp.context.is_valid() {
                set(&keys.traceparent, stamp.context.to_traceparent());
                if let Some(state) = &stamp.context.state {
                    set(&keys.tracestate, state.as_str().to_owned());
                }
            }
        }
        Value::Object(message).to_string()
    }

    /// As the body of a POST that is answered with server-sent events: whole, and without what describes one sending.
    pub fn to_post(&self, keys: &MetadataKeys) -> String {
        let mut body = self.body(keys);
        body.insert("stream".into(), Value::Bool(true));
        body.insert("input".into(), Value::Array(self.input.clone()));
        Value::Object(body).to_string()
    }

    /// Its fields without the input, and without what describes one sending.
    fn body(&self, keys: &MetadataKeys) -> Map<String, Value> {
        let mut body = self.fields.clone();
        if let Some(Value::Object(metadata)) = body.get_mut(METADATA) {
            metadata.retain(|name, _| !keys.all().contains(&name.as_str()));
            if metadata.is_empty() {
                body.remove(METADATA);
            }
        } else {
            // Metadata of another shape would be refused, and there would be no place for the stamp.
            body.remove(METADATA);
        }
        body
    }
}

fn user_message(text: &str) -> Value {
    json!({ "type": "message", "role": "user", "content": [{ "type": "input_text", "text": text }] })
}

/// The request and the response that a connection's server still has in mind.
#[derive(Debug)]
pub struct Previous {
    request: Request,
    response_id: String,
    output: Vec<Value>,
}

/// What a request adds to the one before.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Extension<'a> {
    /// The response it goes on from.
    pub response_id: &'a str,
    /// The items that are new since.
    pub new: &'a [Value],
}

impl Previous {
    /// A request that was answered whole.
    pub fn new(request: Request, response_id: String, output: Vec<Value>) -> Self {
        Self {
            request,
            response_id,
            output,
        }
    }

    /// What `next` adds, when it asks for the same in every other respect, and its input begins with all that was said
    /// until then. Stamps, ordinals and traces do not count, nor does client metadata: none of it is asked of the model.
    pub fn extended_by<'a>(&'a self, next: &'a Request) -> Option<Extension<'a>> {
        // A request that names its predecessor itself is sent as it is.
        if self.response_id.is_empty() || next.fields.contains_key("previous_response_id") {
            return None;
        }
        let same = |a: &Request, b: &Request| {
            let counts = |name: &String| !UNCOMPARED.contains(&name.as_str());
            a.fields
                .iter()
                .filter(|(name, _)| counts(name))
                .all(|(name, value)| b.fields.get(name) == Some(value))
        };
        if !same(&self.request, next) || !same(next, &self.request) {
            return None;
        }
        let new = next
            .input
            .strip_prefix(self.request.input.as_slice())?
            .strip_prefix(self.output.as_slice())?;
        Some(Extension {
            response_id: &self.response_id,
            new,
        })
    }
}
