//! One message of the dialect: what kind it is, and whose.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _};
use serde::{Deserialize as DeriveDeserialize, Serialize};
use serde_json::{Map, Value};

use super::fault::Fault;
use super::strict;
use crate::trace::TraceContext;

/// What a request is called by whoever sent it.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(untagged)]
pub enum Id {
    /// A number.
    Number(i64),
    /// A text.
    Text(String),
}

impl Id {
    /// The id of answers to what has none.
    pub const NOBODY: Self = Self::Number(-1);

    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Number(number) => number.as_i64().map(Self::Number),
            Value::String(text) => Some(Self::Text(text.clone())),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        }
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        Self::from_value(&value)
            .ok_or_else(|| D::Error::custom("an id is a string or a signed 64-bit integer"))
    }
}

/// Ancestry as text, as a request carries it. Whatever its members say, it never fails a message.
#[derive(Clone, PartialEq, Eq, Default, DeriveDeserialize, Serialize)]
pub struct Carrier {
    /// As W3C has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// As W3C has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracestate: Option<String>,
}

impl Carrier {
    /// As a request carries it.
    pub fn of(context: &TraceContext) -> Self {
        let state = context.state.as_ref().map(|state| state.as_str().to_owned());
        Self {
            traceparent: Some(context.to_traceparent()),
            tracestate: state,
        }
    }

    /// The context that it names, if it names one.
    pub fn context(&self) -> Option<TraceContext> {
        TraceContext::from_traceparent(self.traceparent.as_deref()?, self.tracestate.as_deref())
    }
}

/// What it says came from elsewhere, and stays out of logs.
impl fmt::Debug for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Carrier").finish_non_exhaustive()
    }
}

/// A message that is none: what is wrong with it, for its sender.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub String);

/// A message.
#[derive(Clone, PartialEq, Debug)]
pub enum Incoming {
    /// Something to answer.
    Request {
        /// To be said with the answer.
        id: Id,
        /// What is asked.
        method: String,
        /// With what.
        params: Value,
        /// On whose behalf.
        trace: Carrier,
    },
    /// Something to hear.
    Notification {
        /// What happened.
        method: String,
        /// How.
        params: Value,
    },
    /// The answer to a request.
    Response {
        /// Which one.
        id: Id,
        /// What came of it.
        result: Value,
    },
    /// Its refusal.
    Error {
        /// Which one.
        id: Id,
        /// Why.
        error: Fault,
    },
}

impl Incoming {
    /// Reads a message. Members decide what it is: an id and a method are a request, whatever else is there. Members that
    /// nobody knows are passed over.
    ///
    /// # Errors
    /// It is no JSON, too deep, too long, has a key twice, is no object or has no shape.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let value = strict::parse(bytes).map_err(Malformed)?;
        let Value::Object(mut members) = value else {
            return Err(Malformed("expected a JSON-RPC object".into()));
        };
        let id = match members.get("id") {
            Some(value) => Some(Id::from_value(value).ok_or_else(|| {
                Malformed("invalid id: expected a string or a signed 64-bit integer".into())
            })?),
            None => None,
        };
        let method = match members.remove("method") {
            Some(Value::String(method)) => Some(method),
            Some(_) => return Err(Malformed("invalid method: expected a string".into())),
            None => None,
        };
        let mut params = || members.remove("params").unwrap_or(Value::Null);
        match (id, method) {
            (Some(id), Some(method)) => Ok(Self::Request {
                id,
                method,
                params: params(),
                trace: carrier(&mut members)?,
            }),
            (None, Some(method)) => Ok(Self::Notification {
                method,
                params: params(),
            }),
            (Some(id), None) => outcome(id, &mut members),
            (None, None) => Err(Malformed("a message has neither id nor method".into())),
        }
    }
}

fn carrier(members: &mut Map<String, Value>) -> Result<Carrier, Malformed> {
    match members.remove("trace") {
        None | Some(Value::Null) => Ok(Carrier::default()),
        Some(value) => {
            Carrier::deserialize(value).map_err(|error| Malformed(format!("invalid trace: {error}")))
        }
    }
}

fn outcome(id: Id, members: &mut Map<String, Value>) -> Result<Incoming, Malformed> {
    if let Some(result) = members.remove("result") {
        return Ok(Incoming::Response { id, result });
    }
    match members.remove("error") {
        Some(error) => Fault::deserialize(error)
            .map(|error| Incoming::Error { id, error })
            .map_err(|error| Malformed(format!("invalid error: {error}"))),
        None => Err(Malformed(
            "a message with an id has no method, result or error".into(),
        )),
    }
}

#[derive(Serialize)]
struct Asked<'a, T> {
    id: &'a Id,
    method: &'a str,
    params: &'a T,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace: Option<Carrier>,
}

#[derive(Serialize)]
struct Response<'a, T> {
    id: &'a Id,
    result: &'a T,
}

#[derive(Serialize)]
struct Refusal<'a> {
    error: &'a Fault,
    id: &'a Id,
}

#[derive(Serialize)]
struct Notification<'a, T> {
    method: &'a str,
    params: &'a T,
}

/// A request, on behalf of a call that has a context where that is sampled.
pub fn encode_request<T: Serialize>(
    id: &Id,
    method: &str,
    params: &T,
    context: Option<&TraceContext>,
) -> Vec<u8> {
    let trace = context.filter(|context| context.is_sampled()).map(Carrier::of);
    written(&Asked {
        id,
        method,
        params,
        trace,
    })
}

/// The answer to a request.
pub fn encode_response<T: Serialize>(id: &Id, result: &T) -> Vec<u8> {
    written(&Response { id, result })
}

/// Its refusal.
pub fn encode_error(id: &Id, error: &Fault) -> Vec<u8> {
    written(&Refusal { error, id })
}

/// Something to hear.
pub fn encode_notification<T: Serialize>(method: &str, params: &T) -> Vec<u8> {
    written(&Notification { method, params })
}

fn written<T: Serialize>(message: &T) -> Vec<u8> {
    serde_json::to_vec(message).expect("types of the dialect have string keys and no serializer that fails")
}
